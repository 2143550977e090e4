import json
import math

import numpy as np
import pytest
import torch

from mbrl.training.metrics import METRICS, MetricsLog, read_metrics


class Lines(list):
    """A sink that remembers."""

    closed = False

    def write(self, line):
        self.append(dict(line))

    def close(self):
        self.closed = True


def test_each_line_is_one_json_object_and_goes_to_every_sink(tmp_path):
    sink = Lines()
    log = MetricsLog(tmp_path, sinks=[sink])
    log.write("episode", 10, {"return": 1.5, "episode": 0, "terminated": True, "note": "a"})
    log.write("update", 10, {"loss": torch.tensor(0.25), "count": np.int64(3), "none": None})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert lines == [
        {"kind": "episode", "env_steps": 10, "return": 1.5, "episode": 0, "terminated": True,
         "note": "a"},
        {"kind": "update", "env_steps": 10, "loss": 0.25, "count": 3.0, "none": None},
    ]  # fmt: skip
    assert list(sink) == lines and sink.closed
    assert read_metrics(tmp_path / METRICS) == lines
    assert read_metrics(tmp_path / METRICS, "update") == lines[1:]


def test_floats_come_back_to_the_last_bit(tmp_path):
    log = MetricsLog(tmp_path)
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": float(np.float32(0.1))}
    log.write("x", 0, values)
    log.close()
    (line,) = read_metrics(tmp_path / METRICS)
    assert {name: line[name] for name in values} == values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_what_is_not_finite_is_null_which_any_json_reader_takes(tmp_path, value):
    log = MetricsLog(tmp_path)
    log.write("x", 0, {"loss": value})
    log.close()
    assert (tmp_path / METRICS).read_text() == '{"kind": "x", "env_steps": 0, "loss": null}\n'


def test_env_steps_never_fall(tmp_path):
    log = MetricsLog(tmp_path)
    log.write("x", 5, {})
    log.write("x", 5, {})
    with pytest.raises(ValueError, match="env_steps 4 lies before the last line's 5"):
        log.write("x", 4, {})
    log.close()
    assert len(read_metrics(tmp_path / METRICS)) == 2


def test_rewinding_drops_what_came_after_and_goes_on_from_there(tmp_path):
    log = MetricsLog(tmp_path)
    log.write("x", 5, {})
    size = log.sync()
    assert size == (tmp_path / METRICS).stat().st_size
    log.write("x", 9, {})
    log.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "x", "env_st')  # what a dying process leaves
    assert [line["env_steps"] for line in read_metrics(tmp_path / METRICS)] == [5, 9]

    log = MetricsLog(tmp_path)
    log.rewind(size)
    with pytest.raises(ValueError, match="env_steps 4 lies before the last line's 5"):
        log.write("x", 4, {})
    log.write("x", 7, {})
    with pytest.raises(ValueError, match="is shorter than its checkpoint says"):
        log.rewind(10_000)
    log.rewind(0)
    log.write("x", 1, {})
    log.close()
    assert [line["env_steps"] for line in read_metrics(tmp_path / METRICS)] == [1]


def test_a_log_that_is_all_torn_reads_as_empty(tmp_path):
    (tmp_path / METRICS).write_text('{"kind"')
    assert read_metrics(tmp_path / METRICS) == []

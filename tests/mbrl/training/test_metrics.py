import json
import math
import os

import numpy as np
import pytest
import torch

from mbrl.training.checkpoint import RunError
from mbrl.training.metrics import METRICS, MetricsLog, read_metrics


class Lines(list):
    """A sink that stores the lines."""

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


def test_floats_are_read_back_exactly(tmp_path):
    log = MetricsLog(tmp_path)
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": float(np.float32(0.1))}
    log.write("x", 0, values)
    log.close()
    (line,) = read_metrics(tmp_path / METRICS)
    assert {name: line[name] for name in values} == values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_numbers_that_are_not_finite_are_written_as_null(tmp_path, value):
    log = MetricsLog(tmp_path)
    log.write("x", 0, {"loss": value})
    log.close()
    assert (tmp_path / METRICS).read_text() == '{"kind": "x", "env_steps": 0, "loss": null}\n'


def test_env_steps_never_decrease(tmp_path):
    log = MetricsLog(tmp_path)
    log.write("x", 5, {})
    log.write("x", 5, {})
    with pytest.raises(ValueError, match="env_steps 4 lies before the last line's 5"):
        log.write("x", 4, {})
    log.close()
    assert len(read_metrics(tmp_path / METRICS)) == 2


def test_rewinding_drops_later_lines_and_continues_there(tmp_path):
    log = MetricsLog(tmp_path)
    log.write("x", 5, {})
    size = log.sync()
    assert size == (tmp_path / METRICS).stat().st_size
    log.write("x", 9, {})
    log.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "x", "env_st')  # what a killed process leaves
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


def test_a_log_without_a_whole_line_reads_as_empty(tmp_path):
    (tmp_path / METRICS).write_text('{"kind"')
    assert read_metrics(tmp_path / METRICS) == []


@pytest.mark.parametrize("what", ["a link", "a hard link", "a folder", "a pipe"])
def test_links_and_other_kinds_of_file_are_not_written_to(tmp_path, what):
    precious, place = tmp_path / "precious", tmp_path / METRICS
    precious.write_text("precious")
    if what == "a link":
        place.symlink_to(precious)
    elif what == "a hard link":
        place.hardlink_to(precious)
    elif what == "a folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    log = MetricsLog(tmp_path)
    for use in (lambda: log.rewind(0), lambda: log.write("x", 1, {}), log.sync):
        with pytest.raises(RunError, match=f"{place}:? ") as error:
            use()
        assert "\n" not in str(error.value)
    log.close()
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(("code", "said"), [(28, "the disk is full"), (5, "the disk does not"),
                                            (122, "the disk quota is used up")])  # fmt: skip
def test_a_disk_error_is_explained_in_words(tmp_path, monkeypatch, code, said):
    log = MetricsLog(tmp_path)
    log.write("x", 1, {})

    def refuses(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuses)
        with pytest.raises(RunError, match=f"{METRICS}: {said}"):
            log.sync()
    assert log.sync() == (tmp_path / METRICS).stat().st_size


@pytest.mark.parametrize("size", [-1, 3, 10_000])
def test_rewinding_into_a_line_is_refused_and_nothing_is_cut(tmp_path, size):
    log = MetricsLog(tmp_path)
    log.write("x", 1, {})
    log.sync()
    before = (tmp_path / METRICS).read_bytes()
    with pytest.raises(ValueError, match="is shorter than|has no line that ends"):
        log.rewind(size)
    log.close()
    assert (tmp_path / METRICS).read_bytes() == before


def test_a_log_that_was_never_written_to_leaves_no_file(tmp_path):
    MetricsLog(tmp_path).close()
    assert list(tmp_path.iterdir()) == []

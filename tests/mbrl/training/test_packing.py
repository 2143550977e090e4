"""Runs as bytes: packing, and what is refused in unpacking."""

import contextlib
import json

import pytest
import torch

from mbrl.training import packing
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.packing import pack, unpack


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run-0", {"algo": "random"})
    (run.path / "metrics.jsonl").write_text("{}\n")
    (run.path / "timings.jsonl").write_text('{"seconds": 1}\n')
    (run.path / "plots").mkdir()
    (run.path / "plots" / "return.png").write_bytes(b"PNG")
    run.save(10, {"weights": torch.arange(3), "steps": 10})
    return run


def test_unpacking_restores_the_packed_run(run, tmp_path):
    packed = pack(run.path)
    assert sorted(packed) == [
        "checkpoints/10/digests.json",
        "checkpoints/10/model.safetensors",
        "checkpoints/10/state.pt",
        "config.json",
        "metrics.jsonl",
        "timings.jsonl",
    ]
    unpack(packed, tmp_path / "deep" / "copy-0")
    assert pack(tmp_path / "deep" / "copy-0") == packed
    assert Run.open(tmp_path / "deep" / "copy-0").load()["weights"].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy-0"]


def test_unpacking_a_newer_run_replaces_only_log_and_checkpoint(run, tmp_path):
    unpack(pack(run.path), away := tmp_path / "away-0")
    (away / "metrics.jsonl").write_text("{}\n{}\n")
    Run.open(away).save(20, {"steps": 20})
    unpack(pack(away), run.path)
    assert run.latest() == 20 and run.load() == {"steps": 20}
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["20"]
    assert (run.path / "metrics.jsonl").read_text() == "{}\n{}\n"
    assert (run.path / "plots" / "return.png").read_bytes() == b"PNG"
    Run.open(away).save(20, {"steps": 21})  # into the same folder again
    unpack(pack(away), run.path)
    assert run.load() == {"steps": 21}


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "/etc/passwd",
        "checkpoints/10/../../x",
        "checkpoints/10/other.pt",
        "checkpoints/ten/state.pt",
        "checkpoints/١/state.pt",
        "config.json\n",
        "plots/return.png",
        "",
    ],
)
def test_an_archive_with_foreign_content_is_refused(run, tmp_path, name):
    with pytest.raises(RunError, match="cannot hold"):
        unpack({**pack(run.path), name: b"x"}, tmp_path / "copy-0")
    assert [path.name for path in tmp_path.iterdir()] == ["run-0"]


def test_an_incomplete_archive_is_refused(run, tmp_path):
    packed = pack(run.path)
    for name, text in (("config.json", "lacks"), ("checkpoints/10/state.pt", "one whole")):
        with pytest.raises(RunError, match=text):
            unpack({k: v for k, v in packed.items() if k != name}, tmp_path / "copy-0")
    two = {k.replace("/10/", "/11/"): v for k, v in packed.items()}
    with pytest.raises(RunError, match="one whole"):
        unpack({**packed, **two}, tmp_path / "copy-0")
    assert not (tmp_path / "copy-0").exists()


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_process_killed_while_unpacking_leaves_a_whole_run(run, tmp_path, writes, monkeypatch):
    unpack(pack(run.path), away := tmp_path / "away-0")
    (away / "metrics.jsonl").write_text("{}\n{}\n")
    Run.open(away).save(20, {"steps": 20})
    packed, count = pack(away), 0

    class Killed(BaseException):
        pass

    def sync(path):
        nonlocal count
        count += 1
        if count == writes:
            raise Killed

    monkeypatch.setattr(packing, "sync", sync)
    monkeypatch.setattr("mbrl.training.checkpoint.sync", sync)
    with contextlib.suppress(Killed):
        unpack(packed, run.path)
    assert count >= 1
    state = Run.open(run.path).load()
    assert state["steps"] in (10, 20)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= state["steps"] // 10  # a checkpoint is never written before its log
    assert json.loads((run.path / "config.json").read_text()) == {"algo": "random"}


def test_packing_a_folder_that_is_not_a_run_is_refused_by_name(run, tmp_path):
    (tmp_path / "empty-0").mkdir()
    with pytest.raises(RunError, match="empty-0 is not a run folder"):
        pack(tmp_path / "empty-0")
    with pytest.raises(RunError, match="empty-0 is not a run folder"):
        unpack(pack(run.path), tmp_path / "empty-0")

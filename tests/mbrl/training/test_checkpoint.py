import contextlib
import io
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mbrl.training import checkpoint
from mbrl.training.checkpoint import STATE, WEIGHTS, Run, RunError

STATE_VALUE = {
    "rows": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.float16),
    "counts": [1, 2.5, None, True, "text", 2**100],
    "plans": [{"actions": None}, {"actions": (1, 2)}],
    "listed": [0, torch.ones(2)],
    "part": torch.arange(6.0).reshape(2, 3)[:, 1],
    "nested": {"generator": torch.Generator().manual_seed(3).get_state()},
}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"algo": "pets", "seed": 3})


def weights(value):
    return {"net": torch.full((3, 2), float(value)), "turned": torch.ones(2, 5).T}


def content(step, **more):
    return STATE_VALUE | {"weights": weights(step), "step": step} | more


def saved(run, step):
    run.save(step, content(step))
    return run.path / "checkpoints" / str(step)


def assert_holds(run, step):
    state = run.load()
    assert run.latest() == state["step"] == step
    assert torch.equal(state["weights"]["net"], weights(step)["net"])


def test_what_is_saved_comes_back(run):
    saved(run, 10)
    for reader in (run, Run.open(run.path)):
        assert reader.config == {"algo": "pets", "seed": 3}
        state = reader.load()
        assert set(state["weights"]) == {"net", "turned"}
        assert torch.equal(state["weights"]["turned"], torch.ones(5, 2))
        assert state["counts"] == STATE_VALUE["counts"]
        assert state["plans"] == [{"actions": None}, {"actions": (1, 2)}]
        assert torch.equal(state["listed"][1], torch.ones(2))
        assert torch.equal(state["part"], torch.arange(6.0).reshape(2, 3)[:, 1])
        assert torch.equal(state["rows"], STATE_VALUE["rows"])
        assert state["half"].dtype == torch.float16
        assert torch.equal(state["nested"]["generator"], STATE_VALUE["nested"]["generator"])


def test_the_newest_counts_by_its_number_and_the_others_go(run):
    assert run.latest() is None
    for step in (9, 10, 100):
        saved(run, step)
        assert_holds(run, step)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["100"]


class Died(BaseException):
    """Stands for a process that ends here."""


# Every call that touches the disk while a checkpoint is saved.
DEATHS = {
    "weights": (safetensors.torch, "save_file"),
    "state": (torch, "save"),
    "sync": (checkpoint, "sync"),
    "rename": (Path, "rename"),
    "remove": (shutil, "rmtree"),
    "mkdir": (Path, "mkdir"),
}


@pytest.mark.parametrize("again", [False, True], ids=["another step", "the same step"])
@pytest.mark.parametrize("which", DEATHS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_save_that_dies_anywhere_leaves_a_whole_checkpoint(run, monkeypatch, which, count, again):
    """It dies in the count-th call of that kind, before or after the call did its work."""
    for late in (False, True):
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
        saved(run, 10)
        owner, name = DEATHS[which]
        work, calls = getattr(owner, name), []

        def dies(*args, _work=work, _calls=calls, _late=late, **kwargs):
            _calls.append(1)
            if len(_calls) == count:
                if _late:
                    _work(*args, **kwargs)
                raise Died
            return _work(*args, **kwargs)

        new = 10 if again else 20
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dies)
            with contextlib.suppress(Died):
                run.save(new, content(new, fresh=True))
        state = run.load()
        assert_holds(run, state["step"])
        assert state["step"] in (10, new)
        saved(run, 30)
        assert_holds(run, 30)
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["30"]


def test_saving_a_step_again_takes_the_later_one(run):
    saved(run, 10)
    run.save(10, content(10, fresh=True))
    assert run.load()["fresh"]
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["10"]


@pytest.mark.parametrize("which", ["half of config", "config"])
def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch, which):
    def dies(self, text):
        if which == "half of config":
            with self.open("w") as file:
                file.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", dies)
    with pytest.raises(RunError, match="cannot create run folder .*No space left"):
        Run.create(tmp_path / "run", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused_by_name(run, name, share):
    file = saved(run, 10) / name
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RunError, match=name) as error:
        run.load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_missing_files_are_refused_by_name(run, name):
    (saved(run, 10) / name).unlink()
    with pytest.raises(RunError, match=name):
        run.load()


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_files_are_refused_whatever_they_hold(run, name):
    """Random bytes, which send the restricted unpickler every which way."""
    file, draw = saved(run, 10) / name, random.Random(0)
    for foreign in (b"hello", b"PK\x03\x04", *(draw.randbytes(draw.randrange(60))
                                               for _ in range(150))):  # fmt: skip
        file.write_bytes(foreign)
        with pytest.raises(RunError, match=name) as error:
            run.load()
        assert "\n" not in str(error.value)


class Bomb:
    """Unpickles by running a shell command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("pack", ["torch", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_code_in_a_checkpoint_is_refused_and_not_run(run, tmp_path, name, pack):
    file, marker = saved(run, 10) / name, tmp_path / "ran"
    foul = STATE_VALUE | {"bomb": Bomb(marker)}
    if pack == "torch":
        torch.save(foul, file)
    else:
        file.write_bytes(pickle.dumps(foul))
    with pytest.raises(RunError, match=name):
        run.load()
    assert not marker.exists()
    again = io.BytesIO(file.read_bytes())
    torch.load(again, weights_only=False) if pack == "torch" else pickle.load(again)
    assert marker.exists()  # so the bomb was live


def test_folders_that_exist_are_not_touched(run):
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(RunError, match=f"run folder {run.path} exists already"):
        Run.create(run.path, {"algo": "other"})
    assert sorted(path.name for path in run.path.iterdir()) == before
    assert Run.open(run.path).config["algo"] == "pets"
    file = run.path / "config.json"
    with pytest.raises(RunError, match="exists already"):
        Run.create(file, {})


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run folder: it holds no config.json"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="is not a run folder"):
        Run.open(tmp_path / "nowhere")
    for text, message in ((b"{", "cannot be read"), (b"\xff\xfe\x00", "cannot be read"),
                             (b"[1]", "holds no JSON object")):  # fmt: skip
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(RunError, match=message):
            Run.open(tmp_path)


def test_checkpoints_of_other_versions_are_refused_by_name(run):
    folder = saved(run, 10)
    torch.save({"format": 1, "state": {}}, folder / STATE)
    with pytest.raises(RunError, match=f"{STATE} was not saved by this version"):
        run.load()
    saved(run, 20)
    safetensors.torch.save_file({"other": torch.ones(1)}, run.path / "checkpoints/20" / WEIGHTS)
    with pytest.raises(RunError, match=f"{WEIGHTS} lacks the tensor 'rows'"):
        run.load()


def test_a_run_without_checkpoint_says_so(run):
    with pytest.raises(RunError, match="has no checkpoint yet"):
        run.load()
    (run.path / "checkpoints" / ".5.tmp").mkdir(parents=True)
    assert run.latest() is None


HOLD = """
import sys
from pathlib import Path
from mbrl.training.checkpoint import Run
with Run.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_has_one_writer_and_a_dead_one_holds_nothing(run):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being written by another process"), run:
            pass
    finally:
        other.kill()
        other.communicate()
    with run:
        saved(run, 1)
    with run:
        assert_holds(run, 1)


FULL = """
import resource, sys, torch
from pathlib import Path
from mbrl.training.checkpoint import Run, RunError
run = Run.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
large = torch.ones(100_000)
for state in ({"w": large}, {"text": "x" * 100_000}):
    try:
        run.save(20, state)
    except RunError as error:
        print("refused", str(error).count("\\n"), flush=True)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_disk_that_refuses_leaves_the_old_checkpoint(run):
    saved(run, 10)
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(run.path)], capture_output=True, text=True, timeout=60
    )
    assert out.stdout == "refused 0\nrefused 0\n", out.stderr
    assert_holds(run, 10)

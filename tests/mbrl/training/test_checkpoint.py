import contextlib
import hashlib
import io
import json
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
from mbrl.training.checkpoint import (
    CONFIG,
    DIGESTS,
    FORMAT,
    STATE,
    WEIGHTS,
    Run,
    RunError,
    write_json,
)

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


def test_a_saved_state_is_loaded_unchanged(run):
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


def test_the_checkpoint_with_the_greatest_number_is_kept_and_the_others_are_deleted(run):
    assert run.latest() is None
    for step in (9, 10, 100):
        saved(run, step)
        assert_holds(run, step)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["100"]


class Died(BaseException):
    """Raised where the process is killed."""


# Every call that writes to the disk while a checkpoint is saved.
DEATHS = {
    "weights": (safetensors.torch, "save"),
    "write": (checkpoint, "_write"),
    "state": (torch, "save"),
    "sync": (checkpoint, "sync"),
    "rename": (Path, "rename"),
    "digests": (hashlib, "file_digest"),
    "remove": (Path, "unlink"),
    "remove folder": (Path, "rmdir"),
    "mkdir": (Path, "mkdir"),
}


@pytest.mark.parametrize("again", [False, True], ids=["another step", "the same step"])
@pytest.mark.parametrize("which", DEATHS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_process_killed_while_saving_leaves_a_checkpoint(run, monkeypatch, which, count, again):
    """It is killed in the count-th call of a kind, before or after the call has its effect."""
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


def test_saving_a_step_again_replaces_the_checkpoint(run):
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
    with pytest.raises(RunError, match="cannot create run folder .*: the disk is full"):
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
@pytest.mark.parametrize("forged", [False, True], ids=["", "with digests"])
def test_foreign_files_are_refused_whatever_they_hold(run, name, forged, recwarn):
    """Random bytes, which exercise many branches of the restricted unpickler."""
    file, draw = saved(run, 10) / name, random.Random(0)
    for foreign in (b"hello", b"PK\x03\x04", *(draw.randbytes(draw.randrange(60))
                                               for _ in range(150))):  # fmt: skip
        file.write_bytes(foreign)
        if forged:
            signed(run, file.parent)
        with pytest.raises(RunError, match=name) as error:
            run.load()
        assert "\n" not in str(error.value) and not recwarn


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
    signed(run, file.parent)
    with pytest.raises(RunError, match=f"{name} cannot be read: it holds something else"):
        run.load()
    assert not marker.exists()
    again = io.BytesIO(file.read_bytes())
    torch.load(again, weights_only=False) if pack == "torch" else pickle.load(again)
    assert marker.exists()  # so the pickle did contain a command


def test_existing_folders_are_not_overwritten(run):
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


def signed(run, folder):
    """Write digests that match the files, as a forger of checkpoints would."""
    (folder / DIGESTS).write_bytes(run._digests(int(folder.name), folder))


def test_checkpoints_of_other_versions_are_refused_by_name(run):
    folder = saved(run, 10)
    torch.save({"format": 1, "state": {}}, folder / STATE)
    signed(run, folder)
    with pytest.raises(RunError, match=f"{STATE} cannot be read: .* in format {FORMAT}"):
        run.load()
    kept = json.loads((folder / DIGESTS).read_text())
    (folder / DIGESTS).write_text(json.dumps(kept | {"format": FORMAT + 1}))
    with pytest.raises(RunError, match=f"{DIGESTS} was not saved by this version"):
        run.load()
    (folder / DIGESTS).unlink()  # as in format 2
    with pytest.raises(RunError, match=f"{DIGESTS} is missing: .* saved by an older version"):
        run.load()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"other": torch.ones(1)}, "lacks the tensor 'rows'"),
        ({}, "lacks the tensor 'rows'"),
        (None, r"holds a tensor 'more' of which state.pt knows nothing"),
    ],
)
def test_tensors_must_be_those_that_the_state_names(run, tensors, said):
    folder = saved(run, 20)
    if tensors is None:
        whole = safetensors.torch.load_file(folder / WEIGHTS)
        tensors = {n: t.clone() for n, t in whole.items()} | {"more": torch.ones(1)}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    signed(run, folder)
    with pytest.raises(RunError, match=f"{WEIGHTS} {said}"):
        run.load()


def test_loading_a_run_without_a_checkpoint_raises_an_error(run):
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


def test_a_run_has_one_writer_and_a_dead_process_keeps_no_lock(run):
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
def test_a_failed_write_leaves_the_old_checkpoint(run):
    saved(run, 10)
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(run.path)], capture_output=True, text=True, timeout=60
    )
    assert out.stdout == "refused 0\nrefused 0\n", out.stderr
    assert_holds(run, 10)


KEPT = ("notes", "2024", "12.5", "7.old", ".8.tmp", "010", "9" * 30, "²")


@pytest.mark.parametrize("name", KEPT)
def test_a_users_folder_beside_the_checkpoints_is_kept(run, name):
    mine = run.path / "checkpoints" / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("all I have")
    assert run.latest() is None
    for step in (3, 2030):
        saved(run, step)
        assert_holds(run, step)
    assert mine.read_text() == "all I have"
    names = {"2030", name}
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == names


def test_a_users_files_in_a_checkpoint_are_kept(run):
    mine = saved(run, 3) / "notes.txt"
    mine.write_text("x")
    saved(run, 4)
    assert_holds(run, 4)
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["5", ".5.tmp", "5.old"])
@pytest.mark.parametrize("what", ["folder", "link", "file"])
def test_a_file_in_the_place_of_a_checkpoint_is_refused_and_kept(run, tmp_path, name, what):
    saved(run, 3)
    place, outside = run.path / "checkpoints" / name, tmp_path / "outside"
    mine = (place if what == "folder" else outside) / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("x")
    if what == "link":
        place.symlink_to(outside)
    elif what == "file":
        place.write_text("x")
    if (what, name) == ("folder", "5.old"):
        saved(run, 5)  # this name is needed only if step 5 is saved again
    else:
        with pytest.raises(RunError, match=f"/checkpoints/{name}[ :]") as error:
            run.save(5, content(5))
        assert "\n" not in str(error.value)
        if not (what == "link" and name != ".5.tmp"):  # the reader refuses such a link too
            assert_holds(run, 3)
    assert mine.read_text() == "x" and [p.name for p in mine.parent.iterdir()] == ["mine.txt"]


NAMES = ("config.json", "metrics.jsonl", "timings.jsonl", ".lock", "evaluation.json",
         "checkpoints", "plots", "videos", "tensorboard", "wandb")  # fmt: skip
FOLDERS = NAMES[5:]


@pytest.mark.parametrize("name", [*NAMES, "plots/return.png", "plots/numbers.json", "videos/a.mp4"])
@pytest.mark.parametrize("what", ["link", "dangling link", "other kind", "pipe"])
def test_links_and_other_kinds_are_refused_by_name_before_anything_is_touched(
    run, tmp_path, name, what
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "5").mkdir()
    (tmp_path / "precious").write_text("precious")
    place = run.path / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    folder = name in FOLDERS
    if what == "link":
        place.symlink_to(outside if folder else tmp_path / "precious")
    elif what == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(place)
    elif folder:
        place.write_text("mine")
    else:
        place.mkdir()
    for use in (lambda: Run.open(run.path), run.__enter__):
        with pytest.raises(RunError) as error:
            use()
        assert str(place) in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists() and [p.name for p in outside.iterdir()] == ["5"]


@pytest.mark.parametrize("name", [WEIGHTS, STATE, DIGESTS])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_one_flipped_bit_is_refused_by_name(run, name, share):
    file = saved(run, 10) / name
    whole = bytearray(file.read_bytes())
    whole[int(share * len(whole))] ^= 1
    file.write_bytes(whole)
    said = "checkpoints/10/" if name == DIGESTS else name
    with pytest.raises(RunError, match=said) as error:
        run.load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [[WEIGHTS], [STATE], [DIGESTS], [WEIGHTS, STATE],
                                   [WEIGHTS, STATE, DIGESTS]])  # fmt: skip
def test_files_of_another_run_are_refused_by_name(run, tmp_path, names):
    other = Run.create(tmp_path / "other", {"algo": "pets", "seed": 4})
    other.save(10, content(10, weights=weights(77), text="other"))
    folder = saved(run, 10)
    for name in names:
        shutil.copy(other.path / "checkpoints" / "10" / name, folder / name)
    with pytest.raises(RunError, match="|".join([*names, WEIGHTS, DIGESTS])):
        run.load()


@pytest.mark.parametrize("name", ["more.pt", "a\x1b[31m", "sub"])
def test_an_additional_file_is_refused_by_name(run, name):
    folder = saved(run, 10)
    (folder / name).mkdir() if name == "sub" else (folder / name).write_text("x")
    with pytest.raises(RunError, match="does not belong to the checkpoint") as error:
        run.load()
    assert name.replace("\x1b", r"\x1b") in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, DIGESTS])
def test_links_in_a_checkpoint_are_refused_by_name(run, tmp_path, name):
    file = saved(run, 10) / name
    shutil.move(file, tmp_path / name)
    file.symlink_to(tmp_path / name)
    with pytest.raises(RunError, match=f"{name} is a link"):
        run.load()
    link = saved(run, 20).parent / "30"
    link.symlink_to(tmp_path)
    with pytest.raises(RunError, match="checkpoints/30 is a link"):
        run.load()


def test_a_renamed_checkpoint_and_a_changed_config_are_refused(run):
    saved(run, 10).rename(run.path / "checkpoints" / "99")
    with pytest.raises(RunError, match=f"99/{DIGESTS} is of another step"):
        run.load()
    (run.path / "checkpoints" / "99").rename(run.path / "checkpoints" / "10")
    assert_holds(run, 10)
    run.extend(500)
    assert Run.open(run.path).config == {"algo": "pets", "seed": 3, "steps": 500}
    assert_holds(Run.open(run.path), 10)  # with more steps it is the same run
    write_json(run.path / CONFIG, run.config | {"seed": 4})
    with pytest.raises(RunError, match=f"{DIGESTS} is of another run, or .*{CONFIG} was changed"):
        Run.open(run.path).load()


CONFIGS = {
    "not JSON": (b'{"a": 1,}', "line 1, column 9 is not JSON; it must be one JSON object"),
    "not text": (b"\xff\xfe\x00", "it is not text in UTF-8"),
    "empty": (b"", "line 1, column 1 is not JSON"),
    "deep lists": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested"),
    "less deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "a.0 is nested more than 30 deep"),
    "deep objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested"),
    "5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "a must be an integer of 64 bits"),
    "30 digits": (b'{"a": {"b": [0, 1' + b"0" * 30 + b"]}}", "a.b.1 must be an integer of 64"),
    "huge": (b'{"a": "' + b"x" * 2_000_000 + b'"}', "is too large: it must have at most 1,000,000"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_invalid_config_is_refused_with_the_place_of_the_error(run, name):
    text, said = CONFIGS[name]
    (run.path / CONFIG).write_bytes(text)
    with pytest.raises(RunError, match=f"{run.path / CONFIG}") as error:
        Run.open(run.path)
    line = str(error.value)
    assert said in line and "\n" not in line and len(line) < 400
    assert "Expecting" not in line and "codec" not in line


WRITER = """
import os, sys, torch
from pathlib import Path
from mbrl.training.checkpoint import Run
os.fsync = lambda _: None  # as fast as memory, so that many saves meet a load
with Run.open(Path(sys.argv[1])) as run:
    step = 0
    while True:
        step += int(sys.argv[2])
        run.save(max(step, 1), {"step": max(step, 1), "w": torch.full((2000,), float(step))})
"""


@pytest.mark.parametrize("stride", [1, 7, 0], ids=["every step", "every 7th", "the same step"])
def test_loading_while_another_process_saves_gives_a_whole_checkpoint(run, stride):
    other = subprocess.Popen([sys.executable, "-c", WRITER, str(run.path), str(stride)])
    try:
        while run.latest() is None:
            assert other.poll() is None
        steps = []
        while len(steps) < 150 or len(set(steps)) < (50 if stride else 1):
            state = Run.open(run.path).load()
            steps.append(state["step"])
            assert len(set(state["w"].tolist())) == 1
            assert stride == 0 or state["w"][0] == state["step"]
    finally:
        other.kill()
        other.wait()
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("code", "said"),
    [(28, "the disk is full"), (30, "the file system is read-only"), (13, "permission is denied")],
)
def test_a_disk_error_is_explained_in_words_and_the_run_is_kept(run, monkeypatch, code, said):
    saved(run, 10)

    def refuses(*_):
        raise OSError(code, os.strerror(code))

    places = [
        (checkpoint, "_write", refuses),
        (Path, "mkdir", refuses),
    ]
    for owner, name, work in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *a, _work=work, **k: _work(*a))
            with pytest.raises(RunError) as error:
                run.save(20, content(20))
        line = (
            f"cannot save checkpoint {run.path}/checkpoints/20: {said} (its last one is at step 10)"
        )
        assert str(error.value) == line
        assert_holds(run, 10)
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["10"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuses)
        with pytest.raises(RunError, match=f"config.json: {said}$"):
            write_json(run.path / CONFIG, {})
    assert Run.open(run.path).config == run.config


def test_no_other_file_is_ever_in_a_checkpoint_that_is_being_written(run, monkeypatch):
    """A process that is killed would leave it, and no later save could then remove the folder."""
    seen, sync = set(), os.fsync

    def look(descriptor):
        for folder in (run.path / "checkpoints").glob(".*"):
            seen.update(os.listdir(folder))
        return sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    saved(run, 10)
    assert seen == {WEIGHTS, STATE, DIGESTS}
    modes = {file.stat().st_mode for file in (run.path / "checkpoints" / "10").iterdir()}
    assert len(modes) == 1


def test_tensors_that_share_memory_are_saved_separately(run):
    one = torch.arange(3.0)
    run.save(1, {"a": one, "b": one, "c": one[1:], "d": [one.view(3, 1)]})
    found = run.load()
    assert torch.equal(found["a"], one) and torch.equal(found["b"], one)
    assert torch.equal(found["c"], one[1:]) and torch.equal(found["d"][0], one.view(3, 1))

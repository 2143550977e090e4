import sys
from pathlib import Path

import pytest

from experiments import peers
from experiments.peers import HOW_TO_INSTALL, MbrlLib, PeerError, available

FAKE = """
import json, sys
for count, line in enumerate(sys.stdin, 1):
    request = json.loads(line)
    if request["work"] == "die":
        sys.stderr.write("a traceback\\nOutOfLuck: no more\\n\\n")
        sys.exit(3)
    if request["work"] == "leave":
        sys.exit(3)
    if request["work"] == "shout":
        sys.stderr.write("x" * 79 + "\\n" * 20_000 + "y" * 1_000_000)
    if request["work"] == "refuse":
        reply = {"error": "rows is not a multiple of 5"}
    else:
        reply = {"count": count, "got": request, "argv": sys.argv[1:]}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def fake(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return [sys.executable, "-I", str(script)]


def test_replies_keep_the_order_of_the_requests(fake):
    with MbrlLib(fake) as one, MbrlLib(fake) as other:
        assert one.ask(work="step", rows=10)["got"] == {"work": "step", "rows": 10}
        assert other.ask(work="info")["count"] == 1
        assert one.ask(work="train", propagation="fixed_model")["count"] == 2


def test_a_peer_that_prints_much_does_not_block(fake):
    with MbrlLib(fake) as peer:
        assert peer.ask(work="shout")["count"] == 1
        assert peer.ask(work="shout")["count"] == 2


def test_a_refusal_names_request_and_reason_and_the_peer_stays_usable(fake):
    with MbrlLib(fake) as peer:
        with pytest.raises(PeerError, match=r"'rows': 7.*rows is not a multiple of 5$"):
            peer.ask(work="refuse", rows=7)
        assert peer.ask(work="info")["count"] == 2


def test_the_error_of_a_dead_peer_names_its_last_line(fake):
    with MbrlLib(fake) as peer:
        for _ in range(2):  # at the second request the pipe is closed
            with pytest.raises(PeerError, match=r"^mbrl-lib's process died: OutOfLuck: no more$"):
                peer.ask(work="die")


def test_the_error_of_a_peer_dead_without_output_names_its_exit_status(fake):
    with MbrlLib(fake) as peer, pytest.raises(PeerError, match="died: exit status 3$"):
        peer.ask(work="leave")


def test_the_process_ends_with_the_context(fake):
    with MbrlLib(fake) as peer:
        peer.ask(work="info")
        child = peer._child
        assert child.poll() is None
    assert child.poll() is not None


def test_an_absent_peer_raises_an_error_that_explains_the_installation(monkeypatch, tmp_path):
    monkeypatch.setenv("MBRL_PEERS", str(tmp_path))
    assert not available()
    with pytest.raises(PeerError) as told, MbrlLib():
        pass
    assert str(told.value) == HOW_TO_INSTALL


def test_the_script_runs_isolated_in_the_named_environment(monkeypatch, tmp_path, fake):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{fake[0]}" -I "{fake[2]}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("MBRL_PEERS", str(tmp_path / "venv"))
    assert available()
    with MbrlLib() as peer:
        flag, script = peer.ask(work="info")["argv"]
    assert flag == "-I"
    assert Path(script) == Path(peers.__file__).with_name("mbrl_lib.py")


def test_the_script_imports_the_peers_package_and_not_ours(monkeypatch):
    folder = Path(peers.__file__).parent
    monkeypatch.setenv("PYTHONPATH", str(folder.parents[1]))
    with (
        MbrlLib([sys.executable, str(folder / "mbrl_lib.py")]) as peer,
        pytest.raises(PeerError, match=r"this Python has no mbrl-lib 0\.2\.0"),
    ):
        peer.ask(work="info")


@pytest.mark.skipif(not available(), reason=HOW_TO_INSTALL)
def test_mbrl_lib_reports_its_work(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(peers.__file__).parents[2]))
    tiny = {"horizon": 2, "population": 20, "iterations": 2, "particles": 5, "threads": 1}
    with MbrlLib() as peer:
        assert peer.ask(work="info", threads=1)["versions"]["mbrl"] == "0.2.0"

        for propagation in ("random_model", "fixed_model", "expectation"):
            reply = peer.ask(work="step", rows=10, steps=3, propagation=propagation, repeats=2)
            assert (reply["transitions"], reply["outputs"], reply["threads"]) == (30, 17, 1)
            assert len(reply["seconds"]) == 2 and min(reply["seconds"]) > 0
        reply = peer.ask(work="score", candidates=4, horizon=3, particles=5, learned_reward=True)
        assert (reply["transitions"], reply["outputs"]) == (60, 18)

        assert peer.ask(work="action", task="half-cheetah", **tiny)["transitions"] == 400
        assert peer.ask(work="action", optimizer="mppi", **tiny)["candidates"] == 40
        # iCEM: 20 and one shifted elite, then 20/1.3 rounded up and the mean.
        assert peer.ask(work="action", optimizer="icem", **tiny)["candidates"] == 21 + 17

        assert peer.ask(work="train", rows=20, batch=8, members=7)["batches"] == 3
        assert peer.ask(work="imagine", rows=14, horizon=3, data=20)["transitions"] == 42
        assert peer.ask(work="sac", updates=2, batch=8, data=20)["updates"] == 2

        for request, reason in (
            (
                {"work": "dance"},
                "work 'dance' is not one of info, step, score, action, imagine, sac, train",
            ),
            ({"work": "step", "rowz": 3}, "step option 'rowz' is not one of rows, steps"),
            ({"work": "action", "task": "ant"}, "task 'ant' is not one of cart-pole, half-cheetah"),
            ({"work": "step", "rows": 7}, "multiple of the number of models"),
        ):
            with pytest.raises(PeerError, match=reason):
                peer.ask(**request)

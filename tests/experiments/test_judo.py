"""judo as a peer: its two tasks equal ours, and it reports the work that it does."""

import sys
from pathlib import Path

import numpy as np
import pytest

import envs
from experiments import peers
from experiments.peers import Judo, PeerError, available

OURS = {"cartpole": "cartpole-servo", "cylinder_push": "cylinder-push"}


def test_a_peer_whose_python_lacks_the_package_raises_an_error():
    script = str(Path(peers.__file__).with_name("judo.py"))
    with (
        Judo([sys.executable, script]) as peer,
        pytest.raises(
            PeerError, match=r"^judo's process died: this Python has no judo-rai 0\.1\.0"
        ),
    ):
        peer.ask(work="info")


def test_an_absent_peer_raises_an_error_that_explains_the_installation(monkeypatch, tmp_path):
    monkeypatch.setenv("MBRL_JUDO", str(tmp_path))
    assert not available(Judo)
    with pytest.raises(PeerError, match="^judo is not installed.*make peers"), Judo():
        pass


@pytest.mark.skipif(not available(Judo), reason=Judo.how_to_install())
def test_judo_reports_its_candidates_steps_and_times():
    with Judo() as peer:
        assert peer.ask(work="info")["versions"]["judo-rai"] == "0.1.0"
        for task, steps in (("cartpole", 25), ("cylinder_push", 50)):
            for work in ("plan", "rollout"):
                reply = peer.ask(work=work, task=task, repeats=2)
                assert (reply["candidates"], reply["steps"]) == (32, steps)
                assert len(reply["seconds"]) == 2 and min(reply["seconds"]) > 0
        assert peer.ask(work="plan", task="cartpole", optimizer="mppi")["candidates"] == 32
        for request, reason in (
            ({"work": "dance"}, "work 'dance' is not one of info, plan, rollout, drive, cost"),
            ({"work": "plan", "task": "ant"}, "task 'ant' is not one of cartpole, cylinder_push"),
            ({"work": "plan", "task": "cartpole", "optimizer": "x"}, "optimizer 'x' is not one of"),
            ({"work": "plan", "task": "cartpole", "repeatz": 2}, "repeatz"),
        ):
            with pytest.raises(PeerError, match=reason):
                peer.ask(**request)


@pytest.mark.skipif(not available(Judo), reason=Judo.how_to_install())
@pytest.mark.parametrize("task", OURS)
def test_our_tasks_have_the_costs_of_judo(task):
    ours = envs.TASKS[OURS[task]]
    model, rng = ours.compile(), np.random.default_rng(0)
    qpos, qvel = rng.normal(size=(50, model.nq)), rng.normal(size=(50, model.nv))
    action = rng.uniform(-1, 1, (50, model.nu))
    obs = ours.observation(envs.Physics(qpos, qvel, {}))
    with Judo() as peer:
        theirs = peer.ask(
            work="cost",
            task=task,
            states=np.hstack([qpos, qvel]).tolist(),
            controls=(action * model.actuator_ctrlrange[:, 1]).tolist(),
        )["cost"]
    np.testing.assert_allclose(-ours.reward(obs, action, obs), theirs, rtol=1e-12)


@pytest.mark.skipif(not available(Judo), reason=Judo.how_to_install())
def test_a_drive_by_judo_moves_the_cart_to_the_goal():
    """From behind a cart at 1 m, judo's own loop ends near the least possible cost, 0.0156."""
    start = [[1.5, 0.0, 1.0, 0.0], [0.0] * 4]
    with Judo() as peer:
        reply = peer.ask(work="drive", task="cylinder_push", starts=[start], length=5.0)
    assert len(reply["cost"]) == 1 and reply["cost"][0] < 0.1
    assert 0.0155 < reply["cost_last_second"][0] < 0.03

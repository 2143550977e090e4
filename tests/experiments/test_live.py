"""The loop of `--viewer` carries out the requests of the page."""

import signal
import socket
import subprocess
import sys
import time

import mujoco
import numpy as np
import pytest
import viser

import envs
from envs.viewer.page import Push, Wishes
from experiments.cli import live
from experiments.cli.command import run
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.control import DriveConfig

NOTHING = Wishes(False, False, False, None, {}, {}, {}, False)
SMALL = MPCConfig(PlannerConfig(horizon=6, population=8, iterations=1, elites=2))


class Page:
    """A page with scripted requests: step -> requests."""

    url = "http://nowhere"

    def __init__(self, script):
        self.script, self.shown, self.drawn, self.asked = script, [], [], 0
        self.made = {}

    def __call__(self, model, **made):
        self.model, self.made = model, made
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def take(self):
        wishes = NOTHING._replace(**self.script.get(self.asked, {}))
        self.asked += 1
        return wishes

    def show(self, data, status):
        self.shown.append((data.qpos.copy(), data.qvel.copy(), data.mocap_pos.copy(), status))

    def traces(self, candidates, chosen):
        self.drawn.append((candidates, chosen))


def watch(monkeypatch, script, env="cartpole-swingup", steps=6, config=SMALL):
    page, said = Page(script), []
    monkeypatch.setattr(live, "Viewer", page)
    monkeypatch.setattr(live, "TRACES_EVERY", 0.0)
    taken = live.live(DriveConfig(env, config), seed=0, port=0, steps=steps, tell=said.append)
    return page, taken, said


def test_the_live_view_shows_every_step_and_prints_its_address(monkeypatch):
    page, taken, said = watch(monkeypatch, {})
    assert taken == 6 and len(page.shown) == 6
    assert [status.step for *_, status in page.shown] == [1, 2, 3, 4, 5, 6]
    assert all(status.plan_ms > 0 and status.plan_hz > 0 for *_, status in page.shown)
    assert said[0].startswith("open http://nowhere")
    assert set(page.made["settings"]) >= {"horizon", "population", "elites", "sigma"}
    assert page.made["settings"]["population"].value == 8


@pytest.mark.parametrize("name", envs.TASKS)
def test_every_task_has_sensors_that_trace_its_plans(name):
    task = envs.TASKS[name]
    sim = live.Simulator(task.traced())
    state = sim.state(*task.initial(np.random.default_rng(0)))
    paths = sim.trace(state, live.torch.zeros(1, 3, sim.model.nu), task.traces)
    assert task.traces and all(path.shape == (1, 4, 3) for path in paths.values())


def test_stop_pause_and_reset_take_effect(monkeypatch):
    assert watch(monkeypatch, {2: {"closed": True}})[1] == 2
    page, taken, _ = watch(monkeypatch, {k: {"paused": True} for k in (2, 3)}, steps=3)
    assert taken == 3 and len(page.shown) == 5
    assert np.array_equal(page.shown[1][0], page.shown[2][0]), "time stands still"
    page, *_ = watch(monkeypatch, {3: {"reset": True}})
    assert [status.step for *_, status in page.shown] == [1, 2, 3, 1, 2, 3]


def test_settings_reach_the_planner(monkeypatch):
    script = {2: {"settings": {"population": 20.0}}, 3: {"settings": {"horizon": 9.0}}}
    page, *_ = watch(monkeypatch, script, env="arm-pusher", steps=5)
    sizes = [len(candidates["tips_arm"]) for candidates, _ in page.drawn]
    lengths = [chosen["tips_arm"].shape for _, chosen in page.drawn]
    assert max(sizes[:2]) < min(sizes[2:])
    assert lengths[:3] == [(7, 3)] * 3 and lengths[3:] == [(10, 3)] * 2


def test_settings_out_of_range_are_refused_by_name(monkeypatch):
    _, taken, said = watch(monkeypatch, {1: {"settings": {"population": 0.0}}})
    assert taken == 6 and "kept the old settings" in said[1]


def test_weights_change_the_score(monkeypatch):
    name = next(name for name, task in envs.TASKS.items() if task.weights)
    weight = next(iter(envs.TASKS[name].weights))
    plain, *_ = watch(monkeypatch, {}, env=name, steps=2)
    other, *_ = watch(monkeypatch, {1: {"weights": {weight: 0.0}}}, env=name, steps=2)
    assert plain.shown[0][3].score == other.shown[0][3].score
    assert plain.shown[1][3].score != other.shown[1][3].score
    assert weight in plain.made["weights"]


def test_a_push_is_an_impulse(monkeypatch):
    """An impulse on the cart's centre of mass changes the momentum of cart and pole by as much."""
    model = envs.TASKS["cartpole-swingup"].compile()
    data = mujoco.MjData(model)
    Push(model.body("cart").id, np.array([0.5, 0.0, 0.0])).give(model, data)
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    momentum = data.subtree_linvel[0][0] * model.body_subtreemass[0]
    assert momentum == pytest.approx(0.5, rel=1e-6)
    push = Push(model.body("cart").id, np.array([2.0, 0.0, 0.0]))
    page, *_ = watch(monkeypatch, {2: {"push": push}})
    assert page.shown[2][1][0] - page.shown[1][1][0] > 1.0


def test_a_dragged_goal_moves_in_the_simulation(monkeypatch):
    name = next(name for name, task in envs.TASKS.items() if task.goal)
    place = np.array([0.4, 0.1, 0.3])
    page, *_ = watch(monkeypatch, {1: {"goals": {0: place}}}, env=name, steps=2)
    assert np.array_equal(page.shown[1][2][0], place)


def test_the_command_opens_the_viewer_and_refuses_gymnasiums_environments(monkeypatch, capsys):
    monkeypatch.setattr(live, "Viewer", Page({}))
    assert run(["mpc", "--viewer", "--steps", "2", "--planner.population", "8", "--json"]) == 0
    assert '"steps": 2' in capsys.readouterr().out
    assert run(["mpc", "--viewer", "--env", "Reacher-v5"]) == 2
    assert "gymnasium steps itself" in capsys.readouterr().err


def test_a_users_task_is_shown(monkeypatch):
    page, taken, said = watch(monkeypatch, {}, env="tests.own_parts.parts:SLIDER", steps=3)
    assert taken == 3 and len(page.shown) == 3 and said[0].startswith("open ")
    assert set(page.made["weights"]) == {"effort"} and "middle" in page.drawn[0][0]


def test_ctrl_c_ends_it_at_once_though_a_client_never_reads():
    """The whole command, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    task = ["--env", "tests.own_parts.parts:SLIDER"]
    command = [sys.executable, "-m", "experiments.cli.command", "mpc", "--viewer", *task]
    process = subprocess.Popen(
        [*command, "--viewer-port", str(port)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr.readline().startswith(f"open http://127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port)) as deaf:
            key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
            protocol = f"Sec-WebSocket-Protocol: viser-v{viser.__version__}"
            upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n{protocol}"
            deaf.sendall(f"GET / HTTP/1.1\r\nHost: here\r\n{upgrade}\r\n\r\n".encode())
            assert deaf.recv(12) == b"HTTP/1.1 101"
            time.sleep(1)  # until its buffers are full
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert time.monotonic() - began < 3
            assert process.stderr.read() == "mbrl: interrupted\n"
    finally:
        process.kill()
        process.wait()

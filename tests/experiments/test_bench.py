import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from experiments import bench as package
from experiments.bench import (
    BENCHES,
    Bench,
    Result,
    bench,
    dyna,
    learners,
    mcts,
    memory,
    world,
)
from experiments.bench import uncertainty as uncertain
from experiments.bench.parts import ensemble, forward_flops
from experiments.bench.rollout import busy_neighbour
from experiments.peers import HOW_TO_INSTALL
from mbrl.agents import dqn, tdmpc
from mbrl.agents.world_config import planning
from mbrl.distributions import Bounds
from mbrl.learners.configs import SACConfig
from mbrl.learners.sac import SAC
from mbrl.learners.tdmpc_config import TDMPCConfig
from mbrl.types import Spec

TINY = Bench(repeats=2, threads=1, matrix=16)


class FakePeer:
    """Returns the same rate for every request, and records the requests."""

    def __init__(self):
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ask(self, **request):
        self.asked.append(request)
        return {"seconds": [0.5], "transitions": 100, "batches": 40}


def test_a_benchmark_row_takes_the_median_of_paired_ratios():
    row = Result("w", "u", [1.0, 6.0, 8.0], "r", [2.0, 3.0, 16.0]).to_dict()
    assert (row["ours"], row["reference"]) == (6.0, 3.0)
    assert row["ratio"] == 0.5  # of 0.5, 2 and 0.5, where the ratio of the medians is 2
    assert (row["ours_best"], row["reference_best"], row["ratio_best"]) == (8.0, 16.0, 0.5)
    row = Result("w", "u", [4.0, 3.0], "r", [2.0, 1.0], lower=True).to_dict()
    assert (row["ours_best"], row["reference_best"], row["ratio_best"]) == (3.0, 1.0, 3.0)


def test_samples_alternate_after_an_untimed_one():
    calls = []

    def sample(name):
        def run():
            calls.append(name)
            return float(len(calls))

        return run

    (one, two) = Bench(repeats=2, threads=1).compare(
        "w", "u", sample("ours"), {"a": sample("a"), "gone": None, "b-c": sample("b")}, b_c="≥ 2"
    )
    assert calls == ["a", "b", "ours"] * 3
    assert (one.against, one.reference, one.ours, one.wanted) == ("a", (4.0, 7.0), (6.0, 9.0), "")
    assert (two.against, two.reference, two.ours, two.wanted) == (
        "b-c",
        (5.0, 8.0),
        one.ours,
        "≥ 2",
    )


def test_the_reference_counts_operations(monkeypatch):
    ticks = iter([10.0, 10.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    # three products of 2·4³ operations in half a second, in units of 32
    assert Bench(repeats=1, threads=1, matrix=4).matmul(32.0)() == 3 * 2 * 4**3 / 0.5 / 32


def test_the_named_net_has_a_hand_computed_number_of_operations():
    # 23→200→200→200→200→36: mean and variance of 18 outputs
    model = ensemble(17, 6, learn_reward=True)
    assert forward_flops(model) == 2 * (23 * 200 + 3 * 200 * 200 + 200 * 36)


@pytest.mark.parametrize(
    "name, sizes, rows",
    [
        ("rollout", {"candidates": 4, "horizon": 2}, 9),
        ("action", {"population": 10, "iterations": 1}, 3),
        ("train", {"rows": 40, "epochs": 1}, 4),
        ("planner", {"population": 10}, 3),
        ("physics", {"steps": 5}, 2),
        ("collect", {"steps": 16}, 2),
        ("uncertainty", {"population": 10, "horizon": 2, "rows": 3}, 11),
        ("latent", {"frames": 2, "batch": 8, "stored": 2000, "encoded": [16]}, 11),
    ],
)
def test_each_benchmark_measures_all_its_rows(name, sizes, rows, monkeypatch):
    monkeypatch.setattr(uncertain, "available", lambda _: False)
    peer = FakePeer()
    found = BENCHES[name](Bench(2, 1, peer, matrix=16), **sizes)  # type: ignore[arg-type]
    assert len(found) == rows
    assert len({(result.work, result.against) for result in found}) == rows
    for result in found:
        turns = 1 if result.unit == "MB" else 2  # memory is measured once
        assert len(result.ours) == len(result.reference) == turns
        assert min(*result.ours, *result.reference) > 0
    theirs = [result for result in found if result.against.startswith("mbrl-lib")]
    assert len(peer.asked) == 3 * len(theirs)
    assert all(request["threads"] == 1 for request in peer.asked)
    count = {"rollout": 200, "action": 2, "train": 80}
    assert all(set(result.reference) == {count[name]} for result in theirs)
    assert (len(theirs) > 0) == (name in count)


def test_without_a_peer_only_its_rows_are_missing():
    found = BENCHES["rollout"](TINY, candidates=4, horizon=2)  # type: ignore[call-arg]
    assert [result.against for result in found] == ["matmul"] * 3


class FakeMctx(FakePeer):
    """Stands in for mctx; its searches take a half, a quarter and an eighth of a second."""

    def ask(self, **request):
        super().ask(**request)
        return {"seconds": [0.5, 0.25, 0.125]}


TINY_SEARCH = {
    "sizes": {(1, 2): 30.0, (3, 5): 40.0}, "simulations": 4, "width": 8, "calls": 3,
}  # fmt: skip


def test_tree_benchmark_reports_simulations_per_second_and_bytes_per_node(monkeypatch):
    peer = FakeMctx()
    monkeypatch.setattr(mcts, "Mctx", lambda: peer)
    monkeypatch.setattr(mcts, "available", lambda _: True)
    found = BENCHES["mcts"](TINY, **TINY_SEARCH)
    assert len(found) == 6
    for sizes, wanted, rows in (((1, 2), 30, found[:3]), ((3, 5), 40, found[3:])):
        rate, mctx, space = rows
        (roots, actions), (size,) = sizes, space.ours
        assert {r.work for r in rows} == {f"search, {roots} roots x {actions} actions"}
        assert (rate.against, rate.reference, rate.wanted) == ("wanted", (wanted,) * 2, "≥ 1")
        assert mctx.reference == (4 * roots / 0.25,) * 2  # of all roots, by the median
        assert rate.ours == mctx.ours and min(rate.ours) > 0
        # five numbers for each action, twelve and a padded end; mctx's arrays by its source
        assert (size, space.lower) == (4 * (13 + 5 * actions), True)
        assert list(space.reference) == [4 * (5 + 6 * actions)]
    asked = {"work": "time", "rule": "puct", "simulations": 4, "width": 8, "repeats": 3}
    assert peer.asked[0] == asked | {"roots": 1, "actions": 2}


def test_the_tree_benchmark_works_without_mctx(monkeypatch):
    monkeypatch.setattr(mcts, "available", lambda _: False)
    found = BENCHES["mcts"](TINY, **TINY_SEARCH)
    assert [result.against for result in found] == ["wanted", "mctx"] * 2
    assert [result.unit for result in found] == ["simulations/s", "bytes a node"] * 2


class FakeLearners(FakePeer):
    """Stands in for SB3 and SBX; every request takes half a second on 0.9 cores."""

    def ask(self, **request):
        super().ask(**request)
        return {"seconds": [0.5], "cores": 0.9}


TINY_TRAINING = learners.Training(
    "dqn",
    dqn.Config(learning_starts=8, train_every=2, updates=1, batch=8, capacity=100),
    "CartPole-v1",
    20,
    {"SB3": "≥ 2", "plain torch": ""},
    environments=2,
    every=2,
)
TINY_LEARNERS = {"updates": 2, "calls": 4, "rows": 300, "trainings": [TINY_TRAINING]}


def test_predictions_of_samples_are_measured_against_their_peers(monkeypatch):
    peer = FakeLearners()
    monkeypatch.setattr(uncertain, "Bayesian", lambda: peer)
    monkeypatch.setattr(uncertain, "available", lambda _: True)
    sizes = {"population": 10, "horizon": 2, "rows": 4}
    found = {(r.work, r.against): r for r in BENCHES["uncertainty"](TINY, **sizes)}
    for name, library in (("laplace", "laplace-torch"), ("bayes-by-backprop", "bayesian-torch")):
        assert found[f"predict, {name}", library].reference == (40.0, 40.0)  # 5 x 4 in 0.5 s
        asked = {"work": "predict", "library": library, "rows": 4, "samples": 5}
        assert asked | {"sizes": (24, 200, 200, 200, 200, 18)} in peer.asked


def test_learners_are_measured_against_their_peers_on_one_thread(monkeypatch):
    peer = FakeLearners()
    monkeypatch.setattr(learners, "Learners", lambda: peer)
    monkeypatch.setattr(learners, "available", lambda _: True)
    found = {(r.work, r.unit, r.against): r for r in BENCHES["learners"](TINY, **TINY_LEARNERS)}
    updates = {r.against: r for r in found.values() if r.unit == "updates/s"}
    assert [*updates] == ["matmul", "SB3", "SBX", "SBX, in a loop", "plain torch"]
    assert all(updates[name].reference == (4.0, 4.0) for name in [*updates][1:])
    assert found["SAC update", "cores", "SBX, in a loop"].reference == (0.9, 0.9)
    for work, wanted in (("256 replayed rows", 50), ("advantages, 128 x 16", 250)):
        goal, theirs = found[work, "µs", "wanted"], found[work, "µs", "SB3"]
        assert goal.reference == (wanted, wanted) and goal.lower and goal.wanted == "≤ 1"
        assert theirs.reference == (125_000.0, 125_000.0)  # four calls in half a second
    assert all(min(result.ours) > 0 for result in found.values())
    work = "DQN on 2 x CartPole-v1, an update every 2"
    assert found[work, "steps/s", "SB3"].wanted == "≥ 2"
    assert found[work, "steps/s", "plain torch"].reference == (40.0, 40.0)
    request = {"work": "steps", "library": "plain", "algorithm": "dqn", "task": "CartPole-v1"}
    assert request | {"steps": 20, "environments": 2, "every": 2} in peer.asked
    request = {"work": "update", "library": "sbx", "updates": 2}
    assert request in peer.asked and request | {"together": 2} in peer.asked


def test_without_peers_learners_are_measured_against_products_and_goals(monkeypatch):
    monkeypatch.setattr(learners, "available", lambda _: False)
    found = BENCHES["learners"](TINY, **TINY_LEARNERS)
    assert {result.against for result in found if min(result.ours) > 0} == {"matmul", "wanted"}


def test_an_update_of_sac_has_the_operations_that_torch_counts():
    replay, draw = learners.filled(300), torch.Generator().manual_seed(0)
    bounds = Bounds(-torch.ones(6), torch.ones(6))
    learner = SAC(17, bounds, SACConfig(hidden=(32, 64), discount=0.9), generator=draw)
    with FlopCounterMode(display=False) as counter:
        learner.update(replay.sample(50, generator=draw), generator=draw)
    assert learners.sac_flops(17, 6, (32, 64), 50) == counter.get_total_flops()


TINY_WORLD = tdmpc.Config(
    learner=TDMPCConfig(
        latent=8, group=4, hidden=(16, 12), encoder_hidden=(10,), bins=7, critics=3
    ),
    plan=planning(population=16, iterations=2, elites=4, proposals=3),
    batch=6,
)


def test_plans_and_updates_of_a_world_are_measured_against_products_and_goals(monkeypatch):
    monkeypatch.setattr(world, "SIZES", [("tiny", 5, 2, TINY_WORLD, "≥ 0.8", 64.0)])
    found = {(r.work, r.against): r for r in BENCHES["world"](TINY, plans=2, updates=1)}
    goal = found["TD-MPC2 plan, tiny", "wanted"]
    assert goal.reference == (64.0, 64.0) and goal.wanted == "≥ 1"
    assert found["TD-MPC2 plan, tiny", "matmul"].wanted == "≥ 0.8"
    assert found["TD-MPC2 update, tiny", "matmul"].unit == "updates/s"
    assert all(min(result.ours) > 0 for result in found.values())


def test_plans_and_updates_of_a_world_have_the_operations_that_torch_counts():
    spec = Spec(Box(-np.inf, np.inf, (5,)), Box(-1, 1, (2,)), ends=False, episode_steps=500)
    agent = tdmpc.make(spec, TINY_WORLD, generator=torch.Generator().manual_seed(0))
    player = agent.player(generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        player.act(np.zeros((1, 5), np.float32), explore=False)
    assert counter.get_total_flops() == pytest.approx(world.plan_flops(5, 2, TINY_WORLD), rel=0.01)
    batch = world.sequences(5, 2, TINY_WORLD)
    with FlopCounterMode(display=False) as counter:
        agent.learner.update(batch, generator=torch.Generator().manual_seed(0))
    counted = counter.get_total_flops()
    assert counted == pytest.approx(world.update_flops(5, 2, TINY_WORLD), rel=0.01)


TINY_DYNA = {"starts": 70, "rows": 300}


def test_imagination_and_a_step_of_mbpo_are_measured_against_mbrl_lib(monkeypatch):
    monkeypatch.setattr(dyna, "_dhmbpo", lambda bench, rows: [])  # an iteration takes a minute
    peer = FakePeer()
    found = {
        (r.work, r.against): r for r in BENCHES["dyna"](Bench(2, 1, peer, matrix=16), **TINY_DYNA)
    }
    burst, step = found["burst of rollouts", "mbrl-lib"], found["MBPO step", "mbrl-lib"]
    assert burst.reference == (200.0, 200.0) and burst.wanted == "≥ 4"  # 100 in half a second
    # half a second for the updates, and a 250th of that for the burst and each of ten passes
    assert step.reference == pytest.approx([1 / (0.5 + 11 * 0.5 / 250)] * 2)
    assert step.wanted == "≥ 3" and min(*burst.ours, *step.ours) > 0
    sizes = {"members": 7, "threads": 1}
    assert {"work": "imagine", "rows": 70, "data": 300} | sizes in peer.asked
    assert {"work": "train", "rows": 300} | sizes in peer.asked
    assert {"work": "sac", "updates": 20, "data": 300, "threads": 1} in peer.asked


def test_a_step_of_mbpo_does_twenty_updates_and_no_fit():
    made = dyna.filled(70, 300)
    assert (made.steps, made.updates, made.fits, len(made.imagined)) == (300, 0, 1, 70)
    made.observe(dyna.random_steps(1))
    made.update()
    assert (made.updates, made.fits) == (20, 1)


def test_without_mbrl_lib_imagination_is_measured_against_products(monkeypatch):
    monkeypatch.setattr(dyna, "_dhmbpo", lambda bench, rows: [])
    found = BENCHES["dyna"](TINY, **TINY_DYNA)
    assert [(r.work, r.against) for r in found] == [
        ("burst of rollouts", "matmul"), ("MBPO step", "matmul")
    ]  # fmt: skip


def test_an_actors_operations_are_those_of_its_layers():
    # 17 -> 256 -> 256 -> 12, a mean and a spread of six actions
    assert dyna.ACTOR_FLOPS == 2 * (17 * 256 + 256 * 256 + 256 * 12)


class FakeHorizon:
    """Stands in for DHMBPO, with iterations of 50 steps."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        learning_starts: int = 5000
        fit_every: int = 50
        first: int = 5

    def __init__(self):
        self.steps = self.iterations = 0

    def make(self, spec, config, *, generator):
        assert (config.learning_starts, config.first) == (300, 1)
        return self

    def observe(self, step):
        self.steps += len(step.reward)

    def update(self):
        self.iterations += 1


def test_a_step_of_dhmbpo_is_its_share_of_an_iteration(monkeypatch):
    fake = FakeHorizon()
    monkeypatch.setattr(dyna, "dhmbpo", fake)
    monkeypatch.setattr(dyna, "preset", lambda algo, env, spec: (1, fake.Config()))
    *_, step = BENCHES["dyna"](TINY, **TINY_DYNA)
    assert (step.work, step.against, step.wanted) == ("DHMBPO step", "wanted", "≤ 1")
    assert step.lower and step.reference == (0.12,) and 0 < step.ours[0] < 0.12
    assert (fake.steps, fake.iterations) == (350, 2)


def test_memory_grows_by_the_size_of_the_stored_rows():
    grown = memory.in_fresh_process(memory._replay_growth, 1, 100_000)
    # 42 floats a row are stored; the rest belongs to the batches and the allocator
    assert 0.98 < grown / (100_000 * 42 * 4e-6) < 2


def test_memory_is_measured_for_a_buffer_and_a_longer_plan(monkeypatch):
    grown = {(memory._replay_growth, 1000): 0.2, (memory._plan_growth, 3): 4.0}
    grown[memory._plan_growth, 30] = 5.0
    monkeypatch.setattr(memory, "in_fresh_process", lambda work, threads, size: grown[work, size])
    replay, plan = [r.to_dict() for r in memory.memory(TINY, rows=1000, iterations=3)]
    assert replay["ratio"] == pytest.approx(0.2 / 0.164)
    assert (plan["work"], plan["against"], plan["ratio"]) == ("plan, 30 iterations", "3", 1.25)


def test_the_busy_process_ends_with_the_context():
    with pytest.raises(KeyError), busy_neighbour() as child:
        assert child.poll() is None
        raise KeyError
    assert child.poll() is not None


def test_the_busy_process_ends_if_the_benchmark_is_killed():
    code = (
        "import os, signal; from experiments.bench.rollout import busy_neighbour\n"
        "with busy_neighbour() as child:\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    child = int(done.stdout)
    for _ in range(100):
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.1)
    os.kill(child, 9)
    pytest.fail("the neighbour outlived the process that started it")


@pytest.fixture
def fakes(monkeypatch):
    def one(bench):
        assert torch.get_num_threads() == bench.threads
        return [Result("thing", "things/s", [2000.0], "matmul", [8.0], "≥ 1")]

    monkeypatch.setattr(package, "BENCHES", {"one": one, "two": one})
    monkeypatch.setattr(package, "available", lambda: False)


def test_a_benchmark_writes_tables_rows_and_files(fakes, tmp_path):
    before = torch.get_num_threads()
    with Console(width=140, record=True, file=open(os.devnull, "w")) as console:
        rows = bench(["one", "two"], threads=3, repeats=1, console=console, out=tmp_path / "b")
    text = console.export_text()
    assert torch.get_num_threads() == before
    assert text.count(HOW_TO_INSTALL) == 1
    assert "one: 3 threads, torch" in text and "2,000 (2,000)" in text and "≥ 1" in text
    assert [row["bench"] for row in rows] == ["one", "two"]
    assert rows[0]["ratio"] == 250.0 and rows[0]["threads"] == 3
    assert json.loads((tmp_path / "b" / "two.json").read_text()) == rows[1:]


@pytest.mark.parametrize(
    "names, options, message",
    [
        (["one", "tow"], {}, "benchmark 'tow' is unknown; take any of one, two"),
        (["one"], {"threads": 0}, "threads must be >= 1, got 0"),
        (["one"], {"repeats": 0}, "repeats must be >= 1, got 0"),
    ],
)
def test_bad_input_is_refused_by_name(fakes, names, options, message):
    with pytest.raises(ValueError) as told:
        bench(names, **options)
    assert str(told.value) == message


def test_the_time_of_jobs_is_compared_with_that_of_two_workers(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without Ray
    (found,) = BENCHES["executor"](TINY, jobs=3, seconds=0.1)  # type: ignore[call-arg]
    assert (found.work, found.against, found.wanted) == ("3 jobs, processes", "2 x wall", "≥ 0.9")
    assert 0 < found.ours[0] < found.reference[0]  # the wall time includes the start of the workers

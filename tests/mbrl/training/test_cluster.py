"""Work on a Ray cluster of three nodes on the loopback interface, one of which is removed."""

import os
import socket
import sys
from dataclasses import replace
from statistics import fmean

# Before Ray is imported: it sends no usage data, and its nodes use the loopback interface.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")

import pytest
from ray.cluster_utils import Cluster

import envs
from experiments.studies import lab as labs
from experiments.studies.lab import Lab, Report, study
from mbrl.training import cluster
from mbrl.training.checkpoint import Run, RunError
from mbrl.training.cluster import Ray, executor_of
from mbrl.training.executor import ExecutorError, Processes, Work
from mbrl.training.metrics import METRICS, TIMINGS
from mbrl.training.seeds import train_all
from tests import jobs

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def nodes():
    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    assert made.address.startswith("127.0.0.1:")
    for _ in range(2):
        made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def ray(nodes):
    made = Ray(nodes.address, home_every=0)
    yield made
    made.close()


def small(lab: Lab) -> Report:
    """Train two tiny runs for each seed and measure them."""
    config = replace(jobs.TINY, steps=1200, agent=replace(jobs.AGENT, random_steps=300))
    paths = lab.train({"a": config, "b": replace(config, steps=310)})
    asked = {
        (label, seed): Work(labs.final_returns, (path, 1, {}), f"evaluate {label}, seed {seed}")
        for label, own in paths.items()
        for seed, path in enumerate(own)
    }
    answers = lab.answers(asked)
    means = {label: [fmean(answers[label, s]) for s in range(lab.seeds)] for label in paths}
    return Report(means, labs.table(["run", "returns"], [*means.items()]))


def test_a_study_that_loses_a_node_gives_the_same_bytes(nodes, ray, tmp_path, monkeypatch):
    run, at, lost, lines = study(small, seeds=2), {}, [], []
    begin = cluster._RayWorker.begin

    def begin_at(worker, work):
        at[work.name] = worker.node
        begin(worker, work)

    def say(line: str) -> None:
        """Remove the node of the first run that has a checkpoint and many steps left."""
        lines.append(line)
        name, _, said = line.partition(":")
        victims = [node for node in nodes.worker_nodes if node.node_id == at.get(name)]
        if not lost and victims and name.startswith("train a") and "step 300" in said:
            lost.append(name)
            nodes.remove_node(victims[0], allow_graceful=False)

    monkeypatch.setattr(cluster._RayWorker, "begin", begin_at)
    away = run(tmp_path / "away", say=say, executor=ray)
    home = run(tmp_path / "home", say=silent, executor=Processes())
    nodes.add_node(**NODE)
    assert [line.partition(":")[0] for line in lines if "lost its worker" in line] == lost != []
    files = sorted(file.relative_to(home) for file in home.rglob("*") if file.is_file())
    assert sorted(f.relative_to(away) for f in away.rglob("*") if f.is_file()) == files
    same = [f for f in files if f.name in (METRICS, "table.md", "results.json", "config.json")]
    assert len(same) == 2 + 2 * 4
    for file in [*same, *(f for f in files if f.parent.name == "answers")]:
        assert (away / file).read_bytes() == (home / file).read_bytes(), file
    assert Run.open(away / "runs" / "a-0").latest() == 1200


def test_a_job_of_a_lost_worker_resumes_from_the_last_copied_checkpoint(ray, tmp_path):
    whole, killed, marks = tmp_path / "whole-0", tmp_path / "killed-0", tmp_path / "marks"
    train_all({whole: ("whole", jobs.TINY)}, make_env=envs.make, say=silent)
    arguments = (jobs.TINY, killed, "killed", marks, 300)
    lines: list[str] = []
    ray.compute({0: Work(jobs.train_and_die, arguments, "killed", killed)}, say=lines.append)
    assert marks.read_text().split() == ["0", "150"]
    assert (killed / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    assert len((killed / TIMINGS).read_text().splitlines()) == 1
    assert any(line.startswith("killed: step 150 of 330, return") for line in lines)
    assert sum("restart 1 of 3" in line for line in lines) == 1


def test_results_keep_their_order_and_are_computed_on_single_threads(ray):
    work = {key: Work(jobs.who, (), key) for key in ("b", "a")}
    lines: list[str] = []
    answers = ray.compute(work, workers=1, say=lines.append)
    assert list(answers) == ["b", "a"]
    assert all(pid != os.getpid() and threads == 1 for pid, threads in answers.values())
    assert len(set(answers.values())) == 1  # one worker did both
    assert lines.count("hello") == 2


def test_the_first_error_stops_the_other_jobs_and_is_raised(ray, tmp_path):
    Run.create(path := tmp_path / "run-0", {})
    waits, fails = Work(jobs.wait_for_stop, (), ""), Work(jobs.fail, ("os", path), "")
    with pytest.raises(OSError) as told:
        ray.compute({"waits": waits, "fails": fails}, say=silent)
    assert str(told.value) == f"no such thing: {path}"  # not that of the copy
    assert "in fail" in str(told.value.__cause__)


def test_a_job_that_loses_too_many_workers_raises_an_error_with_its_name(ray):
    with pytest.raises(ExecutorError, match="^the killer lost its worker 4 times: "):
        ray.compute({"dies": Work(jobs.die, (), "the killer")}, say=silent)


def test_ctrl_c_copies_the_checkpoints_of_all_runs_back(ray, tmp_path):
    config = replace(jobs.TINY, steps=100_000, agent=replace(jobs.AGENT, random_steps=99_000))
    paths = [tmp_path / f"long-{seed}" for seed in range(2)]
    work = {
        path: Work(jobs.train_and_tell, (replace(config, seed=seed), path), path.name, path)
        for seed, path in enumerate(paths)
    }
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if len({line.partition(":")[0] for line in lines}) == 2 and not stopped:
            stopped.append(line)
            raise KeyboardInterrupt

    stopped: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        ray.compute(work, say=say)
    for path in paths:
        (told,) = [line for line in lines if line.startswith(f"{path.name} stopped at ")]
        assert Run.open(path).latest() == int(told.rpartition(" ")[2]) > 0


def test_a_run_that_another_process_writes_is_not_overwritten(ray, tmp_path):
    config = replace(jobs.TINY, steps=10)
    path = tmp_path / "a-0"
    with Run.create(path, config.to_json()), pytest.raises(RunError, match="another process"):
        train_all({path: ("a", config)}, make_env=envs.make, say=silent, executor=ray)
    train_all({path: ("a", config)}, make_env=envs.make, say=silent, executor=ray)
    assert Run.open(path).latest() == 10


def test_modules_of_the_working_folder_are_sent_to_the_workers(nodes, ray, tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine_alone  # pyright: ignore[reportMissingImports]

    work = {0: Work(mine_alone.answer, (), "mine")}
    with pytest.raises(ModuleNotFoundError, match="mine_alone"):
        ray.compute(work, say=silent)
    with pytest.raises(ValueError, match="give ray.init the working_dir"):
        Ray(nodes.address, working_dir=tmp_path)
    ray.close()
    try:
        there = Ray(nodes.address, working_dir=tmp_path)
        assert there.compute(work, say=silent) == {0: 42}
        there.close()
    finally:
        ray.__init__(nodes.address, home_every=0)  # restores the connection for other tests


def test_a_machine_with_other_versions_is_refused(ray, monkeypatch):
    here = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: here | {"torch": "0.1"})
    with pytest.raises(ExecutorError, match=r"has torch .* and this one 0.1; results would differ"):
        ray.compute({0: Work(jobs.double, (1,), "")}, say=silent)


# Addresses.


@pytest.mark.parametrize(
    "name, address, error, text",
    [
        ("rays", None, ValueError, "executor 'rays' is unknown; there are processes, ray"),
        ("processes", "auto", ValueError, "take no address"),
        ("ray", "nonsense", ValueError, "'nonsense' is not HOST:PORT or auto"),
        ("ray", "ray://127.0.0.1:10001", ValueError, "not HOST:PORT or auto"),
        ("ray", "127.0.0.1:1", ExecutorError, "no Ray cluster answers at 127.0.0.1:1: "),
    ],
)
def test_invalid_addresses_are_refused(name, address, error, text, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(error) as told:
        executor_of(name, address)
    assert text in str(told.value) and "\n" not in str(told.value)


def test_a_server_that_is_not_a_cluster_is_refused_in_time(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_ANSWERS_WITHIN", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ExecutorError, match=f"what answers at {address} is no Ray cluster"):
            Ray(address)


def test_without_ray_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rolloutlab\[cluster\]'"):
        executor_of("ray")

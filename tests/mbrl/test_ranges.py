"""Every number of every config is checked, and sizes beyond the memory end in one line."""

import dataclasses
import importlib
import math
import pkgutil
import sys
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import gymnasium
import numpy as np
import pytest
import torch
from annotated_types import GroupedMetadata, Gt, Le, Lt

import mbrl
import planners
from experiments.cli import command
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.control import DriveConfig
from mbrl.dynamics import EnsembleConfig
from mbrl.training.collect import vector
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import RunError
from planners import checks
from planners.checks import check_fields, check_memory, first_refused, free_memory

RECORDS = {
    "Counts", "Improvement", "Isotonic", "Lab", "Link", "Logistic", "Paired", "Progress",
    "Temperature", "Tree", "_Evolution", "_Rest"
}  # fmt: skip
"""Dataclasses that hold results or the state of a computation, not settings."""

ABSTRACT = {"ChainConfig", "LearnedConfig", "NeuralConfig"}
"""Bases of configs that cannot be built."""


def settings():
    """Every dataclass of settings of `mbrl` and `planners`."""
    found = set()
    for package in (mbrl, planners):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                own = getattr(value, "__module__", "") == module.name
                if own and isinstance(value, type) and dataclasses.is_dataclass(value):
                    found.add(value)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


KINDS = [kind for kind in settings() if kind.__name__ not in RECORDS | ABSTRACT]


def build(kind, **change):
    """An object of a class, with plausible values for fields without a default."""
    needed: dict[str, Any] = {
        "low": torch.tensor([-1.0, -1.0]), "high": torch.tensor([1.0, 1.0]), "horizon": 6,
        "name": "m:Class", "algo": "pets", "env": "x", "seed": 0, "steps": 1, "device": "cpu",
        "agent": None,
        "planner": planners.PredictiveSampling(
            torch.tensor([-1.0]), torch.tensor([1.0]), 6, population=4
        ),
    }  # fmt: skip
    given = {
        field.name: needed[field.name]
        for field in dataclasses.fields(kind)
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    return kind(**given | change)


def numbers():
    """Every numeric field: its class, its name, int or float, bounds, whether it may be None."""
    for kind in KINDS:
        hints = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            if not field.init:
                continue
            hint, optional = hints[field.name], False
            if type(None) in get_args(hint):
                rest = [part for part in get_args(hint) if part is not type(None)]
                hint, optional = (rest[0], True) if len(rest) == 1 else (hint, True)
            if get_origin(hint) is tuple:  # its elements are checked with the tuple
                continue
            parts = [hint]
            if get_origin(hint) is not Annotated and get_origin(hint) not in (None, Literal):
                parts = [part for part in get_args(hint) if part is not ...]
            for part in parts[:1]:
                bounds, base = [], part
                if get_origin(part) is Annotated:
                    base, *metadata = get_args(part)
                    for bound in metadata:
                        bounds += bound if isinstance(bound, GroupedMetadata) else [bound]
                if base in (int, float):
                    yield pytest.param(
                        kind, field.name, base, bounds, optional, id=f"{kind.__name__}.{field.name}"
                    )


def edges(base, bounds):
    """Values at the edges of a range, and values just outside."""
    inside, outside = [], []
    for bound in bounds:
        upper = isinstance(bound, Lt | Le)
        edge = next(iter(dataclasses.asdict(bound).values()))
        after = edge + (1 if upper else -1)
        if base is float:
            edge = float(edge)
            after = math.nextafter(edge, math.inf if upper else -math.inf)
        if isinstance(bound, Gt | Lt):
            outside.append(edge)
        else:
            inside.append(edge)
            outside.append(after)
    return inside, outside


UNBOUNDED = {"initial", "mean", "disagreement", "optimism", "target_entropy", "until_return"}
"""Fields that take any finite number."""

TOGETHER: dict[str, dict[str, Any]] = {
    "horizon": {"knots": 1},
    "elites": {"population": 4},
    "population": {"elites": 1},
    "noise_knots": {},
    "replan_every": {},
    "critics": {"subset": 1},
    "discount": {"bounded": False},
    "decay_steps": {"last_learning_rate": 0.0},
    "horizon_to": {"horizon_from": 0},
    "members": {"networks": 1},
    "cycle_steps": {"cycle_samples": 1, "exploration": 0.0, "cycles": 5},
    "cycle_samples": {"cycles": 5, "cycle_steps": 100_000},
    "samples": {"members": 5},
    "beta": {"samples": 1},
    "free_bits": {"samples": 1},
}
"""Other fields that must change with one, for its edge to fit to them."""


def test_every_config_is_found():
    names = {kind.__name__ for kind in KINDS}
    assert names >= {
        "Config", "MPCConfig", "PlannerConfig", "FitConfig", "EnsembleConfig", "TreeSearchConfig",
        "SearchConfig", "DriveConfig", "Randomisation", "TabularConfig", "DynaConfig", "RunConfig",
        "BetaBernoulli", "NormalNormal", "UCT", "PUCT", "Gumbel", "Widening", "MPC", "ILQR",
        "Search", "EliteSearch", "CEM", "ICEM", "MPPI", "CMA", "Evolution", "GradientAscent",
    }  # fmt: skip
    assert len(list(numbers())) > 100


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_defaults_are_in_their_ranges(kind):
    build(kind)


@pytest.mark.parametrize(("kind", "name", "base", "bounds", "optional"), list(numbers()))
def test_every_number_is_checked_against_its_range(kind, name, base, bounds, optional):
    assert bounds or name in UNBOUNDED, f"{kind.__name__}.{name} states no range"
    inside, outside = edges(base, bounds)
    wrong = [math.nan, math.inf, -math.inf, "1", True, [], *outside]
    if base is int:
        wrong += [1.5, 2**63, 10**5000]
    if not optional:
        wrong.append(None)
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{name} must be ") as error:
            build(kind, **{name: value})
        assert "\n" not in str(error.value) and len(str(error.value)) < 250
    known = {field.name for field in dataclasses.fields(kind)}
    for value in inside:
        also = {n: v for n, v in TOGETHER.get(name, {}).items() if n in known}
        if name == "max_depth" or value <= 65_536:  # more would not fit into memory
            build(kind, **{name: value} | also)
    if optional:
        build(kind, **{name: None})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (EnsembleConfig, "weight_decay", (0.0, 0.0, math.inf, 0.0, 0.0)),
        (EnsembleConfig, "hidden", (8, 0)),
        (EnsembleConfig, "hidden", ()),
        (EnsembleConfig, "hidden", 8),
        (EnsembleConfig, "warm", 1),
        (EnsembleConfig, "optimiser", ["adam"]),
        (MPCConfig, "objective", 3),
        (MPCConfig, "planner", "icem"),
        (MPCConfig, "propagation", None),
        (PlannerConfig, "answer", "median"),
        (DriveConfig, "mpc", None),
    ],
)
def test_other_fields_are_checked_against_their_types(kind, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        build(kind, **{name: value})


def test_integers_are_accepted_as_floats_and_numpys_numbers_as_numbers():
    build(EnsembleConfig, learning_rate=1, batch=np.int64(4), bound_weight=np.float32(0.5))


def test_a_message_says_what_is_accepted():
    for change, message in (
        ({"learning_rate": math.nan}, "learning_rate must be finite and > 0, got nan"),
        ({"holdout": 1}, r"holdout must be in \[0, 1\), got 1"),
        ({"elites": 0}, "elites must be an integer of at least 1 or None, got 0"),
        ({"batch": "x" * 999}, r"batch must be .* got 'x{56}\.\.\.$"),
        ({"batch": 10**5000}, "batch must be .* got a number of about 5,000 digits"),
    ):
        with pytest.raises(ValueError, match=message):
            EnsembleConfig(**change)


def test_the_annotations_of_a_class_are_read_once(monkeypatch):
    check_fields(EnsembleConfig())
    monkeypatch.setattr(checks, "get_type_hints", None)
    check_fields(EnsembleConfig())


def test_a_config_given_as_plain_values_is_checked_alike():
    assert first_refused(MPCConfig, {"planner": {"sigma": 0.5}, "particles": 2}) is None
    for given, said in (
        ({"planner": {"sigma": -1}}, "agent.planner.sigma must be finite and > 0 or None, got -1"),
        ({"particles": None}, "agent.particles must be an integer of at least 1, got None"),
        ([], "agent must be an object, got []"),
    ):
        assert first_refused(MPCConfig, given, "agent") == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": math.nan}, "agent.model.learning_rate must be finite and > 0, got nan"),
        ({"batch": "many"}, "agent.model.batch must be an integer of at least 1, got 'many'"),
    ],
)
def test_the_config_of_a_run_is_refused_by_the_same_line(change, said):
    from mbrl.agents.pets import Config

    config = RunConfig("pets", "x", 0, 1, "cpu", Config()).to_json()
    assert RunConfig.from_json(config).agent == Config()
    config["agent"]["model"] |= change
    with pytest.raises(RunError) as error:
        RunConfig.from_json(config)
    assert str(error.value) == f"config.json: {said}"


def test_numbers_without_a_range_are_checked_in_a_users_config():
    @dataclasses.dataclass(frozen=True)
    class Own:
        rate: float = 1.0

    check_fields(Own())
    with pytest.raises(ValueError, match="rate must be finite, got nan"):
        check_fields(Own(math.nan))


def test_a_class_whose_annotations_cannot_be_read_has_its_bases_checked():
    @dataclasses.dataclass(frozen=True)
    class Own(EnsembleConfig):
        extra: "Unknown" = None  # noqa: F821

    Own()
    with pytest.raises(ValueError, match="batch must be"):
        Own(batch=0)


# Memory


def test_an_array_that_does_not_fit_into_memory_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr(checks, "free_memory", lambda: 24.0 * 2**30)
    check_memory("a tree", 24 * 2**30)
    with pytest.raises(ValueError) as error:
        check_memory("simulations 5: the tree", 120 * 2**30)
    said = "simulations 5: the tree would take 120 GiB, this machine has 24 GiB free"
    assert str(error.value) == said
    with pytest.raises(ValueError, match="would take 1,000,000,000 EiB"):
        check_memory("a tree", 10**9 * 2.0**60)
    with pytest.raises(ValueError, match="would take 100 MiB, this machine has 0 B free"):
        monkeypatch.setattr(checks, "free_memory", lambda: 0.0)
        check_memory("a tree", 100 * 2**20)


def test_the_limit_of_a_control_group_is_used(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 1\ninactive_file 50")):
        (group / f"memory.{name}").write_text(text)
    assert checks._free_of_group(tmp_path, "0::/a/b\n") == 350
    assert checks._free_of_group(tmp_path, "0::/a/b/c\n") == 350
    assert checks._free_of_group(tmp_path, "0::/a\n") == math.inf
    first = tmp_path / "memory" / "x"
    first.mkdir(parents=True)
    for name, text in (
        ("limit_in_bytes", "90"), ("usage_in_bytes", "50"), ("stat", "total_inactive_file 4")
    ):  # fmt: skip
        (first / f"memory.{name}").write_text(text)
    assert checks._free_of_group(tmp_path, "7:cpu,memory:/x\n3:cpuset:/x\n") == 44
    assert 0 < free_memory() < math.inf


def test_more_environments_than_fit_are_refused_and_those_made_are_closed(monkeypatch):
    open_now = []

    class Own(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def __init__(self):
            open_now.append(self)

        def close(self):
            open_now.remove(self)

    monkeypatch.setattr(checks, "free_memory", lambda: 2.0**30)
    # the memory of the process also depends on what was freed before
    monkeypatch.setattr(
        sys.modules["mbrl.training.collect"], "_resident", lambda: len(open_now) * 2**21
    )
    vector([Own] * 40).close()
    assert not open_now
    with pytest.raises(ValueError, match="5000 environments would take .* GiB"):
        vector([Own] * 5000)
    assert not open_now


# Command lines


HUGE = "1000000000000"

LINES = {
    "learning rate": ("train pets --model.learning-rate nan", "learning_rate must be finite"),
    "learning rate inf": ("train pets --model.learning-rate inf", "learning_rate must be finite"),
    "decay": ("train pets --model.weight-decay -1", "weight_decay must be finite and >= 0"),
    "decay nan": ("train pets --model.weight-decay nan", "weight_decay must be finite and >= 0"),
    "bound weight": ("train pets --model.bound-weight nan", "bound_weight must be finite"),
    "cvar": ("train pets --objective cvar:", "objective 'cvar:' is unknown"),
    "std": ("train pets --objective mean-std:inf", "objective 'mean-std:inf' is unknown"),
    "no particles": ("mpc --particles 0", "particles must be an integer of at least 1, got 0"),
    "particles": ("mpc --particles -2", "particles must be an integer of at least 1, got -2"),
    "seeds": ("mpc --seeds 1000000000000000000000", "--seeds must be <= 1000000"),
    "delay": (f"mpc --delay {HUGE}", "delay must be an integer in 1..1000000 or None"),
    "delay over": ("mpc --delay 151", "delay must be at most 150, the steps of an episode"),
    "rounds": (f"mpc --planner.iterations {HUGE}", "iterations must be an integer in 1..1000000"),
    "horizon": ("train pets --planner.horizon 10000000", "horizon 10000000: the search would take"),
    "horizon mpc": ("mpc --planner.horizon 10000000", "horizon 10000000: the search would take"),
    "population": (f"mpc --planner.population {HUGE}", f"population {HUGE}, horizon 25: the se"),
    "repeat": (f"mpc --action-repeat {HUGE}", f"action_repeat {HUGE}: the candidates would take"),
    "hidden": (
        "train pets --model.hidden 1000000 1000000",
        "1000000, 1000000, 10: their fit",
    ),
    "nets": ("train pets --model.members 10000000", "10000000 nets with layers of"),
    "noise": (f"train pets --particles {HUGE}", f"particles {HUGE}, horizon 25: the noise of a"),
    "capacity": (f"train pets --capacity {HUGE}", f"capacity {HUGE}: the replay buffer would take"),
    "environments": ("train pets --num-envs 1000000", "--num-envs must be <= 65536, got 1000000"),
    "simulators": ("mpc --members 100000000", "members 100000000: the simulators would take"),
    "simulations": (f"tree --simulations {HUGE}", f"simulations {HUGE}: the tree would take"),
    "rollouts": (f"tree --rollouts {HUGE}", f"rollouts {HUGE}, depth 50: the rollouts of a leaf"),
    "depth": (f"tree --depth {HUGE}", f"depth {HUGE}: the rollouts of a leaf would"),
    "samples": (f"tree --env pendulum-swingup --samples {HUGE}", f"samples {HUGE}: the actions"),
}


@pytest.mark.parametrize(("line", "said"), LINES.values(), ids=LINES)
def test_a_command_line_out_of_range_ends_in_one_line_and_writes_nothing(
    line, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert command.run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("mbrl: ") and said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.28 TiB for an array"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore"),
    ],
)
def test_running_out_of_memory_ends_in_one_line(error, monkeypatch, capsys):
    def fail(name):
        raise error

    monkeypatch.setattr(command.importlib, "import_module", fail)
    assert command.run(["list"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mbrl: out of memory") and err.count("\n") == 1


def test_other_runtime_errors_keep_their_traceback(monkeypatch):
    def fail(name):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        command.run(["list"])

"""Options that take numbers or one of a few words, with values that they do not accept."""

from __future__ import annotations

from tests.bad_inputs.case import Cases

CASES = Cases()
add = CASES.add

HUGE = str(10**30)
NO_INTEGER = ["x", "", "nan", "1.5", HUGE, "1e3", "None None"]
NO_NUMBER = ["x", "", "nan", "inf", "-inf", "1e999", "0x10"]


def numbers(command: str, options: dict[str, list[str]], **more) -> None:
    """Each option with each of its bad values; the line names the option."""
    for option, values in options.items():
        for value in values:
            name = f"{command.split(' --')[0]} --{option} {value[:14]!r}"
            start = command.split(f" --{option} ")[0].split()  # without this option
            says = f"{option.rpartition('.')[2]}"
            add(name, [*start, f"--{option}={value}"], says, **more)


MPC = "mpc --env pendulum-swingup --steps 1"
numbers(
    MPC,
    {
        "seed": ["-1", "x", HUGE],
        "seeds": ["0", "-3", "1.5", str(10**21)],
        "steps": ["0", "-1", "ten", HUGE],
        "threads": ["0", "-1", "99999", "x"],
        "members": ["0", "-2", "x", "100000000"],
        "device": ["cpu", "gpu", ""],
        "delay": ["-1", "0", str(10**12), "x"],
        "replan-every": ["-1", "x", HUGE],
        "action-repeat": ["0", "-1", HUGE],
        "budget-ms": ["nan", "inf", "-1", "x"],
        "particles": ["0", "-2", "x", HUGE],
        "propagation": ["", "ts2", "TS1"],
        "objective": ["", "cvar:", "cvar:0", "cvar:2", "cvar:nan", "mean-std:inf", "mean+std:x",
                      "worst:1", "best", "cvar:0.1:2", "mean-std:-1"],
        "penalty": ["nan", "inf", "-1"],
        "discount": ["0", "-1", "1.5", "nan", "inf"],
        "terminal": ["nan", "inf", "-1", "x"],
        "planner.horizon": ["0", "-1", "1.5", "nan", "10000000000", HUGE],
        "planner.population": ["0", "-1", "x", "100000000000"],
        "planner.iterations": ["0", "-1", "1000000001", "x"],
        "planner.elites": ["0", "-1", "x", "1000000"],
        "planner.knots": ["-1", "x", "0", "1000"],
        "planner.interpolation": ["", "quintic"],
        "planner.sigma": ["0", "-1", "nan", "inf"],
        "planner.beta": ["-1", "nan", "inf"],
        "planner.momentum": ["-0.1", "1", "nan"],
        "planner.answer": ["", "median"],
        "randomisation.mass": ["-1", "nan", "inf", "x"],
        "randomisation.friction": ["-1", "nan"],
        "randomisation.gain": ["-0.5", "inf"],
    },
)  # fmt: skip
numbers(
    "tree --env frozen-lake",
    {
        "simulations": ["0", "-1", "x", "1000000000", HUGE],
        "rule": ["", "mcts", "UCT"],
        "discount": ["0", "-0.5", "1.0001", "nan", "inf"],
        "backup": ["", "min"],
        "seed": ["-1", "x", HUGE],
        "steps": ["-1", "1.5", HUGE],
        "rollouts": ["0", "-1", "x", HUGE],
        "depth": ["0", "-1", "x", HUGE],
        "samples": ["0", "-4", HUGE],
        "nodes": ["0", "-1", "x", HUGE],
        "threads": ["0", "2000"],
    },
)
TRAIN = "train pets --env pendulum-swingup --steps 30"
numbers(
    TRAIN,
    {
        "steps": ["0", "-1", "x", "1.5", HUGE],
        "seed": ["-1", "x", HUGE],
        "num-envs": ["0", "-1", "100000", "x", HUGE],
        "threads": ["0", "-2"],
        "checkpoint-every": ["0", "-1", "x", HUGE],
        "device": ["gpu", "", "cuda:99", "meta", "foo", "\x1b[31m", "d" * 3000],
        "random-steps": ["-1", "x", HUGE],
        "fit-every": ["-1", "0", "x"],
        "capacity": ["0", "-1", str(10**12), HUGE, "x"],
        "particles": ["0", "3", "x"],
        "objective": ["cvar:", "mean-std:inf", "median"],
        "penalty": ["nan"],
        "planner.horizon": ["0", "x", "10000000"],
        "model.members": ["0", "-1", "x"],
        "model.batch": ["0", "-1", "x"],
        "model.optimiser": ["sgd", ""],
        "model.learning-rate": ["nan", "inf", "0", "-1e-3", "x"],
        "model.epochs": ["-1", "x", HUGE],
        "model.patience": ["-1", "x"],
        "model.improvement": ["nan", "inf", "x"],
        "model.elites": ["0", "-1", "99"],
        "model.holdout": ["-0.1", "1", "nan"],
        "model.holdout-max": ["-1", "x"],
        "model.bound-weight": ["nan", "-1", "inf"],
        "model.beta-nll": ["-1", "inf", "nan"],
        "model.activation": ["", "rel", "\x1b[2J"],
        "model.weight-decay": ["-1", "nan", "inf"],
        "model.hidden": ["0", "-8", "x", HUGE],
    },
)
numbers(
    "evaluate run",
    {
        "episodes": ["0", "-1", "x", "1.5", HUGE, ""],
        "seed": ["-1", "x", HUGE],
        "steps": ["0", "-1", "x", HUGE],
        "device": ["gpu", "", "cuda:7", "meta", "\x1b[31m"],
        "threads": ["0", "x"],
    },
)
numbers(
    "plot run",
    {"episodes": ["0", "-1", "x", HUGE], "seed": ["-1", "x", HUGE], "device": ["gpu", ""]},
)
numbers("train --resume=run", {"device": ["gpu", "", "cuda:7", "meta"]})
numbers("compare run", {"last": ["0", "-1", "x", HUGE], "threads": ["0"]})
numbers(
    "study bandits --fast",
    {
        "seeds": ["0", "-1", "x", str(10**21), "1.5"],
        "workers": ["0", "-1", "x", HUGE],
        "executor": ["", "slurm", "Ray"],
        "threads": ["0"],
    },
)
numbers("bench collect", {"repeats": ["0", "-1", "x", HUGE], "threads": ["0", "x"]})
add("two huge layers", [*TRAIN.split(), "--model.hidden", "1000000", "1000000"], "layers of")
add("huge members", [*TRAIN.split(), "--model.members", "10000000"], "10000000 nets")
add("no layer", [*TRAIN.split(), "--model.hidden", "8", "0"], "hidden")
add("decay list", [*TRAIN.split(), "--model.weight-decay", "1", "2", "3", "4", "5", "6", "7"],
    "weight_decay")  # fmt: skip

"""Names, options and places of files that the command cannot use."""

from __future__ import annotations

from tests.bad_inputs.case import Cases
from tests.bad_inputs.numbers import HUGE

CASES = Cases()
add = CASES.add
STRANGE = ["", " ", "no-such", "\x1b[31mx", "[/x]", "..", ".x", "ünïcode", "a" * 5000, "a\nb", "-"]


def culprit(name: str) -> str:
    """What the line must contain of a name: all of it if that is short and printable."""
    return name if name.isprintable() and 1 < len(name) < 50 and name.strip() == name else ""


COMMANDS = [
    "mpc", "tree", "train", "evaluate", "plot", "audit", "compare", "study", "bench", "list",
]  # fmt: skip
for name in [*STRANGE, "trian", "MPC", "--seed", "-x"]:
    add(f"command {name[:12]!r}", [name], "unknown command")
for name in STRANGE:
    add(f"algorithm {name[:12]!r}", ["train", name], culprit(name))
    add(f"run of evaluate {name[:12]!r}", ["evaluate", name], culprit(name))
    add(f"run of plot {name[:12]!r}", ["plot", "run", name], culprit(name))
    add(f"run of compare {name[:12]!r}", ["compare", "run", name], culprit(name))
    add(f"run of resume {name[:12]!r}", ["train", f"--resume={name}"], culprit(name))
    add(f"study {name[:12]!r}", ["study", name], culprit(name))
    add(f"benchmark {name[:12]!r}", ["bench", name], culprit(name))
    add(f"list {name[:12]!r}", ["list", name], culprit(name))
    add(f"shell {name[:12]!r}", ["completion", name], culprit(name))
    add(f"planner {name[:12]!r}", ["mpc", f"--planner={name}", "--steps=1"], "planner")
    add(f"module {name[:12]!r}", ["list", "algorithms", f"--module={name}"], "--module")
ENVS = [*STRANGE, ":Pendulum-v1", "..:Pendulum-v1", ".x:Y", "nomodule:X-v0", "json:X-v0", "json:",
        "Pendulum", "pendulum-v1", "cartpole-swing", "CartPole-v1", "wet-chicken", "Blackjack-v1",
        "[bold]x[/bold]", "json:dumps", "a b:C", "json:\x1b[31m",
        "half-cheetah-pixels-x", "Pendulum-v1-pixels"]  # fmt: skip
for name in ENVS:
    shown = name[:16]
    add(f"env of mpc {shown!r}", ["mpc", f"--env={name}", "--steps=1"], culprit(name))
    discrete = name in ("CartPole-v1", "Blackjack-v1")  # the line names their spaces
    if name != "wet-chicken":
        add(
            f"env of train {shown!r}",
            ["train", "pets", f"--env={name}", "--steps=30"],
            "Discrete" if discrete else culprit(name),
        )
    if name not in ("CartPole-v1", "wet-chicken"):
        add(f"env of tree {shown!r}", ["tree", f"--env={name}"], culprit(name))
for command in COMMANDS:
    base = {
        "mpc": ["mpc", "--env=pendulum-swingup", "--steps=1"],
        "tree": ["tree", "--env=frozen-lake", "--simulations=4"],
        "train": ["train", "random", "--env=pendulum-swingup", "--steps=5"],
        "study": ["study", "dyna", "--fast", "--seeds=1"],
        "bench": ["bench", "collect"],
    }
    start = base.get(command, [command])
    if command in ("evaluate", "plot", "audit", "compare"):
        start = [command, "run"]
    for option in ["--no-such", "--sede=1", "--=", "---", "-z", "--\x1b[31m", "--seed.x=1"]:
        add(f"{command} {option}", [*start, option], "")
    add(f"{command} --threads without a value", [*start, "--threads"], "--threads")
    add(f"{command} --root without a value", [*start, "--root"], "--root")
    add(f"{command} --json=maybe", [*start, "--json=maybe"], "maybe")
    add(f"{command} --threads twice", [*start, "--threads", "1", "--threads=2"], "--threads")
    add(f"{command} --module without a value", [*start, "--module"], "--module")
    if command not in ("mpc", "tree", "train"):
        continue
    add(f"{command} a word too many", [*start, "stray"], "stray")
    add(f"{command} --seed twice", [*start, "--seed", "1", "--seed=1"], "--seed")
    add(f"{command} --env twice", [*start, "--env=Reacher-v5"], "--env")
add("list two", "list envs runs", "runs")
add("completion two", "completion bash zsh", "zsh")
add("study two", "study bandits dyna", "dyna")
add("evaluate two", "evaluate run other", "other")
add("planner twice", "mpc --steps 1 --planner cem --planner mppi", "planner")
add(
    "a setting that cem lacks", "mpc --planner cem --planner.temperature 1 --steps 1", "temperature"
)
add(
    "a setting that ilqr lacks", "mpc --planner ilqr --planner.population 9 --steps 1", "population"
)
add("more elites than candidates",
    "mpc --planner cem --planner.elites 9 --planner.population 4 --steps 1", "elites")  # fmt: skip
add("no studies", "study", "study")
add("no runs", "compare", "run")
add("labels too few", "compare run other --label a", "--label")
add("labels too many", "compare run --label a b", "--label")
add("runs of two environments", "compare run far", "env")
add("latest where none is", "evaluate latest --root empty", "empty")
add("latest, root a file", "evaluate latest --root file", "file")
add("resume latest, no root", "train --resume latest --root gone", "gone")
add("resume and an option of a new run", "train --resume run --env Pendulum-v1", "--env")
add("resume to fewer steps", "train --resume run --steps 5", "--steps 5")
add("resume with a seed", "train --resume run --seed 3", "--seed")
add("resume with an algorithm", "train pets --resume run", "pets")
add("resume of no run", "train --resume empty", "empty")
add("train without an algorithm", "train --env Pendulum-v1", "algorithm")
add("log nowhere", "train random --steps 5 --log mlflow", "mlflow")
add("log to what is not installed", "train random --steps 5 --log wandb --run new", "wandb")
add("ray without a cluster", "study bandits --fast --executor ray --address nowhere:1", "")
add("address without ray", "study bandits --fast --address nowhere:1 --seeds 1", "address")
add("data that is not there", "study regression --fast --data gone", "gone")
add("data that is a file", "study regression --fast --data file", "file")
add("data without tables", "study regression --fast --data empty", "empty")
add("data of a study without any", "study bandits --fast --data empty", "reads no data")
# All places are in the working folder, or in /proc, where no file can be made: a place that is
# accepted by mistake must not harm the machine.
for out in ["run", "file", "file/x", "/proc/mbrl", "pipe", "pipe/x", "\0", "a" * 300, ""]:
    shown = out[:10]
    add(f"out of mpc {shown!r}", ["mpc", "--steps=1", f"--out={out}"], culprit(out))
    add(f"out of tree {shown!r}", ["tree", f"--out={out}", "--simulations=4"], culprit(out))
    add(f"run of train {shown!r}", ["train", "random", "--steps=5", f"--run={out}"], culprit(out))
    if out != "file":
        add(f"out of compare {shown!r}", ["compare", "run", f"--out={out}"], culprit(out))
    if out not in ("run", ""):
        add(f"root of mpc {shown!r}", ["mpc", "--steps=1", f"--root={out}"], culprit(out))
for out in ["file", "file/x", "/proc/mbrl", "pipe", "\0"]:
    add(
        f"out of study {out!r}",
        ["study", "dyna", "--fast", "--seeds=1", f"--out={out}"],
        culprit(out),
    )
    add(f"out of bench {out!r}", ["bench", "collect", "--repeats=1", f"--out={out}"], culprit(out))
    add(f"root of train {out!r}", ["train", "random", "--steps=5", f"--root={out}"], culprit(out))
add("model of mpc is no run", "mpc --model gone --steps 1", "gone")
add("model of mpc is a file", "mpc --model file --steps 1", "file")
add("model of mpc is a random agent's", "mpc --env pendulum-swingup --model rnd --steps 1", "rnd")
add("model of mpc is of another task", "mpc --env Reacher-v5 --model run --steps 1", "run")
add("members of a learned model", "mpc --env cartpole-swingup --model run --members 3 --steps 1",
    "members")  # fmt: skip
add("viewer of gymnasium's task", "mpc --env Pendulum-v1 --viewer --steps 1", "")
for port in ["-1", "0x", "70000", HUGE, "1.5"]:
    add(
        f"viewer port {port[:8]}", ["mpc", "--viewer", "--steps=1", f"--viewer-port={port}"], "port"
    )
add("names of actions too few", "tree --env frozen-lake --actions up", "actions")
add("names of actions too many", "tree --env frozen-lake --actions a b c d e f", "actions")
add("a discount that the world lacks", "tree --env wet-chicken", "wet-chicken")

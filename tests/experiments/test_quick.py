"""The command apart from its work: help, listings, output streams, names, completion."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import get_args

import gymnasium
import pytest
import torch

import envs
from envs import WORLDS, catalogue
from experiments.bench import BENCHES
from experiments.cli import names
from experiments.cli.command import COMMANDS, run
from experiments.cli.completion import words
from experiments.cli.listing import What
from experiments.cli.own import planned_by
from experiments.cli.streams import readable
from experiments.cli.tree import searched
from experiments.presets import mpc_preset, pets
from experiments.presets.mpc import PRESETS
from experiments.studies import STUDIES
from mbrl.agents import AGENTS, KINDS, MPCConfig, PlannerConfig, agent
from mbrl.agents.mpc import PlannerName
from mbrl.dynamics.table import MODELS
from mbrl.parts import settings
from mbrl.plain import file_name
from mbrl.settings import SearchConfig
from mbrl.spaces import spec_of
from mbrl.training import Run, RunConfig
from mbrl.training.checkpoint import CONFIG

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "experiments.cli.command"]
HEAVY = {"torch", "mujoco", "matplotlib", "gymnasium"}

QUICK = {
    "nothing": ([], 0, set()),
    "help": (["--help"], 0, set()),
    "version": (["--version"], 0, set()),
    "train pets --help": (["train", "pets", "--help"], 0, set()),
    "train random --help": (["train", "random", "--help"], 0, set()),
    "completion": (["completion", "bash"], 0, set()),
    "another task's help": (["train", "pets", "--env", "arm-reacher", "--help"], 0, set()),
    **{f"{name} --help": ([name, "--help"], 0, set()) for name in COMMANDS},
    **{
        f"{command} --planner {name}": ([*command.split(), "--planner", name, "--help"], 0, set())
        for command in ("mpc", "train pets")
        for name in get_args(PlannerName)
    },
    **{
        f"{command} on {env}": ([*command.split(), "--env", env, "--help"], 0, set())
        for command in ("mpc", "train pets")
        for env in ("wet-chicken", "Hopper-v5", "panda-reach", "MountainCarContinuous-v0")
    },
    "tree on a task": (["tree", "--env", "cartpole-swingup", "--help"], 0, set()),
    "a planner's lacking setting": (["mpc", "--planner", "cem", "--planner.beta", "1"], 2, set()),
    "a tree's model": (["tree", "--model", "planning"], 2, set()),
    **{f"list {name}": (["list", name], 0, set()) for name in get_args(What) if name != "runs"},
    "list runs": (["list", "runs", "--json"], 0, set()),
    "a command": (["trian"], 2, set()),
    "an algorithm": (["train", "petz"], 2, set()),
    "a planner": (["mpc", "--planner", "cemm"], 2, set()),
    "PETS's planner": (["train", "pets", "--planner", "cemm"], 2, set()),
    "a world": (["tree", "--env", "frozen-lak"], 2, set()),
    "an environment": (["mpc", "--env", "half-cheeta"], 2, {"gymnasium"}),
    "an environment to train on": (["train", "pets", "--env", "cartpol"], 2, {"gymnasium"}),
    "an option": (["mpc", "--horizn", "3"], 2, set()),
    "an algorithm's option": (["train", "pets", "--random-step", "3"], 2, set()),
    "a value of an algorithm's option": (["train", "pets", "--model.hidden", "x"], 2, set()),
    "a value out of range": (["train", "pets", "--model.learning-rate", "-1"], 2, set()),
    "a number of steps": (["train", "pets", "--steps", "0"], 2, set()),
    "a number of threads": (["train", "random", "--threads", "0"], 2, set()),
    "a choice": (["tree", "--rule", "best"], 2, set()),
    "a study": (["study", "version"], 2, set()),
    "a benchmark": (["bench", "rolout"], 2, set()),
    "a run": (["evaluate", "nowhere"], 2, set()),
}


@pytest.mark.parametrize("case", QUICK)
def test_help_listings_and_typos_import_nothing_heavy(case, tmp_path):
    args, status, allowed = QUICK[case]
    code = (
        "import sys\nfrom experiments.cli.command import run\n"
        f"try: status = run({args!r})\nexcept SystemExit as exit: status = exit.code or 0\n"
        f"assert status == {status}, status\n"
        f"print(*({HEAVY!r} & set(sys.modules)), file=open('imported', 'w'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENV, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set((tmp_path / "imported").read_text().split()) <= allowed


def test_names_read_from_the_sources_equal_those_of_the_tables():
    assert list(names.algorithms()) == list(AGENTS)
    assert list(names.planners()) == list(KINDS)
    assert set(names.planners()) == set(get_args(PlannerName))
    assert list(names.studies()) == list(STUDIES) and list(names.benchmarks()) == list(BENCHES)
    said = {
        **{name: (names.algorithms(), agent(name).Config) for name in AGENTS},
        **{name: (names.planners(), kind) for name, kind in KINDS.items() if name not in AGENTS},
    }
    for name, (table, kind) in said.items():
        assert table[name] == kind.__doc__.strip().split("\n")[0]
    for table, real in ((names.studies(), STUDIES), (names.benchmarks(), BENCHES)):
        for name, function in real.items():
            assert table[name] == function.__doc__.strip().split("\n")[0]
    assert names._gymnasiums() <= set(gymnasium.registry)
    for name, study in STUDIES.items():
        assert names.study_seeds(name) == study.args[1]
        assert names.study_seeds(name, fast=True) == study.args[2]


def test_settings_read_from_the_sources_are_those_of_the_planners():
    for name, kind in KINDS.items():
        defaults = {n: p.default for n, p in settings(name, kind, 3).items()}
        assert names.planner_settings(name) == defaults
    for config in PRESETS.values():
        for name in KINDS:
            assert planned_by(config.planner, name) == config.planner.named(name)


def test_what_is_said_to_be_known_of_an_environment_is_what_it_says_itself(monkeypatch):
    rows = [row["name"] for row in names.catalogue()["envs"]]
    for env_id in [*rows, "frozen-lake", "MountainCarContinuous-v0", "CartPole-v1"]:
        with closing(envs.make(env_id)) as env:
            spec = spec_of(env)
        assert names.known(env_id) is None  # something may have been registered
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "envs")
            patch.delitem(sys.modules, "gymnasium")
            assert names.known(env_id) == (spec.reward is not None, not spec.ends), env_id


def test_the_catalogue_agrees_with_the_environments():
    """`python -m envs.catalogue` rewrites it."""
    assert catalogue.FILE.read_text(encoding="utf-8") == catalogue.text()
    assert names.catalogue() == json.loads(catalogue.text())
    for row in names.catalogue()["worlds"]:
        if row["name"] in envs.WORLDS:
            assert len(row["actions"]) == envs.WORLDS[row["name"]]().actions


def test_the_version_option_names_all_packages_that_affect_numbers(capsys):
    assert run(["--version"]) == 0
    said = capsys.readouterr().out
    kept = [
        f"{name} {metadata.version(name)}" for name in ("torch", "mujoco", "gymnasium", "numpy")
    ]
    assert said == f"rolloutlab {metadata.version('rolloutlab')} ({', '.join(kept)})\n"


def helped(capsys, *args):
    with pytest.raises(SystemExit):
        run([*args, "--help"])
    return " ".join(re.sub("[│╭╰─╮╯]", " ", capsys.readouterr().out).split())


def defaults(capsys, *args):
    """What the help text says takes effect without an option, by the option; "" if nothing."""
    with pytest.raises(SystemExit):
        run([*args, "--help"])
    found = {}
    for entry in re.split(r"\n {1,2}(?=\S)", capsys.readouterr().out):
        said = " ".join(entry.split())
        option = said.split()[0].rstrip(",")
        hints = re.findall(r"\((?:default: ([^()]*)|(required|repeatable))\)$", said)
        if re.match("--[a-z]", option):
            found[option] = "".join(hints[0]) if hints else ""
    return found


@pytest.mark.parametrize(
    "line",
    [
        *COMMANDS,
        *(f"train {name}" for name in AGENTS),
        *(f"study {name}" for name in STUDIES),
        *(f"{command} --planner {name}" for command in ("mpc", "train pets") for name in KINDS),
        "train pets --env Hopper-v5",
        "tree --env CartPole-v1",
        "mpc --env panda-push",
    ],
)
def test_help_says_what_takes_effect_where_an_option_is_not_given(line, capsys):
    text = helped(capsys, *line.split())
    said = defaults(capsys, *line.split())
    assert "--root" in said or line == "completion"
    said["by place"] = " ".join(re.findall(r"\(default: ?([^()]*)\)", text))
    for option, value in said.items():
        assert value and not re.search(r"\bNone\b|\bunset\b|planner's own", value), option
    assert "(default: )" not in text


@pytest.mark.parametrize("command", ["mpc", "train pets"])
@pytest.mark.parametrize("env", ["half-cheetah", "cartpole-swingup", "wet-chicken"])
@pytest.mark.parametrize("name", KINDS)
def test_help_gives_the_settings_of_the_planner_that_is_built(command, env, name, capsys):
    args = [*command.split(), "--env", env, "--planner", name]
    said = {
        option.removeprefix("--planner.").replace("-", "_"): value
        for option, value in defaults(capsys, *args).items()
        if option.startswith("--planner.")
    }
    preset = (mpc_preset(env) or MPCConfig()) if command == "mpc" else None
    if preset is None:
        preset = pets.PRESETS[env][1].mpc if env in pets.PRESETS else pets.OTHERS[1].mpc
    built = preset.planner.named(name).build(torch.zeros(2), torch.ones(2))
    has = {*settings(name, KINDS[name], 3)} & {f.name for f in dataclasses.fields(PlannerConfig)}
    assert {*said} == {"name", "horizon", *has}
    assert said.pop("name") == name
    for setting, value in said.items():
        held = getattr(built, setting)
        assert value == ("one for each action" if held is None else str(held)), setting


def test_help_gives_the_discount_that_a_search_takes(capsys):
    for env in [*WORLDS, "CartPole-v1", "cartpole-swingup"]:
        game, _ = searched(SearchConfig(env, simulations=1, depth=1, rollouts=1))
        assert defaults(capsys, "tree", "--env", env)["--discount"] == str(game.discount)


def test_help_shows_the_values_in_effect(capsys):
    assert "Worker threads. (default: all cores)" in helped(capsys, "evaluate")
    assert defaults(capsys, "study")["--seeds"].startswith("that of the study")
    assert defaults(capsys, "study", "dyna")["--seeds"] == "30"
    assert defaults(capsys, "study", "dyna", "--fast")["--seeds"] == "2"
    train = helped(capsys, "train")
    assert "--resume" in train and "--steps" in train and "--planner NAME" in train
    assert "(default: 1000)" in train
    assert defaults(capsys, "mpc", "--env", "walker-run")["--planner.sigma"] == "0.3"


@pytest.mark.parametrize("command", ["mpc", "train pets"])
def test_a_setting_that_a_planner_lacks_is_said_with_those_it_has(command, capsys):
    args = [*command.split(), "--planner", "mppi", "--planner.elites", "5"]
    assert run(args) == 2
    assert capsys.readouterr().err == (
        "mbrl: --planner.elites: planner 'mppi' has no setting 'elites'; it has population, knots, "
        "interpolation, iterations, sigma, temperature, beta\n"
    )


def test_another_planner_keeps_the_presets_settings_that_it_has(tmp_path, capsys):
    path = tmp_path / "run"
    options = ["--steps", "2", "--threads", "1", "--run", str(path)]
    assert run(["train", "pets", "--planner", "mppi", "--planner.horizon=7", *options]) == 0
    planner = json.loads((path / "config.json").read_text())["agent"]["mpc"]["planner"]
    assert (planner["name"], planner["population"], planner["horizon"]) == ("mppi", 40, 7)
    assert planner["elites"] is None  # only iCEM has it


def test_a_script_completes_commands_options_and_names(tmp_path):
    script = subprocess.run([*COMMAND, "completion", "bash"], env=ENV, capture_output=True)
    assert script.returncode == 0
    (tmp_path / "mbrl.bash").write_bytes(script.stdout)

    def completed(*line):
        code = (
            'source mbrl.bash; COMP_WORDS=(mbrl "$@"); COMP_CWORD=$#; _mbrl; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", code, "bash", *line], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.split()

    assert set(COMMANDS) <= set(completed(""))
    assert completed("tr") == ["tree", "train"]
    assert completed("train", "pe") == ["pets"]
    assert completed("train", "pets", "--planner.h") == ["--planner.horizon"]
    assert completed("train", "pets", "--planner", "i") == ["icem", "ilqr"]
    assert completed("train", "pets", "--model.hi") == ["--model.hidden"]
    assert completed("train", "dhmbpo", "--model.fi") == ["--model.first-eps"]
    assert completed("mpc", "--env", "panda-p") == ["panda-push", "panda-pick"]
    assert set(STUDIES) <= set(completed("study", ""))
    assert set(BENCHES) <= set(completed("bench", ""))
    assert completed("mpc", "--no-vid") == ["--no-video"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package whose entry points name the parts of `tests/own_parts/parts.py`."""
    folder = tmp_path / "site" / "own_parts-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own_parts\nVersion: 1\n")
    groups = {
        "envs": {"slider": "parts:SLIDER", "half-cheetah": "parts:Drift"},
        "planners": {"bees": "parts:Bees"},
        "models": {"linear": "parts:Linear"},
        "agents": {"holder": "parts:make"},
    }
    lines = [
        f"[mbrl.{group}]\n" + "".join(f"{name} = {part}\n" for name, part in points.items())
        for group, points in groups.items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    sys.modules.pop("parts", None)  # which another file's tests may have imported
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(ROOT / "tests" / "own_parts")
    yield
    sys.modules.pop("parts", None)


@pytest.mark.parametrize(
    ("listing", "name", "part"),
    [
        ("envs", "slider", "parts:SLIDER"),
        ("planners", "bees", "parts:Bees"),
        ("models", "linear", "parts:Linear"),
        ("algorithms", "holder", "parts:make"),
    ],
)
def test_parts_of_installed_packages_are_listed_and_completed(listing, name, part, package, capsys):
    assert run(["list", listing]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if f" {name} " in line]
    assert len(rows) == 1 and f"{part}, of an installed package" in rows[0]
    assert run(["list", listing, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[listing]
    found = [row["name"] if isinstance(row, dict) else row for row in found]
    assert found.count(name) == 1 and found.count("half-cheetah") == (listing == "envs")
    option = {"algorithms": "train"}.get(listing, f"--{listing[:-1]}")
    assert name in words()[option]
    assert "parts" not in sys.modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_asks_for_the_options_of_installed_agents(shell, package, capsys):
    assert run(["completion", shell]) == 0
    assert "mbrl completion --agent holder" in capsys.readouterr().out
    assert "parts" not in sys.modules
    assert run(["completion", "--agent", "holder"]) == 0
    assert {"--tries", "--env", "--steps"} <= set(capsys.readouterr().out.split())
    assert run(["completion", "--agent", "holde"]) == 2
    assert "unknown algorithm 'holde': did you mean holder" in capsys.readouterr().err


def test_bash_completes_the_options_of_an_installed_agent(package, tmp_path, capsys):
    assert run(["completion", "bash"]) == 0
    (tmp_path / "mbrl.bash").write_text(capsys.readouterr().out)
    line = (
        f'mbrl() {{ "{sys.executable}" -m experiments.cli.command "$@"; }}; source mbrl.bash; '
        'COMP_WORDS=(mbrl train holder --tr); COMP_CWORD=3; _mbrl; echo "${COMPREPLY[@]}"'
    )
    folders = f"{ROOT}:{tmp_path / 'site'}:{ROOT / 'tests' / 'own_parts'}"
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | {"PYTHONPATH": folders}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("--tries\n", "")


def test_parts_of_installed_packages_are_used_by_their_names(package, tmp_path, capsys):
    root = ["--root", str(tmp_path / "runs"), "--json"]
    steps = ["--steps", "40", "--random-steps", "30", "--particles", "1"]
    line = ["train", "pets", "--model", "linear", "--model.ridge", "0.5", "--planner", "bees"]
    assert run([*line, *steps, *root]) == 0
    config = json.loads((Path(json.loads(capsys.readouterr().out)["run"]) / CONFIG).read_text())
    model = config["agent"]["model"]
    assert (model["name"], model["settings"]) == ("linear", {"ridge": 0.5})
    assert config["agent"]["mpc"]["planner"]["name"] == "bees"
    drive = ["mpc", "--model", "linear", "--model.ridge", "0.5", "--steps", "2"]
    assert run([*drive, *root]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 1
    assert run(["train", "holder", "--steps", "30", *root]) == 0
    begun = json.loads(capsys.readouterr().out)["run"]
    assert run(["list", "runs", *root]) == 0
    assert begun in [row["run"] for row in json.loads(capsys.readouterr().out)["runs"]]
    assert run(["train", "pets", "--model", "lineal"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mbrl: unknown model 'lineal': ") and "there are ensemble, " in said


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completions_for_other_shells_offer_the_same_words(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    for key, each in words().items():
        for word in (*key.split(), *each):
            assert word.removeprefix("--") in script


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "completion"])
def test_completed_options_are_those_of_the_help_text(command, capsys):
    given = re.findall(r"--[a-z][a-z.-]*[a-z](?![a-z.])", helped(capsys, command))
    offered = {word for word in words()[command] if word.startswith("--")}
    if command == "mpc":  # each planner's help has its own settings
        for name in KINDS:
            given += defaults(capsys, command, "--planner", name)
    assert offered <= {*given, "--planner"} and set(given) - {"--help"} <= {
        *offered, "--env", "--planner", "--model", "--video", "--delay", "--objective",
        "--asynchronous",
    }  # fmt: skip


@pytest.mark.parametrize("coding", ["ascii", "latin-1"])
@pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["mpc", "--help"], ["tree", "-h"]])
def test_terminals_of_few_characters_get_readable_text(coding, args, tmp_path):
    env = ENV | {"PYTHONIOENCODING": coding}
    done = subprocess.run([*COMMAND, *args], env=env, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = (done.stdout + done.stderr).decode(coding)
    assert "?" not in text.replace("?.", "") and "\\u" not in done.stderr.decode(coding)


def test_characters_that_cannot_be_encoded_get_readable_substitutes():
    assert readable("cvar:α → ≥ 2 × μ…") == "cvar:alpha -> >= 2 x mu..."
    assert readable("│─┌┼é") == "|-++e"
    assert readable("日") == "?"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [["list"], ["list", "planners", "--json"], ["mpc", "--help"]])
def test_a_closed_pipe_ends_the_command_silently(args, unbuffered, tmp_path):
    child = subprocess.Popen(
        [*COMMAND, *args], env=ENV | {"PYTHONUNBUFFERED": unbuffered}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout and child.stderr
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait() == 141
    child.stderr.close()


@pytest.mark.parametrize("args", ["--help", "--version", "list --json", "list", "tree --help"])
@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_output_that_cannot_be_written_ends_in_one_line(args, target, tmp_path):
    line = f'"{sys.executable}" -m experiments.cli.command {args} >{target}'
    done = subprocess.run(
        ["bash", "-c", line], env=ENV, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mbrl: ") and done.stderr.count("\n") == 1
    quiet = subprocess.run(["bash", "-c", f"{line} 2>&-"], env=ENV, cwd=tmp_path)
    assert quiet.returncode == 2


LOADING = """
import os, signal, sys
from experiments.cli.command import main

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == WHERE:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
sys.argv[1:] = ["mpc", "--steps", "2", "--out", "d"]
main()
"""


@pytest.mark.parametrize(
    "module", ["tyro", "torch", "torch._ops", "numpy", "numpy.linalg", "mujoco", "matplotlib"]
)
def test_ctrl_c_during_loading_ends_in_one_line(module, tmp_path):
    code = LOADING.replace("WHERE", repr(module))
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENV, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "mbrl: interrupted"
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["exp[lr=1]", "exp[/lr]", "[bold]x", "a" * 150])
@pytest.mark.filterwarnings("error")
def test_paths_are_printed_as_they_are(name, tmp_path, capsys, monkeypatch):
    """And a long label leaves room for the axes, or else there is a warning."""
    monkeypatch.chdir(tmp_path)
    assert run(["train", "random", "--steps", "150", "--run", f"runs/{name}", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["run"] == f"runs/{name}" and f"run runs/{name}\n" in err
    assert run(["list", "runs"]) == 0
    assert f"runs/{name} " in capsys.readouterr().out
    assert run(["evaluate", f"runs/{name}", "--episodes", "1"]) == 0
    assert run(["compare", f"runs/{name}", "--label", name, "--out", f"{name[:50]}.png"]) == 0
    out, err = capsys.readouterr()
    assert f"{name} " in out and f"figure {name[:50]}.png\n" in err


def test_names_of_folders_have_no_slash_and_no_colon(tmp_path, monkeypatch):
    assert file_name("my_module:ALE/Pong-v5") == "my_module-ALE-Pong-v5"
    assert re.search(r"[:/]", file_name("a:b\\c/d")) is None


@pytest.mark.parametrize("model", [*MODELS])
@pytest.mark.parametrize("algo", ["pets", "dhmbpo"])
def test_a_run_has_the_kind_of_model_that_is_asked_for(algo, model, tmp_path):
    """Also with options of its own, and after it is read again."""
    line = f"train {algo} --env Pendulum-v1 --model {model} --steps 2 --threads 1 --run"
    path = tmp_path / "run"
    own = {field.name: field for field in dataclasses.fields(MODELS[model])}
    option = next(name for name in reversed(own) if isinstance(own[name].default, float))
    also = ["--model.samples", "1"] if model == "conditional-vae" else []  # which free_bits needs
    chosen = [f"--model.{option.replace('_', '-')}", "0.03", *also]
    assert run([*line.split(), str(path), *chosen]) == 0
    written = json.loads((path / "config.json").read_text())["agent"]["model"]
    assert written.keys() == own.keys() and written[option] == 0.03
    assert type(RunConfig.of(Run.open(path)).agent.model) is MODELS[model]


@pytest.mark.parametrize(
    ("algo", "kind"),
    [("mbpo", "ensemble"), ("dhmbpo", "normed-ensemble"), ("svg", "normed-ensemble")],
)
def test_a_run_has_the_presets_kind_of_model(algo, kind, tmp_path):
    path = tmp_path / "run"
    line = f"train {algo} --env Pendulum-v1 --steps 2 --threads 1 --run {path}"
    assert run(line.split()) == 0
    assert type(RunConfig.of(Run.open(path)).agent.model) is MODELS[kind]

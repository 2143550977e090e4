"""The page of each algorithm explains the numbers that it logs, and no others."""

import re
from pathlib import Path

import pytest

from experiments.cli.command import run
from mbrl.agents import AGENTS
from mbrl.training.metrics import METRICS, read_metrics

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
ROLLOUT = "--env CartPole-v1 --num-envs 1 --steps 128 --rollout 64"
REPLAY = "--steps 120 --learning-starts 60 --log-every 30 --batch 8 --hidden 8"
MODEL = (
    "--steps 120 --learning-starts 40 --fit-every 40 --log-every 40 --batch 8 --updates 1 "
    "--model.hidden 8 --model.epochs 2"
)
BURST = f"{MODEL} --starts 50"
RUNS = {
    "a2c": [ROLLOUT],
    "actor-critic": [ROLLOUT],
    "ddpg": [f"--env Pendulum-v1 {REPLAY}"],
    "dqn": [f"--env Acrobot-v1 {REPLAY}"],
    "dhmbpo": [
        "--env Pendulum-v1 --steps 120 --learning-starts 40 --fit-every 40 --updates 4 "
        "--critic-updates 2 --first 1 --visit-every 3 --visit-steps 3 --starts 10 --batch 8 "
        "--hidden 8 --model.hidden 8 --model.epochs 2"
    ],
    "dyna": [
        f"--env CartPole-v1 {BURST} --base dqn --dqn.hidden 8 --trust macura",
        f"--env Pendulum-v1 {BURST} --sac.hidden 8 --trust infoprop",
    ],
    "dyna-q": ["--env chain --steps 50"],
    "latent-mbpo": [
        "--env Pendulum-v1 --steps 440 --random-steps 200 --fit-every 100 --sequences 4 "
        "--hidden 8 --batch 8 --updates 1 --first-updates 3 --model.hidden 8 --model.width 8 "
        "--model.deterministic 8 --model.latent 2 --model.batch 4 --model.length 8 "
        "--model.updates 3"
    ],
    "latent-pets": [
        "--env Pendulum-v1 --steps 600 --random-steps 200 --model.hidden 8 --model.width 8 "
        "--model.deterministic 8 --model.latent 2 --model.batch 4 --model.length 8 "
        "--model.updates 3 --planner.population 8 --planner.elites 2 --planner.iterations 2 "
        "--planner.horizon 3"
    ],
    "mbpo": [f"--env Pendulum-v1 {BURST} --hidden 8"],
    "mb-pg": [
        "--env Pendulum-v1 --steps 400 --fit-every 200 --rounds 2 --validation 0.7 "
        "--validate-every 1 --model.hidden 8 --model.epochs 2"
    ],
    "mve": [f"--env Pendulum-v1 {MODEL} --td3.hidden 8{more}" for more in ("", " --steve")],
    "off-policy-actor-critic": [f"--env CartPole-v1 {REPLAY}"],
    "pets": [
        "--env cartpole-swingup --steps 300 --random-steps 150 --model.epochs 2 --model.hidden 8 "
        "--planner.population 4 --planner.elites 2 --planner.iterations 1 --planner.horizon 3"
    ],
    "ppo": [ROLLOUT, f"{ROLLOUT} --objective both"],
    "random": ["--env CartPole-v1 --steps 200"],
    "reinforce": ["--env CartPole-v1 --steps 300 --episodes 2 --baseline value"],
    "sac": [f"--env Pendulum-v1 {REPLAY}"],
    "sac-ae": [
        f"--env Pendulum-v1 {REPLAY} --training {training} --pretrain 2 --n-step 1 "
        f"--representation {kind} "
        f"--{kind}.hidden 8 --{kind}.latent 3"
        for training in ("joint", "frozen")
        for kind in ("autoencoder", "vae", "contrastive", "self-prediction")
    ],
    "svg": [f"--env Pendulum-v1 {MODEL} --hidden 8"],
    "tabular": ["--env frozen-lake --steps 300"],
    "td3": [f"--env Pendulum-v1 {REPLAY}"],
    "tdmpc": [
        f"{env} --steps 160 --random-steps 20 --first-updates 1 --train-every 20 --batch 8 "
        "--hidden 8 --latent 8 --encoder-hidden 8 --log-every 50 --plan.planner.population 4 "
        "--plan.planner.elites 2 --plan.planner.iterations 1 --plan.proposals 1"
        for env in ("--env panda-reach", "--env MountainCarContinuous-v0")
    ],
    "trpo": [ROLLOUT],
}
"""Short runs that together log every number of the algorithm."""


def explained(algo):
    """The names in the tables of a page's section on what it logs, or of the page it refers to."""
    page = (PAGES / f"{algo}.md").read_text()
    if "## What it logs" not in page:
        (other,) = re.findall(r"\((\w+)\.md#what-it-logs\)", page)
        return explained(other)
    cells = re.findall(r"^\| (`.*?) \|", section(algo), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w]+)`", cell)}


def section(algo):
    """A page's section on what it logs."""
    page = (PAGES / f"{algo}.md").read_text()
    return page.split("## What it logs")[1].split("\n## ")[0] if "## What it logs" in page else ""


def elsewhere(algo):
    """The names that the pages explain to which the section refers."""
    others = set(re.findall(r"\(([\w-]+)\.md#what-it-logs\)", section(algo)))
    return {name for other in others for name in explained(other)}


def test_every_algorithm_has_runs_here():
    assert set(RUNS) == set(AGENTS)


@pytest.mark.parametrize("algo", RUNS)
def test_a_page_explains_what_its_algorithm_logs(algo, tmp_path, capsys):
    logged = set()
    for k, options in enumerate(RUNS[algo]):
        path = tmp_path / f"{k}"
        assert run(["train", algo, "--run", str(path), *options.split()]) == 0, capsys.readouterr()
        for line in read_metrics(path / METRICS):
            logged |= {re.sub(r"_\d+$", "_N", name) for name in line}
    own, everywhere = explained(algo), explained("random") | {"kind"}
    assert own - everywhere <= logged
    assert logged - everywhere <= own | elsewhere(algo)

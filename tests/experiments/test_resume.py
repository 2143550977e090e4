"""A run that is killed and resumed gives the same numbers as one that is not killed."""

import json
import subprocess
import sys

# One process imports everything and forks its children, so that they need not import. It trains a
# config to its end, then again while it kills each attempt, and prints what it did.
DRIVER = """
import json, os, random, shutil, signal, sys, threading, time, traceback
from pathlib import Path

import torch
import torch._dynamo  # an optimiser does, and each child would take seconds over it

import envs
from mbrl.training import checkpoint
from mbrl.training.run_config import RunConfig
from mbrl.training.runs import train_run
from mbrl.agents import MPCConfig, PlannerConfig
from mbrl.agents.pets import Config
from mbrl.dynamics import Ensemble, EnsembleConfig
from mbrl.training.metrics import MetricsLog

torch.set_num_threads(1)
root, draw = Path(sys.argv[1]), random.Random(0)
agent = Config(
    mpc=MPCConfig(PlannerConfig(horizon=3, population=8, iterations=1, elites=3), particles=2),
    model=EnsembleConfig(members=2, hidden=(16,), epochs=3, batch=64),
    random_steps=60, fit_every=50,
)
config = RunConfig("pets", "cartpole-swingup-noisy", 3, 330, "cpu", agent)

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def arm(place):
    '''Have this process kill itself at a moment that chance would seldom find.'''
    if place == "half of a save":
        def write(path, contents):
            path.write_bytes(contents[: len(contents) // 2])
            kill()
        checkpoint._write = write
    elif place == "between files and rename":
        rename = Path.rename
        Path.rename = lambda *args: kill()
    elif place == "after the rename":
        rename = Path.rename
        def renamed(*args):
            rename(*args)
            kill()
        Path.rename = renamed
    elif place == "within a fit":
        fit = Ensemble.fit
        def slow(*args, **kwargs):
            threading.Timer(0.003, kill).start()
            return fit(*args, **kwargs)
        Ensemble.fit = slow
    elif place == "half of a line":
        def write(log, *args):
            log._file.write(b'{"kind": "epis')
            log._file.flush()
            kill()
        MetricsLog.write = write

def attempt(path, *, steps=None, place=None):
    '''Run or go on. Killed from outside `steps` environment steps later, at some moment of the one
    that follows: the child tells of each step, so that no clock says when and load moves nothing.
    '''
    if path.exists() and not (path / "config.json").exists():
        shutil.rmtree(path)  # killed before there was a run
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        os.close(heard)
        try:
            arm(place)
            train_run(config, path, make_env=envs.make, resume=path.exists(), checkpoint_every=7,
                      callback=lambda _: os.write(told, b"."))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(told)
    left, before, last = steps, time.perf_counter(), time.perf_counter()
    while left and os.read(heard, 1):
        left, before, last = left - 1, last, time.perf_counter()
    if left == 0:
        time.sleep(draw.random() * (last - before))
        os.kill(child, signal.SIGKILL)
    while left is None and os.read(heard, 4096):
        pass
    status = os.waitpid(child, 0)[1]
    os.close(heard)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("an attempt failed")
    return os.WIFSIGNALED(status)

assert not attempt(root / "whole")
killed = []
places = ["half of a line", "half of a save", "within a fit", "between files and rename",
          "after the rename"]
for place in places:
    # some way on, until chance strikes, and then to the place; 330 steps are enough for them all
    for how in ({"steps": draw.randint(0, 30)}, {"place": place}):
        assert attempt(root / "killed", **how), (killed, how)
    killed += ["at random", place]
while attempt(root / "killed", steps=draw.randint(0, 30) if len(killed) < 14 else None):
    killed.append("at random")
print(json.dumps(killed))
"""


def test_killed_runs_end_with_the_same_metrics_to_the_byte(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path)], capture_output=True, text=True, timeout=240
    )
    assert out.returncode == 0, out.stderr[-2000:]
    killed = json.loads(out.stdout.splitlines()[-1])
    assert len(set(killed)) == 6 and killed.count("at random") >= 5, killed
    whole, resumed = (tmp_path / name / "metrics.jsonl" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [line["env_steps"] for line in lines if line["kind"] == "episode"] == [150, 300]
    assert sum("model_loss" in line for line in lines) >= 5
    assert sum(line.get("plans", 0) for line in lines) >= 150

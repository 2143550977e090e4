# ruff: noqa: E501
"""Environments, planners, models and agents of a user that break their contracts."""

from __future__ import annotations

from tests.bad_inputs.case import SMALL_SEARCH, Cases
from tests.bad_inputs.changes import write

CASES = Cases()
add = CASES.add
PARTS = """
import gymnasium, numpy as np, torch, envs, planners
from dataclasses import dataclass

NUMBER = 3

class World(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.first(), {}
    def first(self):
        return np.zeros(2, np.float32)
    def step(self, action):
        self.t += 1
        if self.t < 3:
            return np.zeros(2, np.float32), 0.0, False, False, {}
        return self.answer()
    def answer(self):
        return np.zeros(2, np.float32), 0.0, False, self.t >= 20, {}

O = np.zeros(2, np.float32)
ANSWERS = {
    "ObsNone": (None, 0.0, False, False, {}), "ObsText": ("x", 0.0, False, False, {}),
    "ObsDict": ({"a": 1}, 0.0, False, False, {}), "ObsShape": (np.zeros(3, np.float32), 0.0, False, False, {}),
    "ObsScalar": (1.0, 0.0, False, False, {}), "ObsNaN": (O * np.nan, 0.0, False, False, {}),
    "ObsInf": (O + np.inf, 0.0, False, False, {}), "ObsComplex": (O + 1j, 0.0, False, False, {}),
    "RewardNone": (O, None, False, False, {}), "RewardText": (O, "1", False, False, {}),
    "RewardNaN": (O, float("nan"), False, False, {}), "RewardInf": (O, float("inf"), False, False, {}),
    "RewardShape": (O, np.zeros(1), False, False, {}), "RewardTwo": (O, np.zeros(2), False, False, {}),
    "RewardDict": (O, {}, False, False, {}),
    "EndNone": (O, 0.0, None, False, {}), "EndNaN": (O, 0.0, float("nan"), False, {}),
    "EndText": (O, 0.0, "no", False, {}), "CutNone": (O, 0.0, False, None, {}),
    "CutShape": (O, 0.0, False, np.zeros(2, bool), {}), "EndTwo": (O, 0.0, 2, False, {}),
    "Four": (O, 0.0, False, {}), "Six": (O, 0.0, False, False, {}, 1), "Nothing": None, "InfoNone": (O, 0.0, False, False, 3),
}
for _name, _answer in ANSWERS.items():
    globals()[_name] = type(_name, (World,), {"answer": lambda self, a=_answer: a})
FIRSTS = {"FirstNone": None, "FirstText": "x", "FirstShape": np.zeros((2, 2), np.float32), "FirstNaN": O * np.nan}
for _name, _first in FIRSTS.items():
    globals()[_name] = type(_name, (World,), {"first": lambda self, a=_first: a})

class StepRaises(World):
    def answer(self): raise KeyError("engine\\nfailed \\x1b[31m")
class ResetRaises(World):
    def first(self): raise RuntimeError("no start")
class ResetAlone(World):
    def reset(self, *, seed=None, options=None): return np.zeros(2, np.float32)
class InitRaises(World):
    def __init__(self, **kwargs): raise OSError("no engine")
class NeedsMore(World):
    def __init__(self, file): pass
class NoSpaces(gymnasium.Env): pass
class Text(World):
    observation_space = gymnasium.spaces.Text(4)
class Dicts(World):
    observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Sequence(World.observation_space)})
class Unbounded(World):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
class Integers(World):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.int64)
class TwoRows(World):
    action_space = gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)
class Multi(World):
    action_space = gymnasium.spaces.MultiBinary(3)
def nothing(): return None
def unannotated(): return World()
def world() -> gymnasium.Env: return None
def raising() -> gymnasium.Env: raise ValueError("no world")

@dataclass
class Planner:
    low: torch.Tensor
    high: torch.Tensor
    horizon: int
    maximises = "score"
    def answer(self, actions): return actions
    def plan(self, score, start, *, generator, deadline=None):
        a = self.answer(((self.low + self.high) / 2).expand(self.horizon, -1))
        return planners.Plan(a, torch.zeros(()), a, torch.ones_like(a), a[None], 1, 0, 1)
    def shift(self, plan, steps): return plan

class PlanNone(Planner):
    def plan(self, score, start, *, generator, deadline=None): return None
class PlanShape(Planner):
    def answer(self, a): return a[:-1]
class PlanNaN(Planner):
    def answer(self, a): return a * float("nan")
class PlanOutside(Planner):
    def answer(self, a): return a + 1e3
class PlanRaises(Planner):
    def answer(self, a): raise KeyError("bees\\nfled")
class PlanText(Planner):
    def answer(self, a): return "left"
class PlanFew(Planner):
    def plan(self, score): return None
class PlanInit(Planner):
    def __init__(self, low, high, horizon): raise ValueError("no hive")
class PlanNeeds(Planner):
    def __init__(self, low, high, horizon, bees): pass
class PlanNoArguments:
    def __init__(self): pass
    def plan(self, score, start, *, generator, deadline=None): return None
class NoPlan:
    def __init__(self, low, high, horizon): pass
class PlanNumber(Planner):
    plan = 3

class Model:
    members = 1
    noise_shape = (0,)
    def __init__(self, obs_size, action_size, *, generator=None): self.size = obs_size
    def encode(self, obs, *, state=None, action=None): return obs
    def decode(self, state): return state
    def step(self, state, action, *, noise):
        from mbrl.types import Step
        z = state[..., 0] * 0
        return Step(self.answer(state), z, torch.zeros_like(z, dtype=torch.bool))
    def answer(self, state): return state
class ModelNone(Model):
    def step(self, state, action, *, noise): return None
class ModelShape(Model):
    def answer(self, state): return state[..., :1]
class ModelNaN(Model):
    def answer(self, state): return state * float("nan")
class ModelRaises(Model):
    def answer(self, state): raise KeyError("model\\nfailed")
class ModelMembers(Model):
    members = 0
class ModelNoise(Model):
    noise_shape = 3
class ModelInit(Model):
    def __init__(self, obs_size, action_size, *, generator=None): raise ValueError("no data")
class ModelNeeds(Model):
    def __init__(self, obs_size, action_size, file): pass
class ModelEncode(Model):
    def encode(self, obs, *, state=None, action=None): return obs[..., :1].int()
class NoStep:
    members, noise_shape = 1, (0,)
    def __init__(self, obs_size, action_size): pass
"""
AGENTS = {
    "noconfig": "def make(spec, config, *, generator, device='cpu'): return None\n",
    "nomake": "class Config: pass\n",
    "notclass": "Config = 3\ndef make(spec, config, *, generator, device='cpu'): return None\n",
}
AGENT = """
from dataclasses import dataclass
import numpy as np
@dataclass(frozen=True)
class Config:
    @classmethod
    def suited(cls, spec): return cls()
class Agent:
    def act(self, obs, *, explore): {act}
    def observe(self, step): {observe}
    def update(self): {update}
    def player(self, *, generator): return self
    def reset(self, begins): pass
    def state_dict(self): {state}
    def load_state_dict(self, state): pass
def make(spec, config, *, generator, device="cpu"): {make}
"""
SOUND = {
    "act": "return np.zeros((len(obs), 1), np.float32)", "observe": "pass", "update": "return {}",
    "state": "return {}", "make": "return Agent()",
}  # fmt: skip
FAULTS = {
    "act None": {"act": "return None"},
    "act shape": {"act": "return np.zeros((7, 3))"},
    "act NaN": {"act": "return np.full((len(obs), 1), np.nan)"},
    "act text": {"act": "return 'left'"},
    "act raises": {"act": "raise KeyError('act')"},
    "observe raises": {"observe": "raise RuntimeError('observe')"},
    "update raises": {"update": "raise TypeError('update')"},
    "update None": {"update": "return None"},
    "state a class": {"state": "return {'x': Agent}"},
    "state None": {"state": "return None"},
    "make None": {"make": "return None"},
    "make raises": {"make": "raise ValueError('no agent')"},
}
IMPORTS = {
    "fails": "raise KeyError('x\\ny')", "syntax": "def", "exits": "raise SystemExit(0)",
    "missing": "import no_such_package", "itself": "import itself_not\n", "nulls": "\0",
    "escapes": "raise RuntimeError('\\x1b[31mred')", "bytes": "\xff\xfe",
}  # fmt: skip
WORLDS = [
    *["ObsNone", "ObsText", "ObsDict", "ObsShape", "ObsScalar", "ObsNaN", "ObsInf", "ObsComplex", "RewardNone", "RewardText", "RewardNaN", "RewardInf", "RewardTwo", "RewardShape", "RewardDict", "EndNone", "EndNaN", "EndText", "CutNone", "CutShape", "EndTwo", "Four", "Six", "Nothing", "InfoNone", "FirstNone", "FirstText", "FirstShape", "FirstNaN", "StepRaises", "ResetRaises", "ResetAlone"],
]  # fmt: skip
SPACES = ("Text", "Dicts", "Unbounded", "Integers", "TwoRows", "Multi")
PART = write("part.py", PARTS)
for name in WORLDS:
    add(f"world {name}: train", ["train", "random", "--env", f"part:{name}", "--steps=30", "--run=new"],
        "" if name.startswith("Reset") else "step" if not name.startswith("First") else "", PART,
        writes=("new",), progress=True)  # fmt: skip
for name in ["InitRaises", "NeedsMore", "NoSpaces", "Text", "Dicts", "Unbounded", "Integers", "TwoRows", "Multi", "nothing", "unannotated", "world", "raising", "NUMBER", "Missing", "Planner", "_x"]:  # fmt: skip
    add(f"world {name}: train", ["train", "pets", "--env", f"part:{name}", "--steps=30", "--run=new"],
        "needs" if name in SPACES else "part", PART)  # fmt: skip
    if name in ("InitRaises", "NUMBER", "nothing", "Missing", "World"):
        add(f"world {name}: mpc", ["mpc", "--env", f"part:{name}", "--steps=1"], "part", PART)
        add(f"world {name}: tree", ["tree", "--env", f"part:{name}"], "part", PART)
add("a world without physics: mpc", "mpc --env part:World --steps 1", "part:World", PART)
add("a world without physics: tree", "tree --env part:World", "part:World", PART)
for name in ["PlanNone", "PlanShape", "PlanNaN", "PlanOutside", "PlanRaises", "PlanText", "PlanFew", "PlanInit", "PlanNeeds", "PlanNoArguments", "NoPlan", "PlanNumber", "NUMBER", "Missing", "nothing"]:  # fmt: skip
    add(f"planner {name}: mpc", ["mpc", "--planner", f"part:{name}", "--steps=2"], name, PART)
    if name in ("PlanNone", "PlanShape", "NoPlan", "Missing", "PlanInit"):
        add(f"planner {name}: train", ["train", "pets", "--planner", f"part:{name}", "--steps=30"],
            name, PART)  # fmt: skip
for name in ["ModelNone", "ModelShape", "ModelNaN", "ModelRaises", "ModelMembers", "ModelNoise", "ModelInit", "ModelNeeds", "ModelEncode", "NoStep", "NUMBER", "Missing", "nothing"]:  # fmt: skip
    add(
        f"model {name}: mpc",
        ["mpc", "--env=pendulum-swingup", "--model", f"part:{name}", "--steps=2", *SMALL_SEARCH],
        name,
        PART,
    )
    add(f"model {name}: train",
        ["train", "pets", "--env=pendulum-swingup", "--model", f"part:{name}", "--steps=30"], name,
        PART)  # fmt: skip
for name in ("part:", ":Bees", ".part:Bees", "part:Bees.x", "part:a b", "part:\x1b", "a/b:C", "::"):
    add(f"planner {name!r}", ["mpc", f"--planner={name}", "--steps=1"], "planner", PART)
    add(f"model {name!r}", ["mpc", f"--model={name}", "--steps=1"], "model", PART)
    add(f"agent {name!r}", ["train", name, "--steps=1"], "agent", PART)
for name, source in AGENTS.items():
    add(f"agent {name}", ["train", f"{name}:make", "--steps=5"], name, write(f"{name}.py", source))
for name, fault in FAULTS.items():
    add(
        f"agent {name}",
        ["train", "agent:make", "--env=pendulum-swingup", "--steps=5", "--run=new"],
        "",
        write("agent.py", AGENT.format(**{**SOUND, **fault})),
        writes=("new",),
        progress=True,
    )
for name, source in IMPORTS.items():
    prepare = write(f"{name}.py", source.encode("latin-1"))
    add(f"import {name}: --module", ["list", "envs", "--module", name], name, prepare)
    add(
        f"import {name}: --env", ["train", "pets", "--env", f"{name}:X", "--steps=9"], name, prepare
    )
    add(f"import {name}: --planner", ["mpc", "--planner", f"{name}:X", "--steps=1"], name, prepare)
    add(f"import {name}: --model", ["mpc", "--model", f"{name}:X", "--steps=1"], name, prepare)
    add(f"import {name}: agent", ["train", f"{name}:make", "--steps=1"], name, prepare)
add("a setting that the planner lacks", "mpc --planner part:Planner --planner.bees 3 --steps 1",
    "bees", PART)  # fmt: skip

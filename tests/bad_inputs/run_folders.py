"""Folders of runs that are damaged, changed or written by another program."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from pathlib import Path

from tests.bad_inputs.case import READERS, Cases
from tests.bad_inputs.changes import (
    all_of,
    append_metrics,
    at_checkpoint,
    cut,
    during,
    flip,
    link,
    locked,
    replace,
    set_config,
    set_state,
    set_weight,
    swap,
    write,
)

CASES = Cases()
add = CASES.add
BYTES = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"x"',
    "binary": bytes(range(256)),
    "truncated": b'{"algo": "pets", "env": ',
    "nested": b"[" * 10_000 + b"]" * 10_000,
    "nested objects": b'{"a":' * 10_000,
    "digits": b'{"algo": "pets", "seed": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"algo": "pets"}'.encode("utf-16"),
    "mark": b"\xef\xbb\xbf{}",
    "large": b" " * 2_000_000,
    "NaN": b'{"seed": NaN}',
    "twice": b"{}{}",
    "no field": b"{}",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
}
readers = itertools.cycle(READERS)
for name, data in BYTES.items():
    for reader in (next(readers), next(readers)):
        add(f"config {name}: {reader}", READERS[reader], "run/config.json",
            write("run/config.json", data))  # fmt: skip
FIELDS = {
    "algo": [["pets"], 3, None, "", "pest", "\x1b[31m", "x" * 9000, {"a": 1}, "evil:Agent", "mpc"],
    "env": [
        3,
        None,
        [],
        "",
        "no-such",
        "evil:X-v0",
        "\x1b[2J",
        "cartpole-swingup\n",
        "Pendulum-v1",
    ],
    "seed": ["0", 0.5, True, -1, None, 10**30, [1]],
    "steps": [0, -5, "x", 10**30, 1.5, None, False],
    "device": ["foo", "meta", "cuda:99", "", 3, None, "\x1b[31m"],
    "num_envs": [0, -1, 10**9, "1", None],
    "colour": [3],
    "agent": [[], None, 3, "x"],
    "agent__capacity": ["many", 0, -1, 10**30, 10**15, None, 1.5],
    "agent__no_such": [1],
    "agent__model": [[], None, 7, {"hidden": 8}],
    "agent__model__hidden": [8, [], [0], ["x"], [10**9, 10**9], [10**30], None],
    "agent__model__members": [0, -1, 10**9, "2"],
    "agent__model__learning_rate": [0, -1, "x", None],
    "agent__model__activation": ["", "rel", 3, "\x1b[31m"],
    "agent__model__weird": ["x"],
    "agent__mpc__particles": [0, -2, "x", 10**30],
    "agent__mpc__objective": ["cvar:", "", 3, "\x1b[31m"],
    "agent__mpc__planner": [None, [], "cem"],
    "agent__mpc__planner__name": ["evil:P", "", 3, "no", "\x1b[31m"],
    "agent__mpc__planner__horizon": [0, "x", 10**30, 10**9],
    "agent__mpc__propagation": ["x", None],
}
for name, values in FIELDS.items():
    for value in values:
        # compare needs neither the device nor the environment
        reader = next(r for r in readers if r != "compare" or name not in ("device", "env"))
        shown = str(value)[:12]
        add(
            f"config {name}={shown!r}: {reader}",
            READERS[reader],
            "run",
            set_config(**{name: value}),
        )

FILES = ("model.safetensors", "state.pt", "digests.json")
for name in FILES:
    for share in (0.0, 0.01, 0.3, 0.9, 1.0):
        reader = next(r for r in readers if r != "compare")
        add(
            f"bit {share} of {name}: {reader}",
            READERS[reader],
            "run/checkpoints",
            flip(name, share),
        )
    for share in (0.0, 0.5, 0.99):
        reader = next(r for r in readers if r != "compare")
        add(
            f"{name} cut at {share}: {reader}", READERS[reader], "run/checkpoints", cut(name, share)
        )
    reader = next(r for r in readers if r != "compare")
    add(f"{name} swapped: {reader}", READERS[reader], "run/checkpoints", swap(name))
    add(f"{name} missing: evaluate", READERS["evaluate"], name,
        at_checkpoint(lambda f, n=name: (f / n).unlink()))  # fmt: skip
    for kind, by in {
        "link": lambda p: Path(p).symlink_to(Path("file").absolute()),
        "folder": lambda p: Path(p).mkdir(),
        "pipe": os.mkfifo,
    }.items():
        add(f"{name} a {kind}: resume", READERS["resume"], name,
            at_checkpoint(lambda f, n=name, by=by: replace(str(f / n), by)()))  # fmt: skip
add("all files swapped: evaluate", READERS["evaluate"], "another run",
    all_of(*(swap(name) for name in FILES)))  # fmt: skip
add("all files swapped: resume", READERS["resume"], "another run",
    all_of(*(swap(name) for name in FILES)))  # fmt: skip
add("a file too many", READERS["evaluate"], "extra", at_checkpoint(
    lambda f: (f / "extra").write_text("x")))  # fmt: skip
add("checkpoint of another name", READERS["evaluate"], "another step", at_checkpoint(
    lambda f: f.rename(f.with_name("999"))))  # fmt: skip
for value in (math.nan, math.inf, -math.inf):
    for reader in ("evaluate", "plot", "audit", "resume", "mpc"):
        add(f"weights {value}: {reader}", READERS[reader], "not finite", set_weight(value))
STATES = {
    "agent/generator": [3, "x", None],
    "agent/fits": ["1", None, -1],
    "agent/model": [[], None, {}],
    "agent/replay": [None, {}],
    "agent/replay/written": ["170", -1, 10**30],
    "agent/playing/each": [{}, ["x"]],
    "episodes": [None, [], {}],
    "episodes/steps": ["170", -1, None],
    "log_bytes": ["5", -1, 10**9],
}
for place, values in STATES.items():
    for value in values:
        reader = "resume" if place[0] != "a" else next(r for r in readers if r != "compare")
        add(
            f"state {place}={value!r}: {reader}",
            READERS[reader],
            "does not fit",
            set_state(place, value),
        )
LINES = {
    "empty": b"", "blank": b"  ", "binary": b"\x00\xff\x80\x1b[31m", "null": b"null",
    "list": b"[1]", "half": b'{"kind": "episode", "env_st', "foreign": b'{"loss": 1}',
    "text for steps": b'{"kind": "episode", "env_steps": "1"}', "deep": b"[" * 20_000,
    "digits": b'{"kind": "episode", "env_steps": ' + b"9" * 5000 + b"}",
    "falling": b'{"kind": "episode", "env_steps": -1, "return": 1.0}',
}  # fmt: skip
for name, line in LINES.items():
    for reader in ("plot", "resume", "compare"):
        add(
            f"metrics {name}: {reader}",
            READERS[reader],
            "run/metrics.jsonl, line",
            append_metrics(line),
        )
for value in ("null", '"12"', "[1]", "NaN", "Infinity", "true", "{}"):
    line = f'{{"kind": "episode", "env_steps": 900, "return": {value}}}'.encode()
    for reader in ("plot", "compare"):
        add(
            f"return {value}: {reader}",
            READERS[reader],
            "run/metrics.jsonl, line",
            append_metrics(line),
        )
for name in ("metrics.jsonl", "timings.jsonl", ".lock", "config.json", "evaluation.json"):
    for reader in ("resume", "evaluate", "plot"):
        add(f"{name} a link: {reader}", READERS[reader], name, link(f"run/{name}"))
    add(f"{name} a folder: resume", READERS["resume"], name, replace(f"run/{name}", os.mkdir))
    add(f"{name} a pipe: resume", READERS["resume"], name, replace(f"run/{name}", os.mkfifo))
for name in ("metrics.jsonl", "timings.jsonl", ".lock"):
    add(f"{name} a hard link: resume", READERS["resume"], name, link(f"run/{name}", hard=True))
for name in ("checkpoints", "plots", "videos"):
    for reader in ("resume", "evaluate", "plot"):
        add(f"{name} a link: {reader}", READERS[reader], name, link(f"run/{name}", folder=True))
        add(f"{name} a file: {reader}", READERS[reader], name,
            replace(f"run/{name}", lambda p: Path(p).write_text("x")))  # fmt: skip
add("numbers.json a folder", READERS["plot"], "numbers.json",
    lambda: Path("run/plots/numbers.json").mkdir(parents=True))  # fmt: skip
add("no checkpoint: evaluate", READERS["evaluate"], "checkpoint",
    lambda: shutil.rmtree("run/checkpoints"))  # fmt: skip
add("no metrics: plot", READERS["plot"], "run", lambda: os.unlink("run/metrics.jsonl"))
add(
    "no metrics: resume", READERS["resume"], "metrics.jsonl", lambda: os.unlink("run/metrics.jsonl")
)
add("no metrics: compare", READERS["compare"], "run", lambda: os.unlink("run/metrics.jsonl"))
add("a run that is written: resume", READERS["resume"], "another process", during(locked))
EVIL = "from pathlib import Path\nPath('ran').write_text('evil')\n"
for reader, line in READERS.items():
    for field in ("env", "algo"):
        add(f"the config names a module as its {field}: {reader}", line, "evil",
            all_of(write("evil.py", EVIL), set_config(**{field: "evil:X"})))  # fmt: skip
add("the config names a planner's module: evaluate", READERS["evaluate"], "evil",
    all_of(write("evil.py", EVIL), set_config(agent__mpc__planner__name="evil:X")))  # fmt: skip
add("the config names a model's module: evaluate", READERS["evaluate"], "evil",
    all_of(write("evil.py", EVIL), set_config(agent__model={"name": "evil:X"})))  # fmt: skip

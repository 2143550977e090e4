"""What the system refuses: disk space, permissions, closed streams, encodings, interruptions."""

from __future__ import annotations

import itertools

from tests.bad_inputs.case import READERS, SMALL_SEARCH, Cases
from tests.bad_inputs.changes import during, limit, read_only

CASES = Cases()
add, shell = CASES.add, CASES.add_shell
for size in (0, 64, 4096):
    small = during(lambda s=size: limit(s))
    new = {"writes": ("new",), "progress": True}
    train = "train random --env pendulum-swingup --steps 400 --run new"
    mpc = ["mpc", "--steps=2", "--out=new", *SMALL_SEARCH]
    add(f"files of {size} bytes: train", train, "larger than a file may be", small, **new)
    add(f"files of {size} bytes: tree", "tree --simulations 20 --out new", "larger than", small,
        **new)  # fmt: skip
    add(f"files of {size} bytes: compare", "compare run --out c.png", "larger than", small,
        progress=True)  # fmt: skip
    add(f"files of {size} bytes: mpc", mpc, "larger than", small, **new)
for size in (0, 16):
    add(f"files of {size} bytes: evaluate", READERS["evaluate"], "larger than",
        during(lambda s=size: limit(s)), progress=True)  # fmt: skip
shut, run = during(lambda: read_only("shut")), during(lambda: read_only("run"))
train = "train random --env pendulum-swingup --steps 5 --run shut/new"
mpc = ["mpc", "--steps=1", "--out=shut/new", *SMALL_SEARCH]
add("read-only: train", train, "permission", shut)
add("read-only: tree", "tree --simulations 4 --out shut/new", "permission", shut)
add("read-only: mpc", mpc, "permission", shut, progress=True)
add("read-only: compare", "compare run --out shut/c.png", "shut", shut)
add("read-only: evaluate", READERS["evaluate"], "run", run)
add("read-only: plot", READERS["plot"], "run", run)
add("read-only: resume", READERS["resume"], "run", run)
add("read-only: study", "study dyna --fast --seeds 1 --out shut", "shut", shut)
add("read-only: bench", "bench collect --repeats 1 --out shut", "shut", shut)
for line in (
    "list", "tree --help", "list runs --json", "completion bash", "--version", "--help",
    "compare run",
):  # fmt: skip
    more = {"writes": ("results",), "progress": True}
    shell(f"stdout full: {line}", f"$mbrl {line} >/dev/full", "full", **more)
    shell(f"stdout closed: {line}", f"$mbrl {line} >&-", "closed", **more)
for line in ("list", "completion zsh", "list --json"):
    shell(f"reader gone: {line}", f"$mbrl {line} | true", status=(0,))
    shell(f"all closed: {line}", f"$mbrl {line} >&- 2>&-")
    shell(f"stderr closed: {line}", f"$mbrl {line} 2>&- >/dev/null", status=(0,))
for line in ("nosuch", "train nosuch", "evaluate gone", "mpc --seed=-1"):
    shell(f"stderr full: {line}", f"$mbrl {line} 2>/dev/full")
    shell(f"stderr closed: {line}", f"$mbrl {line} 2>&-")
for coding in ("ascii", "latin-1", "cp1252"):
    start = f"PYTHONIOENCODING={coding} $mbrl"
    shell(f"{coding}: list", f"{start} list >/dev/null", status=(0,))
    shell(f"{coding}: unknown", f"{start} μ→∞", "unknown command")
shell("no home", "env -u HOME $mbrl train pets --env x", "unknown environment")
shell("no locale", "LC_ALL=C PYTHONUTF8=0 $mbrl é", "unknown command")
shell("folder gone", "mkdir g && cd g && rmdir ../g && $mbrl train random --steps 5")
shell("bytes as a name", "$mbrl evaluate \"$(printf '\\377\\376')\"")
shell("bytes as a folder", "$mbrl train random --steps 5 --env \"$(printf '\\377')\"")
for after, line in itertools.product(
    ("0.5", "1", "2"), ("list", "mpc --steps 100000 --out new", "bench all")
):
    shell(
        f"Ctrl-C after {after} s: {line}",
        f"timeout -s INT {after} $mbrl {line} >/dev/null; "
        "s=$?; [ $s = 124 ] && exit 130 || exit $s",
        status=(0, 130),
        writes=("new",),
        progress=True,
    )

"""`mbrl completion`: a script by which a shell's Tab key completes commands, options and names."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from experiments.cli import names
from experiments.cli.audit import Auditing
from experiments.cli.bench import Measure
from experiments.cli.command import COMMANDS
from experiments.cli.compare import Compare
from experiments.cli.drive import DriveRobot
from experiments.cli.evaluate import Evaluate
from experiments.cli.listing import List
from experiments.cli.options import FLAT, config_of, parse, unset
from experiments.cli.plot import Plot
from experiments.cli.study import Study
from experiments.cli.train import Resume, train_of
from experiments.cli.tree import SearchTree
from mbrl.parts import installed


@dataclass(frozen=True)
class Completion:
    """Print a script for the Tab key: eval "$(mbrl completion bash)" in the shell's start file.

    zsh takes the same line with zsh for bash, and fish takes mbrl completion fish | source.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]] = "bash"
    """The shell."""
    agent: Annotated[str | None, unset("print a script")] = None
    """Print the options of mbrl train AGENT instead. A script asks for those of installed packages'
    agents when they are wanted, as their modules may take long to import."""


def run(args: list[str]) -> int:
    """Print the script; returns the exit status."""
    parsed = parse(Completion, "mbrl completion", args)
    if parsed.agent is not None:
        names.check_name("algorithm", parsed.agent, [*names.algorithms(), *installed("agent")])
        print(" ".join(training(parsed.agent)))
        return 0
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[parsed.shell](words()))
    return 0


def words() -> dict[str, list[str]]:
    """What may follow each command, such as "train pets", and each option that takes a name.

    The key "" has the commands; "--env" what may follow that option, whatever the command.
    """
    algorithms, listings = list(names.algorithms()), get_type_hints(List)["what"]
    environments = [row["name"] for rows in names.catalogue().values() for row in rows]
    environments += installed("env")
    planners = [*names.planners(), *installed("planner")]
    models = [*names.models(), *installed("model")]
    found = {
        "": [*COMMANDS, "--help", "--version"],
        "mpc": ["--planner", *_options(DriveRobot)],
        "tree": _options(SearchTree),
        "train": [*algorithms, *installed("agent"), *_options(Resume)],
        "evaluate": ["latest", *_options(Evaluate)],
        "plot": ["latest", *_options(Plot)],
        "audit": ["latest", *_options(Auditing)],
        "compare": _options(Compare),
        "study": [*names.studies(), *_options(Study)],
        "bench": ["all", *names.benchmarks(), *_options(Measure)],
        "list": [*get_args(listings), *_options(List)],
        "completion": list(get_args(get_type_hints(Completion)["shell"])),
    }
    found |= {f"train {name}": training(name) for name in algorithms}
    return found | {
        "--env": environments,
        "--planner": planners,
        "--planner.name": planners,
        "--model": models,
        "--resume": ["latest"],
    }


def training(name: str) -> list[str]:
    """Options of `mbrl train` with an agent, whose module is imported."""
    from mbrl.agents import agent

    options = _options(train_of(agent(name).Config))
    prefixes = {option.split(".")[0] for option in options}
    return [*(part for part in ("--planner", "--model") if part in prefixes), *options]


def _asked() -> list[str]:
    """Installed agents that are none of ours, whose options a script asks for."""
    return [name for name in installed("agent") if name not in names.algorithms()]


def _options(kind: Any, prefix: str = "") -> list[str]:
    """A dataclass's options, as `parse` takes them."""
    found = []
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], field.name.replace("_", "-")
        if get_origin(hint) is Mapping:
            continue  # settings of a part of the user's own
        factory = field.default_factory
        held = field.default if factory is dataclasses.MISSING else factory()
        config = config_of(hint, held)
        if dataclasses.is_dataclass(config):
            found += _options(config, prefix if field.name in FLAT else f"{prefix}{name}.")
        elif _PLACED not in getattr(hint, "__metadata__", ()):
            names = [name, f"no-{name}"] if hint is bool else [name]
            found += [f"--{prefix}{each}" for each in names]
    return found


_PLACED = get_args(tyro.conf.Positional[int])[1]
"""What marks a field that is given by its place, not by an option."""

_BASH = """\
_mbrl_words() {
  case "$1" in
%s
  esac
}
_mbrl() {
  local before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words=
  case "$before" in -*) words=$(_mbrl_words "$before") ;; esac
  if [ "$COMP_CWORD" -lt 2 ]; then
    words=$(_mbrl_words '')
  elif [ -z "$words" ] && [ "$COMP_CWORD" -gt 2 ]; then
    words=$(_mbrl_words "$command ${COMP_WORDS[2]}")
  fi
  [ -n "$words" ] || words=$(_mbrl_words "$command")
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _mbrl mbrl"""


def _bash(words: dict[str, list[str]]) -> str:
    cases = [
        f"    {shlex.quote(key)}) echo {shlex.quote(' '.join(each))} ;;"
        for key, each in words.items()
    ]
    cases += [
        f"    {shlex.quote(f'train {name}')}) mbrl completion --agent {shlex.quote(name)} "
        "2>/dev/null ;;"
        for name in _asked()
    ]
    return _BASH % "\n".join(cases)


def _zsh(words: dict[str, list[str]]) -> str:
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{_bash(words)}"


def _fish(words: dict[str, list[str]]) -> str:
    lines = []
    for key, each in words.items():
        if key.startswith("--"):
            lines.append(f"complete -c mbrl -l {key[2:]} -x -a {shlex.quote(' '.join(each))}")
            continue
        seen = [f"__fish_seen_subcommand_from {word}" for word in key.split()]
        where = shlex.quote("; and ".join(seen) or "__fish_use_subcommand")
        options = [word[2:] for word in each if word.startswith("--")]
        plain = shlex.quote(" ".join(word for word in each if not word.startswith("--")))
        lines += [f"complete -c mbrl -n {where} -l {option}" for option in options]
        lines += [f"complete -c mbrl -n {where} -a {plain}"]
    for name in _asked():
        where = f"__fish_seen_subcommand_from train; and __fish_seen_subcommand_from {name}"
        ask = f"(mbrl completion --agent {shlex.quote(name)} 2>/dev/null | string split ' ')"
        lines += [f"complete -c mbrl -n {shlex.quote(where)} -a {shlex.quote(ask)}"]
    return "\n".join(lines)

"""Checks of settings against their ranges, and of arrays against the free memory.

The annotation of a field gives its range, in the form that pydantic also reads:

    learning_rate: Annotated[float, Gt(0)] = 1e-3

`check_fields`, called from a dataclass's `__post_init__`, checks every field.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, GroupedMetadata, Gt, Interval, Le, Lt, MinLen

if TYPE_CHECKING:
    import torch

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Rounds = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Iterations of a loop that shows no progress: with more of them the program would seem to hang."""
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]

_INT_LIMIT = 2**63
"""The least positive integer that does not fit into the 64 bits of torch and numpy."""

_MAX_SHOWN = 60
"""Maximum number of characters of a wrong value in a message."""

_UNCHECKED = 2**26
"""Smaller sizes, in bytes, are accepted without reading the free memory: 64 MiB."""


class _Accepted(NamedTuple):
    """The values that an annotation accepts, as a function and in words."""

    accepts: Callable[[Any], bool]
    words: str


def require(holds: bool, message: str) -> None:
    """Raise ValueError with `message` unless `holds`; comparisons with NaN are False."""
    if not holds:
        raise ValueError(message)


def check_fields(config: Any) -> None:
    """Check every field of a dataclass against its annotation.

    Numbers must be of their type (a bool is not a number, an integer is also a float), finite,
    below 2**63 and in the range that `annotated_types` give. A `Literal` must be one of its values,
    and None is accepted only if the annotation includes it. Fields of other types, such as
    functions and protocols, are not checked.

    Raises:
        ValueError: for the first wrong field: "learning_rate must be finite and > 0, got nan".
    """
    for name, accepted in _fields(type(config)):
        value = getattr(config, name)
        if not accepted.accepts(value):
            raise ValueError(f"{name} must be {accepted.words}{_bits(value)}, got {shown(value)}")


def first_refused(kind: type, given: Any, place: str = "") -> str | None:
    """The error that `check_fields` would raise for a config that is given as plain values.

    Args:
        kind: the config's dataclass.
        given: its fields by name, as read from JSON; missing ones are not checked.
        place: name of the config within the whole that was read.

    Returns:
        "model.learning_rate must be finite and > 0, got nan"; None if every field is accepted.
    """
    if not isinstance(given, Mapping):
        return f"{place or 'the config'} must be an object, got {shown(given)}"
    hints = get_type_hints(kind)
    accepted = dict(_fields(kind))
    for field in dataclasses.fields(kind):
        if field.name not in given:
            continue
        value, name = given[field.name], f"{place}.{field.name}".lstrip(".")
        value = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
        hint = _config_of(hints[field.name], value)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            said = first_refused(hint, value, name)
            if said is not None:
                return said
        elif field.name in accepted and not accepted[field.name].accepts(value):
            words = f"{accepted[field.name].words}{_bits(value)}"
            return f"{name} must be {words}, got {shown(value)}"
    return None


def _config_of(hint: Any, value: Any) -> Any:
    """The annotation; of several configs, the one that shares the most names with `value`."""
    configs = [each for each in get_args(hint) if dataclasses.is_dataclass(each)]
    if not configs or not isinstance(value, Mapping):
        return hint
    return max(configs, key=lambda c: len({f.name for f in dataclasses.fields(c)} & {*value}))


def _bits(value: Any) -> str:
    """An addition to the message for integers that need more than 64 bits."""
    return " and of 64 bits" if isinstance(value, int) and abs(value) >= _INT_LIMIT else ""


def shown(value: Any) -> str:
    """A value for a message: its repr, shortened if it is long."""
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return f"a number of about {round(value.bit_length() * math.log10(2)):,} digits"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


@cache
def _fields(kind: type) -> tuple[tuple[str, _Accepted], ...]:
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        try:
            hints |= get_type_hints(base, include_extras=True)
        except NameError:  # a user's class may import some annotations for type checkers only
            continue
    found = ((f.name, _accepted(hints.get(f.name, Any))) for f in dataclasses.fields(kind))
    return tuple((name, accepted) for name, accepted in found if accepted is not None)


def _accepted(hint: Any) -> _Accepted | None:
    """The values that an annotation accepts; None for types that are not checked."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _Accepted(
            lambda value: any(type(value) is type(a) and value == a for a in arguments),
            f"one of {', '.join(map(str, arguments))}" if arguments[1:] else repr(arguments[0]),
        )
    if origin is tuple and arguments[1:] == (...,):
        return _tuple(arguments[0], 0)
    if hint in (int, float):
        return _annotated(hint, ())
    if hint is Any:
        return None
    named = {type(None): "None", bool: "True or False", str: "text"}
    if hint in named or (isinstance(hint, type) and not getattr(hint, "_is_protocol", False)):
        kind = hint
        words = named.get(hint, f"a {hint.__name__}")
        return _Accepted(lambda value: isinstance(value, kind), words)
    return None


def _annotated(kind: Any, metadata: tuple[Any, ...]) -> _Accepted | None:
    bounds: list[Any] = []
    for part in metadata:
        bounds += part if isinstance(part, GroupedMetadata) else [part]
    if get_origin(kind) is tuple:
        least = max((b.min_length for b in bounds if isinstance(b, MinLen)), default=0)
        return _tuple(get_args(kind)[0], least)
    if kind not in (int, float):
        return _accepted(kind)
    low, high, above, below = -math.inf, math.inf, False, False
    for bound in bounds:
        if isinstance(bound, Gt | Ge):
            above = isinstance(bound, Gt)
            low = bound.gt if isinstance(bound, Gt) else bound.ge
        elif isinstance(bound, Lt | Le):
            below = isinstance(bound, Lt)
            high = bound.lt if isinstance(bound, Lt) else bound.le
    family = Integral if kind is int else Real

    def accepts(value: Any) -> bool:
        if not isinstance(value, family) or isinstance(value, bool):
            return False
        number: Any = value
        if not (abs(number) < _INT_LIMIT if kind is int else abs(number) < math.inf):
            return False
        return (low < number if above else low <= number) and (
            number < high if below else number <= high
        )

    least = "" if low == -math.inf else f"> {low}" if above else f">= {low}"
    most = "" if high == math.inf else f"< {high}" if below else f"<= {high}"
    if kind is int:
        words = (
            f"in {low}..{high}" if least and most else (least + most).replace(">=", "of at least")
        )
        return _Accepted(accepts, f"an integer {words}".rstrip())
    if least and most:
        left, right = "(" if above else "[", ")" if below else "]"
        return _Accepted(accepts, f"in {left}{low}, {high}{right}")
    return _Accepted(accepts, " and ".join(part for part in ("finite", least, most) if part))


def _tuple(hint: Any, least: int) -> _Accepted:
    each = _accepted(hint)
    size = f"{least} or more " if least else ""
    words = f"a tuple of {size}values"
    if each is not None:
        words += f", each {each.words}"

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) >= least
            and (each is None or all(each.accepts(item) for item in value))
        )

    return _Accepted(accepts, words)


def _union(hints: tuple[Any, ...]) -> _Accepted | None:
    parts = [_accepted(hint) for hint in sorted(hints, key=lambda hint: hint is type(None))]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return _Accepted(
        lambda value: any(part.accepts(value) for part in known),
        " or ".join((", ".join(part.words for part in known[:-1]), known[-1].words)),
    )


def check_memory(what: str, size: float, *, device: torch.device | str = "cpu") -> None:
    """Raise an error if an array would not fit into the free memory.

    Args:
        what: name of the array, after the settings that determine its size.
        size: least number of bytes that it takes.
        device: device that stores it.

    Raises:
        ValueError: "simulations 1000000000: the tree would take 120 GiB, this machine has 24 GiB
            free",
            where `what` is "simulations 1000000000: the tree".
    """
    if size < _UNCHECKED:
        return
    import torch  # here, so that settings can be checked without importing it

    device = torch.device(device)
    if device.type == "cuda":
        free, whose = float(torch.cuda.mem_get_info(device)[0]), "the device"
    else:
        free, whose = free_memory(), "this machine"
    if not size <= free:
        raise ValueError(f"{what} would take {_written(size)}, {whose} has {_written(free)} free")


def free_memory() -> float:
    """Bytes that this process can still allocate, by the system and by its control groups.

    Infinite if neither gives a number.
    """
    return max(0.0, min(_free_of_system(), _free_of_group()))


def _free_of_system() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:  # other systems give only the total
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _free_of_group(root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> float:
    """Free bytes by the limits of the process's control groups, version 2 or 1."""
    if own is None:
        try:
            own = Path("/proc/self/cgroup").read_text()
        except OSError:
            return math.inf
    free = math.inf
    for line in own.splitlines():
        number, controllers, place = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            base, limit, used, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit = root / "memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = base / place.strip("/")
        # A limit applies to all groups inside. In a container the path may be the one outside.
        for folder in {base, group, *group.parents} - {*base.parents}:
            free = min(free, _free_in(folder, limit, used, cache))
    return free


def _free_in(folder: Path, limit: str, used: str, cache: str) -> float:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        if most == "max":
            return math.inf
        kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return float(int(most) - now + int(kept.get(cache, 0)))  # cached files can be dropped
    except (OSError, ValueError):
        return math.inf


def _written(size: float) -> str:
    """A number of bytes with a suitable unit: 1.5 GiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    step = min(len(units) - 1, int(math.log2(max(size, 1)) // 10))
    number = size / 1024**step
    return f"{number:.3g} {units[step]}" if number < 1000 else f"{number:,.0f} {units[step]}"

"""All cases."""

from __future__ import annotations

from tests.bad_inputs import names, numbers, parts, run_folders, system
from tests.bad_inputs.case import Case

CASES: list[Case] = [
    *numbers.CASES,
    *names.CASES,
    *run_folders.CASES,
    *parts.CASES,
    *system.CASES,
]

"""Bad invocations end in one line and change nothing; `python -m tests.bad_inputs` runs all."""

import pytest

from tests.bad_inputs.runner import run
from tests.bad_inputs.table import CASES

QUICK = [case for case in CASES if not case.shell]
SAMPLE = QUICK[:: len(QUICK) // 60]


def test_cases_have_different_names():
    assert len({case.name for case in CASES}) == len(CASES) >= 300


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: ascii(case.name))
def test_a_sample_of_bad_inputs_ends_in_one_line(case):
    assert run(case) == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_bad_input_ends_in_one_line():
    faults = {case.name: fault for case in CASES if (fault := run(case))}
    assert not faults

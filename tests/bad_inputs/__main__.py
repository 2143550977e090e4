"""Run the cases: `python -m tests.bad_inputs [WORD...]`."""

from __future__ import annotations

import sys
import time

from tests.bad_inputs.runner import run
from tests.bad_inputs.table import CASES


def main(words: list[str]) -> int:
    """Run the cases; print those that fail or are slow, and a count."""
    failed, began = 0, time.perf_counter()
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    for case in chosen:
        start = time.perf_counter()
        fault = run(case)
        took = time.perf_counter() - start
        failed += bool(fault)
        if fault or took > 15:
            print(
                f"{'FAILED' if fault else 'slow'} {case.name} ({took:.1f} s): {fault}", flush=True
            )
    print(f"{failed} of {len(chosen)} fail, {time.perf_counter() - began:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Time and memory of a call inside a process: plain Python, the same for every library."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

SHORT, LONG = 10, 100
"""Seconds of a first call up to which three calls follow; one follows up to the second, then none."""


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The median of ``repeats`` calls, after one that is not counted."""
    call()
    return statistics.median(timed(call)[0] for _ in range(repeats))


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that ``call`` took, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def first_and_median(prepare: Callable[[], Callable[[], Result]]) -> tuple[dict[str, Any], Result]:
    """Seconds of the first call in this process and of later ones, memory of the first, and its result.

    Args:
        prepare: does what is not counted (imports, reading, state to start from) and returns the call to be
            measured; done again before every call.

    Returns:
        first: seconds of the first call, with what the library loads lazily.
        median: median seconds of three more calls; of one where calls are long; None where very long.
        mib: highest resident memory during the first call less that just before it.
    """
    call = prepare()
    before = highest_mib(reset=True)
    first, result = timed(call)
    mib = highest_mib() - before
    repeats = 3 if first <= SHORT else 1 if first <= LONG else 0
    later = [timed(prepare())[0] for _ in range(repeats)]
    return {"first": first, "median": statistics.median(later) if later else None, "mib": mib}, result


def highest_mib(reset: bool = False) -> float:
    """Highest resident memory of this process in MiB: on Linux since the last ``reset``, else in its life."""
    status = Path("/proc/self/status")
    if status.exists():
        if reset:
            with suppress(OSError):  # refused in some sandboxes: then the highest so far is where one starts
                Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

"""benchmarks/RESULTS.md: a section a part, so that measuring one part leaves the others as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

HEAD = """# Benchmark results

Each section was measured in one run, on the machine, with the versions and on the day it names. Times are
medians; machines are noisy, read ratios within a table.
"""


def with_section(text: str, part: str, body: str, order: Iterable[str]) -> str:
    """``text`` of the file with the section of ``part`` replaced, or added in its place in ``order``.

    Sections of parts that ``order`` does not know are dropped.
    """
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    sections[part] = body
    found = [f"## {name}\n\n{sections[name].strip()}\n" for name in order if name in sections]
    return "\n".join([HEAD, *found])

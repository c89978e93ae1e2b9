"""Writes docs/refused.md: every bad file that the tests try, and the sentence it gets.

``python scripts/refused.py``, where the tables of tests/core/loaders have changed.
"""

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from puma_dash.core.loaders.project_folder import open_folder  # noqa: E402
from puma_dash.core.loaders.unpack import unpack  # noqa: E402
from puma_dash.core.types import ProjectError  # noqa: E402
from tests.core.loaders import (  # noqa: E402
    test_bad_estimators,
    test_bad_files,
    test_bad_programs,
    test_bad_projects,
    test_unpack,
)
from tests.core.loaders.makers import read  # noqa: E402

PAGE = ROOT / "docs" / "refused.md"
BEGIN = """# What is refused

Every kind of bad file that the tests try, and the sentence it gets; nothing in any of them is ever run.
Written by `python scripts/refused.py`; hypothesis tries random bytes, names and settings besides.
"""

Case = tuple[str, Callable[[Path], object]]
"""A kind, and what opens such a file in an empty folder."""


def sections() -> Iterator[tuple[str, list[Case]]]:
    """Heading and cases."""
    projects = {
        name: lambda folder, make=make, fault=fault: (fault(path := make(folder)), open_folder(path))
        for name, (make, fault, _) in test_bad_projects.TABLE.items()
    }
    yield "Project folders", list(projects.items())
    for heading, table in (
        ("Weight files", test_bad_files.TABLE),
        ("Programs of torch.export", test_bad_programs.PROGRAMS),
        ("Estimators of scikit-learn", test_bad_estimators.ESTIMATORS),
    ):
        yield (
            heading,
            [
                (name, lambda folder, entry=entry: read(entry[0](folder), **(*entry, {})[2]))
                for name, entry in table.items()
            ],
        )
    archives = {
        name: lambda folder, make=make: unpack(make(folder / "up.zip"), folder / "out")
        for name, (make, _) in test_unpack.BAD.items()
    }
    yield "Uploads", list(archives.items())


def sentence(attempt: Callable[[Path], object]) -> str:
    """What the attempt is told, as one cell of a table."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # tables of the tests write beside themselves
        try:
            attempt(Path(folder))
        except ProjectError as error:
            told = " ".join(str(error).replace(folder, "FOLDER").split())
            return re.sub(r"([|<>*_`\[\]\\])", r"\\\1", told)
        finally:
            os.chdir(before)
    raise AssertionError("it was not refused")


def main() -> None:
    """Writes the page."""
    os.environ["PUMA_DASH_FACTORIES"] = "tests.core.loaders.makers"
    warnings.simplefilter("ignore")
    parts, total = [], 0
    for heading, cases in sections():
        lines = [f"| {name} | {sentence(attempt)} |" for name, attempt in cases]
        parts.append(
            f"\n## {heading}\n\n| what is wrong | what is said |\n|---|---|\n" + "\n".join(lines) + "\n"
        )
        total += len(lines)
    PAGE.write_text(BEGIN + "".join(parts), "utf-8")
    print(f"{total} kinds of bad files: {PAGE}")


if __name__ == "__main__":
    main()

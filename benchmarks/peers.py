"""psi against public libraries of the same kind: seconds, memory, and how true the answers are.

Every method runs in a process of its own on one thread, one after the other: ours here, the peers' in the
environment that ``make bench-peers`` makes from requirements-peers.txt. Importing and reading are not
counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks import ours, peer
from benchmarks.problems import DAMPING, PROBLEMS, Problem

ROOT = Path(__file__).parents[1]
PEERS = ROOT / os.environ.get("PEERS", ".venv-peers")
PYTHON = PEERS / "bin" / "python"
LIMIT = 300
"""Seconds that all calls of one method may take together."""


def measure() -> Iterator[tuple[str, pd.DataFrame]]:
    """A title and a table for each problem."""
    if not installed():
        print(f"\nno peers in {PEERS}: ours is measured alone; `make bench-peers` installs them")
    library = versions() if installed() else {}
    for make in PROBLEMS.values():
        problem = make()
        truth = ours.psi(ours.project_of(problem), ours.TRUTH[problem.name]).numpy()
        rows = []
        with tempfile.TemporaryDirectory() as scratch:
            file = problem.save(Path(scratch))
            for name in ours.METHODS:
                rows.append(row(name, problem, truth, *run(sys.executable, "ours", name, file)))
            for name in peer.METHODS if library else ():
                if name in peer.DIGITS_ONLY and problem.name != "digits":
                    continue
                label = name.replace(name.split()[0], library[name.split()[0]])
                rows.append(row(label, problem, truth, *run(PYTHON, "peer", name, file)))
        table = pd.DataFrame(rows)
        first, median = (
            pd.to_numeric(table[f"seconds, {of}"], errors="coerce") for of in ("first", "median")
        )
        speed = median.fillna(first)
        table.insert(3, "x ours", [f"{ratio:.2f}" if ratio == ratio else "" for ratio in speed / speed[0]])
        yield title(problem), table


def installed() -> bool:
    """Whether ``make bench-peers`` got to the end of installing them."""
    return (PEERS / ".installed").exists()


def versions() -> dict[str, str]:
    """Name and version of each peer as installed, by its name."""
    command = [PYTHON, "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = {package["name"].partition("-")[0]: package["version"] for package in listed}
    return {name: f"{name} {found[name]}" for name in {method.split()[0] for method in peer.METHODS}}


def title(problem: Problem) -> str:
    """What was asked."""
    decay = f" (weight decay {problem.weight_decay:g} + damping {DAMPING:g})" if problem.weight_decay else ""
    return (
        f"{problem.title}: psi of the mean loss of {len(problem.test_y):,} test rows, "
        f"B = Gauss-Newton matrix + {problem.shift:g} I{decay}"
    )


def run(python: str | Path, module: str, name: str, file: Path) -> tuple[dict, np.ndarray | None]:
    """Measured seconds and memory, and scores (n,); or what went wrong, and None."""
    out = file.with_name("scores")
    command = [str(python), "-m", f"benchmarks.{module}", name, str(file), str(out)]
    one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    print(f"{file.stem}: {name}", flush=True)
    try:
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, **one}, timeout=LIMIT, check=True, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return {"first": f"> {LIMIT}"}, None
    except subprocess.CalledProcessError as error:
        print(error.stderr.decode()[-2_000:], file=sys.stderr)
        return {"first": "failed"}, None
    return json.loads(out.with_suffix(".json").read_text("utf-8")), np.load(out.with_suffix(".npy"))


def row(name: str, problem: Problem, truth: np.ndarray, facts: dict, scores: np.ndarray | None) -> dict:
    """One line of the table."""
    found = {
        "method": name,
        "seconds, first": shown(facts["first"], ".3g"),
        "seconds, median": shown(facts.get("median"), ".3g"),
        "peak MiB": shown(facts.get("mib"), ".0f"),
        "Spearman": "",
        "relative error": "",
        "slope": "",
        "mislabel AUC": "",
    }
    if scores is None:
        return found
    if "self-influence" not in name:
        found["Spearman"] = f"{spearmanr(scores, truth).statistic:.3f}"
        found["relative error"] = f"{np.linalg.norm(scores - truth) / np.linalg.norm(truth):.3g}"
        found["slope"] = f"{scores @ truth / (truth @ truth):.3g}"
    found["mislabel AUC"] = f"{roc_auc_score(problem.flipped, -scores):.3f}"
    return found


def shown(number: float | str | None, form: str) -> str:
    """``number`` as text; what is not a number as it is."""
    return "" if number is None else number if isinstance(number, str) else format(number, form)

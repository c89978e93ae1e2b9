"""The page on fairness: its commands and its Python, on the published files (PUMA_DASH_TEST_DATA)."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fairness.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
GAP = "demographic parity gap of sex"


def run(blocks, folder, names):
    """Runs the blocks in turn, in ``folder``; commands in a process of their own."""
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, "fairness.md", "exec"), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            assert program == "puma-dash"
            done = subprocess.run(
                [sys.executable, "-m", "puma_dash", *words],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]


def compared(folder):
    """What `compare --output` wrote: method, metric, before, after and the interval, a line each."""
    return pd.read_csv(folder / "compared.csv").set_index(["method", "metric"])


def part(heading):
    """How many blocks stand before that heading."""
    return len(re.findall(r"^```(?:sh|python)\n", PAGE[: PAGE.index(heading)], re.MULTILINE))


def test_adult(tmp_path, test_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adult").mkdir()
    for name in ("adult.data.gz", "adult.test.gz"):
        (tmp_path / "adult" / name).symlink_to(test_data / "adult" / name)
    names = {}
    run(BLOCKS[: part("## A thousand rows")], tmp_path, names)
    table = compared(tmp_path)
    puma, retrained = (table.loc[method] for method in ("patch", "retrain"))
    assert puma.loc[GAP, "before"] == pytest.approx(0.177, abs=0.002)
    assert puma.loc[GAP, "after"] == pytest.approx(0.113, abs=0.005)
    assert puma.loc[GAP, "high"] < -0.05  # far from chance
    assert retrained.loc[GAP, "after"] < puma.loc[GAP, "after"]
    assert puma.loc["accuracy", "change"] > -0.005 > retrained.loc["accuracy", "change"]  # half a point
    in_python = names["fair"]
    assert in_python.loc[GAP, "after"] == pytest.approx(puma.loc[GAP, "after"], abs=1e-6)


def test_german_credit(tmp_path, test_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "german.data").symlink_to(test_data / "german_credit" / "german.data")
    names = {}
    exec("import puma_dash as puma, skops.io\nfrom sklearn.linear_model import LogisticRegression", names)
    run(BLOCKS[part("## A thousand rows") :], tmp_path, names)
    table = compared(tmp_path)
    for method in table.index.levels[0]:
        one = table.loc[method]
        assert one.loc[GAP, "after"] < 0.5 * one.loc[GAP, "before"]
        assert one.loc["accuracy", "change"] > -0.005

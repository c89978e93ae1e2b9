"""The page on fairness: its commands and its Python, on the published files (PUMA_DASH_TEST_DATA)."""

import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from puma_dash import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fairness.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
GAP = "demographic parity gap of sex"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the blocks in turn, in an empty folder, commands as the command line does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def ran(blocks, names):
        for kind, code in blocks:
            if kind == "python":
                exec(compile(code, "fairness.md", "exec"), names)
                continue
            for line in code.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                assert program == "puma-dash"
                monkeypatch.setattr(sys, "argv", [program, *words])
                with pytest.raises(SystemExit) as left:
                    cli.main()
                assert not left.value.code, line

    return ran


def compared(folder):
    """What `compare --output` wrote: method, metric, before, after and the interval, a line each."""
    return pd.read_csv(folder / "compared.csv").set_index(["method", "metric"])


def part(heading):
    """How many blocks stand before that heading."""
    return len(re.findall(r"^```(?:sh|python)\n", PAGE[: PAGE.index(heading)], re.MULTILINE))


def test_adult(run, tmp_path, test_data):
    (tmp_path / "adult").mkdir()
    for name in ("adult.data.gz", "adult.test.gz"):
        (tmp_path / "adult" / name).symlink_to(test_data / "adult" / name)
    names = {}
    run(BLOCKS[: part("## A thousand rows")], names)
    table = compared(tmp_path)
    puma, retrained = (table.loc[method] for method in ("patch", "retrain"))
    assert puma.loc[GAP, "before"] == pytest.approx(0.177, abs=0.002)
    assert puma.loc[GAP, "after"] == pytest.approx(0.113, abs=0.005)
    assert puma.loc[GAP, "high"] < -0.05  # far from chance
    assert retrained.loc[GAP, "after"] < puma.loc[GAP, "after"]
    assert puma.loc["accuracy", "change"] > -0.005 > retrained.loc["accuracy", "change"]  # half a point
    in_python = names["fair"]
    assert in_python.loc[GAP, "after"] == pytest.approx(puma.loc[GAP, "after"], abs=1e-6)


def test_german_credit(run, tmp_path, test_data):
    (tmp_path / "german.data").symlink_to(test_data / "german_credit" / "german.data")
    names = {}
    exec("import puma_dash as puma, skops.io\nfrom sklearn.linear_model import LogisticRegression", names)
    run(BLOCKS[part("## A thousand rows") :], names)
    table = compared(tmp_path)
    for method in table.index.levels[0]:
        one = table.loc[method]
        assert one.loc[GAP, "after"] < 0.5 * one.loc[GAP, "before"]
        assert one.loc["accuracy", "change"] > -0.005

"""The command line: the same calls, one sentence and exit code 2 for what a user can mend."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "puma_dash", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_patch_removes_saves_and_reports(tmp_path):
    done = run("patch", "two-moons", "--top", "40", "--report", "r.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["removed"]) == 40
    assert found["measured"]["cross_entropy"] < 0
    ratio = found["measured"]["cross_entropy"] / found["predicted"]["cross_entropy"]
    assert found["ratio"]["cross_entropy"] == pytest.approx(ratio)
    assert (found["doubts"] == []) == (0.5 <= ratio <= 2)
    assert (tmp_path / "patched.safetensors").exists()
    assert "Two moons" in (tmp_path / "r.html").read_text("utf-8")


def test_value_prints_the_most_harmful_rows_first():
    found = json.loads(run("value", "radial", "--top", "5").stdout)
    psi = [row["psi"] for row in found["rows"]]
    assert psi == sorted(psi)
    assert found["criterion"] == "cross_entropy"


FACTORY = """
import torch, puma_dash as puma

def good():
    x, y = torch.randn(60, 3), torch.arange(60) % 2
    s = puma.Split(x, y)
    return puma.Project(name="mine", model=torch.nn.Linear(3, 2), train=s, validation=s, test=s)

def labels():
    s = puma.Split(torch.randn(60, 3), torch.arange(60))
    return puma.Project(name="mine", model=torch.nn.Linear(3, 2), train=s, validation=s)

def nothing():
    return None

def raises():
    raise KeyError("loans.parquet")

def leaves():
    raise SystemExit(3)
"""


def test_check_takes_a_function_from_the_current_folder(tmp_path):
    (tmp_path / "mymodule.py").write_text(FACTORY)
    done = run("check", "mymodule:good", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["rows"] == {"train": 60, "validation": 60, "test": 60}
    told = {finding["check"]: finding for finding in found["findings"]}
    assert told["leakage into test"]["value"] == 60
    assert "60 of 60 test rows (100 %)" in told["leakage into test"]["sentence"]
    assert told["determinism"]["status"] == "ok"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "nonsense"], "expected a demo"),
        (["check", "absent:make"], "expected a module named 'absent'"),
        (["check", "mymodule:absent"], "expected a function 'absent'"),
        (["check", "mymodule:nothing"], "to return a puma.Project, but it returned NoneType"),
        (["check", "mymodule:raises"], "it raised KeyError: 'loans.parquet' (mymodule.py, line"),
        (["check", "mymodule:leaves"], "it raised SystemExit: 3"),
        (["check", "broken:make"], "broken' that can be imported, but SyntaxError"),
        (["patch", "radial", "--output", "absent/x.safetensors"], "expected a folder for absent"),
        (["check", "mymodule:labels"], "expected train labels from 0 to 1"),
        (["value", "radial", "--criterion", "beauty"], "expected one of the criterion names"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(tmp_path, words, sentence):
    (tmp_path / "mymodule.py").write_text(FACTORY)
    (tmp_path / "broken.py").write_text("def make(:")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr

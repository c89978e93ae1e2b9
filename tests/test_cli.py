"""The command line: the same calls, one sentence and exit code 2 for what a user can mend."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from puma_dash import ProjectError, cli
from puma_dash.core import experiments
from puma_dash.workspace import weights
from puma_dash.workspace.ledger import Ledger

ROOT = Path(__file__).parents[1]
# One thread: two that wait for each other on a busy machine burn five times the processor time.
ENV = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "puma_dash", *words],
        cwd=cwd,
        env=ENV | {"HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_patch_is_judged_and_reported_by_later_commands(tmp_path):
    """Each a process of its own: the demo they make is the same one, and so is the count of looks at test."""
    done = run("patch", "two-moons", "--top", "40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["plan"]["remove"]) == 40
    assert found["measured"]["cross_entropy"] < 0
    done = run("compare", "two-moons", "--patch", "patched.safetensors", "--split", "test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 2000
    done = run("report", "two-moons", "--patch", "patched.safetensors", cwd=tmp_path)
    assert json.loads(done.stdout) == {"report": "report.html", "test_opened": 2}
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "Patch report: Two moons" in report
    assert "2 times for this project so far" in report
    assert Ledger(tmp_path / ".puma-dash").verify().broken is None


ACCEPT = """
from puma_dash.workspace import projects, tasks

def quiet(*_): pass

plan = {"remove": list(range(0, 60, 2)), "hold": ["cross_entropy"], "tolerance": {"cross_entropy": 1.0}}
projects.store().save("plan", {}, {**plan, "method": "puma", "steps": 2})
at = {"source": "two-moons", "version": None}
made = tasks.patch({**at, "plan": "plan", "device": "auto", "seed": 1}, quiet, None)
print(tasks.accept({**at, **made, "why": "wrong labels"}, quiet, None)["version"])
"""


def test_replay_makes_a_patch_again_and_says_what_differs(tmp_path):
    """As on another day: the worker's process, then the command line's, then after tampering."""
    home = tmp_path / "home"
    env = ENV | {"PUMA_DASH_HOME": str(home)}
    accepted = subprocess.run(
        [sys.executable, "-c", ACCEPT], env=env, capture_output=True, text=True, check=True
    )
    entry = accepted.stdout.strip()
    shutil.rmtree(home / "cache")
    done = run("replay", entry, "--home", "home", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model after: bit for bit" in done.stdout
    assert "DIFFERS" not in done.stdout
    assert done.stdout.endswith(f"Entry {entry} was reproduced.\n")

    ledger = Ledger(home)
    file = weights.file(home, ledger.entry(int(entry)).details["kept"]["model"])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = run("replay", entry, "--home", "home", cwd=tmp_path)
    assert done.returncode == 1
    assert "DIFFERS kept weights" in done.stdout
    assert f"Entry {entry} was not reproduced: kept weights." in done.stdout

    done = run("replay", "99", "--home", "home", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected an entry of the ledger with a patch" in done.stderr
    assert "Traceback" not in done.stderr


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


@pytest.fixture
def here(tmp_path, monkeypatch):
    """This process stands in ``tmp_path`` and has imported nothing from it, as a fresh one would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("mymodule", "broken"):
        sys.modules.pop(name, None)


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
        (["check", "mymodule:labels"], "expected train labels from 0 to 1"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(here, tmp_path, monkeypatch, capsys, words, sentence):
    (tmp_path / "mymodule.py").write_text(FACTORY)
    (tmp_path / "broken.py").write_text("def make(:")
    monkeypatch.setattr(sys, "argv", ["puma-dash", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert sentence in said
    assert "Traceback" not in said


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts the server in everything but the last call; what its environment says then."""
    for name in ("PUMA_DASH_PROJECT", "PUMA_DASH_ROOT", "PYTHONPATH", "PUMA_DASH_FACTORIES"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(cli, "load", lambda source: None)
    monkeypatch.setattr(os, "execv", lambda *_: None)

    def serve(*words, root=None, at=tmp_path):
        monkeypatch.chdir(at)
        cli.serve(*words, root=root)
        return dict(os.environ)

    return serve


def test_serve_allows_a_root(started, tmp_path):
    (tmp_path / "top").mkdir()
    (tmp_path / "link").symlink_to("top")
    assert started("digits")["PUMA_DASH_ROOT"] == ""
    assert started("digits", root=Path("link"))["PUMA_DASH_ROOT"] == str(tmp_path / "top")
    with pytest.raises(ProjectError, match="root to be a folder, but absent is none"):
        started("digits", root=Path("absent"))


def test_the_root_comes_from_the_environment_too(started, tmp_path, monkeypatch):
    """Relative to where one starts, not to the app's folder."""
    (tmp_path / "top").mkdir()
    monkeypatch.setenv("PUMA_DASH_ROOT", "top")
    assert started("digits")["PUMA_DASH_ROOT"] == str(tmp_path / "top")
    done = run("serve", "--root", "absent", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected root to be a folder" in done.stderr


def test_modules_are_found_where_one_starts_only_if_code_is_asked_for(started, tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    assert started("digits")["PYTHONPATH"] == ""
    assert started(str(tmp_path / "shop"))["PYTHONPATH"] == ""
    assert started("mymodule:make")["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PUMA_DASH_FACTORIES", "mymodule")
    assert started(str(tmp_path / "shop"))["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)


def test_code_is_not_imported_from_where_others_may_write(started, tmp_path):
    (tmp_path / "top" / "in").mkdir(parents=True)
    top = tmp_path / "top"
    assert started("mymodule:make", root=top)["PUMA_DASH_ROOT"] == str(top)
    with pytest.raises(ProjectError, match="started outside of the root"):
        started("mymodule:make", root=top, at=top / "in")
    assert started("digits", root=top, at=top)["PUMA_DASH_ROOT"] == str(top)


def test_an_experiment_is_written_with_its_settings(tmp_path):
    done = run("reproduce", "fig6", "--seeds", "1", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["fig6"]
    settings = json.loads((tmp_path / "fig6.json").read_text())
    assert settings["told"] == said["told"]
    assert settings["seeds"] == [0]
    table = pd.read_csv(tmp_path / "fig6-1.csv")
    assert table["model"].tolist() == ["before", "patched", "retrained"]
    page = (tmp_path / "fig6.html").read_text()
    assert 'src="plotly.min.js"' in page
    assert (tmp_path / "plotly.min.js").stat().st_size > 1_000_000
    wrong = run("reproduce", "fig1", "--output", tmp_path)
    assert wrong.returncode == 2
    assert "fig3, fig4" in wrong.stderr


def test_what_was_reproduced_is_told_though_mnist_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PUMA_DASH_MNIST", "")  # put back afterwards
    kept = {key: experiments.EXPERIMENTS[key] for key in ("fig6", "fig7")}
    monkeypatch.setattr(experiments, "EXPERIMENTS", kept)
    with pytest.raises(ProjectError, match="four files of MNIST"):
        cli.reproduce("all", tmp_path / "out", 1, tmp_path)
    assert "fig6" in json.loads(capsys.readouterr().out)

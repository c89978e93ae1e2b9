"""The commands of the method on a folder of CSV files, against scikit-learn and formulas written out."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import puma_dash as puma
from puma_dash import cli
from puma_dash.workspace.ledger import Ledger
from tests import cli_project
from tests.cli_project import WRONG, N, fitted, losses, table

EXACT = ("--curvature", "dense(damping=0.0)")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loans")
    return {**cli_project.loans(folder), "folder": folder}


@pytest.fixture
def run(tables, tmp_path, monkeypatch, capsys):
    """A command in an empty folder: exit code, what it prints read as JSON, and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PUMA_DASH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def called(command, *words):
        monkeypatch.setattr(sys, "argv", ["puma-dash", command, str(tables["folder"]), *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, json.loads(out) if out else None, err

    return called


@pytest.fixture
def project(tables):
    return puma.load(tables["folder"])


# --- value ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.csv", "v.parquet", "v.json"])
def test_value_writes_psi_of_all_rows(run, tables, tmp_path, name):
    code, found, err = run("value", "--top", 5, "--output", name, *EXACT)
    assert (code, err) == (0, "")
    train = tables["train"]
    psi = cli_project.psi(fitted(train), train, tables["validation"])
    reader = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get((tmp_path / name).suffix)
    written = reader(name) if reader else pd.DataFrame(json.loads((tmp_path / name).read_text())["rows"])
    np.testing.assert_allclose(written["psi"], psi, rtol=1e-4, atol=1e-5)
    assert written["row"].tolist() == list(range(N))
    assert written["id"].tolist() == train["customer"].tolist()
    lowest = np.argsort(psi)[:5]
    assert [row["row"] for row in found["rows"]] == lowest.tolist()
    assert [row["id"] for row in found["rows"]] == train["customer"].iloc[lowest].tolist()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cross_entropy(of_class='default')", lambda v: v["outcome"] == "default"),
        ('cross_entropy(group=("sex", "Female"))', lambda v: v["sex"] == "Female"),
        ("cross_entropy(rows=[3, 7])", lambda v: v.index.isin([3, 7])),
    ],
)
def test_a_criterion_may_be_about_some_rows(run, tables, text, part):
    code, found, _ = run("value", "--criterion", text, "--top", N, *EXACT)
    train, validation = tables["train"], tables["validation"]
    psi = cli_project.psi(fitted(train), train, validation[part(validation)])
    assert code == 0
    np.testing.assert_allclose([row["psi"] for row in found["rows"]], np.sort(psi), rtol=1e-4, atol=1e-5)


def test_value_takes_other_methods(run, tables):
    _, found, _ = run("value", "--method", "loss", "--top", N)
    expected = np.sort(-losses(fitted(tables["train"]), tables["train"]))
    np.testing.assert_allclose([row["score"] for row in found["rows"]], expected, rtol=1e-5)


# --- patch ------------------------------------------------------------------------------


@pytest.fixture
def wrong(tables, tmp_path):
    """The ids of the rows with wrong labels, in a file."""
    tables["train"]["customer"][:WRONG].to_frame("id").to_csv(tmp_path / "wrong.csv", index=False)
    return tmp_path / "wrong.csv"


@pytest.mark.parametrize(
    ("words", "refit"),
    [
        ((), lambda train: fitted_with(train, weights=np.arange(N) >= WRONG)),
        (("--upweight", 2), lambda train: fitted_with(train, weights=1.0 + 2 * (np.arange(N) < WRONG))),
        (("--relabel", "paid"), lambda train: fitted_with(train, label="paid")),
        (("--relabel", "1"), lambda train: fitted_with(train, label="default")),
    ],
    ids=["remove", "up-weight", "relabel by name", "relabel by number"],
)
def test_a_patch_goes_where_refitting_goes(run, tables, wrong, tmp_path, words, refit):
    """Eight steps, with nothing that compensates, come to the minimum that scikit-learn finds."""
    hold = ("--hold", "cross_entropy=9", "--steps", 8, "--method", "puma(weight_max=0.0)")
    code, found, _ = run("patch", "--rows", wrong, *words, *hold, *EXACT)
    before, after = fitted(tables["train"]), refit(tables["train"])
    patched = load_file(tmp_path / "patched.safetensors")["0.weight"][0]
    assert code == 0
    assert np.linalg.norm(patched - after) < 0.02 * np.linalg.norm(after - before)
    held_out = tables["validation"]
    expected = losses(after, held_out).mean() - losses(before, held_out).mean()
    assert found["measured"]["cross_entropy"] == pytest.approx(expected, rel=0.05, abs=1e-5)
    metrics = found["validation"]["metrics"]["nll"]
    assert metrics["before"] == pytest.approx(losses(before, held_out).mean(), rel=1e-5)
    assert metrics["after"] == pytest.approx(losses(patched, held_out).mean(), rel=1e-5)


def fitted_with(train, weights=None, label=None):
    """The minimum on other weights or with another label of the first rows; it still divides by N."""
    from sklearn.linear_model import LogisticRegression

    y = np.array(train["outcome"] == "default")
    if label is not None:
        y[:WRONG] = label == "default"
    model = LogisticRegression(C=1 / (N * cli_project.DECAY), fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(train[cli_project.COLUMNS], y, sample_weight=weights).coef_[0]


def test_relabelling_leaves_rows_that_have_the_label(run, tables, wrong, project):
    _, found, _ = run("patch", "--rows", wrong, "--relabel", "prediction", "--hold", "brier=9")
    train = tables["train"][:WRONG]
    predicted = train[cli_project.COLUMNS].to_numpy() @ fitted(tables["train"]) > 0
    changed = predicted != (train["outcome"] == "default")
    assert 0 < changed.sum() < WRONG or changed.all()
    expected = {str(row): int(predicted[row]) for row in np.flatnonzero(changed)}
    assert found["plan"]["relabel"] == expected


def test_what_a_patch_says_is_what_the_api_says(run, project):
    words = (
        "--top",
        10,
        "--criterion",
        "brier",
        "--hold",
        "brier=0.01",
        "--hold",
        "cross_entropy(of_class=1)",
    )
    code, found, _ = run(
        "patch", *words, "--strength", 0.5, "--intent", "forget", "--method", "puma(sparsity=0.5)"
    )
    rows = puma.value(project, criterion="brier").harmful(10)
    plan = puma.PatchPlan(
        remove=rows,
        hold=("brier", puma.CrossEntropy(of_class=1)),
        tolerance={"brier": 0.01},
        strength=0.5,
        intent="forget",
        method=puma.Puma(sparsity=0.5),
    )
    made = puma.patch(project, plan)
    assert code == 0
    assert found["plan"]["remove"] == sorted(rows.tolist())
    assert found["measured"] == pytest.approx(made.measured)
    assert found["predicted"] == pytest.approx(made.predicted)
    assert found["ratio"] == pytest.approx(made.ratio)
    assert found["doubts"] == list(made.doubts)
    back = puma.read_patch("patched.safetensors", project)
    assert (back.plan.intent, back.plan.strength, back.plan.method) == (
        "forget",
        0.5,
        puma.Puma(sparsity=0.5),
    )


@pytest.mark.parametrize("negate", [False, True])
def test_rows_may_be_ranked_by_another_tool(run, tables, tmp_path, negate):
    scores = tables["train"][["customer"]].assign(other=0, shapley=np.arange(N) * 1.0)
    scores.sample(frac=1, random_state=0).rename(columns={"customer": "id"}).to_csv("s.csv", index=False)
    words = ["--scores", "s.csv", "--column", "shapley", "--top", 7, "--hold", "brier=9"]
    _, found, _ = run("patch", *words, *["--negate"] * negate)
    assert found["plan"]["remove"] == list(range(N - 7, N) if negate else range(7))


def test_a_rail_that_fails_is_exit_code_1(run, wrong):
    """Rows counted ten times the wrong way: naive removal has no rails, PUMA's leave nothing of it."""
    words = ("--rows", wrong, "--upweight", 9, "--hold", "cross_entropy")
    code, found, err = run("patch", *words, "--method", "influence")
    assert code == 1
    assert found["measured"]["cross_entropy"] > 0
    assert err == "A rail failed: got worse than allowed on validation: cross_entropy.\n"
    code, *_ = run("patch", *words[:-1], "cross_entropy=9", "--method", "influence")
    assert code == 0
    code, found, err = run("compare", "--patch", "patched.safetensors")
    assert code == 0
    run("patch", *words, "--method", "influence", "--output", "bad.safetensors")
    code, found, err = run("compare", "--patch", "bad.safetensors")
    assert (code, found["methods"]["patch"]["verdicts"][1]["verdict"]) == (1, "fail")
    assert "worse than allowed on validation, beyond chance: cross_entropy." in err
    code, found, err = run("patch", *words, "--method", "puma(weight_max=0.0)")
    assert (code, found["strength"]) == (1, 0)
    assert "no strength holds what must hold" in err


# --- forecast ---------------------------------------------------------------------------


def test_a_forecast_is_that_of_the_api(run, project, tmp_path):
    words = ("--top", 8, "--hold", "brier", "--split", "test", "--strength", 0.5)
    code, found, _ = run("forecast", *words, "--output", "f.parquet")
    rows = puma.value(project).harmful(8)
    plan = puma.PatchPlan(remove=rows, hold=("brier",), strength=0.5)
    f = puma.forecast(project, plan, split="test")
    assert code == 0
    assert found["criteria"] == pytest.approx(f.criteria)
    assert found["refined"] == pytest.approx(f.refined)
    assert found["metrics"]["nll on test" if "nll on test" in found["metrics"] else "nll"]["change"] == (
        pytest.approx(f.metrics.loc["nll", "change"])
    )
    assert found["flips"] == len(f.flips)
    pd.testing.assert_frame_equal(pd.read_parquet("f.parquet").set_index("strength"), f.strengths)
    psi = puma.value(project, criterion="brier").scores
    assert found["criteria"]["brier"] == pytest.approx(puma.predicted_change(psi, rows) / 2)


# --- compare and report -----------------------------------------------------------------


def test_compare_judges_methods_and_counts_looks_at_test(run, tables, project, tmp_path):
    run("patch", "--top", WRONG, "--steps", 3)
    words = ("--patch", "patched.safetensors", "--against", "influence")
    code, found, _ = run("compare", *words, "--split", "test", "--output", "c.csv")
    made = puma.read_patch("patched.safetensors", project)
    expected = puma.compare(project, made, "test")
    assert code == 0
    assert (found["split"], found["n"]) == ("test", 120)
    patched = found["methods"]["patch"]
    for name, line in expected.metrics.iterrows():
        assert patched["metrics"][name] == pytest.approx(line.to_dict())
    assert [v["verdict"] for v in patched["verdicts"]] == expected.verdicts["verdict"].tolist()
    theta = load_file("patched.safetensors")["0.weight"][0]
    test = tables["test"]
    assert patched["metrics"]["nll"]["after"] == pytest.approx(losses(theta, test).mean(), rel=1e-5)
    right = (test[cli_project.COLUMNS].to_numpy() @ theta > 0) == (test["outcome"] == "default")
    assert patched["metrics"]["accuracy"]["after"] == pytest.approx(right.mean())
    written = pd.read_csv("c.csv").set_index(["method", "metric"])
    assert set(written.index.levels[0]) == {"patch", "influence"}
    rival = puma.patch(
        project, puma.PatchPlan(remove=made.plan.remove, hold=("cross_entropy",), method="influence")
    )
    naive = puma.compare(project, rival, "test").metrics
    np.testing.assert_allclose(written.loc["influence"].loc[naive.index, naive.columns], naive)
    run("compare", *words[:2])
    code, told, _ = run("report", "--patch", "patched.safetensors", "--output", "r.html")
    assert (code, told) == (0, {"report": "r.html", "test_opened": 2})
    html = (tmp_path / "r.html").read_text("utf-8")
    assert "Patch report: Loans" in html
    assert "2 times for this project so far" in html
    ledger = Ledger(tmp_path / "home")
    source = str(tables["folder"].resolve())
    assert [(e.kind, e.why) for e in ledger.entries(source)] == [
        ("test opened", "a comparison from the command line"),
        ("test opened", "a report from the command line"),
    ]
    assert ledger.verify().broken is None


def test_retraining_knows_no_strength(run):
    """A patch of half the strength is held against retraining all the same."""
    run("patch", "--top", 3, "--strength", 0.5)
    code, found, _ = run("compare", "--patch", "patched.safetensors", "--against", "retrain")
    assert code == 0
    assert {name: made["strength"] for name, made in found["methods"].items()} == {"patch": 0.5, "retrain": 1}


def test_a_patch_of_another_state_of_the_folder_is_told(run, tables, tmp_path, monkeypatch):
    import shutil

    run("patch", "--top", 3)
    other = tmp_path / "other"
    shutil.copytree(tables["folder"], other)
    table(9, N).to_csv(other / "train.csv", index=False)
    monkeypatch.setitem(tables, "folder", other)
    code, _, err = run("compare", "--patch", "patched.safetensors")
    assert code == 2
    assert "was made for another" in err


# --- what can be mended -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("value", ["--criterion", "beauty"], "expected one of the criterion names"),
        ("value", ["--criterion", "brier(of_class='cat')"], "expected a class"),
        ("value", ["--criterion", 'brier(group=("sex", "x"))'], "expected a value of sex"),
        ("value", ["--method", "beauty"], "expected one of the valuation method names"),
        ("value", ["--curvature", "beauty"], "expected one of the curvature names"),
        ("value", ["--output", "v.xlsx"], "expected a file name that ends in"),
        ("value", ["--output", "absent/v.csv"], "expected a folder for absent"),
        ("value", ["--device", "tpu7"], "expected a device of this machine"),
        ("forecast", ["--output", "f.html"], "expected a file name that ends in"),
        ("forecast", ["--split", "holdout"], "expected one of the splits"),
        ("patch", ["--rows", "absent.csv"], "expected a file at absent.csv"),
        ("patch", ["--rows", "absent.csv", "--top", "3"], "but got both"),
        ("patch", ["--scores", "absent.csv"], "expected a file at absent.csv"),
        ("patch", ["--hold", "brier=much"], "expected --hold CRITERION or CRITERION=TOLERANCE"),
        ("patch", ["--hold", "brier=1e"], "expected --hold CRITERION or CRITERION=TOLERANCE"),
        ("patch", ["--hold", "brier=-1"], "expected tolerances >= 0"),
        ("patch", ["--hold", "brier", "--hold", "brier"], "expected each held criterion once"),
        ("patch", ["--relabel", "cat"], "expected a class from 0 to 1"),
        ("patch", ["--relabel", "paid", "--upweight", "1"], "--relabel or --upweight, but got both"),
        ("patch", ["--upweight", "-1"], "expected upweight values e > 0"),
        ("patch", ["--intent", "hide"], "expected intent to be one of"),
        ("patch", ["--method", "beauty"], "expected one of the unlearning method names"),
        ("patch", ["--output", "absent/x.safetensors"], "expected a folder for absent"),
        ("patch", ["--top", str(N)], "expected rows of every class to remain"),
        ("patch", ["--top", "0"], "Invalid value for '--top'"),
        ("compare", ["--patch", "absent.safetensors"], "there is no file of that name"),
        ("compare", ["--patch", "x", "--split", "holdout"], "expected one of the splits"),
        ("compare", ["--patch", "x", "--against", "beauty"], "expected one of the unlearning method names"),
        ("compare", [], "Missing option '--patch'"),
        ("report", ["--patch", "x", "--output", "absent/r.html"], "expected a folder for absent"),
    ],
)
def test_what_a_user_can_mend_is_exit_code_2(run, command, words, sentence):
    code, printed, err = run(command, *words)
    assert (code, printed) == (2, None)
    assert sentence in err
    assert "Traceback" not in err


def test_a_fault_of_our_own_is_no_verdict(run, monkeypatch):
    monkeypatch.setattr("puma_dash.core.api.engine_of", lambda *_: 1 / 0)
    code, _, err = run("value")
    assert code == 70
    assert "ZeroDivisionError" in err


# --- what a person sees -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["value", "forecast", "patch", "check"])
def test_a_person_sees_a_bar_on_stderr_and_json_on_stdout(run, monkeypatch, command):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    code, found, err = run(command)
    assert code == 0
    assert isinstance(found, dict)
    assert "%" in err
    assert "\x1b[" in err


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "init", "check", "value", "forecast", "patch", "compare", "report", "replay"],
)
def test_help_teaches_by_examples_that_are_commands(monkeypatch, capsys, command):
    """Every option shown in an example is one of the command's."""
    monkeypatch.setenv("COLUMNS", "100")
    told = _help(monkeypatch, capsys, command)
    lines = [line.split() for line in told.splitlines() if line.startswith("    puma-dash ")]
    options = told[: told.index("Examples:")]
    assert lines
    for line in lines:
        assert line[1] == command
        for word in line:
            assert not word.startswith("--") or word in options.split()


def test_the_sign_stands_in_the_help(monkeypatch, capsys):
    from puma_dash.ui.text import PSI_SENTENCE

    assert PSI_SENTENCE in " ".join(_help(monkeypatch, capsys, "value").split())


def test_exit_codes_stand_in_the_help_and_in_the_readme(monkeypatch, capsys):
    told = _help(monkeypatch, capsys)
    readme = (cli_project.ROOT / "README.md").read_text("utf-8")
    for code in ("0", "1", "2", "70"):
        assert f"\n    {code:4}" in told
        assert f"\n| {code} |" in readme


def _help(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["puma-dash", *words, "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    return capsys.readouterr().out

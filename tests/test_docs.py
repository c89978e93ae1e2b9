"""The documentation builds, needs nobody's server, is complete, and what it shows in Python runs."""

import importlib.util
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from scipy.stats import entropy

import puma_dash as puma
from puma_dash.core.curvature.dense import gauss_newton_matrix
from puma_dash.core.engine import engine_of
from puma_dash.ui import guide
from puma_dash.ui.text import PSI_SENTENCE
from tests.core import test_registries as contract

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning, a dead link or a failing cell would have ended the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def script(name):
    """A module of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(page):
    """What a page says, without its markup."""
    return unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def test_the_site_fetches_nothing_from_elsewhere(site):
    html = "".join(path.read_text("utf-8") for path in site.rglob("*.html"))
    fetched = re.findall(r'<(?:link|script|img|iframe)\b[^>]*?\b(?:href|src)="([^"]+)"', html)
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert len(fetched) > 100
    assert not [where for where in fetched if re.match(r"(https?:)?//", where)]
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


def test_the_reference_has_every_public_name(site):
    """As a heading, or as an entry of the catalogue."""
    calls, data, catalogue = (
        site / "reference" / name / "index.html" for name in ("calls", "data", "catalogue")
    )
    headings = re.findall(r'id="puma_dash\.(\w+)"', calls.read_text("utf-8") + data.read_text("utf-8"))
    listed = re.findall(r"\w+", words(catalogue))
    assert set(puma.__all__) - {"__version__"} <= {*headings, *listed}
    assert {name for name in puma.__all__ if name.islower()} - {"__version__"} <= set(headings)
    keys = re.findall(r'<h3 id="([\w-]+)"', catalogue.read_text("utf-8"))
    assert {key for entries in contract.REGISTRIES.values() for key in entries} <= set(keys)


def test_the_tutorial_ran_and_found_what_it_says(site):
    said = words(site / "tutorial" / "index.html")
    everywhere, harmful, suspects = map(
        int, re.search(r"among all rows (\d+)%, harmful (\d+)%, suspects (\d+)%", said).groups()
    )
    assert everywhere == 10
    assert 70 < harmful <= suspects
    held = re.findall(r"(\w+) +predicted (\S+), measured (\S+)", said)
    assert [name for name, *_ in held] == ["cross_entropy", "calibration"]
    for _, *changes in held:
        predicted, measured = map(float, changes)
        assert measured < 0
        assert 0.5 < predicted / measured < 2


def test_formulas_and_words_of_the_app_are_there(site):
    method = (site / "method" / "index.html").read_text("utf-8")
    assert method.count("<math") == len(guide.FORMULAS) + 2  # two stand in sentences
    assert "$" not in words(site / "method" / "index.html") + words(site / "methods" / "index.html")
    assert PSI_SENTENCE in words(site / "index.html")
    assert "{{" not in "".join(words(path) for path in site.rglob("*.html"))


def test_every_method_has_its_five_sentences(site):
    """On the page that scripts/methods.py has written; else: python scripts/methods.py."""
    methods = script("methods")
    assert methods.PAGE.read_text("utf-8") == methods.page()
    html = (site / "methods" / "index.html").read_text("utf-8")
    heads = [unescape(head) for head in re.findall(r"<h3 id=[^>]+>([^<]+)<", html)]
    assert {kind.label for kind in (*puma.VALUATIONS.values(), *puma.UNLEARNERS.values())} <= set(heads)
    links, places = set(re.findall(r'href="#([^"]+)"', html)), set(re.findall(r'\bid="([^"]+)"', html))
    assert links <= places
    assert html.count("<math") > len(heads)


def run_page(name):
    """The names that the Python blocks of a page leave, run one after the other."""
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return names


def test_a_model_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page writes a folder of records
    names = run_page("project.md")
    assert names["make_project"]().name == "mine"
    assert {finding.status for finding in puma.health(names["project"])} == {"ok"}
    assert names["traced"].diagnostics["checkpoints"] == [5, 10, 15, 20]
    assert "no proof" in names["evidence"].sentence
    assert names["hers"].criterion == "cross_entropy where sex = 'female'"


@pytest.fixture
def added():
    """The entries that a test put into the registries, which are taken out again."""
    before = {name: dict(entries) for name, entries in contract.REGISTRIES.items()}
    yield lambda: [
        kind
        for name, entries in contract.REGISTRIES.items()
        for key, kind in entries.items()
        if key not in before[name]
    ]
    for name, entries in before.items():
        contract.REGISTRIES[name].clear()
        contract.REGISTRIES[name].update(entries)


def test_ones_own_are_like_ours(added):
    """They keep the contract of the registries and do what they say."""
    names = run_page("extend.md")
    kinds = added()
    assert {kind.__name__ for kind in kinds} == {"Undecided", "Diagonal", "TrueClass", "OneStep", "JsonLines"}
    for kind in kinds:
        contract.test_contract(kind)
        contract.test_fields_describe_themselves(kind)
    project, patched, data = names["project"], names["patched"], names["data"]
    outputs = project.model(project.validation.inputs).detach().softmax(1)
    undecided = puma.value(project, criterion="undecided").diagnostics["criterion_value"]
    assert undecided == pytest.approx(entropy(outputs, axis=1).mean(), rel=1e-5)
    assert patched.measured["undecided"] < 0
    assert not patched.doubts
    engine = engine_of(project, "cpu")
    ones = engine.theta.new_ones(1, len(engine.theta))
    found = 1 / names["Diagonal"](probes=4_000)(engine)(ones).x[0]
    truth = gauss_newton_matrix(engine).diagonal() + engine.weight_decay + 0.01
    assert (found - truth).norm() < 0.1 * truth.norm()
    assert names["stepped"].measured["brier"] < 0
    assert project.train.meta["flipped"][list(names["plan"].rows)].mean() > 0.9
    assert data.class_names == ("even", "odd")
    for rows in data.splits.values():
        assert (rows.inputs[:, 0] % 2).equal(rows.targets.to(rows.inputs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_every_loader_has_an_example_that_runs(capsys):
    names = run_page("loaders.md")
    text = (ROOT / "docs" / "loaders.md").read_text("utf-8")
    assert {"Tables", "Arrays", "Images", "IDX"} <= set(re.findall(r"^## (\w+)", text, re.MULTILINE))
    assert len(puma.LOADERS) == 4
    project, inputs = names["project"], names["known"].inputs
    assert set(project.train.groups["sex"]) == {"f", "m"}
    assert (inputs[:, 1:].sum(1) == 1).all()  # one city each
    said = capsys.readouterr().out
    for words in (
        "torch.Size([48, 5])",
        "torch.int64",
        "('cat', 'dog')",
        "torch.Size([40, 1, 6, 6])",
        "model.pt2",
    ):
        assert words in said, said


def test_every_bad_file_of_the_tests_stands_on_the_page_of_what_is_refused():
    """Else: python scripts/refused.py."""
    refused = script("refused")
    known = [name for _, cases in refused.sections() for name, _ in cases]
    lines = refused.PAGE.read_text("utf-8").splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines if " | expected " in line] == known
    assert len(known) > 300

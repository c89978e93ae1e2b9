"""The report: self-contained, safe with hostile names, honest about what held and what nobody counted."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

import puma_dash as puma
from puma_dash.ui.report import Decision, examples_of, headline, report_html

EVIL = "</script><img src=x onerror=alert(1)>"


def project(images=False, groups=None, seed=0):
    """Two noisy classes of small pictures, or of rows of four numbers; one class has a hostile name."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(180, 4, 4, generator=generator)
    y = (x.mean((1, 2)) + 0.1 * torch.randn(180, generator=generator) > 0).long()
    x = x if images else x[:, 0]
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 if images else 4, 2))
    meta = pd.DataFrame({"site": [EVIL, "b", "c"] * 20, "age": np.arange(60) / 7})
    splits = [puma.Split(x[i : i + 60], y[i : i + 60], meta=meta) for i in (0, 60, 120)]
    return puma.Project(
        name=f"mine {EVIL}",
        model=net,
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        weight_decay=0.1,
        class_names=[EVIL, "no"],
    )


def written(made, path, **settings):
    """The report on removing 30 rows of ``made``, without plotly.js, and the whole."""
    tolerance = {"cross_entropy": 9.0}
    plan = puma.PatchPlan(remove=tuple(range(30)), hold=("cross_entropy",), tolerance=tolerance)
    patch = puma.patch(made, plan)
    whole = puma.report(made, patch, path / "r.html", **settings).read_text("utf-8")
    start, end = whole.index("<script>"), whole.index("</script>")
    return whole[:start] + whole[end:], whole


class Addresses(HTMLParser):
    """Everything that a browser would load."""

    @classmethod
    def of(cls, html):
        parser = cls()
        parser.found = []
        parser.feed(html)
        return parser.found

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]


SECTIONS = [
    "What was asked, and what was done",
    "What had to hold",
    "Before and after",
    "Reliability",
    "Predicted against measured",
    "The marked training rows",
    "Data and model",
    "Where it comes from",
    "Limits",
]


def test_it_has_its_sections_in_order_and_needs_nothing_else(tmp_path):
    own, whole = written(project(), tmp_path)
    headings = re.findall(r"<h2>(.*?)</h2>", own)
    assert [h for h in headings if h in SECTIONS] == SECTIONS
    assert len(whole) < 8_000_000
    assert whole.count("plotly.js v") == 1
    assert all(address.startswith("data:") for address in Addresses.of(own))
    assert "url(" not in own
    assert "http" not in own
    assert own.count('role="img" aria-label="') == own.count("<figure") == 5


def test_hostile_names_stay_text(tmp_path):
    own, _ = written(project(), tmp_path)
    assert "<img src=x" not in own
    assert "&lt;img src=x onerror" in own
    assert own.count("<script") == own.count("</script>") - 1  # that of plotly.js was cut off


def test_it_says_that_no_ledger_knows_of_it_and_who_counts(tmp_path):
    own, _ = written(project(), tmp_path)
    assert "not in a ledger" in own
    assert "<dt>Test opened</dt><dd>not counted</dd>" in own
    own, _ = written(project(), tmp_path, openings=3)
    assert "3 times for this project so far" in own


@pytest.mark.parametrize("images", [False, True])
def test_at_most_24_examples_those_fitted_worst(tmp_path, images):
    own, _ = written(project(images), tmp_path)
    assert "24 of the 30 rows removed" in own
    if images:
        assert own.count('<img src="data:image/png;base64,') == 24
        return
    shown = own[own.index("24 of the 30") :].split("<table")[1].split("</table>")[0]
    assert shown.count("<tr") == 25
    assert "data: site" in shown
    losses = [float(x) for x in re.findall(r"<td>(\d\.\d\d)</td>", shown)]
    assert losses == sorted(losses, reverse=True)


def test_examples_are_relabelled_rows_where_none_is_removed():
    arrays = {"loss": np.array([1.0, 3, 2]), "target": np.array([0, 1, 0]), "predicted": np.array([0, 0, 0])}
    arrays["confidence"] = np.array([0.5, 0.6, 0.7])
    plan = {"remove": [], "relabel": {"2": 1, "1": 0}, "upweight": {"0": 1.0}}
    found = examples_of(plan, arrays, {"task": "classification", "classes": ["a", "b"], "columns": []})
    assert (found["done"], found["shown"], found["of"]) == ("relabelled", 2, 2)
    assert found["table"].index(">1<") < found["table"].index(">2<")
    assert found["pictures"] is None


def rails(*verdicts, held=True):
    """A comparison on test with these verdicts."""
    data = [[f"c{i} on test", verdict] for i, verdict in enumerate(verdicts)]
    frame = pd.DataFrame(data, columns=["label", "verdict"])
    frame = frame.assign(held=held, criterion=frame["label"], measured=0.5, tolerance=0.25)
    return {"split": "test", "verdicts": frame.to_dict("split")}


@pytest.mark.parametrize(
    ("comparison", "strength", "kind", "words"),
    [
        (rails("pass", "pass"), 1, "pass", "On test, all that had to hold held: c0, c1."),
        (rails("pass", "fail"), 1, "fail", "On test, worse than allowed: c1 +0.5000 (at most 0.25)."),
        (rails("pass", "inconclusive"), 1, "inconclusive", "do not decide whether c1 held; c0 did."),
        (rails("fail", "inconclusive"), 1, "fail", "worse than allowed: c0"),
        (rails("pass", "fail", held=[True, False]), 1, "pass", "held: c0."),
        (rails(), 1, "inconclusive", "On test, nothing had to hold."),
        (rails("pass"), 0, "fail", "Nothing was applied"),
    ],
)
def test_the_headline_holds_the_verdict(comparison, strength, kind, words):
    found, sentence = headline({"strength": strength}, comparison)
    assert found == kind
    assert words in sentence


def test_what_was_asked_names_criteria_of_ones_own_with_their_tolerance(tmp_path):
    made = project()
    own = puma.CrossEntropy(rows=(0, 3))
    plan = puma.PatchPlan(remove=(1,), hold=("brier", own), tolerance={own.name: 0.25})
    text = puma.report(made, puma.patch(made, plan), tmp_path / "r.html").read_text("utf-8")
    said = text[text.index("To hold on validation") :].split("<")[0]
    assert "Brier score may get worse by 0 " in said
    assert "cross-entropy on 2 validation rows" in said
    assert "may get worse by 0.25 nats" in said


def test_a_decision_is_told_with_its_hashes_and_how_to_make_it_again(tmp_path):
    from puma_dash.core import comparison
    from puma_dash.workspace.provenance import provenance
    from puma_dash.workspace.records import patch_record

    made = project()
    patch = puma.patch(made, puma.PatchPlan(remove=(1, 2), hold=()))
    info = patch_record(patch, comparison.compare(made, patch)) | provenance(made, patch, seed=5)
    info["comparison"]["per_group"] = {
        "columns": ["column", "group", "n", "before", "after"],
        "index": [0],
        "data": [["sex", EVIL, 7, 0.5, 0.75]],
    }
    said = Decision(
        7, "accepted", "version 2", "the original", "ada", "today", f"why {EVIL}", "p" * 64, "h" * 64, "ok"
    )
    html = report_html(info, None, decision=said, openings=0).split("</script>", 1)[1]
    for words in (
        "Accepted as version 2",
        "puma-dash replay 7",
        "p" * 64,
        "h" * 64,
        "<dt>Seed</dt><dd>5</dd>",
    ):
        assert words in html
    assert "0 times for this project so far" in html
    assert "75.0 %" in html
    assert "Each group" in html
    assert "<img src=x" not in html
    assert info["hashes"]["model after"] in html
    assert "Predicted against measured" not in html
    assert "Nothing was asked to hold" in html

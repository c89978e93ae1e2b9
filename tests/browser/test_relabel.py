"""Relabel, patch, compare, look into a flip cell: what a person does once the rows are marked."""

import re
from urllib.parse import parse_qs, urlparse

import numpy as np
from playwright.sync_api import expect

from puma_dash.workspace import drafts
from puma_dash.workspace.drafts import Draft, History, Marks
from puma_dash.workspace.index import Index
from puma_dash.workspace.store import Store
from tests.browser.helpers import wait_until_idle


def relabelled(home, draft_id, count):
    """Puts marks on disk: the most harmful misfits get the label that the model gives them."""
    index, store = Index.of(home, "digits", None), Store(home / "cache")
    psi = store.load(index.values["psi/cross_entropy"]).arrays["scores"]
    rows = store.load(index.overview).arrays
    misfits = np.flatnonzero(rows["predicted"] != rows["target"])
    worst = np.sort(misfits[np.argsort(psi[misfits])][:count])
    marks = Marks(worst, rows["predicted"][worst].astype(float))
    history = History((Draft(), Draft(relabel=marks, action="mark to relabel")), 1)
    drafts.save(home / "drafts", draft_id, "digits None", history)


def test_relabel_patch_compare_and_look_into_a_flip_cell(page, server, home):
    page.goto(f"{server}/Explore?project=digits")
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=120_000)
    wait_until_idle(page)
    (draft_id,) = parse_qs(urlparse(page.url).query)["draft"]
    relabelled(home, draft_id, 40)

    page.goto(f"{server}/Patch?project=digits&draft={draft_id}")
    expect(page.get_by_role("tab", name="Relabel 40")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile("MiB on .*, with the comparison"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Predict against strength").click()
    expect(page.get_by_text(re.compile("predicted to hold"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Patch: relabel 40").click()

    expect(page.get_by_role("heading", name="Compare")).to_be_visible(timeout=60_000)
    headline = page.get_by_text(re.compile(r"Fixes \d+ and breaks \d+ of 397 validation rows"))
    fixed, broken = map(int, re.search(r"Fixes (\d+) and breaks (\d+)", headline.inner_text()).groups())
    assert fixed > broken
    wait_until_idle(page)
    page.get_by_role("radio", name=f"Fixed {fixed} (wrong → right)").click()
    expect(page.get_by_text(f"{fixed} validation rows, largest change of confidence first.")).to_be_visible()
    page.get_by_role("radio", name=re.compile("Kept right")).click()
    expect(page.get_by_text(re.compile(r"120 shown of \d+ validation rows"))).to_be_visible()
    page.get_by_role("radio", name="relabelled, new label").click()
    expect(page.get_by_text("40 of 40 rows relabelled, new label", exact=False)).to_be_visible()

    page.reload()
    expect(headline).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Adjust").click()
    expect(page.get_by_role("button", name="Patch: relabel 40")).to_be_visible(timeout=60_000)

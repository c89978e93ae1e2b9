"""A project of one's own: a zip through the page, and a folder below the root, in a real Chromium."""

import re
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from playwright.sync_api import expect
from sklearn.linear_model import LogisticRegression

from puma_dash.core.loaders.project_folder import read_data
from puma_dash.core.loaders.starter import start
from tests.browser.helpers import ROOT, serving, wait_until_idle


@pytest.fixture(scope="module")
def loans(tmp_path_factory):
    """A project folder: three tables and a logistic regression of scikit-learn, kept by skops."""
    folder = tmp_path_factory.mktemp("top") / "loans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        income, debt = rng.normal(40, 10, 300), rng.normal(10, 4, 300)
        good = income - 2 * debt + rng.normal(0, 8, 300) > 20
        frame = pd.DataFrame({"income": income, "debt": debt, "repaid": np.where(good, "yes", "no")})
        frame.round(2).to_csv(folder / f"{split}.csv", index=False)
    rows = {split: f"{split}.csv" for split in ("train", "validation", "test")}
    settings = {"name": "Loans", "model": {"weights": "model.skops"}, "data": {**rows, "target": "repaid"}}
    start(folder, {**settings, "weight_decay": 0.01})
    train = read_data(folder).splits["train"]
    model = LogisticRegression(C=1 / (0.01 * 300)).fit(train.inputs.numpy(), train.targets.numpy())
    skops.io.dump(model, folder / "model.skops")
    return folder


@pytest.fixture
def archive(loans, tmp_path):
    """The folder as people zip it: with the folder itself."""
    path = tmp_path / "loans.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(loans.iterdir()):
            packed.write(file, f"loans/{file.name}")
    return path


@pytest.fixture
def own(browser, tmp_path, loans, monkeypatch):
    """The URL of a server with the loans' parent as its root."""
    monkeypatch.setenv("PUMA_DASH_ROOT", str(loans.parent))
    with serving(ROOT / "app.py", home=tmp_path / "home", log=tmp_path / "log.txt") as url:
        yield url


def test_a_zip_is_uploaded_explored_and_deleted(page, own, archive):
    page.goto(own)
    page.locator("input[type=file]").set_input_files(archive)
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=120_000)
    expect(page.locator(".nsewdrag").first).to_be_visible()
    assert re.search(r"project=upload(:|%3A)[0-9a-f]{32}", page.url)
    page.reload()
    expect(page.locator(".nsewdrag").first).to_be_visible(timeout=30_000)
    page.get_by_role("link", name="Workspace").click()
    expect(
        page.get_by_text("300 training, 300 validation, 300 test rows of 2 classes: no, yes")
    ).to_be_visible()
    wait_until_idle(page)
    link = page.url
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete loans.zip").click()
    expect(page.get_by_text("No project is open.")).to_be_visible()
    page.goto(link)
    expect(page.get_by_text("Upload its archive again")).to_be_visible()


def test_a_folder_below_the_root_is_picked_and_explored(page, own):
    page.goto(own)
    expect(page.get_by_role("combobox", name="Project folders on this server")).to_have_value("Loans · loans")
    page.get_by_role("button", name="Open the folder").click()
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=120_000)

"""What all tests share: a home of their own, and the real data where they are given."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine may stand still for a moment in any test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# One thread for torch, in subprocesses too: tiny problems only lose by sharing two busy cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory):
    """Keeps projects, caches and jobs out of the user's home, in subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUMA_DASH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def test_data():
    """The folder with the real data sets (mnist, adult, german_credit, pretrained)."""
    folder = os.environ.get("PUMA_DASH_TEST_DATA")
    if not folder:
        pytest.skip("PUMA_DASH_TEST_DATA is not set: it names the folder with the real data sets")
    if not Path(folder).is_dir():
        pytest.fail(f"PUMA_DASH_TEST_DATA={folder} is not a folder")
    return Path(folder)

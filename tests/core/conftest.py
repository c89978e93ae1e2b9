"""What the engine's tests share."""

import importlib
import warnings

import pytest
import torch

with warnings.catch_warnings():  # torch 2.13 calls its own deprecated torch.jit.script on first forward mode
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small matrices: threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _one_process():
    """On a busy machine even small models would seem to take long, and other processes would be started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("puma_dash.core.retraining.PAYS", float("inf"))
        yield

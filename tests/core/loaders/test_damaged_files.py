"""Files with some bytes changed, cut off or made up: a model or a sentence, never anything else."""

import functools
import gzip
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import puma_dash as puma

from .makers import ROWS, convolutional, dense, exported, read, saved

SUFFIXES = (".pt", ".safetensors", ".pt2", ".skops", ".pth")


@functools.cache
def whole(suffix) -> bytes:
    """A file that can be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        if suffix == ".pt2":
            exported(dense(), ROWS, path)
        elif suffix == ".skops":
            estimator = make_pipeline(StandardScaler(), LogisticRegression())
            skops.io.dump(estimator.fit(np.asarray(ROWS), [0, 1, 2, 0, 1, 2]), path)
        elif suffix == ".pth":
            torch.save(convolutional().state_dict(), path, _use_new_zipfile_serialization=False)
        else:
            saved(dense().state_dict(), path)
        return path.read_bytes()


def check(data, suffix, **options):
    """Reads a file of that content: a model, or a sentence."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / f"m{suffix}"
        path.write_bytes(data)
        try:
            model = read(path, **options).model
        except puma.ProjectError as error:
            answer = str(error)
        else:
            assert model(ROWS.to(next(model.parameters()).dtype)).isfinite().all()
            return
    assert answer.startswith("expected ")
    assert len(answer) < 1200


quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@quickly
@given(CHANGES)
def test_changed_bytes(suffix, changes):
    data = bytearray(whole(suffix))
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    check(bytes(data), suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
@quickly
@given(st.floats(0, 1), st.binary(max_size=20))
def test_cut_off_and_continued(suffix, share, more):
    data = whole(suffix)
    check(data[: int(share * len(data))] + more, suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
@quickly
@given(st.sampled_from(SUFFIXES), st.binary(max_size=200))
def test_another_kind_or_none(suffix, other, data):
    check(whole(other), suffix)
    check(data, suffix)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(-3, 2**70), st.text(max_size=3)), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
KEYS = ("activation", "pooling", "padding", "stride", "pool", "order", "key", "classes", "hidden", "channels")
KEYS += ("kernel", "width", "factory", "other")
NAMES = st.sampled_from([None, *puma.ARCHITECTURES])


@pytest.mark.parametrize("suffix", SUFFIXES)
@quickly
@given(NAMES, st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_any_settings(suffix, name, options):
    """Numbers of a size that could be meant, and all else that a table may hold."""
    check(whole(suffix), suffix, **({"architecture": name} if name else {}), **options)


STATES = st.dictionaries(
    st.from_regex(r"([a-c][0-3]?\.){0,2}(weight|bias|running_mean|running_var|[a-z]{1,4})", fullmatch=True),
    st.tuples(
        st.lists(st.integers(0, 4), max_size=5),
        st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool]),
    ),
    max_size=6,
)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@quickly
@given(STATES, NAMES)
def test_any_names_and_shapes(suffix, state, name):
    tensors = {key: torch.ones(shape, dtype=dtype) for key, (shape, dtype) in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        data = saved(tensors, Path(folder) / f"m{suffix}").read_bytes()
    check(data, suffix, **({"architecture": name} if name else {}))


def test_a_key_that_is_no_name_is_told():
    check(whole(".pth"), ".pth", key=[])


def test_a_compressed_file_that_is_cut_off_is_told():
    check(gzip.compress(bytes(2_000))[:20], ".pt")

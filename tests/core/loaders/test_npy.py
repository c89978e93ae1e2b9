"""NumPy and IDX files: mapped where they can be, and what is in them as NumPy itself reads it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import puma_dash as puma
from puma_dash.core.engine import Engine
from puma_dash.core.loaders.base import Folder, memory_limit
from puma_dash.core.loaders.idx import read_idx
from puma_dash.core.loaders.npy import numbers, read_array
from puma_dash.core.loaders.project_folder import open_folder

from .folders import arrays, idx_bytes

KINDS = ["<f4", ">f4", "<f8", ">f8", "f2", "u1", "i1", "<i2", ">i4", "<i8", "<u2", "<u4", ">u8", "?", "g"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), order=st.sampled_from("CF"), packed=st.booleans())
def test_numbers_come_back_as_numpy_saved_them(tmp_path_factory, data, kind, order, packed):
    path = tmp_path_factory.mktemp("arrays")
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=5))
    limit = 2**62 if kind == ">u8" else None
    elements = st.integers(0, limit) if limit else None
    array = np.asarray(data.draw(hnp.arrays(np.dtype(kind), shape, elements=elements)), order=order)
    if packed:
        np.savez_compressed(path / "a.npz", inputs=array)
    else:
        np.save(path / "a.npy", array)
    found = numbers(read_array("a.npz:inputs" if packed else "a.npy", Folder(path)), "a")
    np.testing.assert_array_equal(found, array.astype(found.dtype))
    assert torch.from_numpy(found).shape == array.shape
    if np.dtype(kind).kind in "if" and kind != "g":
        assert found.dtype == np.dtype(kind).newbyteorder("=")


@pytest.mark.parametrize(
    ("code", "kind"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_idx_files_of_every_type(tmp_path, code, kind):
    array = np.random.default_rng(code).integers(0, 100, (4, 3)).astype(kind)
    (tmp_path / "x.idx").write_bytes(idx_bytes(array, code))
    found = read_idx(tmp_path / "x.idx")
    np.testing.assert_array_equal(found, array)
    assert torch.from_numpy(found).shape == (4, 3)


def mapped(path):
    """Addresses at which the file is mapped into this process."""
    with open("/proc/self/maps") as maps:
        spans = [line.split()[0].split("-") for line in maps if line.rstrip().endswith(str(path.resolve()))]
    return [(int(low, 16), int(high, 16)) for low, high in spans]


def lies_in(tensor, path):
    return any(low <= tensor.data_ptr() < high for low, high in mapped(path))


def test_rows_stay_on_the_disk(tmp_path, monkeypatch):
    """In the project and in the engine, where the split is too large to be kept converted."""
    monkeypatch.setattr("puma_dash.core.engine.CACHE_BYTES", 0)
    edited = arrays(tmp_path)
    (edited / "project.toml").write_text(
        (edited / "project.toml").read_text().replace("[model]", 'normalise = "standard"\n[model]')
    )
    project = open_folder(edited)
    assert lies_in(project.train.inputs, tmp_path / "x.npy")
    assert lies_in(Engine(project).split("train").inputs, tmp_path / "x.npy")
    in_memory = puma.Split(project.train.inputs.clone(), project.train.targets, project.train.weights)
    again = puma.Project(
        name="", model=project.model, train=in_memory, validation=project.validation, weight_decay=None
    )
    np.testing.assert_array_equal(puma.value(project).scores, puma.value(again).scores)


def test_writing_to_rows_leaves_the_file_alone(tmp_path):
    before = (arrays(tmp_path) / "x.npy").read_bytes()
    project = open_folder(tmp_path)
    project.train.inputs[0] = 7
    assert (tmp_path / "x.npy").read_bytes() == before


def test_an_array_larger_than_memory_opens(tmp_path):
    """A file with a hole: it takes no room on the disk."""
    rows = 4 * memory_limit() // (4 * 1000)
    big = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, 1000))
    big[-1] = 3
    del big
    found = numbers(read_array("x.npy", Folder(tmp_path)), "x.npy")
    assert found.shape == (rows, 1000)
    assert torch.from_numpy(found)[-1].sum() == 3000


def test_rows_are_looked_through_in_chunks(monkeypatch):
    monkeypatch.setattr("puma_dash.core.checks.CHUNK_NUMBERS", 10)
    inputs = torch.zeros(50, 4)
    inputs[[7, 33]] = torch.nan
    with pytest.raises(puma.ProjectError, match="rows 7, 33 hold NaN"):
        puma.Project(
            name="",
            model=torch.nn.Linear(4, 2),
            train=puma.Split(inputs, torch.arange(50) % 2),
            validation=puma.Split(inputs, torch.arange(50) % 2),
        )


def test_a_table_of_arrays_in_one_file(tmp_path):
    """Keras' mnist.npz and the like: any names, after a colon."""
    arrays(tmp_path)
    np.savez(tmp_path / "all.npz", x_train=np.load(tmp_path / "x.npy"), y_train=np.load(tmp_path / "y.npy"))
    text = (tmp_path / "project.toml").read_text()
    line = 'train = { inputs = "all.npz:x_train", targets = "all.npz:y_train" }\n'
    (tmp_path / "project.toml").write_text(text[: text.index("train =")] + line)
    assert len(open_folder(tmp_path).train) == 48


def test_rows_reshaped_as_the_model_takes_them(tmp_path):
    arrays(tmp_path)
    text = (tmp_path / "project.toml").read_text()
    (tmp_path / "project.toml").write_text(text + "shape = [1, 2, 2]\n")
    project = open_folder(tmp_path)
    assert tuple(project.train.inputs.shape) == (60, 1, 2, 2)
    np.testing.assert_array_equal(project.train.inputs.reshape(60, 4), np.load(tmp_path / "x.npy"))


def test_names_as_labels_in_arrays(tmp_path):
    arrays(tmp_path)
    for file, kind in (("y.npy", "U"), ("s.npy", "S")):
        np.save(tmp_path / file, np.array(["b", "a", "c"] * 20, dtype=kind))
    text = (tmp_path / "project.toml").read_text().replace('test = "test.npz"', "")
    for name in ("y.npy", "s.npy"):
        named = 'class_names = ["a", "b", "c"]\n' + text.replace("y.npy", name)
        (tmp_path / "project.toml").write_text(named)
        train = open_folder(tmp_path).train
        assert train.targets.tolist() == [[1, 0, 2][row % 3] for row in train.meta.id]

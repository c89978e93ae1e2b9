import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from safetensors.numpy import save

from puma_dash.workspace.store import Store, home, key

ARRAYS = {
    "bool": np.array([[True, False]]),
    "int8": np.array([-128, 127], np.int8),
    "uint64": np.array([2**64 - 1], np.uint64),
    "float16": np.array([1.5, np.inf], np.float16),
    "float32": np.array([[0.1], [np.nan]], np.float32),
    "float64": np.array([0.1, -0.0]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 3), np.int32),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "big endian": np.array([1.0, 2.0], ">f8"),
}
INFO = {"method": "psi", "seconds": 1.5, "rows": [1, 2], "nested": {"none": None}, "text": "é"}


@dataclass(frozen=True)
class Dense:
    damping: float = 0.0


@dataclass(frozen=True)
class Sparse:
    damping: float = 0.0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def file_of(store, name):
    return store.root / name[:2] / f"{name}.safetensors"


def assert_same(entry, arrays, info):
    assert entry.info == info
    assert entry.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(entry.arrays[name], array, strict=name != "big endian")


def test_home_is_the_environment_variable_or_a_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("PUMA_DASH_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b"
    assert home().is_dir()
    monkeypatch.delenv("PUMA_DASH_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".puma-dash"
    assert home().stat().st_mode & 0o077 == 0


def test_different_parts_have_different_keys():
    zeros = np.zeros(4)
    parts = [
        (),
        ((),),
        (None,),
        (1,),
        (1.0,),
        (True,),
        ("1",),
        (b"1",),
        (np.array(1),),
        (-1,),
        (2**80,),
        (0.0,),
        (-0.0,),
        (float("nan"),),
        ("ab", "c"),
        ("a", "bc"),
        (["ab"], ["c"]),
        (["ab", "c"],),
        ({},),
        ({"a": 1, "b": 2},),
        ({"a": 2, "b": 1},),
        ({"a": {"b": 1}},),
        ({1: "a"},),
        ({"1": "a"},),
        (Dense(),),
        (Dense(0.1),),
        (Sparse(),),
        ({"damping": 0.0},),
        (zeros,),
        (zeros.astype(np.float32),),
        (zeros.view(np.int64),),
        (zeros.astype(">f8"),),
        (zeros.reshape(2, 2),),
        (zeros[:0],),
        (np.zeros((0, 3)),),
        (np.zeros((3, 0)),),
        (zeros.view([("x", "f8")]),),
        (zeros.view([("y", "f8")]),),
        (np.array(["a", "b"]),),
        (np.array(["2020-01-01"], "datetime64[D]"),),
        (np.array(["2020-01-01"], "datetime64[s]"),),
    ]
    keys = [key(*part) for part in parts]
    for one, other in combinations(range(len(keys)), 2):
        assert keys[one] != keys[other], (parts[one], parts[other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2], 3: None}, {3: None, "b": [2], "a": 1}),
        ({"a": 1}, MappingProxyType({"a": 1})),
        ([1, 2], (1, 2)),
        (Path("a/b"), "a/b"),
        (1.5, np.float64(1.5)),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(10)[::3], np.array([0, 3, 6, 9])),
    ],
)
def test_equal_parts_have_equal_keys(one, other):
    assert key(one) == key(other)


def test_key_is_the_same_in_every_process_and_version():
    """Pinned: a change of the encoding throws away the caches of all users."""
    parts = (None, True, 7, 0.5, "é", b"\0", Path("a"), {"b": 1, "a": [2]}, np.eye(2, dtype="<f4"))
    assert key(*parts) == "d4dde82813f3cc05f4488880ad89c4977eb5c75f74c0e50ffe7354fa3a42f56b"


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({1, 2}, "builtins.set"),
        (Dense, "builtins.type"),
        ([{"deep": 1j}], "builtins.complex"),
        (np.array([None]), "numpy.ndarray of dtype object"),
        (lambda: 0, "builtins.function"),
    ],
)
def test_key_of_an_unknown_type_names_it(part, named):
    with pytest.raises(TypeError, match=named):
        key(part)


def test_round_trip(store):
    name = key("round trip")
    assert store.load(name) is None
    assert_same(store.save(name, ARRAYS, INFO), ARRAYS, INFO)
    assert_same(store.load(name), ARRAYS, INFO)
    assert_same(Store(store.root).load(name), ARRAYS, INFO)
    assert [file for file in store.root.rglob("*") if file.is_file()] == [file_of(store, name)]


def test_no_arrays_and_no_info(store):
    name = key()
    store.save(name, {}, {})
    assert_same(store.load(name), {}, {})


def test_a_hit_and_a_miss_give_the_same_types(store):
    name = key("types")
    saved = store.save(name, {}, {"shape": (1, 2), "rows": {7: "x"}})
    assert saved.info == store.load(name).info == {"shape": [1, 2], "rows": {"7": "x"}}


def test_fetch_computes_only_on_a_miss(store):
    computed = []

    def compute():
        computed.append(1)
        return {"scores": np.arange(3)}, {"seconds": 2}

    for _ in range(3):
        assert_same(store.fetch(key("fetch"), compute), {"scores": np.arange(3)}, {"seconds": 2})
    assert computed == [1]


def test_arrays_are_mapped_and_what_is_written_to_them_stays_in_the_process(store):
    name = key("mapped")
    store.save(name, {"a": np.arange(1000.0), "b": np.zeros(3, np.uint8)}, {})
    content = file_of(store, name).read_bytes()
    loaded = store.load(name).arrays
    for array in loaded.values():
        base = array
        while isinstance(base, np.ndarray):
            owner, base = base, base.base
        assert isinstance(owner, np.memmap)
        array[:] = 7
    assert file_of(store, name).read_bytes() == content
    assert store.load(name).arrays["a"][3] == 3


def test_an_entry_stays_readable_after_it_is_written_anew_and_removed(store):
    name = key("replaced")
    store.save(name, {"a": np.arange(100_000)}, {})
    loaded = store.load(name).arrays["a"]
    store.save(name, {"a": np.zeros(5)}, {})
    file_of(store, name).unlink()
    np.testing.assert_array_equal(loaded, np.arange(100_000))


def test_truncated_entry_is_a_miss(store):
    name = key("truncated")
    store.save(name, ARRAYS, INFO)
    content = file_of(store, name).read_bytes()
    for size in [0, 4, 8, 100, len(content) // 2, len(content) - 1]:
        file_of(store, name).write_bytes(content[:size])
        assert store.load(name) is None
        assert not file_of(store, name).exists()
    assert_same(store.fetch(name, lambda: (ARRAYS, INFO)), ARRAYS, INFO)


def test_flipped_bit_anywhere_is_a_miss(store):
    name = key("flipped")
    store.save(name, {"a": np.array([1.0, 2.0]), "b": np.array([True])}, {"rows": [1]})
    content = file_of(store, name).read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        file_of(store, name).write_bytes(damaged)
        assert store.load(name) is None, position
        assert not file_of(store, name).exists()


def test_safetensors_file_of_somebody_else_is_a_miss(store):
    name = key("foreign")
    file_of(store, name).parent.mkdir(parents=True)
    for metadata in (None, {"info": json.dumps({})}, {"info": "{", "sha256": key({}, "{")}):
        file_of(store, name).write_bytes(save({}, metadata))
        assert store.load(name) is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_crash_during_write_leaves_the_old_entry(store, monkeypatch, step):
    def crash(*_):
        raise KeyboardInterrupt

    name = key("crash")
    store.save(name, {"a": np.arange(3)}, {"version": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, step, crash)
        with pytest.raises(KeyboardInterrupt):
            store.save(name, {"a": np.arange(4)}, {"version": 2})
    assert_same(store.load(name), {"a": np.arange(3)}, {"version": 1})
    assert list(file_of(store, name).parent.iterdir()) == [file_of(store, name)]


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([None]), np.array([1j])], ids=lambda a: a.dtype
)
def test_what_cannot_be_saved_is_an_error_and_leaves_nothing(store, array):
    name = key("unsupported")
    with pytest.raises(Exception, match="dtype"):
        store.save(name, {"a": array}, {})
    assert store.load(name) is None
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(name, {}, {"a": array})
    assert store.load(name) is None


def test_concurrent_writers_of_one_key_are_harmless(store):
    name = key("concurrent")
    arrays = {"a": np.arange(1000)}

    def write_and_read(_):
        store.save(name, arrays, {})
        assert_same(store.load(name), arrays, {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(64)))
    assert list(file_of(store, name).parent.iterdir()) == [file_of(store, name)]


def test_importing_the_store_does_not_import_torch():
    check = "import sys, puma_dash.workspace.store; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    subprocess.run([sys.executable, "-c", check], env={**os.environ, "PYTHONPATH": path}, check=True)

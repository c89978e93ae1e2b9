"""Uploads: what is right is unpacked, all else is refused and leaves nothing behind."""

import io
import os
import stat
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import puma_dash as puma
from puma_dash.core.loaders.project_folder import open_folder
from puma_dash.core.loaders.unpack import Limits, unpack

from .folders import KINDS, tables


def zipped(path, **files):
    """An archive with a project.toml and ``files``, names and contents."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("project.toml", "")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def entry(path, **fields):
    """An archive whose last entry says something of itself."""
    told = zipfile.ZipInfo(fields.pop("name", "x.csv"))
    for key, value in fields.items():
        setattr(told, key, value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.toml", "")
        archive.writestr(told, b"../secret")
    return path


def patched(path, offset, form, value, signature=b"PK\1\2"):
    """An archive whose last central entry is changed at ``offset``."""
    content = bytearray(zipped(path, **{"x.csv": b"1,2\n" * 50}).read_bytes())
    struct.pack_into(form, content, content.rindex(signature) + offset, value)
    path.write_bytes(content)
    return path


def saved(array, save=np.save):
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


class Runs:
    """Would leave a trace if anybody unpickled it."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/unpickled",)


def overlapping(path):
    """Many entries that all point at the same packed bytes."""
    zipped(path, **{f"{k}.csv": os.urandom(5000) for k in range(20)})
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\1\2")
    start = first
    while content[start : start + 4] == b"PK\1\2":
        lengths = struct.unpack_from("<3H", content, start + 28)
        struct.pack_into("<2I", content, start + 20, 90_000, 90_000)
        start += 46 + sum(lengths)
    path.write_bytes(content)
    return path


def nested_bomb():
    """A .npz whose array says that it is a gigabyte, in a few kilobytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**9) + bytes(2**20))
    return stream.getvalue()


BAD = {
    "no zip": (lambda p: p.write_bytes(b"hello") and p, "a zip archive in up.zip, but it cannot be read"),
    "an empty file": (lambda p: p.write_bytes(b"") == 0 and p, "cannot be read"),
    "nothing": (lambda p: zipfile.ZipFile(p, "w").close() or p, "files in the archive, but it has none"),
    "two projects": (lambda p: zipped(p, **{"a/project.toml": b""}), "but got 2"),
    "a name that leads out": (
        lambda p: zipped(p, **{"../x.csv": b"1"}),
        "inside of the archive's own folder",
    ),
    "deep inside": (lambda p: zipped(p, **{"a/b/../../../x.csv": b"1"}), "inside of the archive's own"),
    "an absolute name": (lambda p: zipped(p, **{"/etc/x.csv": b"1"}), "inside of the archive's own folder"),
    "a drive": (lambda p: zipped(p, **{"C:/x.csv": b"1"}), "inside of the archive's own folder"),
    "backslashes": (lambda p: zipped(p, **{"..\\x.csv": b"1"}), "inside of the archive's own folder"),
    "a line break in a name": (
        lambda p: zipped(p, **{"a\nb.csv": b"1"}),
        "inside of the archive's own folder",
    ),
    "a link": (lambda p: entry(p, external_attr=(stat.S_IFLNK | 0o777) << 16), "a link or a device"),
    "a device": (lambda p: entry(p, external_attr=(stat.S_IFCHR | 0o666) << 16), "a link or a device"),
    "a password": (lambda p: patched(p, 8, "<H", 1), "'x.csv' is encrypted"),
    "the same file twice": (lambda p: zipped(p, **{"x.csv": b"1", "X.CSV": b"2"}), "twice"),
    "a file below a file": (lambda p: zipped(p, **{"x": b"1", "x/y": b"2"}), "cannot be read"),
    "a pickle": (lambda p: zipped(p, **{"model.pkl": b"1"}), "no pickles, which run code"),
    "a bomb": (lambda p: zipped(p, **{"x.csv": bytes(10**7)}), "as a zip bomb does"),
    "overlapping files": (overlapping, "they overlap, as in a zip bomb"),
    "more than it says": (lambda p: patched(p, 24, "<I", 10), "cannot be read"),
    "a wrong checksum": (lambda p: patched(p, 16, "<I", 1), "cannot be read"),
    "an unknown compression": (lambda p: patched(p, 10, "<H", 77), "cannot be read"),
    "objects in an array": (lambda p: zipped(p, **{"x.npy": saved([Runs()])}), "Python objects"),
    "objects in an archive of arrays": (
        lambda p: zipped(p, **{"x.npz": saved([Runs()], np.savez)}),
        "Python objects",
    ),
    "something else in an archive of arrays": (
        lambda p: zipped(p, **{"x.npz": zip_of("a.py")}),
        "but it has 'a.py'",
    ),
    "no array": (lambda p: zipped(p, **{"x.npy": b"\x80\x04"}), "its header cannot be read"),
    "a header without end": (lambda p: zipped(p, **{"x.npz": nested_bomb()}), "its header cannot be read"),
    "folders without end": (lambda p: zipped(p, **{"a/" * 9 + "x": b"1"}), "8 folders deep"),
    "a name without end": (lambda p: zipped(p, **{"a" * 300: b"1"}), "200 bytes"),
}


def zip_of(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"1")
    return stream.getvalue()


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_bad_uploads_are_refused_and_leave_nothing(tmp_path, make, words):
    archive = make(tmp_path / "up.zip")
    with pytest.raises(puma.ProjectError) as caught:
        unpack(archive, tmp_path / "out")
    assert words in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["up.zip"]
    assert not os.path.exists("/tmp/unpickled")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"packed": 100}, "an upload of at most"),
        ({"unpacked": 100}, "unpacked, but the archive has"),
        ({"files": 1}, "at most 1 files, but the archive lists 10"),
    ],
)
def test_limits(tmp_path, limits, words):
    archive = zipped(tmp_path / "up.zip", **{f"{k}.csv": os.urandom(100) for k in range(9)})
    with pytest.raises(puma.ProjectError, match=words):
        unpack(archive, tmp_path / "out", Limits(**limits))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("1")
    with pytest.raises(puma.ProjectError, match="exists already"):
        unpack(zipped(tmp_path / "up.zip"), tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("inner", ["", "my project/"])
def test_a_project_is_unpacked_and_opens(tmp_path, kind, inner):
    source = tmp_path / "source"
    source.mkdir()
    before = puma.load(kind(source))
    with zipfile.ZipFile(tmp_path / "up.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"__MACOSX/{inner}._project.toml", b"\0")
        for path in sorted(source.rglob("*")):
            archive.write(path, inner + str(path.relative_to(source)))
    folder = unpack(tmp_path / "up.zip", tmp_path / "out")
    assert folder == tmp_path / "out" / inner
    assert open_folder(folder, root=folder).fingerprint == before.fingerprint
    assert not (tmp_path / "out" / "__MACOSX").exists()


@pytest.mark.parametrize(("names", "where"), [("a b/x", "."), ("top/a top/b", "top"), ("a top/b", ".")])
def test_where_a_project_toml_belongs_that_is_not_there(tmp_path, names, where):
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        for name in names.split():
            archive.writestr(name, b"1")
    assert unpack(tmp_path / "up.zip", tmp_path / "out") == tmp_path / "out" / where


def test_progress_counts_the_bytes(tmp_path):
    told = []
    archive = zipped(tmp_path / "up.zip", **{"a.csv": bytes(10), "b.csv": bytes(20)})
    unpack(archive, tmp_path / "out", progress=lambda *state: told.append(state))
    assert told == [
        (0, 30, "Unpacking project.toml"),
        (0, 30, "Unpacking a.csv"),
        (10, 30, "Unpacking b.csv"),
    ]


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(st.sampled_from("ab./\\:~\0 \n") | st.characters(), max_size=12), max_size=4))
def test_nothing_is_written_elsewhere(tmp_path_factory, names):
    top = tmp_path_factory.mktemp("top")
    with zipfile.ZipFile(top / "up.zip", "w") as archive:
        archive.writestr("project.toml", "")
        for name in dict.fromkeys(names):
            try:
                archive.writestr(zipfile.ZipInfo(name or "x"), b"1")
            except (UnicodeEncodeError, ValueError):
                return  # no archive can hold such a name
    try:
        unpack(top / "up.zip", top / "in" / "out")
    except puma.ProjectError:
        assert not (top / "in" / "out").exists()
    assert sorted(path.name for path in top.iterdir()) in (["up.zip"], ["in", "up.zip"])
    assert [path.name for path in (top / "in").glob("*")] in ([], ["out"])


@settings(max_examples=100, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=4),
    cut=st.floats(0, 1),
)
def test_any_broken_archive_is_refused_or_unpacked(tmp_path_factory, changes, cut):
    top = tmp_path_factory.mktemp("top")
    source = top / "source"
    source.mkdir()
    tables(source)
    with zipfile.ZipFile(top / "up.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, path.name)
    content = bytearray((top / "up.zip").read_bytes())
    for where, change in changes:
        start = int(where * len(content))
        content[start : start + len(change)] = change
    (top / "up.zip").write_bytes(content[: int(cut * len(content)) if cut < 0.5 else None])
    try:
        assert unpack(top / "up.zip", top / "out") == top / "out"
    except puma.ProjectError:
        assert not (top / "out").exists()

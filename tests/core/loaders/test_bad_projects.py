"""One table: every bad file tried and words of the sentence it got; and broken files of any kind."""

import gzip
import os
import struct
import tomllib
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import puma_dash as puma
from puma_dash.core.loaders.project_folder import open_folder, problems
from puma_dash.core.loaders.starter import toml

from .folders import KINDS, arrays, edit, idx, idx_bytes, images, tables, write


def text(old, new):
    """A fault in the project.toml."""
    return lambda path: edit(path, old, new)


def more(lines):
    """Lines before everything else in the project.toml."""
    return lambda path: write(path, f"{lines}\n{(path / 'project.toml').read_text()}")


def cell(old, new, name="train.csv"):
    """A fault in a table."""
    return lambda path: edit(path, old, new, name)


def column(name, values):
    """A column of train.csv with other values."""

    def change(path):
        frame = pd.read_csv(path / "train.csv", keep_default_na=False, dtype=str)
        frame[name] = values(frame[name])
        frame.to_csv(path / "train.csv", index=False)

    return change


def file(name, content):
    """Other bytes in a file."""
    return lambda path: (path / name).write_bytes(content)


def array(name, values):
    """Another array in a .npy file."""
    return lambda path: np.save(path / name, values, allow_pickle=True)


def npz(**parts):
    return lambda path: np.savez(path / "test.npz", **parts)


def claims(shape, kind="<f4"):
    """A .npy file with a header and nothing behind it."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return file("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


def picture(name, make):
    """Another picture among those of the training rows."""
    return lambda path: make().save(path / "train" / name)


def bomb(side):
    """A PNG that says that it is so many pixels wide and high."""

    def change(path):
        target = path / "train" / "cat" / "1.png"
        content = bytearray(target.read_bytes())
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        target.write_bytes(content)

    return change


def fewer_rows(path):
    lines = (path / "rows.csv").read_text().splitlines()
    write(path, "\n".join(lines[:-1]), "rows.csv")


def zeros_gz(path):
    """A gzipped IDX file that goes on and on after what it says it holds."""
    head = idx_bytes(np.zeros((60, 5, 4), np.uint8), 0x08)
    (path / "x-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(10**6)))


def strange(path):
    os.remove(path / "train.csv")
    os.mkfifo(path / "train.csv")


class Runs:
    """Would leave a trace if anybody unpickled it."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/unpickled",)


SETTINGS = {
    "no project.toml": (lambda path: (path / "project.toml").unlink(), "has none; try puma-dash init"),
    "no TOML": (text("[model]", "[model"), "to be TOML, but it is not"),
    "TOML that is no UTF-8": (file("project.toml", b'name = "\xe9"'), "to be TOML, but it is not"),
    "TOML nested without end": (file("project.toml", b"x = " + b"[" * 100_000), "to be TOML, but it is not"),
    "a key twice": (more('name = "again"'), "to be TOML, but it is not"),
    "an unknown key": (more("weigth_decay = 0.1"), "but got 'weigth_decay'; try 'weight_decay'"),
    "an unknown table": (text("[data.columns]", "[columns]"), "but got 'columns'"),
    "an unknown key of [data]": (text("target =", "targte ="), "but got 'targte'; try 'target'"),
    "a key of another kind of data": (text("[data]", "[data]\nsize = [8, 8]"), "of [data], for tables"),
    "an unknown part of a split": (
        text('"train.csv"', '{ inputs = "train.csv", targets = "y.npy" }'),
        "of train in [data], for tables, (inputs), but got 'targets'",
    ),
    "a name that is no text": (text('"Shop"', "3"), "name to be text, but got 3"),
    "an unknown loss": (more('loss = "hinge"'), "cross_entropy, binary_cross_entropy or squared_error"),
    "a weight decay below 0": (
        text("weight_decay = 0.01", "weight_decay = -1"),
        "weight_decay to be a number",
    ),
    "a weight decay in words": (text("weight_decay = 0.01", 'weight_decay = "L2"'), "weight_decay to be"),
    "a setting the loss has not": (
        text("weight_decay", 'loss = "squared_error"\nclass_weights = [1, 2]\nweight_decay'),
        "a loss with class_weights",
    ),
    "class weights in words": (more('class_weights = ["a"]'), "class_weights to be numbers"),
    "class names in one text": (text('["no", "yes"]', '"no, yes"'), "class_names to be a list"),
    "class names twice": (text('["no", "yes"]', '["no", "no"]'), "everything once, but got no twice"),
    "class names too many": (text('["no", "yes"]', '["no", "yes", "maybe"]'), "class"),
    "a model in one text": (
        text('[model]\nweights = "model.safetensors"', 'model = "m"'),
        "model to be a table",
    ),
    "no weights": (text('weights = "model.safetensors"', ""), "weights in [model]"),
    "weights that are not there": (text("model.safetensors", "modle.safetensors"), "try 'model.safetensors'"),
    "weights cut short": (file("model.safetensors", b"\x10"), "model.safetensors"),
    "an unknown key of [training]": (more("training.epoch = 3"), "but got 'epoch'; try 'epochs'"),
    "training without end": (more("training.epochs = 0"), "epochs to be a whole number of at least 1"),
    "no data": (lambda path: write(path, 'model.weights = "model.safetensors"'), "train in [data]"),
    "no train": (text('train = "train.csv"', ""), "train in [data] to name the training rows"),
    "train as a number": (text('"train.csv"', "7"), "train in [data] to name a file"),
    "a file that is not there": (text('"train.csv"', '"tain.csv"'), "'tain.csv' in the folder"),
    "the nearest file": (text('"train.csv"', '"tain.csv"'), "there is none; try 'train.csv'"),
    "an empty name": (text('"train.csv"', '""'), "the name of a file, but got ''"),
    "a name with a zero": (text('"train.csv"', '"a\\u0000.csv"'), "the name of a file"),
    "a name too long": (text('"train.csv"', f'"{"a" * 5000}.csv"'), "cannot be followed"),
    "a pipe": (strange, "to be a file or a folder, but it is neither"),
    "an unknown kind of file": (
        text('"train.csv"', '"model.safetensors"'),
        "format in [data], one of tables",
    ),
    "an unknown format": (text("[data]", '[data]\nformat = "excel"'), "format to be one of tables, arrays"),
    "validation from nowhere": (
        text("[data]", '[data]\nvalidation = { from = "holdout" }'),
        "to come from test or train, if there is one, but got 'holdout'",
    ),
    "all of it for validation": (
        text("[data]", '[data]\nvalidation = { from = "test", share = 1 }'),
        "share to be a number from 0.01 to 0.99",
    ),
    "labels in one text": (text("[data]", '[data]\nlabels = "yes"'), "[data.labels] to map labels"),
    "normalise in words": (more('normalise = "zscore"'), 'to be "standard" or mean and std'),
}

TABLES = {
    "an empty table": (file("train.csv", b""), "a table in train.csv, but it cannot be read"),
    "names without rows": (
        file("train.csv", b"customer,amount,colour,region,times,bought\n"),
        "has none below",
    ),
    "a table that is no UTF-8": (file("train.csv", b"customer,amount\n\xff\xfe\xe9,1\n"), "cannot be read"),
    "a row too long": (cell("c1,", "c1,c1,"), "cannot be read (Error tokenizing data"),
    "every row too long": (
        lambda path: write(path, (path / "train.csv").read_text().replace(",yes", ",yes,x"), "train.csv"),
        "cannot be read",
    ),
    "quotes that do not end": (cell("c1,", '"c1,'), "cannot be read"),
    "a gzip file cut short": (
        lambda path: (path / "train.csv").write_bytes(gzip.compress(b"a,b\n" * 1000)[:40]),
        "cannot be read",
    ),
    "a Parquet file that is none": (
        lambda path: (text('"train.csv"', '"x.parquet"')(path), file("x.parquet", b"PAR1")(path)),
        "a table in x.parquet, but it cannot be read",
    ),
    "a column twice": (cell("customer,amount", "amount,amount"), "but got 'amount' twice"),
    "a header too short": (text("[data]", '[data]\nheader = ["a", "b"]'), "expected 6 names in header"),
    "a separator of two": (text("[data]", '[data]\nseparator = "||"'), "one character each"),
    "another separator": (
        text("[data]", '[data]\nseparator = ";"'),
        "expected a column 'bought' in train.csv",
    ),
    "a target that is not there": (text('"bought"', '"bougth"'), "'bougth' in train.csv"),
    "a target nearby": (text('"bought"', '"bougth"'), "; try 'bought'"),
    "no target": (text('target = "bought"', ""), "target in [data] to name the column with the labels"),
    "the target as an input": (
        text("[data.columns]", '[data.columns]\nbought = { values = ["yes", "no"] }'),
        "the target not to be an input",
    ),
    "no encoding": (
        lambda path: write(path, (path / "project.toml").read_text().split("[data.columns]")[0]),
        "[data.columns] to say how the columns",
    ),
    "an input that is not there": (text("\namount =", "\namont ="), "a column 'amont'"),
    "an encoding in words": (
        text("{ mean = 50.0, std = 9.0 }", '"numeric"'),
        "a table for the column 'amount'",
    ),
    "an unknown key of an encoding": (text("mean = 50.0", "maen = 50.0"), "but got 'maen'; try 'mean'"),
    "a scale of 0": (text("std = 9.0", "std = 0"), "std to be a number of at least"),
    "no values": (text('["north", "south"]', "[]"), "values to be a list"),
    "a value twice": (text('["north", "south"]', '["north", "north"]'), "everything once"),
    "a base that is no value": (text('"south"]', '"south"], base = "west"'), "base to be one of the values"),
    "an unknown way with others": (text('"column"', '"drop"'), "refuse, column or zeros"),
    "words for numbers": (
        column("amount", lambda old: old.where(old.index != 3, "lots")),
        "rows 3 have 'lots'",
    ),
    "a missing number": (column("amount", lambda old: old.where(old.index != 4, "")), "rows 4 have none"),
    "an infinite number": (
        column("amount", lambda old: old.where(old.index != 5, "inf")),
        "rows 5 hold NaN or inf",
    ),
    "a value not listed": (
        column("region", lambda old: old.where(old.index != 6, "west")),
        "rows 6 have west",
    ),
    "a missing value": (column("region", lambda old: old.where(old.index != 7, "")), "rows 7 have none"),
    "a label not listed": (column("bought", lambda old: old.where(old.index != 8, "maybe")), "but got maybe"),
    "a label nearby": (column("bought", lambda old: old.where(old.index != 8, "Yes")), '"Yes" = "yes"'),
    "a missing label": (column("bought", lambda old: old.where(old.index != 9, "")), "rows 9 have none"),
    "names without class_names": (
        text('class_names = ["no", "yes"]', ""),
        "class_names in the order of the model",
    ),
    "labels that are no class names": (column("bought", lambda old: "7"), "but got 7; try [data.labels]"),
    "fractions as labels": (
        lambda path: [column("bought", lambda old: "0.5")(path), cell("yes", "1.5", "test.csv")(path)],
        "among the class names",
    ),
    "a class missing": (column("bought", lambda old: "no"), "it has no row of yes"),
    "two target columns for classes": (
        text('target = "bought"', 'target = ["bought", "amount"]\ncolumns = ["times"]'),
        "to be TOML",
    ),
    "an id twice": (column("customer", lambda old: old.where(old.index != 1, "c0")), "c0 comes again"),
    "an id missing": (
        column("customer", lambda old: old.where(old.index != 1, "")),
        "some rows have no name",
    ),
    "an id column that is not there": (text('"customer"', '"client"'), "a column 'client'"),
    "groups that are not there": (text('["region"]', '["gender"]'), "a column 'gender'"),
    "groups as a number": (text('["region"]', "3"), "groups to be a list of texts"),
    "weights below 0": (
        column("times", lambda old: old.where(old.index != 2, "-1")),
        "rows 2 have negative ones",
    ),
    "weights in words": (
        column("times", lambda old: old.where(old.index != 2, "many")),
        "rows 2 have 'many'",
    ),
    "a weight missing": (column("times", lambda old: old.where(old.index != 2, "")), "rows 2 hold NaN"),
    "other columns in test": (cell("amount", "sum", "test.csv"), "a column 'amount' in test.csv"),
    "a model for other inputs": (text('other = "column"', 'other = "zeros"'), "5"),
    "one row of a class": (
        lambda path: write(path, table_with_one_yes(path), "test.csv"),
        "at least two rows of every class",
    ),
}


def table_with_one_yes(path):
    lines = (path / "test.csv").read_text().splitlines()
    return "\n".join([lines[0], lines[1], *(line for line in lines if line.endswith("no"))])


ARRAYS = {
    "no targets": (text(', targets = "y.npy"', ""), "targets beside x.npy"),
    "an empty file": (file("x.npy", b""), "its header cannot be read"),
    "a text": (file("x.npy", b"1,2,3\n"), "its header cannot be read"),
    "a pickle": (file("x.npy", b"\x80\x04\x95" + bytes(50)), "its header cannot be read"),
    "Python objects": (array("x.npy", np.array([Runs()] * 60)), "Python objects, which may run code"),
    "Python objects in an archive": (
        npz(inputs=np.array([Runs()] * 60), targets=np.zeros(60)),
        "Python objects",
    ),
    "objects inside of records": (array("x.npy", np.zeros(60, dtype=[("a", object)])), "Python objects"),
    "records": (array("x.npy", np.zeros(60, dtype=[("a", "f4")])), "real numbers in x.npy"),
    "complex numbers": (array("x.npy", np.zeros((60, 4), complex)), "real numbers in x.npy"),
    "words": (array("x.npy", np.full((60, 4), "a")), "real numbers in x.npy"),
    "dates": (array("x.npy", np.zeros((60, 4), "datetime64[s]")), "real numbers in x.npy"),
    "numbers too large": (array("y.npy", np.full(60, 2**64 - 1, np.uint64)), "below 2^63"),
    "a single number": (array("x.npy", np.float32(3)), "a single number"),
    "no rows": (array("x.npy", np.zeros((0, 4), np.float32)), "no numbers (shape (0, 4))"),
    "rows of nothing": (array("x.npy", np.zeros((60, 0), np.float32)), "no numbers (shape (60, 0))"),
    "an absurd shape": (claims("(1000000000000, 4)"), "bytes too short"),
    "a negative shape": (claims("(-60, 4)"), "no numbers (shape (-60, 4))"),
    "a shape that is none": (claims("('a',)"), "its header cannot be read"),
    "a type that is none": (claims("(60, 4)", "nonsense"), "its header cannot be read"),
    "a header that runs code": (
        claims("__import__('os').mkdir('/tmp/unpickled')"),
        "its header cannot be read",
    ),
    "a file cut short": (
        lambda path: (path / "x.npy").write_bytes((path / "x.npy").read_bytes()[:-1]),
        "1 bytes too short",
    ),
    "targets of other length": (array("y.npy", np.arange(59) % 3), "targets of 60 rows"),
    "weights of other length": (
        array("w.npy", np.ones(61)),
        "weights of 60 rows, as x.npy has, but w.npy has 61",
    ),
    "a rows table of other length": (fewer_rows, "rows of 60 rows, as x.npy has, but rows.csv has 59"),
    "one-hot labels": (array("y.npy", np.eye(3)[np.arange(60) % 3]), "targets.argmax(1)"),
    "labels out of range": (array("y.npy", np.arange(60) % 4), "from 0 to"),
    "negative labels": (array("y.npy", np.arange(60) % 3 - 1), "from 0 to"),
    "NaN": (array("x.npy", np.full((60, 4), np.nan, np.float32)), "hold NaN or infinity"),
    "another shape of test rows": (
        npz(inputs=np.zeros((60, 5), np.float32), targets=np.arange(60) % 3),
        "expected test rows of the shape of the training rows (4,), but got (5,)",
    ),
    "an archive without inputs": (
        npz(x=np.zeros((60, 4)), targets=np.arange(60)),
        "an array 'inputs' in test.npz",
    ),
    "an archive that is none": (file("test.npz", b"PK\x05"), "arrays in test.npz, but it cannot be read"),
    "an array in an archive that is not there": (text('"test.npz"', '"test.npz:x"'), 'try "test.npz:inputs"'),
    "a shape that does not fit": (text("[data]", "[data]\nshape = [5]"), "rows that make shape [5]"),
    "a shape of nothing": (text("[data]", "[data]\nshape = [0]"), "shape to be a list of sizes"),
    "mean without std": (more("normalise = { mean = 1 }"), 'to be "standard" or mean and std'),
    "means too many": (more("normalise = { mean = [1, 2, 3], std = [1, 2, 3] }"), "but got 3 in [normalise]"),
    "a std of 0": (more("normalise = { mean = 1, std = 0 }"), "each std above 0"),
    "a mean in words": (more('normalise = { mean = "a", std = 1 }'), "mean of normalise to be a number"),
    "a folder for an array": (
        lambda path: (path / "x.npy").unlink() or (path / "x.npy").mkdir(),
        "for images",
    ),
    "an archive under another name": (
        lambda path: (path / "x.npy").write_bytes((path / "test.npz").read_bytes()),
        "its header cannot be read",
    ),
}

IMAGES = {
    "no folder": (text('train = "train"', 'train = "model.safetensors"\nformat = "images"'), "is a file"),
    "pictures without classes": (text('train = "train"', 'train = "train/cat"'), "a folder per class in cat"),
    "an empty class": (lambda path: (path / "train" / "bird").mkdir(), "an empty folder"),
    "a text among pictures": (file("train/cat/notes.txt", b"hello"), "but got notes.txt"),
    "a folder in a class": (lambda path: (path / "train" / "cat" / "more").mkdir(), "but got more"),
    "a text called PNG": (file("train/cat/1.png", b"hello"), "a picture in 1.png, but it cannot be read"),
    "a GIF called PNG": (
        lambda path: Image.new("L", (6, 8)).save(path / "train" / "cat" / "1.png", format="GIF"),
        "a picture in 1.png, but it cannot be read",
    ),
    "a picture cut short": (
        lambda path: (path / "train/cat/1.png").write_bytes((path / "train/cat/1.png").read_bytes()[:60]),
        "a picture in 1.png, but it cannot be read",
    ),
    "a picture of another size": (picture("cat/1.png", lambda: Image.new("L", (9, 9))), "1.png has 9 x 9"),
    "a picture of 16 bits": (picture("cat/1.png", lambda: Image.new("I;16", (6, 8))), "8 bits per colour"),
    "a picture that unpacks to megabytes": (bomb(8_000), "33,554,432 pixels, but 1.png says 8,000 x 8,000"),
    "a picture that unpacks to gigabytes": (bomb(60_000), "a picture in 1.png, but it cannot be read"),
    "two channels": (text("[data]", "[data]\nchannels = 2"), "1 (grey) or 3 (colour)"),
    "a size of one number": (text("[data]", "[data]\nsize = [32]"), "[height, width]"),
    "a class only in test": (
        lambda path: (path / "test" / "cat").rename(path / "test" / "bird"),
        "labels among the class names",
    ),
    "a picture without a row": (
        lambda path: (
            text('train = "train"', 'train = { inputs = "train", rows = "rows.csv" }')(path),
            write(path, "id,a\ncat/1.png,1\n", "rows.csv"),
        ),
        "a row for every picture",
    ),
}

IDX = {
    "an empty file": (file("y-idx1-ubyte", b""), "starts with nothing"),
    "a text": (file("y-idx1-ubyte", b"hello"), "starts with 68656c6c"),
    "an unknown type": (file("y-idx1-ubyte", bytes([0, 0, 7, 1]) + bytes(64)), "starts with 00000701"),
    "sizes cut short": (file("y-idx1-ubyte", bytes([0, 0, 8, 3]) + bytes(6)), "expected 3 sizes"),
    "numbers cut short": (file("y-idx1-ubyte", idx_bytes(np.zeros(60, np.uint8), 8)[:-1]), "it has fewer"),
    "numbers too many": (file("y-idx1-ubyte", idx_bytes(np.zeros(60, np.uint8), 8) + b"x"), "it has more"),
    "an absurd size": (
        file("y-idx1-ubyte", bytes([0, 0, 14, 2]) + b"\xff" * 8),
        "half of this machine's memory",
    ),
    "a bomb": (zeros_gz, "it has more"),
    "a broken gzip file": (
        lambda path: (path / "x-idx3-ubyte.gz").write_bytes((path / "x-idx3-ubyte.gz").read_bytes()[:99]),
        "an IDX array in x-idx3-ubyte.gz, but it cannot be read",
    ),
    "pictures and labels exchanged": (
        text(
            'inputs = "x-idx3-ubyte.gz", targets = "y-idx1-ubyte"',
            'inputs = "y-idx1-ubyte", targets = "x-idx3-ubyte.gz"',
        ),
        "one label per row, but the train targets have shape (60, 5, 4)",
    ),
    "no targets": (text(', targets = "y-idx1-ubyte"', ""), "targets beside x-idx3-ubyte.gz"),
}

TABLE = {
    f"{make.__name__}: {name}": (make, *entry)
    for make, table in ((tables, SETTINGS), (tables, TABLES), (arrays, ARRAYS), (images, IMAGES), (idx, IDX))
    for name, entry in table.items()
}


@pytest.mark.parametrize(("make", "fault", "words"), TABLE.values(), ids=TABLE)
def test_bad_files_are_answered_in_words(tmp_path, make, fault, words):
    fault(make(tmp_path))
    with pytest.raises(puma.ProjectError) as caught:
        open_folder(tmp_path)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.startswith("expected ")
    assert sentence.endswith((".", ")"))
    assert len(sentence) < 600
    assert sentence in problems(tmp_path)
    assert not os.path.exists("/tmp/unpickled")


def test_all_faults_at_once(tmp_path):
    """One fault does not hide the next."""
    tables(tmp_path)
    edit(tmp_path, "model.safetensors", "modle.safetensors")
    column("region", lambda old: "west")(tmp_path)
    cell("amount", "sum", "test.csv")(tmp_path)
    assert [sentence.split(",")[0].split(" rows ")[0] for sentence in problems(tmp_path)] == [
        f"expected a file 'modle.safetensors' in the folder {tmp_path.name}",
        "expected one of the 2 values listed for the column 'region' of train.csv",
        "expected a column 'amount' in test.csv",
    ]


def test_no_file_outside_of_the_root_is_opened(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    tables(inside)
    (inside / "train.csv").rename(tmp_path / "secret.csv")
    for name in ("../secret.csv", str(tmp_path / "secret.csv"), "link.csv", "folder/secret.csv"):
        write(
            inside, (inside / "project.toml").read_text().replace('"train.csv"', f'"{name}"'), "project.toml"
        )
        if not (inside / "link.csv").is_symlink():
            (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
            (inside / "folder").symlink_to(tmp_path)
        with pytest.raises(puma.ProjectError, match="leads out of it"):
            open_folder(inside, root=inside)
        assert len(open_folder(inside).train) == 60
        edit(inside, f'"{name}"', '"train.csv"')


def test_links_among_pictures_do_not_lead_out(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (images(inside) / "train" / "cat" / "1.png").rename(tmp_path / "secret.png")
    (inside / "train" / "cat" / "1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(puma.ProjectError, match="leads out of it"):
        open_folder(inside, root=inside)
    assert len(open_folder(inside).train) == 12


def test_a_circle_of_links(tmp_path):
    os.remove(tables(tmp_path) / "train.csv")
    (tmp_path / "train.csv").symlink_to(tmp_path / "train.csv")
    with pytest.raises(puma.ProjectError):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", ["train.csv.gz", "x.npz", "x-ubyte.gz"])
def test_what_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch, name):
    """However small it is, and before it is unpacked as a whole."""
    limit = 2**20
    content = {
        "train.csv.gz": lambda: gzip.compress(b"a,b\n" + b"1,2\n" * limit),
        "x-ubyte.gz": lambda: gzip.compress(idx_bytes(np.zeros(4 * limit, np.uint8), 8)),
    }
    if name == "x.npz":
        np.savez_compressed(tmp_path / name, inputs=np.zeros(4 * limit, np.uint8), targets=np.zeros(9))
    else:
        (tmp_path / name).write_bytes(content[name]())
    monkeypatch.setattr("puma_dash.core.loaders.base.memory_limit", lambda: limit)
    write(
        tmp_path,
        f'data.train = "{name}"\ndata.target = "a"\n' if "csv" in name else f'data.train = "{name}"\n',
    )
    with pytest.raises(puma.ProjectError, match="to fit into half of this machine's memory"):
        open_folder(tmp_path)


def outcome(call):
    """What a call returns, or None and the sentence that it raises."""
    try:
        return call(), ""
    except puma.ProjectError as error:
        return None, str(error)


FILES = {
    "tables": ["project.toml", "train.csv"],
    "arrays": ["x.npy", "y.npy", "rows.csv", "test.npz"],
    "images": ["train/cat/0.jpg", "train/cat/1.png"],
    "idx": ["x-idx3-ubyte.gz", "y-idx1-ubyte"],
}
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=3)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, own in FILES.items() for name in own])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, cut=st.floats(0, 1), whole=st.none() | st.binary(max_size=80))
def test_any_broken_file_is_a_sentence_or_a_project(tmp_path_factory, kind, name, changes, cut, whole):
    """Bytes changed, cut off or replaced: never another exception, never a warning."""
    path = KINDS[kind](tmp_path_factory.mktemp("broken"))
    content = bytearray((path / name).read_bytes())
    for where, change in changes:
        start = int(where * len(content))
        content[start : start + len(change)] = change
    content = content[: int(cut * len(content)) if cut < 0.5 else None]
    (path / name).write_bytes(content if whole is None else whole)
    project, sentence = outcome(lambda: open_folder(path))
    if project is None:
        assert len(sentence) < 2000
        assert problems(path)
    else:
        assert project.train.inputs.isfinite().all()
        assert len(project.train) > 0


JSON = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.sampled_from(["train.csv", "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["from", "inputs", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = [
    "name loss class_names weight_decay label_smoothing class_weights model data normalise training",
    "data.train data.validation data.test data.target data.columns data.id data.groups data.weights",
    "data.meta data.separator data.header data.missing data.comment data.format data.labels",
    "data.columns.amount data.columns.region.values data.columns.region.other data.columns.amount.mean",
    "model.weights training.epochs normalise.mean",
]


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(" ".join(KEYS).split()), value=JSON)
def test_any_value_of_any_setting_is_a_sentence_or_a_project(tmp_path_factory, key, value):
    path = tables(tmp_path_factory.mktemp("settings"))
    found = tomllib.loads((path / "project.toml").read_text())
    *way, last = key.split(".")
    place = found
    for step in way:
        place = place.setdefault(step, {})
    place[last] = value
    write(path, toml(found))
    assert len(outcome(lambda: open_folder(path))[1]) < 2000

"""A table of bad programs of torch.export, and words that the answer must contain."""

import functools
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from .makers import IMAGES, ROWS, changed, check_answer, dense, edited, exported, put, rewritten, written


class Two(nn.Module):
    """Two inputs or two outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.layer, self.outputs = nn.Linear(3, 3), outputs

    def forward(self, x, y=None):
        z = self.layer(x if y is None else x + y)
        return (z, x) if self.outputs == 2 else z


class Baked(nn.Linear):
    """The number of rows as a number."""

    def forward(self, x):
        return super().forward(x.reshape(len(x), 3) + torch.ones(x.shape[0], 1))


class Nodes(nn.Module):
    """Some calls with numbers in them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) + torch.full((1, 3), 2.0)


@functools.cache
def plain() -> bytes:
    """The program of a small network."""
    with tempfile.TemporaryDirectory() as folder:
        return exported(dense(), ROWS, Path(folder) / "m.pt2").read_bytes()


def program(network=None, any_rows=True, /, **changes):
    """A program of torch.export with its JSON edited: ending of a record -> what to do with its content."""

    def make(folder):
        path = put(folder / "m.pt2", plain()) if network is None else None
        path = path or exported(network, ROWS, folder / "m.pt2", any_rows)
        for ending, edit in changes.items():
            edited(path, f"{ending}.json", edit)
        return path

    return make


def two_inputs(folder):
    torch.export.save(torch.export.export(Two(1), (ROWS, ROWS)), folder / "m.pt2")
    return folder / "m.pt2"


def nodes(content):
    return content["graph_module"]["graph"]["nodes"]


def pickled(content):
    for entry in content["config"].values():
        entry["use_pickle"] = True


def smaller(content):
    content["config"]["0.weight"]["tensor_meta"]["sizes"] = [{"as_int": 2**20}, {"as_int": 2**20}]


def renamed(new):
    """The first parameter under another name."""

    def edit(content):
        spec = content["graph_module"]["signature"]["input_specs"][0]["parameter"]
        spec["parameter_name"] = new

    return edit


def moved(new):
    def edit(content):
        content["config"] = {new if k == "0.weight" else k: v for k, v in content["config"].items()}

    return edit


def endless(content):
    """3 x 3 numbers become 2^30 x 2^30."""
    (full,) = [node for node in nodes(content) if "full" in node["target"]]
    full["inputs"][0]["arg"] = {"as_ints": [2**30, 3]}


def tower(content):
    """A number to the power of a number to the power."""
    nodes(content)[0]["target"] = "_operator.pow"


def called(target):
    """The first call goes elsewhere."""

    def edit(content):
        nodes(content)[0]["target"] = target

    return edit


PROGRAMS = {
    "pickled weights": (program(model_weights_config=pickled), "pickles run code"),
    "a shape larger than its bytes": (program(model_weights_config=smaller), "4398046511104 bytes"),
    "no weights": (program(model_weights_config=lambda c: {"config": {}}), "0.weight is missing or pickled"),
    "a parameter that is not there": (program(model=renamed("9.weight")), "9.weight is missing or pickled"),
    "names that no module has": (
        program(model=renamed("forward"), model_weights_config=moved("forward")),
        "attribute 'forward' already exists",
    ),
    "modules without end": (
        program(model=renamed("a." * 99), model_weights_config=moved("a." * 99)),
        "at most 32 modules",
    ),
    "any function of torch": (program(model=called("torch.os.system")), "it calls torch.os.system"),
    "a function that reads files": (program(model=called("torch.ops.aten.from_file.default")), "from_file"),
    "a function of Python": (program(model=called("_operator.attrgetter")), "_operator.attrgetter"),
    "powers of powers": (program(model=tower), "_operator.pow"),
    "a call in place": (program(model=called("torch.ops.aten.relu_.default")), "as in train mode"),
    "an overload of no name": (program(model=called("torch.ops.aten.linear.__class__")), "cannot be read"),
    "values without end": (program(Nodes(), model=endless), "the program makes 3,221,225,472"),
    "no JSON": (
        lambda folder: rewritten(program()(folder), lambda n, d: b"{" if n.endswith("model.json") else d),
        "cannot be read",
    ),
    "JSON of something else": (program(model=lambda c: {"graph": 1}), "KeyError: 'graph_module'"),
    "JSON without end": (
        lambda folder: rewritten(
            program()(folder), lambda n, d: b"[" * 10**6 if n.endswith("model.json") else d
        ),
        "RecursionError",
    ),
    "compiled code": (
        lambda folder: (
            rewritten(program()(folder), lambda n, d: d, to=folder / "m.pt2") and aoti(folder / "m.pt2")
        ),
        "compiled code",
    ),
    "no program": (changed(lambda n, d: None if "models/" in n else d, program()), "it holds 0"),
    "an empty archive": (written("m.pt2", b"PK\x05\x06" + bytes(18)), "it holds 0"),
    "compressed": (changed(lambda _, d: d, program(), compression=zipfile.ZIP_DEFLATED), "uncompressed"),
    "two inputs": (two_inputs, "it takes 2 inputs"),
    "two outputs": (program(Two(2)), "it has 2 outputs"),
    "train mode": (program(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()), "as in train mode"),
    "dropout of train mode": (program(nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()), "aten.dropout"),
    "one number of rows": (program(Baked(3, 3), False), "dynamic_shapes"),
    "other rows": (program(), "rows of shape (3) as the program takes them", {"inputs": IMAGES}),
    "settings": (program(), "but got architecture", {"architecture": "mlp"}),
}


def aoti(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/data/aotinductor/model/code.so", b"\x7fELF")
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("entry", PROGRAMS.values(), ids=PROGRAMS)
def test_bad_programs_are_answered_in_words(entry, tmp_path, monkeypatch):
    check_answer(entry, tmp_path, monkeypatch)

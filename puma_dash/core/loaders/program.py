"""The programs of torch.export, read without running anything in them.

``torch.export.load`` is not safe for files of others: it unpickles sample inputs, odd constants and odd
weights, evaluates the text of symbolic shapes as Python, and looks up whatever function of ``torch`` a file
names. Here the graph is read as JSON and the tensors as bytes; pickled parts are not opened, and only the
operators in ``OPERATORS`` are ever called.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from puma_dash.core.loaders.files import check_file, check_stored, open_archive
from puma_dash.core.loaders.nodes import TYPES, Node, read_node
from puma_dash.core.loaders.weights import check_tensors
from puma_dash.core.types import ProjectError

REEXPORT = "try exporting model.eval() again with this PyTorch"


@dataclass(frozen=True, eq=False)
class Program:
    """A graph of calls with the tensors that belong to it."""

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    constants: dict[str, Tensor]
    names: dict[str, str]
    """Value of the graph -> the parameter, buffer or constant that it is."""
    input: str
    sizes: tuple[int | None, ...]
    """Shape of the input; None where it is free."""
    output: str
    nodes: tuple[Node, ...]
    ranks: dict[str, int]
    """Dimensions of each tensor of the graph."""
    digest: str
    """SHA-256 of graph and constants."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that belongs to it, by name."""
        return {**self.parameters, **self.buffers, **self.constants}


def read_program(path: Path) -> Program:
    """The program in a .pt2 file of ``torch.export.save``.

    Raises:
        ProjectError: the file is broken, holds compiled code or pickled parts that matter, calls an operator
            that is not known to be harmless, or is no function of one tensor; one sentence each.
    """
    check_file(path)
    with open_archive(path) as archive:
        check_stored(archive, path)
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        try:
            return _read(path, archive, files)
        except ProjectError:
            raise
        except Exception as error:  # JSON and bytes of others: anything may be missing or of another kind
            raise ProjectError(
                f"expected a program of torch.export in {path.name}, but it cannot be read "
                f"({type(error).__name__}: {str(error)[:120]}); {REEXPORT}."
            ) from error


def _read(path: Path, archive: zipfile.ZipFile, files: Mapping[str, str]) -> Program:
    if any(name.startswith("data/aotinductor/") for name in files):
        raise ProjectError(
            f"expected a graph in {path.name}, but it is compiled code (AOTInductor), which has no "
            "derivatives; try torch.export.save."
        )
    models = [name for name in files if name.startswith("models/") and name.endswith(".json")]
    if len(models) != 1:
        raise ProjectError(
            f"expected one program of torch.export.save in {path.name}, but it holds {len(models)}; "
            f"{REEXPORT}."
        )
    text = archive.read(files[models[0]])
    graph_module = json.loads(text)["graph_module"]
    model = models[0].removeprefix("models/").removesuffix(".json")
    weights = _tensors(path, archive, files, f"data/weights/{model}_weights_config.json")
    constants = _tensors(path, archive, files, f"data/constants/{model}_constants_config.json")
    check_tensors(weights, path)
    graph, signature = graph_module["graph"], graph_module["signature"]

    parts: dict[str, dict[str, Tensor]] = {"parameter": {}, "buffer": {}, "tensor_constant": {}}
    names: dict[str, str] = {}
    taken: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind in parts:
            name = value[f"{kind}_name"]
            held = {**constants, **weights}.get(name)
            if held is None:
                raise ProjectError(
                    f"expected plain tensors in {path.name}, but {name} is missing or pickled, and pickles "
                    f"run code; {REEXPORT}."
                )
            saved = value.get("persistent", True)
            parts[kind if saved else "tensor_constant"][name] = held
            names[value["arg"]["name"]] = name
        else:
            taken.append(value["arg"]["as_tensor"]["name"] if kind == "user_input" else kind)
    if len(taken) != 1 or taken[0] not in graph["tensor_values"]:
        raise ProjectError(
            f"expected a program of one tensor in {path.name}, but it takes {len(taken)} inputs "
            f"({', '.join(taken)}); try exporting a small wrapper module of one input."
        )
    given = signature["output_specs"]
    changed = [kind for spec in given for kind in spec if kind != "user_output"]
    if changed:
        raise ProjectError(
            f"expected a program that only computes outputs in {path.name}, but it also changes what it "
            f"holds ({', '.join(sorted(set(changed)))}), as in train mode; {REEXPORT}."
        )
    if len(given) != 1 or "as_tensor" not in given[0]["user_output"]["arg"]:
        raise ProjectError(
            f"expected a program with one output tensor in {path.name}, but it has {len(given)} outputs; "
            "try exporting a small wrapper module that returns the logits."
        )
    return Program(
        parts["parameter"],
        parts["buffer"],
        parts["tensor_constant"],
        names,
        taken[0],
        tuple(size.get("as_int") for size in graph["tensor_values"][taken[0]]["sizes"]),
        given[0]["user_output"]["arg"]["as_tensor"]["name"],
        tuple(node for each in graph["nodes"] if (node := read_node(each, path)) is not None),
        {name: len(value["sizes"]) for name, value in graph["tensor_values"].items()},
        hashlib.sha256(text + b"".join(_bytes(value) for value in constants.values())).hexdigest(),
    )


def _bytes(value: Tensor) -> bytes:
    return value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def _tensors(
    path: Path, archive: zipfile.ZipFile, files: Mapping[str, str], config: str
) -> dict[str, Tensor]:
    """The tensors of which ``config`` says how they lie in the archive; not those that are pickled.

    What lies there once and has two names is one tensor.
    """
    found: dict[str, Tensor] = {}
    known: dict[str, Tensor] = {}
    for name, entry in json.loads(archive.read(files[config]))["config"].items():
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            continue
        if (told := json.dumps(entry)) in known:
            found[name] = known[told]
            continue
        sizes, strides = ([int(size["as_int"]) for size in meta[part]] for part in ("sizes", "strides"))
        data = archive.read(files[f"{config.rpartition('/')[0]}/{entry['path_name']}"])
        dtype = TYPES[meta["dtype"]]
        if math.prod(sizes) * dtype.itemsize > len(data):
            raise ProjectError(
                f"expected {name} in {path.name} to have {math.prod(sizes) * dtype.itemsize} bytes for its "
                f"shape {tuple(sizes)}, but there are {len(data)}; {REEXPORT}."
            )
        flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        offset = int(meta["storage_offset"]["as_int"])
        value = torch.as_strided(flat, sizes, strides, offset).clone(memory_format=torch.contiguous_format)
        found[name] = known[told] = value.requires_grad_(bool(meta["requires_grad"]))
    return found

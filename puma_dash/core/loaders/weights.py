"""Named tensors out of weight files, which may come from anybody: nothing in them is ever run.

PyTorch's files are read with ``weights_only=True`` and never otherwise. What is no plain tensors is refused
with the lines that turn it into a safetensors file where its owner trusts it.
"""

from __future__ import annotations

import builtins
import re
import tarfile
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor

from puma_dash.core.loaders.files import check_file, check_size, check_stored, open_archive
from puma_dash.core.types import ProjectError, listing

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Named tensors on the CPU."""

    tensors: dict[str, Tensor]
    ordered: bool
    """Whether they lie in the order in which the network was defined; safetensors sorts them."""
    notes: tuple[str, ...] = ()
    """What was assumed in reading them."""


def read_weights(path: Path, key: str | None = None) -> Weights:
    """The tensors in a .safetensors, .pt or .pth file.

    Args:
        path: the file.
        key: the entry that holds them, where a checkpoint has several that could.

    Raises:
        ProjectError: the file is broken, too large, or holds anything but plain tensors; one sentence each.
    """
    check_file(path)
    if path.suffix.lower() == ".safetensors":
        if key is not None:
            raise ProjectError(
                f"expected no key for {path.name}, whose tensors are not nested, but got {key!r}."
            )
        found = Weights(_safetensors(path), ordered=False)
    else:
        found = _unnested(_checkpoint(path), path, key)
    tensors, notes = _unwrapped(found.tensors)
    if not tensors:
        raise ProjectError(f"expected tensors in {path.name}, but it holds none; try model.state_dict().")
    check_tensors(tensors, path)
    plain = {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    return Weights(plain, found.ordered, found.notes + notes)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except Exception as error:  # the parser's own, and what PyTorch says of shapes and types
        raise ProjectError(
            f"expected {path.name} to be a safetensors file, but it cannot be read ({_first_line(error)}); "
            "try saving it again with safetensors.torch.save_file."
        ) from error


def _checkpoint(path: Path) -> Any:
    """What lies in a file of torch.save."""
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        raise ProjectError(
            f"expected a file of torch.save in {path.name}, but it looks like safetensors; "
            f"try naming it {path.stem}.safetensors."
        )
    if start.startswith(b"PK"):
        _check_archive(path)
    elif _is_tar(path):  # PyTorch would unpack it to the disk
        raise ProjectError(
            f"expected a file of torch.save in {path.name}, but it is a tar archive; try unpacking it, or "
            "saving the weights with a PyTorch of this decade."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the version of a pickle that is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken file may raise anything
        raise _refusal(path, error, start) from error


def _is_tar(path: Path) -> bool:
    """Whether it is a tar archive, or a cut off one."""
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, OSError, zlib.error):  # compressed, and damaged
        return True


def _check_archive(path: Path) -> None:
    """Refuses archives that are no state dict, or that unpack to more than they are."""
    with open_archive(path) as archive:
        names = {record.partition("/")[2] for record in archive.namelist()}
        if "archive_format" in names:
            raise ProjectError(
                f"expected a state_dict in {path.name}, but it is a program of torch.export; "
                f"try naming it {path.stem}.pt2."
            )
        if "constants.pkl" in names:
            raise ProjectError(
                f"expected a state_dict in {path.name}, but it is a TorchScript program, which runs as code; "
                f"try, where you trust it, {_conversion(path, 'torch.jit.load', '')}"
            )
        check_stored(archive, path)


def _refusal(path: Path, error: Exception, start: bytes) -> ProjectError:
    """Why torch.load does not take the file with ``weights_only``, and what to do."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+) (was not|whose module)", text)
    name, blocked = (named[1], named[2] != "was not") if named else ("", False)
    if blocked or isinstance(getattr(builtins, name, None), BuiltinFunctionType):
        return ProjectError(
            f"expected plain tensors in {path.name}, but reading it would call {name}, which is no part of a "
            "model; try a file from a source that you trust."
        )
    if name or (isinstance(error, UnpicklingError) and start.startswith((b"\x80", b"PK"))):
        return ProjectError(
            f"expected plain tensors in {path.name}, but it holds pickled objects{name and f' ({name})'}, "
            f"and unpickling runs code; try, where you trust it, {_conversion(path)}"
        )
    why = "it is no pickle" if isinstance(error, UnpicklingError) else _first_line(error)
    return ProjectError(
        f"expected a file of torch.save in {path.name}, but it cannot be read ({why}); "
        "try saving model.state_dict() again."
    )


def _conversion(path: Path, load: str = "torch.load", options: str = ", weights_only=False") -> str:
    """Three lines of Python that write the tensors of ``path`` as safetensors, and what to do then."""
    return (
        f"these three lines in Python, and then {path.stem}.safetensors (where the weights are an entry of "
        'the file, add its name to the second line, as in ["state_dict"]):\n'
        "import torch, safetensors.torch\n"
        f'found = {load}("{path.name}", map_location="cpu"{options})\n'
        "safetensors.torch.save_file({k: torch.as_tensor(v).detach().clone() for k, v in getattr(found, "
        f'"state_dict", lambda: found)().items() if hasattr(v, "shape")}}, "{path.stem}.safetensors")'
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return (text[:200] or type(error).__name__).rstrip(".:; ")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _unnested(found: Any, path: Path, key: str | None) -> Weights:
    """The named tensors in ``found``, or in the one entry of it that holds some."""
    if key is None and _is_state(found):
        return Weights(dict(found), ordered=True)
    if not isinstance(found, Mapping):
        what = "a single tensor" if isinstance(found, Tensor) else f"{type(found).__name__} alone"
        raise ProjectError(
            f"expected named tensors in {path.name}, but it holds {what}; try saving model.state_dict()."
        )
    states = {str(name): value for name, value in found.items() if _is_state(value)}
    if key is not None and key not in list(states):  # it may be anything that a table holds
        raise ProjectError(
            f"expected key to name an entry of {path.name} with tensors"
            f"{f' ({listing(states)})' if states else ', of which it has none'}, but got {key!r}."
        )
    if key is None and len(states) != 1:
        inside = listing(f"{name!s:.40} ({type(value).__name__})" for name, value in found.items())
        if states:
            raise ProjectError(
                f"expected one state_dict in {path.name}, but {' and '.join(sorted(states))} could be it; "
                f"try key = {next(iter(states))!r} in the [model] table."
            )
        raise ProjectError(
            f"expected a state_dict in {path.name}, whole or as one of its entries, but it holds "
            f"{inside or 'nothing'}; try saving model.state_dict()."
        )
    name = next(iter(states)) if key is None else key
    others = listing(str(other) for other in found if other != name)
    note = f"Weights from the entry {name!r}" + (f"; the others ({others}) are not used." if others else ".")
    return Weights(dict(states[name]), ordered=True, notes=(note,))


def _unwrapped(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Without the prefixes that wrappers put before every name, and a note on each."""
    notes: list[str] = []
    while wrapper := next((w for w in WRAPPERS if tensors and all(n.startswith(w) for n in tensors)), None):
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
        notes.append(f"The prefix {wrapper!r} of every name is left out.")
    return tensors, tuple(notes)


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Checks that the tensors of a file are dense, real, no NaN and of a size that can be held.

    Raises:
        ProjectError: one is not; the message names it.
    """
    check_size(sum(value.numel() * value.element_size() for value in tensors.values()), path, "expands to")
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_nested:
            what = "quantized" if value.is_quantized else "sparse or nested"
            raise ProjectError(
                f"expected dense tensors, but {name} in {path.name} is {what}; "
                "try the weights before that step."
            )
        if value.is_complex() or (value.is_floating_point() and value.dtype not in FLOATS):
            raise ProjectError(
                f"expected real numbers of 16 to 64 bits, but {name} in {path.name} is {value.dtype}; "
                "try converting the weights to float32."
            )
        if value.isnan().any():
            raise ProjectError(
                f"expected numbers in {path.name}, but {name} holds NaN; try an earlier checkpoint."
            )

"""Named tensors into a network: by name, else by order where only the names differ, else told by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, permutations

import torch
from torch import Tensor, nn

from puma_dash.core.loaders.weights import Weights
from puma_dash.core.types import ProjectError

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that old files lack and that says nothing in eval mode."""
MOST_GROUPS = 5
"""Groups of names of which every order is tried."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What a file holds of one layer: the tensors whose names begin alike."""

    name: str
    tensors: dict[str, Tensor]

    def key(self, part: str) -> str:
        """The full name of one of its tensors."""
        return f"{self.name}.{part}" if self.name else part


def layers_of(tensors: Mapping[str, Tensor]) -> list[Layer]:
    """The layers in the order in which they come first."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition(".")
        if part != COUNTER:
            found.setdefault(name, {})[part] = value
    return [Layer(name, parts) for name, parts in found.items()]


def orders(weights: Weights, order: Sequence[str] | None) -> Iterator[list[Layer]]:
    """The orders that the layers may have in the network, each once.

    The one given, else that of the file. A file that sorts its names leaves the orders of the groups of names
    (conv1, conv2, bn1, fc1 are three), ascending inside each group, with neighbouring groups one after the
    other or in turns by number (conv1, bn1, conv2); those with convolutions first come first.

    Raises:
        ProjectError: ``order`` does not name each layer once.
    """
    layers = layers_of(weights.tensors)
    if order is not None:
        named = {layer.name: layer for layer in layers}
        if sorted(map(str, order)) != sorted(named):
            raise ProjectError(
                f"expected order to name each layer once ({', '.join(named)}), "
                f"but got {', '.join(map(str, order))}."
            )
        yield [named[name] for name in order]
        return
    if weights.ordered:
        yield layers
        return
    by_name = sorted(layers, key=lambda layer: _natural(layer.name))
    groups = [list(group) for _, group in groupby(by_name, key=lambda layer: _stem(layer.name))]
    groups.sort(key=lambda group: all(v.ndim < 4 for layer in group for v in layer.tensors.values()))
    tried: set[tuple[str, ...]] = set()
    for arranged in permutations(groups) if len(groups) <= MOST_GROUPS else [tuple(groups)]:
        for runs in _runs(arranged):
            found = [layer for run in runs for layer in sorted(run, key=lambda layer: _numbers(layer.name))]
            names = tuple(layer.name for layer in found)
            if names not in tried:
                tried.add(names)
                yield found


def _runs(groups: Sequence[list[Layer]]) -> Iterator[list[list[Layer]]]:
    """All ways to join neighbours among the groups."""
    if not groups:
        yield []
    for end in range(1, len(groups) + 1):
        for rest in _runs(groups[end:]):
            yield [[layer for group in groups[:end] for layer in group], *rest]


def _stem(name: str) -> str:
    """The first name without its number: conv of conv1, features of features.3."""
    return re.split(r"\d|\.", name, maxsplit=1)[0]


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts fc10 after fc9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def fit(weights: Weights, model: nn.Module, order: Sequence[str] | None) -> tuple[str, ...]:
    """Puts the tensors into ``model``, built or on the meta device, and returns notes on what was assumed.

    Raises:
        ProjectError: they do not fit; the message names what is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    origin, notes = _origin(weights, wanted, order)
    _check(weights.tensors, wanted, origin)
    given = {name: weights.tensors[found] for name, found in origin.items()}
    full = {
        name: given.get(name, torch.zeros(value.shape, dtype=value.dtype)) for name, value in wanted.items()
    }
    built = not any(value.is_meta for value in wanted.values())
    model.load_state_dict(full, assign=not built)  # a built one keeps its types and what it ties together
    return notes


def _origin(
    weights: Weights, wanted: Mapping[str, Tensor], order: Sequence[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name in the network -> name in the file, and notes on what was assumed."""
    given = list(weights.tensors)
    prefix = given[0].partition(".")[0] + "."
    if order is None:
        if _same_names(given, wanted):
            return {name: name for name in given}, ()
        if all(name.startswith(prefix) for name in given):
            shorter = {name.removeprefix(prefix): name for name in given}
            if _same_names(shorter, wanted):
                return shorter, (f"The prefix {prefix!r} of every name is left out.",)
    target = layers_of(wanted)
    tried = [found for found in orders(weights, order) if _parts(found) == _parts(target)]
    fitting = [found for found in tried if _shapes(found) == _shapes(target)]
    if len(fitting) > 1:
        raise ProjectError(
            "expected names that tell the order of the layers, but several orders of "
            f"{', '.join(layer.name for layer in fitting[0])} fit; try order = "
            f"{[layer.name for layer in fitting[0]]} in the [model] table, in the order of the network."
        )
    if not tried:
        return {name: name for name in given}, ()
    pairs = list(zip((fitting or tried)[0], target, strict=True))
    note = "Layers matched by order: " + ", ".join(f"{got.name} to {to.name}" for got, to in pairs) + "."
    return {to.key(part): got.key(part) for got, to in pairs for part in got.tensors}, (note,)


def _same_names(given: Iterable[str], wanted: Iterable[str]) -> bool:
    return {name for name in given if not _counts(name)} == {name for name in wanted if not _counts(name)}


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _parts(layers: Sequence[Layer]) -> list[set[str]]:
    return [set(layer.tensors) for layer in layers]


def _shapes(layers: Sequence[Layer]) -> list[dict[str, torch.Size]]:
    return [{part: value.shape for part, value in layer.tensors.items()} for layer in layers]


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: Mapping[str, str]) -> None:
    """Tells every name that is missing, unexpected or of another shape, the first eight of each."""
    missing = [name for name in wanted if name not in origin and not _counts(name)]
    unexpected = [name for to, name in origin.items() if to not in wanted and not _counts(name)]
    shapes = [
        f"{found} is {_shape(given[found])}, not {_shape(wanted[name])}"
        for name, found in origin.items()
        if name in wanted and given[found].shape != wanted[name].shape
    ]
    faults = [
        f"{what} {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for what, names in (("missing:", missing), ("unexpected:", unexpected), ("shapes:", shapes))
        if names
    ]
    if faults:
        raise ProjectError(
            "expected weights for the network of the [model] table, but they do not fit "
            f"({'; '.join(faults)}); try other sizes there, or leave the table empty "
            "to have a plain network inferred."
        )
    for name, found in origin.items():
        if name in wanted and wanted[name].is_floating_point() and not given[found].is_floating_point():
            raise ProjectError(
                f"expected floating-point weights, but {found} is {given[found].dtype}; "
                "try the weights before quantisation."
            )


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"

"""A program of torch.export as a module: its layers are PyTorch's own, the rest is called node by node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from puma_dash.core.loaders.nodes import Node, OfInput, Ref
from puma_dash.core.loaders.program import Program, read_program
from puma_dash.core.types import ProjectError

LARGEST_VALUE = 2**30
"""Numbers in one value of the graph, for the rows it is tried on."""
DEEPEST = 32
"""Modules inside one another."""
PARTS = ("weight", "bias", "running_mean", "running_var")
ATEN = torch.ops.aten


def read_exported(path: Path) -> Exported:
    """The network of the program in a .pt2 file.

    Raises:
        ProjectError: as in ``read_program``, or it names tensors as no module can.
    """
    program = read_program(path)
    try:
        return Exported(program)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ProjectError(
            f"expected tensors and layers that fit together in {path.name}, but they do not ({error}); try "
            "exporting the model again."
        ) from error


class Exported(nn.Module):
    """The network of a program, with its tensors under the names that they had.

    Linear, convolution, normalisation and embedding nodes become modules, so that what treats layers of
    their kind (Kronecker factors, row gradients, retraining from fresh weights) finds them.

    Args:
        program: what to run.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.names, self.input, self.output = program.names, program.input, program.output
        self.sizes, self.digest = program.sizes, program.digest
        layers: dict[str, nn.Module] = {}
        self.nodes = tuple(_as_layer(node, program, layers) for node in program.nodes)
        for name, value in program.tensors.items():
            owner = name.rpartition(".")[0]
            home, last = self._home(owner if owner in layers else name)
            if owner in layers:
                home.add_module(last, layers[owner])
            elif name in program.parameters:
                home.register_parameter(last, nn.Parameter(value, requires_grad=value.requires_grad))
            else:
                home.register_buffer(last, value, persistent=name not in program.constants)
        shared: dict[int, nn.Parameter] = {}
        for name, value in program.parameters.items():  # what was one tensor stays one
            home, last = self._home(name)
            setattr(home, last, shared.setdefault(id(value), home.get_parameter(last)))
        if not any(parameter.requires_grad for parameter in self.parameters()):
            self.requires_grad_(True)  # exported for inference

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the program for ``x``."""
        values: dict[str, Any] = {self.input: x}
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)
        follows = {"dtype": dtype, "device": x.device}

        def filled(argument: Any) -> Any:
            if isinstance(argument, Ref):
                if argument.name not in values:
                    values[argument.name] = reduce(getattr, self.names[argument.name].split("."), self)
                return values[argument.name]
            if isinstance(argument, list):
                return [filled(each) for each in argument]
            return follows[argument.what] if isinstance(argument, OfInput) else argument

        for node in self.nodes:
            call = reduce(getattr, node.call.split("."), self) if isinstance(node.call, str) else node.call
            found = call(
                *filled(list(node.args)), **{key: filled(value) for key, value in node.kwargs.items()}
            )
            results = found if node.several else (found,)
            for name, value in zip(node.results, results, strict=False):
                if name is not None:
                    values[name] = value
                if x.is_meta and isinstance(value, Tensor) and value.numel() > LARGEST_VALUE:
                    raise ProjectError(
                        f"expected values of at most {LARGEST_VALUE:,} numbers, but the program makes "
                        f"{value.numel():,} in {name}; try naming the architecture, or a factory."
                    )
        return values[self.output]

    def try_sizes(self, x: Tensor) -> None:
        """Runs the program without numbers, so that absurd sizes are found before they take memory.

        Raises:
            ProjectError: ``x`` has not the shape that the program takes, or a value is too large.
        """
        given, fixed = tuple(x.shape[1:]), self.sizes[1:]
        if len(given) != len(fixed) or any(f not in (None, g) for f, g in zip(fixed, given, strict=True)):
            told = ", ".join("any" if size is None else str(size) for size in fixed)
            raise ProjectError(
                f"expected rows of shape ({told}) as the program takes them, but got {given}; "
                "try reshaping the inputs, or exporting the model for these."
            )
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        functional_call(self, {name: value.to("meta") for name, value in tensors.items()}, (x.to("meta"),))

    def extra_repr(self) -> str:
        """What it computes, so that the fingerprint of a project knows it."""
        return f"program {self.digest}"

    def _home(self, name: str) -> tuple[nn.Module, str]:
        """The module, made where there is none, that holds what is called ``name``, and its name there."""
        *path, last = name.split(".")
        home: nn.Module = self
        if len(path) > DEEPEST:
            raise ProjectError(f"expected at most {DEEPEST} modules inside one another, but got {len(path)}.")
        for part in path:
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home.get_submodule(part)
        return home, last


def _as_layer(node: Node, program: Program, layers: dict[str, nn.Module]) -> Node:
    """The node as the call of a module in ``layers`` where it is one, else as it is."""
    if isinstance(node.call, str) or node.call not in LAYERS:
        return node
    given = _arguments(node)
    passed = given["indices" if node.call is ATEN.embedding.default else "input"]
    parts = {part: given[part] for part in PARTS if isinstance(given.get(part), Ref)}
    held = {part: program.names.get(ref.name, "") for part, ref in parts.items()}
    name = next(iter(held.values()), "").rpartition(".")[0]
    if not name or any(full != f"{name}.{part}" for part, full in held.items()):
        return node
    own = {
        key.removeprefix(f"{name}."): v for key, v in program.tensors.items() if key.startswith(f"{name}.")
    }
    own.pop("num_batches_tracked", None)
    if set(own) != set(held) or given.get("training"):
        return node
    if name not in layers:
        with torch.device("meta"):
            layer = LAYERS[node.call](given, own, program.ranks[passed.name])
        counter = {"num_batches_tracked": torch.tensor(0)} if "running_mean" in own else {}
        layer.load_state_dict({**own, **counter}, assign=True)
        for part, parameter in layer.named_parameters():
            parameter.requires_grad_(own[part].requires_grad)
        layers[name] = layer.eval()
    return replace(node, call=name, args=(passed,), kwargs={})


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator by name, with its defaults."""
    schema = node.call._schema.arguments  # type: ignore[union-attr]
    names = [argument.name for argument in schema]
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _convolution(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    def make(given: dict[str, Any], own: dict[str, Tensor], rank: int) -> nn.Module:
        out, into, *kernel = own["weight"].shape
        options = {key: given[key] for key in ("stride", "padding", "dilation")}
        options = {key: v if isinstance(v, str) else tuple(v) for key, v in options.items()}
        options = {key: v * len(kernel) if len(v) == 1 else v for key, v in options.items()}
        groups = given["groups"]
        return kind(into * groups, out, tuple(kernel), **options, groups=groups, bias="bias" in own)

    return make


def _linear(given: dict[str, Any], own: dict[str, Tensor], rank: int) -> nn.Module:
    return nn.Linear(own["weight"].shape[1], own["weight"].shape[0], bias="bias" in own)


def _batch_norm(given: dict[str, Any], own: dict[str, Tensor], rank: int) -> nn.Module:
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    return kind(len(own["running_mean"]), given["eps"], given["momentum"], affine="weight" in own)


def _layer_norm(given: dict[str, Any], own: dict[str, Tensor], rank: int) -> nn.Module:
    return nn.LayerNorm(given["normalized_shape"], given["eps"], bias="bias" in own)


def _embedding(given: dict[str, Any], own: dict[str, Tensor], rank: int) -> nn.Module:
    padding = None if given["padding_idx"] < 0 else given["padding_idx"]
    count, width = own["weight"].shape
    return nn.Embedding(count, width, padding_idx=padding)


LAYERS: dict[Any, Callable[..., nn.Module]] = {
    ATEN.linear.default: _linear,
    ATEN.conv1d.default: _convolution(nn.Conv1d),
    ATEN.conv2d.default: _convolution(nn.Conv2d),
    ATEN.conv2d.padding: _convolution(nn.Conv2d),
    ATEN.batch_norm.default: _batch_norm,
    ATEN.layer_norm.default: _layer_norm,
    ATEN.embedding.default: _embedding,
}
"""How the module of an operator is made of (arguments, its tensors, dimensions of what it takes)."""

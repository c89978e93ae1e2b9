"""The nodes of an exported graph: which operators may be called, and with what."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from puma_dash.core.types import ProjectError

OPERATOR_NAMES = """
linear addmm mm bmm matmul einsum conv1d conv2d convolution embedding lstm gru batch_norm
_native_batch_norm_legit_no_training layer_norm native_layer_norm group_norm rms_norm relu relu6 tanh
sigmoid gelu elu selu celu silu mish leaky_relu prelu hardtanh hardswish hardsigmoid softplus softmax
_softmax log_softmax _log_softmax scaled_dot_product_attention dropout feature_dropout alpha_dropout
max_pool1d max_pool2d max_pool2d_with_indices avg_pool1d avg_pool2d adaptive_avg_pool1d
adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d
pixel_shuffle flatten view reshape _unsafe_view unflatten unsqueeze squeeze permute transpose t
contiguous clone detach alias expand expand_as cat stack split split_with_sizes chunk unbind select
slice index index_select gather pad constant_pad_nd reflection_pad2d replication_pad2d roll flip repeat
tril triu cumsum add sub rsub mul div neg pow sqrt rsqrt exp log log1p abs square reciprocal sin cos erf
sign clamp clamp_min clamp_max minimum maximum where masked_fill eq ne lt le gt ge logical_not
logical_and sum mean amax amin max min var std linalg_vector_norm cosine_similarity to _to_copy type_as
sym_size sym_numel arange full zeros ones full_like zeros_like ones_like scalar_tensor lift_fresh_copy
"""
"""Operators of ATen that networks are made of; none reads a file or changes anything in place."""
OPERATORS = frozenset(OPERATOR_NAMES.split())
ASSERTIONS = ("_assert_", "sym_constrain_range")
"""Operators that only check the sizes and types of the export: left out, since types may change here."""
LARGEST_NUMBER = 2**62


def _of_numbers(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` for plain numbers only: of lists or ever larger ones it could make more than memory holds."""

    def checked(*values: Any) -> Any:
        if not all(isinstance(value, int | float) and abs(value) < LARGEST_NUMBER for value in values):
            raise ValueError("a size is no number, or too large")
        return call(*values)

    return checked


NUMBERS: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": _of_numbers(getattr(operator, name))
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ge", "le", "gt", "lt")
}
"""What may be computed of sizes."""
NUMBERS["_operator.getitem"] = operator.getitem
TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""The archive's numbers for the types of tensors."""


@dataclass(frozen=True)
class Ref:
    """A value of the graph, by name."""

    name: str


@dataclass(frozen=True)
class OfInput:
    """A type or device that follows the network and its inputs: "dtype" or "device"."""

    what: str


@dataclass(frozen=True, eq=False)
class Node:
    """One call."""

    call: Callable[..., Any] | str
    """An operator; or the name of a module that has taken its place."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[str | None, ...]
    several: bool
    """Whether it returns a sequence, even if of one."""


def read_node(node: Mapping[str, Any], path: Path) -> Node | None:
    """The call that ``node`` describes; None for an assertion."""
    target = node["target"].replace("aten.detach_.", "aten.detach.")  # what export does to constants
    name = target.removeprefix("torch.ops.aten.")
    base, _, overload = name.partition(".")
    if base.startswith(ASSERTIONS):
        return None
    known = name != target and base.removesuffix("_") in OPERATORS and overload.isidentifier()
    if not known and target not in NUMBERS:
        raise ProjectError(
            f"expected operators that networks are made of in {path.name}, but it calls {target[:80]}; try "
            "naming the architecture, or a factory."
        )
    call: Any = getattr(getattr(torch.ops.aten, base), overload) if known else NUMBERS[target]
    if known and not isinstance(call, torch._ops.OpOverload):
        raise AttributeError(target)
    training = [entry for entry in node["inputs"] if entry["name"] in ("train", "training")]
    if (known and call._schema.is_mutable) or any(entry["arg"].get("as_bool") for entry in training):
        raise ProjectError(
            f"expected a program that only computes outputs in {path.name}, but {target} runs as in train "
            "mode; try exporting model.eval()."
        )
    args, kwargs = [], {}
    for argument in node["inputs"]:
        value = _value(argument["arg"], path)
        if argument["kind"] == 1:
            args.append(value)
        elif argument["name"] not in ("layout", "memory_format", "pin_memory"):  # how, not what
            kwargs[argument["name"]] = value
    results: list[str | None] = []
    several = len(node["outputs"]) > 1
    for output in node["outputs"]:
        ((kind, value),) = output.items()
        several |= kind == "as_tensors"
        results += [each["name"] for each in value] if kind == "as_tensors" else [_named(kind, value)]
    return Node(call, tuple(args), kwargs, tuple(results), several)


def _named(kind: str, value: Any) -> str | None:
    if kind == "as_none":
        return None
    return value["name"] if kind == "as_tensor" else value["as_name"]


def _value(argument: Mapping[str, Any], path: Path) -> Any:
    """An argument as Python has it, with ``Ref`` for values of the graph."""
    ((kind, value),) = argument.items()
    if kind in ("as_tensor", "as_optional_tensor"):
        return Ref(value["name"]) if "name" in value else _value(value, path)
    if kind == "as_tensors":
        return [Ref(each["name"]) for each in value]
    if kind == "as_optional_tensors":
        return [_value(each, path) for each in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        ((of, inner),) = value.items()
        return Ref(inner) if of == "as_name" else inner
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_value({kind[:-1]: each}, path) for each in value]
    if kind in ("as_float", "as_floats"):  # infinities are written as text
        return float(value) if kind == "as_float" else [float(each) for each in value]
    if kind in ("as_int", "as_bool", "as_string", "as_ints", "as_bools"):
        return value
    if kind == "as_scalar_type":
        return OfInput("dtype") if TYPES[value].is_floating_point else TYPES[value]
    if kind == "as_device":
        return OfInput("device")
    if kind in ("as_none", "as_memory_format", "as_layout"):
        return None
    raise ProjectError(
        f"expected tensors and numbers as arguments in {path.name}, but one is {kind[:40]}; try naming the "
        "architecture, or a factory."
    )

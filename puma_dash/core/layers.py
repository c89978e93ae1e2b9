"""One pass that remembers what each layer saw: from it come the gradients of every row, layer by layer.

Linear layers, convolutions and norms have a rule. What no rule knows goes through ``torch.func``, and what is
too large for that is left out by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from puma_dash.core.objective import forward
from puma_dash.core.row_gradients import Explicit, Factored, RowGradients

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

ROW_NUMBERS = 2**27
"""The gradients of the rows of one object hold at most this many numbers; larger layers are left out."""
CHECKED_ROWS = 4


@dataclass(frozen=True)
class Layer:
    """A module whose per-row gradients follow from its input and the gradient of its output."""

    name: str
    module: nn.Module
    where: dict[str, slice]
    """"weight" and "bias", as far as they take part -> where they lie in theta."""

    def numbers(self, a: Tensor) -> int:
        """How many numbers one row of input ``a`` (1, ...) leaves."""
        size = sum(part.stop - part.start for part in self.where.values())
        return a.shape[-1] + size // a.shape[-1] if self._once(a) else size

    def block(self, a: Tensor, d: Tensor) -> Factored | Explicit:
        """The gradients of m rows from inputs a (m, ...) and output gradients d (m, ...)."""
        where = tuple(self.where[part] for part in ("weight", "bias") if part in self.where)
        if self._once(a):
            ones = [a.new_ones(len(a), 1)] if "bias" in self.where else []
            return Factored(where, torch.cat([a, *ones], dim=1) if ones else a, d)
        parts = {"weight": self._weight, "bias": self._bias}
        return Explicit(
            where, torch.cat([parts[part](a, d).flatten(1) for part in parts if part in self.where], 1)
        )

    def _once(self, a: Tensor) -> bool:
        return isinstance(self.module, nn.Linear) and a.ndim == 2 and "weight" in self.where

    def _weight(self, a: Tensor, d: Tensor) -> Tensor:
        module: Any = self.module
        if isinstance(module, nn.Linear):
            return d.flatten(1, -2).transpose(1, 2) @ a.flatten(1, -2)  # (m, out, in)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            return _kernel_gradients(module, a, d)
        plain = {"weight": torch.ones_like(module.weight)}
        if module.bias is not None:
            plain["bias"] = torch.zeros_like(module.bias)
        return self._bias(a, d * functional_call(module, plain, (a,)))

    def _bias(self, a: Tensor, d: Tensor) -> Tensor:
        if isinstance(self.module, nn.Linear):
            return d.reshape(len(d), -1, d.shape[-1]).sum(1)
        if isinstance(self.module, nn.LayerNorm):
            return d.reshape(len(d), -1, *self.module.normalized_shape).sum(1)
        return d.reshape(*d.shape[:2], -1).sum(2)


RULES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
)


def under_kernel(module: Any, a: Tensor) -> Tensor:
    """What each place of a convolution's output sees, (m, groups, in / groups * kernel, places)."""
    kernel, dilation, padding, stride = module.kernel_size, module.dilation, module.padding, module.stride
    if isinstance(module, nn.Conv1d):
        a = a[:, :, None]
        kernel, dilation, padding, stride = (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
    columns = F.unfold(a, kernel, dilation, padding, stride)  # (m, in * kernel, places)
    return columns.reshape(len(a), module.groups, -1, columns.shape[-1])


def _kernel_gradients(module: Any, a: Tensor, d: Tensor) -> Tensor:
    """Per-row gradients (m, groups, out / groups, in / groups * kernel) of a convolution."""
    columns = under_kernel(module, a)
    return d.reshape(len(d), module.groups, -1, columns.shape[-1]) @ columns.transpose(2, 3)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the parameters are split: layers with a rule, the rest by ``torch.func``, and what is left out."""

    layers: tuple[Layer, ...]
    rest: tuple[str, ...]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, engine: Engine, rows: int) -> Layout:
        """The layout for ``rows`` rows at a time; kept by the engine."""
        key = ("layout", rows)
        if key not in engine.memo:
            engine.memo[key] = cls._tried(engine, rows)
        return engine.memo[key]

    @classmethod
    def _tried(cls, engine: Engine, rows: int) -> Layout:
        """The layout, tried on a few rows: a rule that does not hold is not used.

        That is so where a layer is passed twice or sees the rows along another dimension than the first, its
        weights are used elsewhere, or a function changes its output in place.
        """
        where = dict(zip(engine.parameters.names, engine.parameters.slices, strict=True))
        layers = [layer for layer in _candidates(engine.model, where) if layer.where]
        inputs = engine.to(engine.project.train.inputs[:CHECKED_ROWS])
        probe = Recording(engine, inputs, layers)
        layers = [layer for layer in layers if probe.by_row(layer.name)]
        probe = Recording(engine, inputs, layers)
        generator = torch.Generator().manual_seed(0)
        cotangents = torch.randn(probe.outputs.shape, generator=generator).to(probe.outputs)
        if layers:
            pieces = zip(inputs.split(1), cotangents.split(1), strict=True)
            truth = torch.stack([engine.vjp(row, cotangent) for row, cotangent in pieces])  # (m, p)
            missed = probe.gradients(cotangents, ()).dense() - truth
            close = 1e-3 * float(truth.norm())
            layers = [
                layer
                for layer in layers
                if all(float(missed[:, part].norm()) <= close for part in layer.where.values())
            ]
        budget, kept = ROW_NUMBERS / max(rows, 1), []
        for size, layer in sorted(
            ((probe.numbers(layer), layer) for layer in layers), key=lambda pair: pair[0]
        ):
            if size > budget:
                break
            budget -= size
            kept.append(layer)
        ruled = {f"{layer.name}.{part}".lstrip(".") for layer in layers for part in layer.where}
        rest = tuple(name for name in where if name not in ruled)
        size = sum(where[name].stop - where[name].start for name in rest)
        if rest and (size > budget or not _differentiable(engine, inputs, cotangents, rest)):
            rest = ()
        held = {f"{layer.name}.{part}".lstrip(".") for layer in kept for part in layer.where} | set(rest)
        return cls(tuple(kept), rest, tuple(name for name in where if name not in held))


class Recording:
    """One forward pass that remembers what each layer saw, and the gradients it leads to.

    Args:
        engine: of the project.
        inputs: (m, ...) rows.
        layers: those to watch.
        theta: (p,) where; default theta_org.

    Attributes:
        outputs: (m, c).
    """

    def __init__(
        self, engine: Engine, inputs: Tensor, layers: Iterable[Layer], theta: Tensor | None = None
    ) -> None:
        self.engine, self.layers, self.theta = engine, tuple(layers), theta
        self.inputs = engine.to(inputs)
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in self.layers}
        hooks = [layer.module.register_forward_hook(self._watch(layer.name)) for layer in self.layers]
        try:
            self.outputs = engine.forward(self.inputs, theta)
        finally:
            for hook in hooks:
                hook.remove()

    def _watch(self, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not args:
                return None  # called by keyword: not seen, hence without a rule
            self._seen[name].append((args[0].detach(), output))
            if output.requires_grad:
                return None
            # The parameters require none, so that no gradient of a weight is ever computed. The model gets a
            # copy: it may change what a layer gives in place, which a leaf does not allow.
            return output.requires_grad_().clone()

        return hook

    def by_row(self, name: str) -> bool:
        """Whether the layer was passed once, with the rows along its first dimension."""
        calls = self._seen[name]
        return len(calls) == 1 and all(len(side) == len(self.inputs) for side in calls[0])

    def numbers(self, layer: Layer) -> int:
        """How many numbers a row leaves at ``layer``."""
        return layer.numbers(self.inputs_of(layer))

    def inputs_of(self, layer: Layer) -> Tensor:
        """What ``layer`` was given: a (m, ...)."""
        return self._seen[layer.name][0][0]

    def output_gradients(self, cotangents: Tensor) -> dict[str, Tensor]:
        """d (m, ...) of every layer by name, for the output cotangents v (m, c)."""
        outputs = [self._seen[layer.name][0][1] for layer in self.layers]
        if not outputs:
            return {}
        found = torch.autograd.grad(
            self.outputs, outputs, cotangents, retain_graph=True, materialize_grads=True
        )
        return {layer.name: d for layer, d in zip(self.layers, found, strict=True)}

    def gradients(self, cotangents: Tensor, rest: tuple[str, ...]) -> RowGradients:
        """J_i^T v_i of the rows for the output cotangents v (m, c)."""
        found = self.output_gradients(cotangents)
        blocks: dict[str, Factored | Explicit] = {
            layer.name: layer.block(self.inputs_of(layer), found[layer.name]) for layer in self.layers
        }
        if rest:
            blocks["rest"] = self.rest_gradients(cotangents, rest)
        return RowGradients(blocks, len(self.engine.theta))

    def rest_gradients(self, cotangents: Tensor, names: tuple[str, ...]) -> Explicit:
        """J_i^T v_i of the rows in the parameters ``names``, by ``torch.func``."""
        return _rest(self.engine, self.inputs, cotangents, names, self.theta)


def _candidates(model: nn.Module, where: dict[str, slice]) -> Iterable[Layer]:
    for name, module in model.named_modules():
        odd = isinstance(module, nn.Conv1d | nn.Conv2d) and (
            module.padding_mode != "zeros" or isinstance(module.padding, str)
        )
        if isinstance(module, RULES) and not odd:
            own = {part: f"{name}.{part}".lstrip(".") for part in ("weight", "bias")}
            yield Layer(name, module, {part: where[full] for part, full in own.items() if full in where})


def _rest(
    engine: Engine, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...], theta: Tensor | None
) -> Explicit:
    """Per-row gradients (m, q) of the parameters ``names``, by vmap over rows."""
    named = engine.parameters.unflatten(engine.theta if theta is None else theta)
    own = {name: named[name] for name in names}

    def pulled(own: dict[str, Tensor], row: Tensor, cotangent: Tensor) -> Tensor:
        return (forward(engine.model, {**named, **own}, row[None])[0] * cotangent).sum()

    found = vmap(grad(pulled), in_dims=(None, 0, 0))(own, inputs, cotangents)
    where = dict(zip(engine.parameters.names, engine.parameters.slices, strict=True))
    flat = torch.cat([found[name].flatten(1) for name in names], dim=1)
    return Explicit(tuple(where[name] for name in names), flat)


def _differentiable(engine: Engine, inputs: Tensor, cotangents: Tensor, names: tuple[str, ...]) -> bool:
    try:
        _rest(engine, inputs, cotangents, names, None)
    except (RuntimeError, NotImplementedError):
        return False
    return True

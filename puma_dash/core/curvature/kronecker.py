"""Kronecker-factored curvature: two small eigenproblems for each layer in place of one large system.

In a layer with the kernel W (out, in [+ 1]; the bias is the last column) the gradient of row j along column k
of the root of H_j is sum_t d_jkt a_jt^T over the places t at which the layer is passed (pixels, tokens). Its
block of the Gauss-Newton matrix is taken to be the Kronecker product of

    A = (1 / sum_j a_j) sum_j a_j sum_t a_jt a_jt^T,    D = (1/n) sum_j a_j sum_k (1/T) sum_t d_jkt d_jkt^T

(a_j is the training weight, T the number of places; no labels). wd + damping is added to the product itself,
which the eigenvectors of A and D invert exactly. EK-FAC keeps those eigenvectors and takes the second moments
of the rows' gradients along them in place of the products of the eigenvalues of A and D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from puma_dash.core.layers import Layer, Layout, Recording, under_kernel

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

LARGEST = 5_000
"""Longest side of a factor; layers beyond it are left to the damping."""
EXACT = 1_000
"""What no Kronecker rule fits keeps its exact block up to this many parameters, else the damping alone."""
ALL_COLUMNS = 32
"""Up to this many outputs every column of the root of H is taken, each a backward pass; else one is drawn."""
MOMENT_NUMBERS = 2**24
"""Gradients of so many rows are held at a time that they make up about this many numbers."""


@dataclass(frozen=True, eq=False)
class Block:
    """Parameters whose curvature is modelled together: a kernel, or a vector with ``in`` = 1."""

    layer: Layer | None
    """None: what goes through ``torch.func``."""
    names: tuple[str, ...]
    index: Tensor
    """Where the kernel (groups, out, in) lies in theta."""
    kronecker: bool

    def inputs(self, recording: Recording) -> Tensor:
        """a (groups, m, places, in)."""
        if self.layer is None or not self.kronecker:
            return recording.outputs.detach().new_ones(1, len(recording.outputs), 1, 1)
        a, module = recording.inputs_of(self.layer), self.layer.module
        if isinstance(module, nn.Linear):
            seen = a.reshape(1, len(a), -1, a.shape[-1])
        else:
            seen = under_kernel(module, a).permute(1, 0, 3, 2)
        parts = {"weight": seen, "bias": seen.new_ones(*seen.shape[:3], 1)}
        return torch.cat([parts[part] for part in ("weight", "bias") if part in self.layer.where], dim=3)

    def output_gradients(self, recording: Recording, found: dict[str, Tensor], cotangents: Tensor) -> Tensor:
        """d (groups, m, places, out)."""
        if self.layer is None:
            return recording.rest_gradients(cotangents, self.names).g[None, :, None, :]
        d = found[self.layer.name]
        if not self.kronecker:
            return self.layer.block(recording.inputs_of(self.layer), d).g[None, :, None, :]  # type: ignore[union-attr]
        if isinstance(self.layer.module, nn.Linear):
            return d.reshape(1, len(d), -1, d.shape[-1])
        groups, out = self.index.shape[:2]
        return d.reshape(len(d), groups, out, -1).permute(1, 0, 3, 2)


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """A block of the curvature through its eigenvectors, the outer products of those of D and A."""

    block: Block
    d: Tensor
    """(groups, out, out)"""
    a: Tensor
    """(groups, in, in)"""
    values: Tensor
    """(groups, out, in)"""

    @classmethod
    def of(cls, block: Block, a: Tensor, d: Tensor) -> Eigenbasis:
        """That of A (groups, in, in) and D (groups, out, out), found in float64."""
        (of_a, a_vectors), (of_d, d_vectors) = torch.linalg.eigh(a.double()), torch.linalg.eigh(d.double())
        values = of_d.clamp_min(0)[:, :, None] * of_a.clamp_min(0)[:, None, :]
        return cls(block, d_vectors.to(d), a_vectors.to(a), values.to(a))

    def solve(self, vectors: Tensor, shift: float, x: Tensor) -> None:
        """Writes (block + shift I)^-1 v into ``x`` (k, p) for every row v of ``vectors``."""
        inside = self.d.mT @ vectors[:, self.block.index] @ self.a / (self.values + shift)
        x[:, self.block.index] = self.d @ inside @ self.a.mT


class Batch:
    """One forward pass over some training rows, and the backward passes of the columns of the root of H."""

    def __init__(self, engine: Engine, blocks: tuple[Block, ...], theta: Tensor | None, part: slice) -> None:
        self.engine, self.blocks, self.part = engine, blocks, part
        inputs, self.targets, self.weights = engine.training_rows(torch.arange(part.start, part.stop))
        layers = [block.layer for block in blocks if block.layer is not None]
        self.recording = Recording(engine, inputs, layers, theta)

    def inputs(self) -> Iterator[Tensor]:
        """a (groups, m, places, in) of each block."""
        return (block.inputs(self.recording) for block in self.blocks)

    def columns(self, chances: Tensor) -> Iterator[Iterator[Tensor]]:
        """For one column after the other d (groups, m, places, out) of each block, times the root of a_j.

        Args:
            chances: (n,) numbers from 0 to 1 that draw one column for each row where there are many.
        """
        outputs, loss = self.recording.outputs.detach(), self.engine.loss
        if outputs.shape[1] <= ALL_COLUMNS:
            every = torch.arange(outputs.shape[1], device=outputs.device)
            roots = [loss.root_columns(outputs, self.targets, k.expand(len(outputs))) for k in every]
        else:
            roots = [self._drawn(outputs, chances[self.part])]
        for root in roots:
            cotangents = root * self.weights.sqrt()[:, None]
            found = self.recording.output_gradients(cotangents)
            yield (block.output_gradients(self.recording, found, cotangents) for block in self.blocks)

    def _drawn(self, outputs: Tensor, chances: Tensor) -> Tensor:
        """One column per row in proportion to its squared norm, lengthened to stand for all (m, c)."""
        loss, targets = self.engine.loss, self.targets
        sizes = loss.root_sizes(outputs, targets)
        ends = sizes.cumsum(1)
        column = (ends < chances.to(ends)[:, None] * ends[:, -1:]).sum(1).clamp_max(outputs.shape[1] - 1)
        own = sizes.gather(1, column[:, None]).clamp_min(torch.finfo(sizes.dtype).tiny)
        return loss.root_columns(outputs, targets, column) * (ends[:, -1:] / own).sqrt()


def blocks_of(engine: Engine) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    """How the parameters are split into blocks, and the names of those that only the damping is left for."""
    if "kronecker blocks" not in engine.memo:
        layout = Layout.of(engine, 1)
        where = dict(zip(engine.parameters.names, engine.parameters.slices, strict=True))
        at = torch.arange(len(engine.theta), device=engine.device)
        blocks = [_block(layer, at) for layer in layout.layers]
        if layout.rest:
            index = torch.cat([at[where[name]] for name in layout.rest])
            blocks.append(Block(None, layout.rest, index.reshape(1, -1, 1), False))
        kept = tuple(
            block for block in blocks if max(block.index.shape[1:]) <= (LARGEST if block.kronecker else EXACT)
        )
        held = {name for block in kept for name in block.names}
        engine.memo["kronecker blocks"] = kept, tuple(name for name in where if name not in held)
    return engine.memo["kronecker blocks"]


def _block(layer: Layer, at: Tensor) -> Block:
    parts = [part for part in ("weight", "bias") if part in layer.where]
    names = tuple(f"{layer.name}.{part}".lstrip(".") for part in parts)
    if not isinstance(layer.module, nn.Linear | nn.Conv1d | nn.Conv2d):
        index = torch.cat([at[layer.where[part]] for part in parts])
        return Block(layer, names, index.reshape(1, -1, 1), False)
    groups, out = getattr(layer.module, "groups", 1), len(layer.module.weight)
    kernel = [at[layer.where[part]].reshape(groups, out // groups, -1) for part in parts]
    return Block(layer, names, torch.cat(kernel, dim=2), True)


def factors(engine: Engine, theta: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """A (groups, in, in) and D (groups, out, out) of each block at ``theta``."""
    blocks, _ = blocks_of(engine)
    chances = _chances(engine.n)
    sides = [block.index.shape for block in blocks]
    totals = [engine.theta.new_zeros(groups, side, side) for groups, out, in_ in sides for side in (in_, out)]
    weights = engine.split("train").weights
    share = engine.n if weights is None else float(weights.sum())

    def add(part: slice) -> None:
        engine.tick(part.start, engine.n, "Kronecker factors")
        batch = Batch(engine, blocks, theta, part)
        found: list[Tensor] = []
        for seen in batch.inputs():
            found += [_moments(seen, batch.weights) / share, torch.zeros(())]
        for column in batch.columns(chances):
            for i, d in enumerate(column):
                found[2 * i + 1] = found[2 * i + 1] + _moments(d) / (d.shape[2] * engine.n)
        for total, own in zip(totals, found, strict=True):
            total += own

    engine.over(engine.n, add)
    return list(zip(totals[::2], totals[1::2], strict=True))


def refitted(engine: Engine, bases: list[Eigenbasis], theta: Tensor | None = None) -> list[Eigenbasis]:
    """The same eigenvectors with (1/n) sum_j a_j sum_k (d^T g_jk a)^2, the moments of the rows' gradients."""
    blocks, chances = tuple(basis.block for basis in bases), _chances(engine.n)
    totals = [torch.zeros_like(basis.values) for basis in bases]

    def add(part: slice) -> None:
        engine.tick(part.start, engine.n, "Kronecker eigenvalues")
        batch = Batch(engine, blocks, theta, part)
        seen = [_along(basis.a, a) for basis, a in zip(bases, batch.inputs(), strict=True)]
        found: list[Tensor | int] = [0] * len(bases)
        for column in batch.columns(chances):
            for i, d in enumerate(column):
                found[i] = found[i] + _squares(_along(bases[i].d, d), seen[i]) / engine.n
        for total, own in zip(totals, found, strict=True):
            total += own

    engine.over(engine.n, add)
    return [replace(basis, values=values) for basis, values in zip(bases, totals, strict=True)]


def _chances(n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _moments(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """sum_j w_j sum_t x_jt x_jt^T (groups, i, i) of x (groups, m, places, i)."""
    weighted = x if weights is None else x * weights[:, None, None]
    return weighted.flatten(1, 2).mT @ x.flatten(1, 2)


def _along(vectors: Tensor, x: Tensor) -> Tensor:
    """x (groups, m, places, i) in the basis of the columns of ``vectors`` (groups, i, i)."""
    return (x.flatten(1, 2) @ vectors).reshape(x.shape)


def _squares(d: Tensor, a: Tensor) -> Tensor:
    """sum_j (sum_t d_jt a_jt^T)^2 (groups, out, in), entry by entry, of d (groups, m, places, out) and a."""
    if d.shape[2] == 1:
        return d[:, :, 0].square().mT @ a[:, :, 0].square()
    rows = max(1, MOMENT_NUMBERS // (len(d) * d.shape[3] * a.shape[3]))
    pieces = zip(d.split(rows, dim=1), a.split(rows, dim=1), strict=True)
    return torch.stack([(own.mT @ seen).square().sum(1) for own, seen in pieces]).sum(0)

"""Gradients of chosen rows, kept layer by layer in factored form: for Gram matrices, never as (m, p).

In a linear layer that a row passes once its gradient is the outer product d a^T of the layer's input a and
the gradient d of the layer's output, so that the inner products of all pairs of rows are
(A A'^T) * (D D'^T). Where there are few parameters, or no such form, they are kept as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factored:
    """Gradients d_i a_i^T (m rows) of a linear layer that each row passes once."""

    where: tuple[slice, ...]
    """Where the weight (out, in), and the bias (out,) if it takes part, lie in theta."""
    a: Tensor
    """(m, in [+ 1]): the inputs, with a column of ones where the bias takes part."""
    d: Tensor
    """(m, out)"""

    @property
    def first(self) -> Tensor:
        """One tensor with a row per row."""
        return self.a

    def take(self, part: slice) -> Factored:
        """Some of the rows."""
        return Factored(self.where, self.a[part], self.d[part])

    def join(self, parts: list[Any]) -> Factored:
        """The rows of all ``parts``."""
        return Factored(
            self.where, torch.cat([part.a for part in parts]), torch.cat([part.d for part in parts])
        )

    def gram(self, other: Any) -> Tensor:
        """Inner products (m, k)."""
        return (self.a @ other.a.T) * (self.d @ other.d.T)

    def dots(self, other: Any) -> Tensor:
        """Inner products (m,) of each row with the same row of ``other``."""
        return (self.a * other.a).sum(1) * (self.d * other.d).sum(1)

    def times(self, vectors: Tensor) -> Tensor:
        """Inner products (k, m) with ``vectors`` (k, p)."""
        kernel = vectors[:, self.where[0]].reshape(len(vectors), self.d.shape[1], -1)  # (k, out, in)
        if len(self.where) > 1:
            kernel = torch.cat([kernel, vectors[:, self.where[1], None]], dim=2)
        return ((self.d @ kernel) * self.a).sum(2)

    def write(self, total: Tensor) -> None:
        """Writes the gradients themselves into ``total`` (m, p)."""
        found = self.d[:, :, None] * self.a[:, None, :]  # (m, out, in [+ 1])
        bias = len(self.where) > 1
        total[:, self.where[0]] = (found[:, :, :-1] if bias else found).flatten(1)
        if bias:
            total[:, self.where[1]] = found[:, :, -1]

    def add_combination(self, u: Tensor, total: Tensor) -> None:
        """Adds sum_i u_ki g_i for u (k, m) to ``total`` (k, p)."""
        found = (u[:, :, None] * self.d).transpose(1, 2) @ self.a  # (k, out, in [+ 1])
        bias = len(self.where) > 1
        weight = found[:, :, :-1] if bias else found
        total[:, self.where[0]] += weight.reshape(len(u), -1)
        if bias:
            total[:, self.where[1]] += found[:, :, -1]


@dataclass(frozen=True, eq=False)
class Explicit:
    """Gradients (m, q) of a layer with few parameters."""

    where: tuple[slice, ...]
    g: Tensor

    @property
    def first(self) -> Tensor:
        """One tensor with a row per row."""
        return self.g

    def take(self, part: slice) -> Explicit:
        """Some of the rows."""
        return Explicit(self.where, self.g[part])

    def join(self, parts: list[Any]) -> Explicit:
        """The rows of all ``parts``."""
        return Explicit(self.where, torch.cat([part.g for part in parts]))

    def gram(self, other: Any) -> Tensor:
        """Inner products (m, k)."""
        return self.g @ other.g.T

    def dots(self, other: Any) -> Tensor:
        """Inner products (m,) of each row with the same row of ``other``."""
        return (self.g * other.g).sum(1)

    def times(self, vectors: Tensor) -> Tensor:
        """Inner products (k, m) with ``vectors`` (k, p)."""
        return torch.cat([vectors[:, part] for part in self.where], dim=1) @ self.g.T

    def write(self, total: Tensor) -> None:
        """Writes the gradients themselves into ``total`` (m, p)."""
        sizes = [part.stop - part.start for part in self.where]
        for part, found in zip(self.where, self.g.split(sizes, dim=1), strict=True):
            total[:, part] = found

    def add_combination(self, u: Tensor, total: Tensor) -> None:
        """Adds sum_i u_ki g_i for u (k, m) to ``total`` (k, p)."""
        sizes = [part.stop - part.start for part in self.where]
        for part, found in zip(self.where, (u @ self.g).split(sizes, dim=1), strict=True):
            total[:, part] += found


@dataclass(frozen=True, eq=False)
class RowGradients:
    """J_i^T v_i of m rows i, in blocks by layer."""

    blocks: dict[str, Factored | Explicit]
    p: int

    @classmethod
    def join(cls, parts: list[RowGradients]) -> RowGradients:
        """The rows of all parts, in that order."""
        blocks = {
            name: block.join([part.blocks[name] for part in parts]) for name, block in parts[0].blocks.items()
        }
        return cls(blocks, parts[0].p)

    def __len__(self) -> int:
        """Number of rows m."""
        return len(next(iter(self.blocks.values())).first)

    def take(self, part: slice) -> RowGradients:
        """Some of the rows."""
        return RowGradients({name: block.take(part) for name, block in self.blocks.items()}, self.p)

    def gram(self, other: RowGradients) -> Tensor:
        """Inner products (m, k) with the rows of ``other``, over the layers that both hold."""
        shared = [(block, other.blocks[name]) for name, block in self.blocks.items() if name in other.blocks]
        total = shared[0][0].gram(shared[0][1])
        for block, partner in shared[1:]:
            total += block.gram(partner)
        return total

    def self_gram(self, chunk: int = 512) -> Tensor:
        """Inner products (m, m) of the rows with each other; only one triangle is computed."""
        m = len(self)
        first = next(iter(self.blocks.values())).first
        total = first.new_empty(m, m)
        for start in range(0, m, chunk):
            stop = min(start + chunk, m)
            strip = self.take(slice(start, stop)).gram(self.take(slice(0, stop)))
            total[start:stop, :stop] = strip
            total[:stop, start:stop] = strip.T
        return total

    def dots(self, other: RowGradients) -> Tensor:
        """Inner products (m,) of each row with the same row of ``other``, of the same layout."""
        return torch.stack([block.dots(other.blocks[name]) for name, block in self.blocks.items()]).sum(0)

    def times(self, vectors: Tensor) -> Tensor:
        """Inner products (k, m) with ``vectors`` (k, p)."""
        return torch.stack([block.times(vectors) for block in self.blocks.values()]).sum(0)

    def dense(self) -> Tensor:
        """The gradients (m, p) themselves."""
        first = next(iter(self.blocks.values())).first
        total = first.new_zeros(len(first), self.p)
        for block in self.blocks.values():
            block.write(total)
        return total

    def combination(self, u: Tensor) -> Tensor:
        """sum_i u_ki g_i (k, p) for u (k, m)."""
        total = u.new_zeros(len(u), self.p)
        for block in self.blocks.values():
            block.add_combination(u, total)
        return total

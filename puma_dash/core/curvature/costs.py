"""What passes over rows cost on this machine, for estimates before anything starts.

Everything is counted in forward passes and multiplications, both timed once per engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from puma_dash.core.engine import GRAPH_BYTES

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

FORWARD_MODE, RECORDED, BACKWARD = 4.0, 1.5, 2.5
"""Forward passes that a pass costs: with a derivative, with a graph, back through it."""
PRODUCT = FORWARD_MODE + BACKWARD
"""Of a Gauss-Newton product whose graphs are kept."""
TRAINING_STEP = 1e-3
"""Seconds that the optimiser adds to each step of training, seen on small networks."""
SIDE = 384
"""Of the matrices that are multiplied to time multiplications."""


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of the parts that computations are made of, on one engine."""

    engine: Engine
    call: float
    """Seconds of a forward pass on one row."""
    row: float
    """Seconds that each further row adds."""
    multiplication: float
    """Seconds of one multiplication with addition in a product of matrices."""

    @classmethod
    def of(cls, engine: Engine) -> Costs:
        """Those of ``engine``: timed on the first call, on one batch of training rows."""
        if "costs" not in engine.memo:
            count = min(engine.batch_size, engine.n)
            inputs, _, _ = engine.training_rows(torch.arange(count))
            with torch.no_grad():
                one = _timed(engine, lambda: engine.forward(inputs[:1]))
                batch = _timed(engine, lambda: engine.forward(inputs))
            square = engine.theta.new_ones(SIDE, SIDE)
            product = _timed(engine, lambda: square @ square)
            row = max(batch - one, 0.0) / max(count - 1, 1)
            engine.memo["costs"] = cls(engine, one, row, product / SIDE**3)
        return engine.memo["costs"]

    def passes(self, rows: float, times: float = 1.0) -> float:
        """Seconds of ``times`` forward passes over ``rows`` rows."""
        calls = -(-rows // self.engine.batch_size)
        return times * (calls * self.call + rows * self.row)

    def training(self, rows: float, epochs: float, batch_size: int) -> float:
        """Seconds of training on ``rows`` rows."""
        batches = -(-rows // batch_size)
        steps = batches * (self.call * (1 + BACKWARD) + TRAINING_STEP)
        return epochs * (steps + rows * self.row * (1 + BACKWARD))

    def graph(self, rows: float) -> float:
        """Bytes of the reverse graph of ``rows`` rows."""
        return rows * self.engine.activations() * self.engine.dtype.itemsize

    def product_bytes(self, rows: float) -> float:
        """Bytes of Gauss-Newton products on ``rows`` rows: graphs, kept where they fit, and one batch."""
        kept = self.graph(rows)
        return (kept if kept <= GRAPH_BYTES else 0) + 3 * self.graph(min(rows, self.engine.batch_size))

    def vectors(self, count: float) -> float:
        """Bytes of ``count`` vectors (p,)."""
        return count * len(self.engine.theta) * self.engine.dtype.itemsize


def _timed(engine: Engine, work: Callable[[], object]) -> float:
    """Seconds of ``work``, the better of two runs after one that warms up."""
    seconds = []
    for _ in range(3):
        _wait(engine)
        begin = time.perf_counter()
        work()
        _wait(engine)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)

"""Gradients by row of a whole split, a chunk at a time, so that memory does not depend on its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from puma_dash.core import layers
from puma_dash.core.layers import Layout, Recording
from puma_dash.core.row_gradients import RowGradients
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine
    from puma_dash.core.objective import Loss
    from puma_dash.core.types import Split

T = TypeVar("T")


class Stream:
    """Rows of a split and what is pulled back through each.

    Args:
        engine: of the project.
        split: in the engine's type; its weights a_i, where there are any, weigh the gradients.
        parts: how many gradients of each row are held at a time.
        message: for progress.
        loss: of the rows; by default the training loss.

    Raises:
        ProjectError: some parameters have no gradients by row.
    """

    def __init__(
        self,
        engine: Engine,
        split: Split,
        parts: int = 1,
        message: str = "Gradients by row",
        loss: Loss | None = None,
    ) -> None:
        self.engine, self.split, self.message = engine, split, message
        self.loss = engine.loss if loss is None else loss
        most = layers.ROW_NUMBERS // max(1, len(engine.theta) * parts)
        self.chunk = max(1, min(engine.batch_size // parts, most))
        self.layout = Layout.of(engine, self.chunk * parts)
        if self.layout.missing:
            raise ProjectError(
                f"expected gradients by row of all parameters, but {listing(self.layout.missing)} have none "
                '(layers that torch.func cannot take row by row); try parameters="last".'
            )

    def over(self, work: Callable[[slice], T]) -> list[T]:
        """``work`` of slices that cover the split."""
        n = len(self.split)

        def chunks(part: slice) -> list[T]:
            self.engine.tick(part.start, n, self.message)
            starts = range(part.start, part.stop, self.chunk)
            return [work(slice(start, min(start + self.chunk, part.stop))) for start in starts]

        return [found for several in self.engine.over(n, chunks) for found in several]

    def recording(self, part: slice) -> Recording:
        """The rows' forward pass."""
        return Recording(self.engine, self.split.inputs[part], self.layout.layers)

    def pulled(self, recording: Recording, cotangents: Tensor) -> RowGradients:
        """J_i^T v_i for the cotangents v (m, c)."""
        return recording.gradients(cotangents, self.layout.rest)

    def slopes(self, outputs: Tensor, part: slice) -> Tensor:
        """a_i times the gradient of l_i in the outputs (m, c)."""
        return slopes(self.loss, self.split, outputs, part)

    def weighted(self, values: Tensor, part: slice) -> Tensor:
        """a_i times ``values`` (m, ...)."""
        return weighted(self.split, values, part)

    def gradients(self, part: slice) -> RowGradients:
        """a_i grad l_i."""
        recording = self.recording(part)
        return self.pulled(recording, self.slopes(recording.outputs, part))


def slopes(loss: Loss, split: Split, outputs: Tensor, part: slice = slice(None)) -> Tensor:
    """a_i times the gradient of l_i in the ``outputs`` (m, c) of the rows ``part`` of ``split``."""
    leaf = outputs.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf, split.targets[part]).sum(), leaf)
    return weighted(split, found, part)


def weighted(split: Split, values: Tensor, part: slice = slice(None)) -> Tensor:
    """a_i times ``values`` (m, ...) of the rows ``part`` of ``split``."""
    if split.weights is None:
        return values
    return values * split.weights[part].to(values).reshape(-1, *[1] * (values.ndim - 1))

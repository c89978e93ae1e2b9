"""Robustness: cross-entropy on examples that were moved, within a small box, to where the model errs most.

Projected gradient descent from a random start, x <- clip(x + step epsilon sign(grad_x l)), within epsilon of
the row and the range of the training inputs. The examples are crafted once, at theta_org, and then stay: C is
a function of theta on fixed rows, the same before and after a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from puma_dash.core.criteria.cross_entropy import CrossEntropy
from puma_dash.core.objective import forward
from puma_dash.core.registry import seed_field
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.engine import Engine
    from puma_dash.core.types import Project, Split


@dataclass(frozen=True)
class Adversarial(CrossEntropy):
    """C = cross-entropy on L-infinity PGD examples crafted at theta_org, in nats."""

    key = "adversarial"
    label = "adversarial cross-entropy (PGD)"
    unit = "nats"
    reference = "Madry et al. (2018), Towards deep learning models resistant to adversarial attacks"

    epsilon: float = field(
        default=0.1, metadata={"help": "Most that any input is moved, in its own unit.", "min": 0.0}
    )
    steps: int = field(default=10, metadata={"help": "Gradient steps.", "min": 0, "max": 1_000})
    step: float = field(
        default=0.25, metadata={"help": "Length of a step, as a fraction of epsilon.", "min": 0.0, "max": 2.0}
    )
    seed: int = seed_field("the random start")

    def check(self, project: Project) -> None:
        """Also refuses whole-number inputs, which cannot be moved a little."""
        super().check(project)
        dtype = project.split(self.split).inputs.dtype
        if not dtype.is_floating_point:
            raise ProjectError(
                f"expected real-valued inputs for {self.key}, but got whole numbers ({dtype}), such as token "
                'ids, which cannot be moved a little; try "margin".'
            )

    def evaluation(self, engine: Engine) -> Split:
        """The examples for its rows, crafted at the engine's theta_org once and kept."""
        self.check(engine.project)
        everywhere = replace(self, rows=None, of_class=None, group=None)
        if everywhere not in engine.memo:
            data = engine.split(self.split)
            engine.memo[everywhere] = replace(data, inputs=self._crafted(engine, data))
        return self.restricted(engine.memo[everywhere], engine.project)

    def _crafted(self, engine: Engine, data: Split) -> Tensor:
        """Examples (m, ...) like the inputs of ``data``."""
        low, high = (float(end) for end in engine.project.train.inputs.aminmax())
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.rand(data.inputs.shape, generator=generator, dtype=engine.dtype) * 2 - 1

        def craft(part: slice) -> Tensor:
            engine.tick(part.start, len(data), "Crafting adversarial examples")
            x = engine.to(data.inputs[part])
            # A row beyond the training range stays where it is, it is not pulled in.
            least = torch.minimum(x, (x - self.epsilon).clamp_min(low))
            most = torch.maximum(x, (x + self.epsilon).clamp_max(high))
            moved = (x + self.epsilon * engine.to(start[part])).clamp(least, most)
            for _ in range(self.steps):
                moved.requires_grad_()
                losses = engine.loss.plain(forward(engine.model, {}, moved), data.targets[part])
                (slope,) = torch.autograd.grad(losses.sum(), moved)
                moved = (moved.detach() + self.step * self.epsilon * slope.sign()).clamp(least, most)
            return moved.to(data.inputs)

        return torch.cat(engine.over(len(data), craft))

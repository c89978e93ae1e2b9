"""Training from scratch: the documented recipe behind retraining and the demos."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from puma_dash.core.objective import Loss, as_model_input
from puma_dash.core.registry import Described
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.recorder import Recorder
    from puma_dash.core.types import Project, Split


class Recipe(Described):
    """Mini-batch training on J = (1/n) sum_i w_i l_i + (wd/2) |theta|^2.

    Rows of weight 0 are never drawn, and the mean keeps the factor 1/n of training on all rows.
    """

    loss: Loss
    learning_rate: float
    epochs: int
    batch_size: int

    def steps(
        self, parameters: list[nn.Parameter], weight_decay: float, count: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """What makes ``count`` steps, and what sets their learning rates."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What is minimised, per row (b,)."""
        return self.loss(outputs, targets)

    def __call__(
        self,
        model: nn.Module,
        split: Split,
        weights: Tensor,
        weight_decay: float,
        seed: int,
        on_epoch: Callable[[int], None] | None = None,
        recorder: Recorder | None = None,
    ) -> nn.Module:
        """``model`` trained in place on ``split`` with row weights (n,), in eval mode."""
        device = next(model.parameters()).device
        inputs, targets = as_model_input(split.inputs, model), split.targets.to(device)
        weights = weights.to(device, next(model.parameters()).dtype)
        used = weights.nonzero().ravel()
        scale = len(used) / len(weights)
        trained = [p for p in model.parameters() if p.requires_grad]
        batches = -(-len(used) // self.batch_size)
        optimizer, schedule = self.steps(trained, weight_decay, self.epochs * batches)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            model.train()
            for epoch in range(self.epochs):
                if on_epoch is not None:
                    on_epoch(epoch)
                order = used[torch.randperm(len(used), generator=generator).to(device)]
                rates: list[float] = []
                for rows in order.tensor_split(batches):  # near-equal parts: none of a single row
                    losses = self.losses(model(inputs[rows]), targets[rows])
                    optimizer.zero_grad(set_to_none=True)
                    (scale * (weights[rows] * losses).mean()).backward()
                    rates += map(float, schedule.get_last_lr())
                    optimizer.step()
                    schedule.step()
                    if recorder is not None:
                        recorder.batch(rows)
                if recorder is not None:
                    recorder.epoch(optimizer, sum(rates) / len(rates))
        return model.eval()


@dataclass(frozen=True)
class AdamRecipe(Recipe):
    """Mini-batch Adam with a cosine schedule on J = (1/n) sum_i w_i l_i + (wd/2) |theta|^2.

    Rows of weight 0 are never drawn, and the mean keeps the factor 1/n of training on all rows.
    """

    label = "Adam with a cosine schedule"
    reference = "Kingma & Ba (2015), Adam: a method for stochastic optimization"

    loss: Loss
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate.", "min": 0.0})
    epochs: int = field(default=60, metadata={"help": "Passes over the rows.", "min": 1})
    batch_size: int = field(default=128, metadata={"help": "Rows per step.", "min": 1})

    def steps(
        self, parameters: list[nn.Parameter], weight_decay: float, count: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam and a cosine to 0."""
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=weight_decay)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)


@dataclass(frozen=True)
class SGDRecipe(Recipe):
    """Plain mini-batch gradient descent at one learning rate, as unrolled SGD assumes it.

    With ``deviation`` gamma > 0 each row's loss is l_i + gamma s_i, s_i the standard deviation of the row's
    logits: training stays nearer to theta_0, and unrolled SGD errs less.
    """

    label = "gradient descent at one learning rate"
    reference = "Thudi, Deza, Chandrasekaran & Papernot (2022), Unrolling SGD"

    loss: Loss
    learning_rate: float = field(default=0.1, metadata={"help": "Learning rate.", "min": 0.0})
    epochs: int = field(default=60, metadata={"help": "Passes over the rows.", "min": 1})
    batch_size: int = field(default=128, metadata={"help": "Rows per step.", "min": 1})
    deviation: float = field(
        default=0.0, metadata={"help": "gamma: what the standard deviation of logits weighs.", "min": 0.0}
    )

    def steps(
        self, parameters: list[nn.Parameter], weight_decay: float, count: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Gradient descent without momentum."""
        optimizer = torch.optim.SGD(parameters, lr=self.learning_rate, weight_decay=weight_decay)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_i + gamma s_i (b,).

        Raises:
            ProjectError: a single logit has no standard deviation.
        """
        if not self.deviation:
            return self.loss(outputs, targets)
        if outputs.shape[1] < 2:
            raise ProjectError("expected at least 2 logits for deviation > 0, but the model has 1; try 0.")
        spread = outputs.var(1).clamp_min(torch.finfo(outputs.dtype).tiny).sqrt()  # flat where all are equal
        return self.loss(outputs, targets) + self.deviation * spread


def trainer_of(project: Project) -> tuple[Any, str]:
    """What retrains ``project``, its own trainer or else our recipe, and that in words."""
    if project.trainer is not None:
        return project.trainer, repr(project.trainer)
    recipe = AdamRecipe(cast("Loss", project.loss))
    return recipe, f"{recipe!r} (our recipe, not the author's)"


def from_scratch(
    trainer: Callable[..., nn.Module],
    model: nn.Module,
    split: Split,
    weights: Tensor,
    weight_decay: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int], None] | None = None,
) -> nn.Module:
    """``model`` drawn anew and trained on ``split`` with row weights (n,), in eval mode.

    Our recipes train on ``device`` and tell ``on_epoch``; a trainer of the user's own gets a model on the
    CPU, and may build its own where the parameters cannot be drawn anew.

    Raises:
        ProjectError: for a recipe of ours, a module holds parameters but cannot reset them.
    """
    ours = isinstance(trainer, Recipe)
    try:
        start = fresh(model, seed).to(device if ours else "cpu")
    except ProjectError:
        if ours:
            raise
        start = copy.deepcopy(model)
    told = {"on_epoch": on_epoch} if ours else {}
    return trainer(start, split, weights, weight_decay, seed, **told).eval()


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """A copy of ``model`` with its trained parameters drawn anew by each module's ``reset_parameters``.

    Raises:
        ProjectError: a module holds parameters but cannot reset them.
    """
    trained, model = model, copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(p.requires_grad for p in module.parameters(recurse=False)):
                raise ProjectError(
                    f"expected every module with parameters to have reset_parameters(), but "
                    f"{name or 'the model'} ({type(module).__name__}) has none; "
                    "try a trainer of your own that builds a fresh model."
                )
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            model.get_parameter(name).data.copy_(parameter)  # what was frozen stays frozen
    return model

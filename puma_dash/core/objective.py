"""The training objective: per-row losses, and parameters as one flat vector.

J(theta) = (1/n) sum_i a_i l_i(theta) + (wd/2) |theta|^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from puma_dash.core.registry import Described, resolve
from puma_dash.core.task import CLASSIFICATION, REGRESSION, Task
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


PROBE_ROWS = 16
"""Rows of each split on which the model is tried before anything else is done."""


class Loss(Protocol):
    """A per-row training loss that is convex in the model's outputs."""

    label: str
    task: ClassVar[Task]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (b,) of outputs (b, c) against targets."""

    def hessian_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """H_i v_i (b, c): the loss's second derivative in the outputs times each row of ``vectors``."""

    def hessian_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """S_i (b, c, c) with S_i S_i^T = H_i."""

    def root_sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared norms (b, c) of the columns of S_i; they add up to the trace of H_i."""

    def root_columns(self, outputs: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
        """Column k_i of S_i (b, c) for ``columns`` k (b,)."""

    def divergence(self, reference: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Bregman divergence (b,) of ``outputs`` from ``reference``: 0 and flat where they agree."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities (b, classes); refused by losses without classes."""

    def answers(self, outputs: Tensor) -> Tensor:
        """What models are compared by: class probabilities (b, classes), or values (b, k)."""

    def scale(self, targets: Tensor) -> float:
        """What losses and curvatures are measured in: a mean row of 1 nat, or the variance of the targets."""

    @property
    def plain(self) -> Loss:
        """The loss as criteria and metrics take it: every class counts alike, labels are sharp."""


@dataclass(frozen=True)
class ClassLoss(Described):
    """A loss of classes, l_i = -sum_k q_ik log p_ik with q_ik = w_k ((1 - s) [y_i = k] + s / c).

    w are the class weights, s the label smoothing, c the number of classes, as in ``nn.CrossEntropyLoss``. In
    the outputs H_i = m_i (diag(p_i) - p_i p_i^T), m_i = sum_k q_ik: class weights scale a row's curvature by
    its label's, smoothing leaves it as it is.

    J is (1/n) sum_i a_i l_i + (wd/2) |theta|^2 with class weights, too. ``reduction="mean"`` of PyTorch
    divides by the sum of w_{y_i} in place of n: the same J where the weights are on average 1 over the
    training rows, as those of scikit-learn's "balanced" are; else it is least where this J is with weight
    decay wd mean_i w_{y_i}.

    References:
        Szegedy et al. (2016), Rethinking the Inception architecture for computer vision.
    """

    label: ClassVar[str]
    task: ClassVar[Task] = CLASSIFICATION

    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Share s of a label that is spread evenly over the classes.",
            "min": 0.0,
            "max": 1.0,
        },
    )
    class_weights: tuple[float, ...] | None = field(
        default=None, metadata={"help": "What a row of each class counts; empty for 1."}
    )

    def __post_init__(self) -> None:
        """Brings the weights into one form, so that equal losses compare equal.

        Raises:
            ProjectError: weights that are no positive numbers.
        """
        super().__post_init__()
        if self.class_weights is None:
            return
        try:
            weights = tuple(float(weight) for weight in self.class_weights)
        except (TypeError, ValueError):
            weights = ()
        if not weights or not all(0 < weight < math.inf for weight in weights):
            raise ProjectError(
                f"expected class_weights to be a positive number for each class, but got "
                f"{self.class_weights!r}; try None, or weights such as (1.0, 3.0)."
            )
        object.__setattr__(self, "class_weights", weights)

    def __str__(self) -> str:
        """What it is called, with whatever is not the default."""
        told = [self.label]
        if self.label_smoothing:
            told.append(f"label smoothing {self.label_smoothing:g}")
        if self.class_weights is not None:
            told.append(f"class weights {', '.join(f'{weight:g}' for weight in self.class_weights)}")
        return "; ".join(told)

    @property
    def plain(self) -> Loss:
        """The loss without weights and smoothing."""
        return cast("Loss", type(self)())

    def answers(self, outputs: Tensor) -> Tensor:
        """Class probabilities (b, classes)."""
        return cast("Loss", self).probabilities(outputs)

    def scale(self, targets: Tensor) -> float:
        """mean_i m_i: 1 without class weights."""
        some = torch.zeros((), dtype=torch.float64, device=targets.device)
        return float(torch.as_tensor(self.mass(some, targets)).mean())

    def mass(self, outputs: Tensor, targets: Tensor) -> Tensor | float:
        """m_i (b, 1), like ``outputs``."""
        if self.class_weights is None:
            return 1.0
        w, s = outputs.new_tensor(self.class_weights), self.label_smoothing
        return ((1 - s) * w[targets] + s * w.mean())[:, None]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(ClassLoss):
    """Cross-entropy of p = softmax(z), the loss of ``nn.CrossEntropyLoss``."""

    label = "cross-entropy"
    reference = "Bridle (1990), Probabilistic interpretation of feedforward classification network outputs"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (b,), in nats."""
        weight = None if self.class_weights is None else outputs.new_tensor(self.class_weights)
        return F.cross_entropy(
            outputs, targets, weight, label_smoothing=self.label_smoothing, reduction="none"
        )

    def hessian_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """M (diag(p) - p p^T) v per row."""
        p = outputs.softmax(-1)
        return self.mass(outputs, targets) * p * (vectors - (p * vectors).sum(-1, keepdim=True))

    def hessian_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """sqrt(m) (diag(sqrt p) - p sqrt(p)^T) per row."""
        p = outputs.softmax(-1)
        root = (self.mass(outputs, targets) * p).sqrt()
        return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]

    def root_sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """M p_k |e_k - p|^2 per row and class."""
        p = outputs.softmax(-1)
        size = (1 - 2 * p + p.square().sum(-1, keepdim=True)).clamp_min(0)
        return self.mass(outputs, targets) * p * size

    def root_columns(self, outputs: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
        """sqrt(m p_k) (e_k - p) per row."""
        p = outputs.softmax(-1)
        root = (self.mass(outputs, targets) * p.gather(-1, columns[:, None])).sqrt()
        return root * (F.one_hot(columns, p.shape[-1]) - p)

    def divergence(self, reference: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """M KL(softmax reference || softmax outputs) per row, in nats."""
        old, new = reference.log_softmax(-1), outputs.log_softmax(-1)
        return (self.mass(outputs, targets) * old.exp() * (old - new)).sum(-1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax (b, c)."""
        return outputs.softmax(-1)


@dataclass(frozen=True)
class BinaryCrossEntropy(ClassLoss):
    """Cross-entropy of one logit, p_1 = sigmoid(z), the loss of ``nn.BCEWithLogitsLoss``.

    Its ``pos_weight=w`` is ``class_weights=(1, w)``.
    """

    label = "binary cross-entropy"
    reference = "Cox (1958), The regression analysis of binary sequences"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (b,), in nats."""
        z, s = outputs[:, 0], self.label_smoothing
        smooth = (1 - s) * targets.to(z.dtype) + s / 2
        if self.class_weights is None:
            return F.binary_cross_entropy_with_logits(z, smooth, reduction="none")
        zero, one = self.class_weights
        ratio = z.new_tensor(one / zero)
        return zero * F.binary_cross_entropy_with_logits(z, smooth, pos_weight=ratio, reduction="none")

    def hessian_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """M p (1 - p) v per row."""
        return self.root_sizes(outputs, targets) * vectors

    def hessian_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """sqrt(m p (1 - p)) as (b, 1, 1)."""
        return self.root_sizes(outputs, targets).sqrt()[:, :, None]

    def root_sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """M p (1 - p) per row, as (b, 1)."""
        p = outputs.sigmoid()
        return self.mass(outputs, targets) * p * (1 - p)

    def root_columns(self, outputs: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
        """sqrt(m p (1 - p)) per row, as (b, 1)."""
        return self.root_sizes(outputs, targets).sqrt()

    def divergence(self, reference: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """M KL between the two Bernoulli distributions per row, in nats."""
        p = reference.sigmoid()
        old, new = (F.softplus(z) - p * z for z in (reference, outputs))
        return (self.mass(outputs, targets) * (new - old))[:, 0]

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probabilities of class 0 and class 1, (b, 2)."""
        p = outputs.sigmoid()
        return torch.cat([1 - p, p], dim=1)


@dataclass(frozen=True)
class SquaredError(Described):
    """Mean over the k outputs of (f - y)^2, the loss of ``nn.MSELoss``."""

    label = "squared error"
    reference = "Legendre (1805), Nouvelles méthodes pour la détermination des orbites des comètes"
    task: ClassVar[Task] = REGRESSION

    def __str__(self) -> str:
        """What it is called."""
        return self.label

    @property
    def plain(self) -> Loss:
        """Itself."""
        return self

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (b,), in squared units of the target."""
        return (outputs - targets.to(outputs.dtype)).square().mean(-1)

    def hessian_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """(2 / k) v per row."""
        return 2 / outputs.shape[1] * vectors

    def hessian_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """sqrt(2 / k) I per row."""
        k = outputs.shape[1]
        eye = torch.eye(k, dtype=outputs.dtype, device=outputs.device)
        return ((2 / k) ** 0.5 * eye).expand(len(outputs), k, k)

    def root_sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """2 / k per row and output."""
        return torch.full_like(outputs, 2 / outputs.shape[1])

    def root_columns(self, outputs: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
        """sqrt(2 / k) e_k per row."""
        k = outputs.shape[1]
        return (2 / k) ** 0.5 * F.one_hot(columns, k).to(outputs)

    def divergence(self, reference: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared difference per row."""
        return (outputs - reference).square().mean(-1)

    def answers(self, outputs: Tensor) -> Tensor:
        """The outputs (b, k) themselves."""
        return outputs

    def scale(self, targets: Tensor) -> float:
        """The variance of the targets, mean over the outputs."""
        return float((targets - targets.mean(0)).square().mean())

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Refused: a regression has no classes."""
        raise ProjectError(
            "expected a classification project, but its loss is squared error, without classes."
        )


def ignorance(loss: Loss, targets: Tensor, classes: int) -> float:
    """Mean loss of a model that knows nothing: equal probabilities of classes, or the mean of the targets."""
    return loss.scale(targets) * (math.log(classes) if classes else 1.0)


LOSSES = {
    "cross_entropy": SoftmaxCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": SquaredError,
}


def resolve_loss(value: str | Loss) -> Loss:
    """The loss named ``value``, or ``value`` itself."""
    return resolve(LOSSES, value, "loss")


@dataclass(frozen=True)
class Parameters:
    """How the trained parameters of a model lie in one flat vector theta (p,)."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: nn.Module, which: str, row: Tensor) -> Parameters:
        """The layout of those parameters of ``model`` that require a gradient and take part.

        Args:
            model: whose parameters.
            which: "all", "last" for the layer that ``row`` passes last, or a pattern of names ("fc*").
            row: (1, ...) one row of input.

        Raises:
            ProjectError: no trained parameter has such a name.
        """
        trained = {name: value.shape for name, value in model.named_parameters() if value.requires_grad}
        pattern = which
        if which in ("all", "last"):
            pattern = "*" if which == "all" else f"{_last_layer(model, as_model_input(row, model))}*"
        chosen = {name: shape for name, shape in trained.items() if fnmatchcase(name, pattern)}
        if not chosen:
            raise ProjectError(
                f'expected parameters="all", "last" or a pattern of names, but {which!r} matches none; '
                f"the names are {', '.join(list(trained)[:12])}{' ...' if len(trained) > 12 else ''}."
            )
        return cls(tuple(chosen), tuple(chosen.values()))

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each parameter."""
        return [shape.numel() for shape in self.shapes]

    @property
    def slices(self) -> list[slice]:
        """Where each parameter lies in theta."""
        ends = list(accumulate(self.sizes))
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """theta (p,) from named tensors."""
        return torch.cat([values[name].reshape(-1) for name in self.names])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views into ``theta`` (p,)."""
        pieces = theta.split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }

    def flatten_gradients(self, gradients: Iterable[Tensor]) -> Tensor:
        """(p,) from gradients given in the order of ``names``."""
        return torch.cat([gradient.reshape(-1) for gradient in gradients])


@torch.no_grad()
def _last_layer(model: nn.Module, row: Tensor) -> str:
    """Prefix of the names of the parameters in the layer that ``row`` (1, ...) passes last.

    A module with parameters of its own around several layers (a transformer with a class token) is none.
    """
    passed: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: passed.append(f"{name}." if name else ""))
        for name, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    model(row)
    for hook in hooks:
        hook.remove()
    names = set(passed)
    layers = [name for name in passed if sum(other.startswith(name) for other in names) <= 2]
    return layers[-1] if layers else ""


def model_dtype(model: nn.Module) -> torch.dtype:
    """The floating-point type of the model's parameters."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def as_model_input(inputs: Tensor, model: nn.Module) -> Tensor:
    """``inputs`` in the model's floating-point type and device; whole numbers (token ids) stay whole."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return inputs.to(device, model_dtype(model)) if inputs.is_floating_point() else inputs.to(device)


def forward(model: nn.Module, named: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Outputs (b, c) of ``model`` with the parameters ``named``, by kernels that know forward mode.

    The fused attention kernels that eval mode would take know none.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(model, named, (inputs,))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)

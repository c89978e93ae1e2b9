"""Small projects as data, and the slow, obviously right formulas they are checked against.

``Reference`` uses nothing of puma_dash: losses are written out, derivatives are reverse mode row by row,
systems are solved densely, models are retrained by Newton's method.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools

import numpy as np
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

import puma_dash as puma

LOSS = {
    "cross_entropy": lambda z, y: z.logsumexp(1) - z[torch.arange(len(z)), y],
    "binary_cross_entropy": lambda z, y: torch.log1p(torch.exp(z[:, 0])) - y * z[:, 0],
    "squared_error": lambda z, y: ((z - y) ** 2).sum(1) / z.shape[1],
}


PLAIN = {kind: key for key, kind in puma.LOSSES.items()}


def written(loss):
    """The loss (outputs, targets) -> (b,), written out, of a registry key or an instance with settings."""
    if isinstance(loss, str):
        return LOSS[loss]
    if isinstance(loss, puma.SquaredError):
        return LOSS["squared_error"]

    def weighed(z, y):
        z = z if z.shape[1] > 1 else torch.cat([torch.zeros_like(z), z], 1)
        c = z.shape[1]
        w = torch.tensor(loss.class_weights or [1.0] * c).double()
        q = w * ((1 - loss.label_smoothing) * torch.eye(c).double()[y] + loss.label_smoothing / c)
        return (q * (z.logsumexp(1, keepdim=True) - z)).sum(1)

    return weighed


def bregman(loss, old, new, y):
    """(b,): how far the loss of ``new`` lies above its tangent at ``old``."""
    one, there = written(loss), old.detach()
    slope = jacobian(lambda z: one(z, y).sum(), there)
    return one(new, y) - one(there, y) - (slope * (new - there)).sum(1)


def ignorance(loss, y, classes):
    """Mean loss of equal probabilities, or of the mean target."""
    width = 1 if loss == "binary_cross_entropy" or isinstance(loss, puma.BinaryCrossEntropy) else classes
    nothing = y.mean(0).expand_as(y) if y.ndim == 2 else torch.zeros(len(y), width).double()
    return float(written(loss)(nothing, y).mean())


def another(y, row, classes):
    """Some other label of that row: the next class, or a value one higher."""
    return (int(y[row]) + 1) % classes if y.ndim == 1 else tuple((y[row] + 1).tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model with its data, before PUMA Dash has seen them."""

    model: nn.Module
    loss: str | object
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    weights: np.ndarray | None = None
    weight_decay: float = 0.02

    def project(self, **changes) -> puma.Project:
        """The case as a project."""
        fields = {
            "name": "case",
            "model": self.model,
            "train": puma.Split(*self.train, self.weights),
            "validation": puma.Split(*self.validation),
            "loss": self.loss,
            "weight_decay": self.weight_decay,
        }
        return puma.Project(**{**fields, **changes})

    @property
    def plain(self) -> str:
        """The key of its loss without settings."""
        return self.loss if isinstance(self.loss, str) else PLAIN[type(self.loss)]

    def but(self, **changes) -> Case:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def rows(self, index) -> Case:
        """The same with other training rows."""
        weights = None if self.weights is None else self.weights[index]
        return self.but(train=tuple(part[index] for part in self.train), weights=weights)


class Reference:
    """J, its derivatives and its minimum, of one case."""

    def __init__(self, case: Case):
        self.case, self.model = case, copy.deepcopy(case.model).eval()
        trained = {k: v.detach() for k, v in self.model.named_parameters() if v.requires_grad}
        self.shapes = {k: v.shape for k, v in trained.items()}
        self.theta = torch.cat([v.reshape(-1) for v in trained.values()]).clone()
        self.x, self.y = (torch.as_tensor(part) for part in case.train)
        self.n = len(self.x)
        self.a = torch.ones(self.n).double() if case.weights is None else torch.as_tensor(case.weights)

    def outputs(self, x, theta=None):
        theta = self.theta if theta is None else theta
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        named = {k: part.view(shape) for (k, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.model, named, (torch.as_tensor(x),))

    def losses(self, x, y, theta=None):
        """As in J."""
        return written(self.case.loss)(self.outputs(x, theta), torch.as_tensor(y))

    def plain_losses(self, x, y, theta=None):
        """As criteria take them."""
        return LOSS[self.case.plain](self.outputs(x, theta), torch.as_tensor(y))

    def objective(self, theta, w=None):
        w = self.a if w is None else torch.as_tensor(w)
        return w @ self.losses(self.x, self.y, theta) / self.n + self.case.weight_decay / 2 * theta @ theta

    def gradients(self, theta=None, targets=None):
        """(n, p): a_j grad l_j."""
        y = self.y if targets is None else torch.as_tensor(targets)
        theta = self.theta if theta is None else theta
        return self.a[:, None] * jacobian(lambda t: self.losses(self.x, y, t), theta)

    def jacobians(self, x, theta=None):
        """(m, c, p)."""
        return jacobian(lambda t: self.outputs(x, t), self.theta if theta is None else theta)

    def ggn(self, theta=None, rows=None):
        """sum_j a_j J_j^T H_j J_j / m over ``rows``."""
        rows = range(self.n) if rows is None else rows
        jacobians, z = self.jacobians(self.x, theta), self.outputs(self.x, theta).detach()
        total = 0
        for j in rows:
            loss = functools.partial(written(self.case.loss), y=self.y[j : j + 1])
            h = hessian(lambda row, loss=loss: loss(row[None])[0], z[j])
            total = total + self.a[j] * jacobians[j].T @ h @ jacobians[j]
        return total / len(rows)

    def hessian(self, theta=None):
        """Of the weighted mean loss, without weight decay."""
        theta = self.theta if theta is None else theta
        return hessian(lambda t: self.a @ self.losses(self.x, self.y, t) / self.n, theta)

    def b(self, damping=0.0, matrix="ggn"):
        shift = self.case.weight_decay + damping
        return getattr(self, matrix)() + shift * torch.eye(len(self.theta)).double()

    def criterion(self, key="cross_entropy", theta=None, rows=slice(None)):
        x, y = (torch.as_tensor(part[rows]) for part in self.case.validation)
        if key != "brier":
            return self.plain_losses(x, y, theta).mean()
        z = self.outputs(x, theta)
        p = z.softmax(1) if z.shape[1] > 1 else torch.cat([torch.sigmoid(-z), torch.sigmoid(z)], 1)
        return ((p - torch.eye(p.shape[1]).double()[y]) ** 2).sum(1).mean()

    def criterion_gradient(self, key="cross_entropy", rows=slice(None)):
        return jacobian(lambda t: self.criterion(key, t, rows), self.theta)

    def psi(self, key="cross_entropy", damping=0.0, matrix="ggn", rows=slice(None)):
        """(n,): grad C^T B^-1 a_j grad l_j."""
        solved = torch.linalg.solve(self.b(damping, matrix), self.criterion_gradient(key, rows))
        return (self.gradients() @ solved).numpy()

    def delta(self, e, damping=0.0):
        """-(1/n) B^-1 sum_j e_j a_j grad l_j."""
        return -torch.linalg.solve(self.b(damping), self.gradients().T @ torch.as_tensor(e)) / self.n

    def minimise(self, w=None):
        """The minimum of J with row weights ``w``; the model must be convex."""
        theta = self.theta.clone()
        for _ in range(60):
            objective = functools.partial(self.objective, w=w)
            step = torch.linalg.solve(hessian(objective, theta), jacobian(objective, theta))
            theta = theta - step
            if step.norm() < 1e-13 * (1 + theta.norm()):
                return theta
        raise AssertionError("Newton's method did not converge")

    def descend(self, steps=150):
        """Some minimum of J, by L-BFGS, for networks."""
        theta = self.theta.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([theta], max_iter=steps, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = self.objective(theta)
            value.backward()
            return value

        optimizer.step(closure)
        return theta.detach()

    def model_at(self, theta):
        """The model with ``theta`` in it."""
        model = copy.deepcopy(self.case.model)
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        with torch.no_grad():
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True):
                model.get_parameter(name).copy_(part.view(shape))
        return model


def flat(model) -> torch.Tensor:
    """The trained parameters of a module as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])


def mlp(*widths, seed=0) -> nn.Sequential:
    """Linear layers with tanh between them, in float64."""
    torch.manual_seed(seed)
    layers = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def draw(n, shape, outputs, loss, seed):
    """Inputs and targets that depend on them, with noise; every class occurs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *shape))
    signal = x.reshape(n, -1)[:, :2] @ [1.0, -0.5] + 0.8 * rng.standard_normal(n)
    if loss in ("squared_error", puma.SquaredError()):
        return x, signal[:, None] * np.arange(1, outputs + 1) + 0.3 * rng.standard_normal((n, outputs))
    classes = max(outputs, 2)
    y = np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))
    y[:classes] = np.arange(classes)
    return x, y


def case(model, shape, outputs, loss="cross_entropy", n=22, seed=0, **fields) -> Case:
    """A case of ``n`` training and 15 validation rows."""
    return Case(
        model, loss, draw(n, shape, outputs, loss, seed), draw(15, shape, outputs, loss, seed + 1), **fields
    )


def convolution() -> nn.Sequential:
    """A small convolutional network with what eval mode must switch off, in train mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    ).double()
    model[1].running_mean.uniform_(-0.5, 0.5)
    model[1].running_var.uniform_(0.5, 2.0)
    return model.train()


WEIGHTS = np.resize([1.0, 0.5, 2.0, 0.0, 1.5], 22)

CASES = {
    "softmax": case(mlp(3, 5, 3), (3,), 3),
    "weighted softmax": case(mlp(3, 5, 3), (3,), 3, weights=WEIGHTS),
    "one logit": case(mlp(3, 4, 1), (3,), 1, "binary_cross_entropy"),
    "regression": case(mlp(3, 4, 2), (3,), 2, "squared_error"),
    "smoothed softmax": case(
        mlp(3, 5, 3),
        (3,),
        3,
        puma.SoftmaxCrossEntropy(label_smoothing=0.1, class_weights=(1.0, 3.0, 0.5)),
        weights=WEIGHTS,
    ),
    "smoothed one logit": case(
        mlp(3, 4, 1), (3,), 1, puma.BinaryCrossEntropy(label_smoothing=0.2, class_weights=(0.5, 2.0))
    ),
    "convolution": case(convolution(), (1, 6, 6), 3),
}

CONVEX = {
    "softmax": case(mlp(3, 3), (3,), 3, n=30),
    "weighted softmax": case(mlp(3, 3), (3,), 3, weights=WEIGHTS),
    "smoothed softmax": case(
        mlp(3, 3),
        (3,),
        3,
        puma.SoftmaxCrossEntropy(label_smoothing=0.1, class_weights=(1.0, 3.0, 0.5)),
        weights=WEIGHTS,
    ),
    "one logit": case(mlp(3, 1), (3,), 1, "binary_cross_entropy", n=30),
    "regression": case(mlp(3, 2), (3,), 2, "squared_error", n=30),
}


@functools.cache
def converged(name: str) -> Case:
    """A convex case at its minimum."""
    start = CONVEX[name]
    reference = Reference(start)
    return start.but(model=reference.model_at(reference.minimise()))


@functools.cache
def trained(n: int = 60, seed: int = 3) -> Case:
    """A network of three classes at some minimum."""
    start = case(mlp(3, 6, 3), (3,), 3, n=n, seed=seed)
    reference = Reference(start)
    return start.but(model=reference.model_at(reference.descend()))

"""The engine: sums over rows of gradients, forward-mode derivatives and curvature products, on one device.

Three primitives carry everything (``solve``, the third, is in ``curvature``):

- ``weighted_gradient(w)``      sum_j w_j grad l_j, one backward pass over the rows;
- ``directional_scores(s)``     s^T grad l_j for every j, one forward-mode pass, no gradient is stored;
- ``gauss_newton_product``      v -> (1/n) sum_j a_j (J_j^T H_j J_j) v, what ``solve`` iterates.

Row j stands for a_j l_j everywhere, with a_j its training weight. Forward mode is
``torch.autograd.forward_ad`` without recording: cheaper than ``torch.func.jvp`` here and quick to import.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from puma_dash.core.objective import Parameters, forward, model_dtype
from puma_dash.core.types import Cancelled, Project, ProjectError, Split

if TYPE_CHECKING:
    from puma_dash.core.criteria import Criterion
    from puma_dash.core.objective import Loss

DOUBLE_LIMIT = 4_000
"""Models with at most this many parameters are computed in float64 on the CPU."""
ACTIVATIONS_PER_BATCH = {"cpu": 2**22, "cuda": 2**26}
"""A batch is chosen so that one forward pass holds about this many numbers: what a CPU's caches like, and
enough to keep a GPU busy."""
GRAPH_BYTES = 2**30
"""Reverse graphs of all batches are kept between curvature products while they fit in this many bytes."""
CACHE_BYTES = 2**30
"""A split is kept converted on the device while it fits in this many bytes."""

Progress = Callable[[float, float, str], None]
T = TypeVar("T")


class CancelEvent(Protocol):
    """Anything with ``is_set()``, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether the call should stop."""


def within(progress: Progress, start: float, end: float) -> Progress:
    """A progress that fills the part from ``start`` to ``end`` of another."""
    return lambda done, total, message: progress(start + (end - start) * done / max(total, 1e-12), 1, message)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device named; None or "auto" stand for CUDA where there is one, else the CPU.

    Raises:
        ProjectError: no such device on this machine.
    """
    if device in (None, "auto"):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.empty(0, device=torch.device(device)).device  # "cuda" comes back as "cuda:0"
    except (RuntimeError, AssertionError) as error:
        raise ProjectError(
            f"expected a device of this machine, but got {device!r} ({str(error).splitlines()[0]}); "
            'try device="auto".'
        ) from error
    return chosen


class Engine:
    """Derivatives of one project's losses and outputs on one device.

    Args:
        project: what to differentiate; its model is copied, never changed.
        device: "cuda", "cuda:1", "cpu", or None for CUDA where there is one.
        batch_size: rows per pass; None chooses from the size of the activations. Results do not depend on it.
        parameters: which trained parameters take part: "all", "last" (the last layer) or a name pattern such
            as "blocks.3.*"; the others stay as they are.

    Attributes:
        theta: (p,) the trained parameters theta_org.
        parameters: which take part and how they lie in theta.
        n: number of training rows, the normaliser of J.
        weight_decay: wd of J, 0 where the project does not know it.
        memo: what later calls on this engine reuse: inverses, factors, influences, outputs.
    """

    def __init__(
        self,
        project: Project,
        *,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        parameters: str = "all",
    ) -> None:
        self.project = project
        self.device = choose_device(device)
        self.parameters = Parameters.of(project.model, parameters, project.train.inputs[:1])
        small = (
            sum(p.numel() for p in project.model.parameters()) <= DOUBLE_LIMIT and self.device.type == "cpu"
        )
        own = model_dtype(project.model)
        self.dtype = torch.float64 if small else torch.promote_types(own, torch.float32)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # TF32 keeps 3 digits: too few for solves and rails
        self.model = copy.deepcopy(project.model).to(self.device, self.dtype).eval().requires_grad_(False)
        for module in self.model.modules():
            if getattr(module, "inplace", False) is True:
                module.__dict__["inplace"] = False  # layers' outputs are read again after the pass
        self.theta = self.parameters.flatten(dict(self.model.named_parameters()))
        self.loss = cast("Loss", project.loss)
        self.n = len(project.train)
        self.weight_decay = project.weight_decay or 0.0
        self.batch_size = batch_size or self._choose_batch_size()
        self.memo: dict[Any, Any] = {}
        self._splits: dict[str, Split] = {}
        self._progress: Progress | None = None
        self._cancel: CancelEvent | None = None

    # --- talking to the caller ------------------------------------------------------------

    def listen(self, progress: Progress | None, cancel: CancelEvent | None) -> Engine:
        """This engine, reporting to ``progress`` and stopping on ``cancel`` from now on."""
        self._progress, self._cancel = progress, cancel
        self.check_cancel()
        return self

    def tick(self, done: float, total: float, message: str) -> None:
        """Reports progress; raises ``Cancelled`` once the caller has asked for it."""
        self.check_cancel()
        if self._progress is not None:
            self._progress(done, total, message)

    def check_cancel(self) -> None:
        """Raises ``Cancelled`` once the caller has asked for it."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def keep(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of ``compute()``, from the store of the project where it has one (``Project.memo``)."""
        store = self.project.memo.get("store")
        full = f"{name} | {', '.join(self.parameters.names)} | {self.device.type} {self.dtype}"
        return compute() if store is None else store(full, compute)

    # --- rows ------------------------------------------------------------

    def split(self, name: str) -> Split:
        """The split in this engine's type and on its device; the inputs only where they fit there."""
        if name not in self._splits:
            self._splits[name] = self.place(self.project.split(name))
        return self._splits[name]

    def place(self, split: Split) -> Split:
        """``split`` in this engine's type and on its device; the inputs only where they fit there."""
        fits = split.inputs.numel() * self.dtype.itemsize <= CACHE_BYTES
        inputs = self.to(split.inputs) if fits else split.inputs
        weights = None if split.weights is None else self.to(split.weights.to(self.dtype))
        return Split(inputs, self.to(split.targets), weights, split.groups, split.meta)

    def to(self, values: Tensor) -> Tensor:
        """``values`` on the device; in this engine's type where they are floating-point."""
        return values.to(self.device, self.dtype) if values.is_floating_point() else values.to(self.device)

    def over(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """``work`` of slices that cover ``range(count)``; a batch too large for memory is halved for good."""
        found: list[T] = []
        start = 0
        while start < count:
            self.check_cancel()
            part = slice(start, min(start + self.batch_size, count))
            try:
                found.append(work(part))
            except RuntimeError as error:
                if not _out_of_memory(error) or self.batch_size == 1:
                    raise
                del error  # it holds the frames, and they hold the tensors that are to go
                self.batch_size = max(1, min(self.batch_size, part.stop - start) // 2)
            else:
                start = part.stop
                continue
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    # --- outputs and criteria ------------------------------------------------------------

    @torch.no_grad()
    def outputs(self, split: Split | str, theta: Tensor | None = None) -> Tensor:
        """Outputs (m, c) of the model at ``theta`` (default theta_org) on every row of ``split``."""
        rows = self.split(split) if isinstance(split, str) else split
        named = self._named(theta)
        return torch.cat(self.over(len(rows), lambda part: self._forward(named, rows.inputs[part])))

    @property
    def training_outputs(self) -> Tensor:
        """Outputs (n, c) at theta_org on all training rows; kept."""
        if "training outputs" not in self.memo:
            self.memo["training outputs"] = self.outputs("train")
        return self.memo["training outputs"]

    def answers(self, outputs: Tensor) -> np.ndarray:
        """Class probabilities (m, classes) of ``outputs`` (m, c), or the values (m, k), as an array."""
        return self.loss.answers(outputs).numpy(force=True)

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """Class probabilities (m, classes) of ``outputs`` (m, c), as an array."""
        return self.loss.probabilities(outputs).numpy(force=True)

    def criterion(
        self, criterion: Criterion, theta: Tensor | None = None, *, data: Split | None = None
    ) -> float:
        """C(theta), lower is better, in its unit, on ``data``: its rows as another engine evaluated them."""
        data = criterion.evaluation(self) if data is None else data
        with torch.no_grad():
            return float(criterion(self.outputs(data, theta), data, self.loss))

    def criterion_gradient(
        self, criterion: Criterion, theta: Tensor | None = None, *, data: Split | None = None
    ) -> tuple[float, Tensor]:
        """C(theta) and grad C (p,): the gradient in the outputs first, then one pullback."""
        data = criterion.evaluation(self) if data is None else data
        outputs = self.outputs(data, theta).requires_grad_()
        value = criterion(outputs, data, self.loss)
        (cotangent,) = torch.autograd.grad(value, outputs)
        return float(value.detach()), self.pullback(data, cotangent, theta)

    def pullback(self, split: Split, cotangents: Tensor, theta: Tensor | None = None) -> Tensor:
        """sum_i J_i^T v_i (p,) for the output cotangents v (m, c) on ``split``."""
        total = torch.zeros_like(self.theta)

        def add(part: slice) -> None:
            total.add_(self.vjp(split.inputs[part], cotangents[part], theta))

        self.over(len(split), add)
        return total

    def pushforward(
        self, split: Split, direction: Tensor, theta: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs z (m, c) and their directional derivatives J_i direction (m, c) on ``split``."""

        def dual(part: slice) -> tuple[Tensor, Tensor]:
            return self._dual(direction, theta, split.inputs[part], lambda outputs: outputs)

        pairs = self.over(len(split), dual)
        return torch.cat([z for z, _ in pairs]), torch.cat([dz for _, dz in pairs])

    # --- the primitives on training rows ------------------------------------------------------------

    def weighted_gradient(
        self,
        weights: Tensor,
        rows: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        theta: Tensor | None = None,
    ) -> Tensor:
        """sum_j w_j a_j grad l_j (p,): one backward pass over the rows whose weight is not 0.

        Args:
            weights: (m,) one weight per row of ``rows``.
            rows: (m,) training rows; default all.
            targets: (m,) labels used instead of the rows' own.
            theta: (p,) where; default theta_org.
        """
        return self.weighted_loss(weights, rows, targets=targets, theta=theta)[1]

    def weighted_loss(
        self,
        weights: Tensor,
        rows: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        theta: Tensor | None = None,
        gradient: bool = True,
    ) -> tuple[float, Tensor]:
        """sum_j w_j a_j l_j and its gradient (p,), in one pass; arguments as in ``weighted_gradient``."""
        rows, targets, base = self._training_rows(rows, targets)
        weights = weights.to(self.device, self.dtype) * base
        used = weights.nonzero().ravel()
        rows, targets, weights = rows[used.cpu()], targets[used], weights[used]
        return self.total(
            lambda outputs, part: self.loss(outputs, targets[part]) * weights[part],
            rows,
            theta=theta,
            gradient=gradient,
        )

    def total(
        self,
        term: Callable[[Tensor, slice], Tensor],
        rows: Tensor | None = None,
        *,
        theta: Tensor | None = None,
        gradient: bool = True,
    ) -> tuple[float, Tensor]:
        """The sum over training rows of a function of their outputs, and its gradient (p,), in one pass.

        Args:
            term: (outputs (b, c), which of the rows they are) -> (b,).
            rows: (m,) training rows; default all.
            theta: (p,) where; default theta_org.
            gradient: whether it is wanted; an empty tensor stands for it if not.
        """
        rows = torch.arange(self.n) if rows is None else rows
        inputs, total = self.split("train").inputs, self.theta.new_zeros(len(self.theta) if gradient else 0)

        def add(part: slice) -> float:
            batch = self._pick(inputs, rows[part])
            if not gradient:
                with torch.no_grad():
                    return float(term(self.forward(batch, theta), part).double().sum())
            leaf, outputs = self._recorded(batch, theta)
            terms = term(outputs, part)
            total.add_(self._gradient(terms, leaf, torch.ones_like(terms)))
            return float(terms.detach().double().sum())

        return sum(self.over(len(rows), add)), total

    @torch.no_grad()
    def losses(
        self,
        rows: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        theta: Tensor | None = None,
    ) -> Tensor:
        """a_j l_j (m,) of the training rows ``rows``, default all; ``targets`` (m,) replaces their labels."""
        rows, targets, base = self._training_rows(rows, targets)
        named, inputs = self._named(theta), self.split("train").inputs
        pieces = self.over(
            len(rows),
            lambda part: self.loss(self._forward(named, self._pick(inputs, rows[part])), targets[part]),
        )
        return torch.cat(pieces) * base

    def directional_scores(
        self,
        directions: Tensor,
        rows: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        theta: Tensor | None = None,
    ) -> Tensor:
        """s^T (a_j grad l_j) for every row j: (k, m) for directions (k, p), one forward-mode pass each.

        Args:
            directions: (k, p).
            rows: (m,) training rows; default all.
            targets: (m,) labels used instead of the rows' own.
            theta: (p,) where; default theta_org.
        """
        rows, targets, base = self._training_rows(rows, targets)
        inputs = self.split("train").inputs
        scores = torch.empty(len(directions), len(rows), dtype=self.dtype, device=self.device)

        def score(part: slice) -> None:
            batch, labels = self._pick(inputs, rows[part]), targets[part]
            for k, direction in enumerate(directions):
                scores[k, part] = self._dual(
                    direction, theta, batch, lambda outputs: self.loss(outputs, labels)
                )[1]

        self.over(len(rows), score)
        return scores * base

    def gauss_newton_product(
        self, rows: Tensor | None = None, weights: Tensor | None = None, theta: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """The function v -> G v (k, p), G = (1/n) sum_j w_j a_j J_j^T H_j J_j over ``rows`` (m,) or all.

        The reverse graphs are built once and kept between calls while they fit in ``GRAPH_BYTES``.
        """
        rows, targets, base = self._training_rows(rows, None)
        base = base if weights is None else base * weights.to(base)
        inputs = self.split("train").inputs
        keep = len(rows) * self.activations() * self.dtype.itemsize <= GRAPH_BYTES
        kept: dict[int, tuple[list[Tensor], Tensor]] = {}

        def product(vectors: Tensor) -> Tensor:
            total = torch.zeros_like(vectors)

            def add(part: slice) -> None:
                batch = self._pick(inputs, rows[part])
                leaf, outputs = kept.pop(part.start, ([], batch))
                if not leaf or len(outputs) != len(batch):
                    leaf, outputs = self._recorded(batch, theta)
                found = torch.empty_like(vectors)
                for k, vector in enumerate(vectors):
                    tangent = self._dual(vector, theta, batch, lambda outputs: outputs)[1]
                    curved = self.loss.hessian_product(outputs.detach(), targets[part], tangent)
                    again = keep or k + 1 < len(vectors)
                    found[k] = self._gradient(outputs, leaf, curved * base[part, None], keep=again)
                total.add_(found)  # all or none: a batch may run out of memory halfway
                if keep:
                    kept[part.start] = leaf, outputs

            self.over(len(rows), add)
            return total / self.n

        return product

    def hessian_product(self, theta: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The function v -> (1/n) sum_j a_j (grad^2 l_j) v (k, p), exact, by differentiating the gradient."""
        inputs, (rows, targets, base) = self.split("train").inputs, self._training_rows(None, None)

        def product(vectors: Tensor) -> Tensor:
            total = torch.zeros_like(vectors)

            def add(part: slice) -> None:
                leaf, outputs = self._recorded(self._pick(inputs, rows[part]), theta)
                value = self.loss(outputs, targets[part]) @ base[part]
                first = torch.autograd.grad(value, leaf, create_graph=True, materialize_grads=True)
                gradient = self.parameters.flatten_gradients(first)
                found = torch.zeros_like(vectors)
                for k, vector in enumerate(vectors if gradient.requires_grad else ()):
                    again = k + 1 < len(vectors)
                    second = torch.autograd.grad(
                        gradient, leaf, vector, retain_graph=again, materialize_grads=True
                    )
                    found[k] = self.parameters.flatten_gradients(second)
                total.add_(found)

            self.over(len(rows), add)
            return total / self.n

        return product

    def model_at(self, theta: Tensor) -> nn.Module:
        """A new module like the project's, with the parameters ``theta`` in the project's own type."""
        model = copy.deepcopy(self.project.model)
        named = self.parameters.unflatten(theta.detach())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in named:
                    parameter.copy_(named[name])
        return model

    def theta_of(self, model: nn.Module) -> Tensor:
        """theta (p,) of another module of the same kind, in this engine's type."""
        return self.parameters.flatten(dict(model.named_parameters())).detach().to(self.device, self.dtype)

    # --- one batch ------------------------------------------------------------

    def forward(self, inputs: Tensor, theta: Tensor | None = None) -> Tensor:
        """Outputs (m, c) of one batch, recorded for whatever in it requires a gradient."""
        return self._forward(self._named(theta), inputs)

    def vjp(self, inputs: Tensor, cotangents: Tensor, theta: Tensor | None = None) -> Tensor:
        """sum_i J_i^T v_i (p,) of one batch for the output cotangents v (m, c)."""
        leaf, outputs = self._recorded(inputs, theta)
        return self._gradient(outputs, leaf, cotangents)

    def _named(self, theta: Tensor | None) -> dict[str, Tensor]:
        return self.parameters.unflatten(self.theta if theta is None else theta)

    def _forward(self, named: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return forward(self.model, named, self.to(inputs))

    def _recorded(self, inputs: Tensor, theta: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Leaf parameters and the outputs recorded on them."""
        named = {name: value.detach().requires_grad_() for name, value in self._named(theta).items()}
        return list(named.values()), self._forward(named, inputs)

    def _gradient(self, outputs: Tensor, leaf: list[Tensor], vectors: Tensor, keep: bool = False) -> Tensor:
        gradients = torch.autograd.grad(outputs, leaf, vectors, retain_graph=keep, materialize_grads=True)
        return self.parameters.flatten_gradients(gradients)

    def _dual(
        self, direction: Tensor, theta: Tensor | None, inputs: Tensor, of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``of(outputs)`` and its derivative along ``direction``, by forward mode without recording."""
        tangents = self.parameters.unflatten(direction)
        with torch.no_grad(), forward_ad.dual_level():
            named = {
                name: forward_ad.make_dual(value, tangents[name])
                for name, value in self._named(theta).items()
            }
            value, tangent = forward_ad.unpack_dual(of(self._forward(named, inputs)))
            return value, torch.zeros_like(value) if tangent is None else tangent

    def training_rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (m, ...), targets and training weights a_j (m,) of the training rows ``rows``."""
        _, targets, base = self._training_rows(rows, None)
        return self.to(self._pick(self.split("train").inputs, rows)), targets, base

    def _training_rows(self, rows: Tensor | None, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers on the CPU, labels and training weights a_j on the device, of ``rows``."""
        train = self.split("train")
        rows = torch.arange(self.n) if rows is None else torch.as_tensor(rows)
        index = rows.to(train.targets.device)
        labels = train.targets[index] if targets is None else torch.as_tensor(targets)
        base = torch.ones(len(rows), dtype=self.dtype) if train.weights is None else train.weights[index]
        return rows, self.to(labels), base.to(self.device)

    def _pick(self, inputs: Tensor, rows: Tensor) -> Tensor:
        first, count = int(rows[0]), len(rows)
        if torch.equal(rows, torch.arange(first, first + count)):
            return inputs[first : first + count]  # a view: neighbouring rows need no copy
        return inputs[rows.to(inputs.device)]

    def activations(self) -> int:
        """Numbers that one row leaves behind in a forward pass: the outputs of all leaf modules."""
        if not hasattr(self, "_activation_count"):
            sizes: list[int] = []
            hooks = [
                module.register_forward_hook(
                    lambda _m, _i, out: sizes.append(out.numel() if isinstance(out, Tensor) else 0)
                )
                for module in self.model.modules()
                if not any(module.children())
            ]
            row = self.to(self.project.train.inputs[:1])
            with torch.no_grad():
                self.model(row)
            for hook in hooks:
                hook.remove()
            self._activation_count = row.numel() + sum(sizes)
        return self._activation_count

    def _choose_batch_size(self) -> int:
        numbers = ACTIVATIONS_PER_BATCH.get(self.device.type, ACTIVATIONS_PER_BATCH["cuda"])
        return max(16, min(16_384, numbers // self.activations()))


def engine_of(
    project: Project,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
    parameters: str = "all",
) -> Engine:
    """The engine of ``project`` on ``device``: the same one for later calls, with what it has factored."""
    where = choose_device(device), parameters
    if where not in project.memo:
        project.memo[where] = Engine(project, device=where[0], parameters=parameters)
    return project.memo[where].listen(progress, cancel)


def whole_engine(engine: Engine) -> Engine:
    """The engine of all trained parameters: ``engine`` itself where it has them."""
    trained = [name for name, p in engine.project.model.named_parameters() if p.requires_grad]
    same = list(engine.parameters.names) == trained
    return engine if same else engine_of(engine.project, engine.device)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the machine had no room; PyTorch's allocator for the CPU has no type for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

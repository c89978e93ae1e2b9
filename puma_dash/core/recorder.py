"""What training leaves behind for methods that need more than the last weights, and what keeps it.

theta stands for the trained parameters of the model, in the order of ``named_parameters()``, as one vector.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    from puma_dash.core.training import Recipe
    from puma_dash.core.types import Project, Split

ARRAYS, FACTS = "records.safetensors", "records.json"
"""The two files that records are saved in."""
CHECKPOINTS = 10
"""Evenly spaced over the epochs of a training by one of our recipes."""
STEPS = {
    "start": "recorder = puma.Recorder(model) before the first step",
    "checkpoints": "recorder.epoch(optimizer) at the end of each epoch",
    "rates": "recorder.epoch(optimizer) at the end of each epoch",
    "batches": "recorder.batch(rows) after each step",
    "updates": "puma.Recorder(model, updates=True) and recorder.batch(rows) after each step",
}
"""Part of the records -> the line that makes it."""
WORDS = {
    "start": "the parameters before training",
    "checkpoints": "checkpoints of training with their learning rates",
    "rates": "the learning rate of each epoch",
    "batches": "which rows each batch of training held",
    "updates": "the change of the parameters in each batch of training",
}


@dataclass(frozen=True, eq=False)
class Shards:
    """An ensemble trained ahead for SISA: each member saw the rows of one shard, slice after slice.

    ``rows[s][r]`` are the training rows of slice r of shard s; ``states[s][r]`` is the state of member s once
    it was trained on slices 0 to r; ``epochs`` are those of each slice, ``recipe`` says how it was trained.
    """

    rows: tuple[tuple[Tensor, ...], ...]
    states: tuple[tuple[dict[str, Tensor], ...], ...]
    epochs: int
    seed: int
    recipe: str


@dataclass(frozen=True, eq=False)
class Records:
    """What training left behind; every part may be missing.

    Args:
        shapes: name -> shape of each trained parameter, in the order of theta.
        start: theta_0 (p,), before training.
        rates: learning rate of each epoch.
        epochs: after how many epochs each checkpoint was taken.
        checkpoints: (k, p) theta after those epochs.
        batches: the training rows of each batch, in the order of training.
        updates: (batches, p) by how much each batch changed theta.
        optimizer: what made the steps.
        shards: an ensemble for SISA.
    """

    shapes: dict[str, tuple[int, ...]]
    start: Tensor | None = None
    rates: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    checkpoints: Tensor | None = None
    batches: tuple[Tensor, ...] = ()
    updates: Tensor | None = None
    optimizer: str = ""
    shards: Shards | None = None

    @property
    def bytes(self) -> int:
        """Memory of the tensors."""
        return sum(value.numel() * value.element_size() for value in self.arrays().values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        found = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode())
        for name, value in sorted(self.arrays().items()):
            found.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
            found.update(value.contiguous().view(-1).view(torch.uint8).numpy().data if value.numel() else b"")
        return found.hexdigest()

    def restricted(self, values: Tensor, names: Iterable[str]) -> Tensor:
        """The entries of ``values`` (..., p) that belong to the parameters ``names``."""
        wanted, sizes = set(names), [math.prod(shape) for shape in self.shapes.values()]
        pieces = zip(self.shapes, values.split(sizes, dim=-1), strict=True)
        return torch.cat([piece for name, piece in pieces if name in wanted], dim=-1)

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name: with ``facts`` all that is needed to make the records again."""
        known = {"start": self.start, "checkpoints": self.checkpoints, "updates": self.updates}
        found = {name: value for name, value in known.items() if value is not None}
        if self.batches:
            found["batches"] = torch.cat(self.batches).to(torch.int32)
            found["batch_sizes"] = torch.tensor([len(rows) for rows in self.batches], dtype=torch.int32)
        for s, slices in enumerate(self.shards.rows if self.shards else ()):
            for r, rows in enumerate(slices):
                found[f"shards.{s}.{r}.rows"] = rows.to(torch.int32)
                state = self.shards.states[s][r]  # type: ignore[union-attr]
                found |= {f"shards.{s}.{r}.state.{name}": value for name, value in state.items()}
        return found

    def facts(self) -> dict[str, Any]:
        """All but the tensors, as JSON carries it."""
        told: dict[str, Any] = {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "rates": list(self.rates),
            "epochs": list(self.epochs),
            "optimizer": self.optimizer,
        }
        if self.shards:
            counts = [len(slices) for slices in self.shards.rows]
            told["shards"] = {
                "slices": counts,
                "epochs": self.shards.epochs,
                "seed": self.shards.seed,
                "recipe": self.shards.recipe,
            }
        return told

    @classmethod
    def of(cls, arrays: dict[str, Tensor], facts: dict[str, Any]) -> Records:
        """The records that ``arrays()`` and ``facts()`` tell."""
        told, shards = dict(facts), None
        if "shards" in told:
            of = dict(told.pop("shards"))

            def state(s: int, r: int) -> dict[str, Tensor]:
                prefix = f"shards.{s}.{r}.state."
                return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

            slices = [range(count) for count in of.pop("slices")]
            shards = Shards(
                tuple(
                    tuple(arrays[f"shards.{s}.{r}.rows"].long() for r in rs) for s, rs in enumerate(slices)
                ),
                tuple(tuple(state(s, r) for r in rs) for s, rs in enumerate(slices)),
                **of,
            )
        batches: tuple[Tensor, ...] = ()
        if "batches" in arrays:
            batches = arrays["batches"].long().split(arrays["batch_sizes"].tolist())
        return cls(
            shapes={name: tuple(shape) for name, shape in told["shapes"].items()},
            start=arrays.get("start"),
            rates=tuple(told["rates"]),
            epochs=tuple(told["epochs"]),
            checkpoints=arrays.get("checkpoints"),
            batches=batches,
            updates=arrays.get("updates"),
            optimizer=told["optimizer"],
            shards=shards,
        )

    def save(self, folder: str | Path) -> None:
        """Writes them into ``folder``; ``puma.read_records`` reads them back."""
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.arrays().items()}, str(path / ARRAYS))
        (path / FACTS).write_text(json.dumps(self.facts(), indent=1), "utf-8")


class Recorder:
    """Keeps what a training run leaves behind; three lines in a training loop of one's own.

    ::

        recorder = puma.Recorder(model)         # theta_0
        for epoch in range(epochs):
            for rows in batches:                # row numbers of project.train
                ...
                optimizer.step()
                recorder.batch(rows)            # for unrolled SGD and Amnesiac ML only
            recorder.epoch(optimizer)           # checkpoint and learning rate
        recorder.save("records")                # puma.Project(..., records=puma.read_records("records"))

    Args:
        model: before its first step; its parameters are read, never changed.
        every: epochs between two checkpoints; each takes as much memory as the parameters.
        updates: whether each batch's change of theta is kept, too: as much memory for every step.
    """

    def __init__(self, model: nn.Module, *, every: int = 1, updates: bool = False) -> None:
        if every < 1:
            raise ProjectError(f"expected at least 1 epoch between two checkpoints, but got {every!r}.")
        self.model, self.every = model, every
        self._start = self._theta()
        self._last = self._start if updates else None
        self._rates: list[float] = []
        self._checkpoints: dict[int, Tensor] = {}
        self._batches: list[Tensor] = []
        self._updates: list[Tensor] = []
        self._optimizer = ""

    def batch(self, rows: Any) -> None:
        """After each step: the rows (b,) of ``project.train`` that were in its batch."""
        found = rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.int64))
        self._batches.append(found.to("cpu", torch.int32, copy=True).ravel())
        if self._last is not None:
            now = self._theta()
            self._updates.append(now - self._last)
            self._last = now

    def epoch(self, optimizer: torch.optim.Optimizer | float, rate: float | None = None) -> None:
        """At the end of each epoch, before a scheduler's step.

        Args:
            optimizer: whose learning rate the epoch had, or that learning rate itself.
            rate: the learning rate, where it moves within an epoch.
        """
        if isinstance(optimizer, torch.optim.Optimizer):
            self._optimizer = type(optimizer).__name__
            own = float(optimizer.param_groups[0]["lr"])
        else:
            own = float(optimizer)
        self._rates.append(own if rate is None else float(rate))
        if len(self._rates) % self.every == 0:
            self._checkpoints[len(self._rates)] = self._theta()

    def records(self) -> Records:
        """What was kept so far."""
        return Records(
            shapes=trained_shapes(self.model),
            start=self._start,
            rates=tuple(self._rates),
            epochs=tuple(self._checkpoints),
            checkpoints=torch.stack([*self._checkpoints.values()]) if self._checkpoints else None,
            batches=tuple(self._batches),
            updates=torch.stack(self._updates) if self._updates else None,
            optimizer=self._optimizer,
        )

    def save(self, folder: str | Path) -> None:
        """Writes what was kept into ``folder``; ``puma.read_records`` reads it back."""
        self.records().save(folder)

    def _theta(self) -> Tensor:
        return torch.cat([p.detach().cpu().reshape(-1) for p in self.model.parameters() if p.requires_grad])


def train_recorded(
    recipe: Recipe,
    model: nn.Module,
    split: Split,
    weights: Tensor,
    weight_decay: float,
    seed: int,
    *,
    updates: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> tuple[nn.Module, Records]:
    """``model`` trained in place by one of our recipes, and the records: ten checkpoints over its epochs."""
    recorder = Recorder(model, every=max(1, recipe.epochs // CHECKPOINTS), updates=updates)
    trained = recipe(model, split, weights, weight_decay, seed, on_epoch=on_epoch, recorder=recorder)
    return trained, recorder.records()


def trained_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each parameter of ``model`` that requires a gradient."""
    return {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}


def read_records(folder: str | Path) -> Records:
    """The records that ``Recorder.save`` or ``Records.save`` wrote into ``folder``.

    Raises:
        ProjectError: there are none, or they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    try:
        facts = json.loads((path / FACTS).read_text("utf-8"))
        return Records.of(load_file(str(path / ARRAYS)), facts)
    except FileNotFoundError as error:
        raise ProjectError(
            f"expected records of training in {path} ({ARRAYS} and {FACTS}), but there are none; "
            'try recorder.save("records") at the end of training.'
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ProjectError(
            f"expected records of training in {path}, but they cannot be read ({error}); "
            "try recorder.save(folder) again."
        ) from error


def check_records(records: Any, model: nn.Module, n: int) -> None:
    """Refuses records that do not fit ``model`` and its ``n`` training rows.

    Raises:
        ProjectError: other parameters, other lengths, no such rows, or numbers that are not finite.
    """
    if not isinstance(records, Records):
        raise ProjectError(
            f"expected records to be what puma.read_records returns, but got {type(records).__name__}."
        )
    shapes = trained_shapes(model)
    if list(records.shapes.items()) != list(shapes.items()):
        other = [
            name for name in {**shapes, **records.shapes} if records.shapes.get(name) != shapes.get(name)
        ]
        raise ProjectError(
            "expected records of a model with the same trained parameters, but these differ: "
            f"{listing(other) or 'their order'}; try recording the training of this model."
        )
    p = sum(math.prod(shape) for shape in shapes.values())
    wanted = {"start": (p,), "checkpoints": (len(records.epochs), p), "updates": (len(records.batches), p)}
    for name, shape in wanted.items():
        value: Tensor | None = getattr(records, name)
        if value is not None and tuple(value.shape) != shape:
            raise ProjectError(
                f"expected {name} of shape {shape} in the records, but got {tuple(value.shape)}."
            )
        if value is not None and not value.isfinite().all():
            raise ProjectError(f"expected finite {name} in the records, but some are NaN or infinite.")
    if any(not 1 <= epoch <= len(records.rates) for epoch in records.epochs):
        raise ProjectError("expected a learning rate for each checkpoint in the records, but some have none.")
    _check_rows(records.batches, n)
    for slices in records.shards.rows if records.shards else ():
        _check_rows(slices, n)


def _check_rows(parts: Sequence[Tensor], n: int) -> None:
    rows = torch.cat([part.long() for part in parts]) if parts else torch.empty(0, dtype=torch.long)
    outside = rows[(rows < 0) | (rows >= n)].unique().tolist()
    if outside:
        raise ProjectError(
            f"expected records of training rows 0 to {n - 1}, but they name {listing(outside)}; "
            "try recording row numbers of project.train."
        )


def needed(project: Project, method: str, *parts: str) -> Records:
    """The records of ``project``, which have those ``parts``.

    Raises:
        ProjectError: they are missing; it says what to record, and how.
    """
    records = project.records
    missing = [part for part in parts if records is None or not _has(records, part)]
    if missing:
        raise ProjectError(
            f"expected {' and '.join(WORDS[part] for part in missing)}, which {method} needs, but "
            f"{'there are no records of training' if records is None else 'the records have none'}; "
            f"try {' and '.join(STEPS[part] for part in missing)}."
        )
    assert records is not None
    return records


def _has(records: Records, part: str) -> bool:
    value = getattr(records, part)
    return value is not None and (not isinstance(value, tuple) or bool(value))

"""Training again, many times over: in this process, or side by side in others by joblib.

Which backend trains, and on how many machines, is configured from outside (``joblib.parallel_config``): its
Dask and Ray backends reach beyond this one. Each process computes on one thread, so that the answers do not
depend on how many there are.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.curvature.base import Estimate
from puma_dash.core.curvature.costs import Costs
from puma_dash.core.objective import as_model_input
from puma_dash.core.training import Recipe, from_scratch, trainer_of
from puma_dash.core.types import ProjectError, Split

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

Check = Callable[[], None]
"""Raises ``Cancelled`` once the caller has asked for it."""
Work = Callable[[Any, Check], Any]
"""One task's work; where it goes to another process, it must be possible to send it there."""

PAYS = 10.0
"""Seconds of work from which it pays to start other processes, if nobody says how many."""
BATCH = 0.5
"""Seconds of work handed out at a time, so that progress and cancelling do not wait."""
POLL = 0.1


def jobs_field() -> Any:
    """The field that says how many processes train."""
    told = {
        "help": "Processes side by side; empty: as joblib is configured, or one per core if it pays.",
        "min": 1,
    }
    return field(default=None, metadata=told)


@dataclass(frozen=True, eq=False)
class Training:
    """All it takes to train a fresh model of the project on some rows, and to ask it about others."""

    model: nn.Module
    train: Split
    weights: Tensor
    """(n,) training weights a_j."""
    weight_decay: float
    trainer: Callable[..., nn.Module]
    device: torch.device
    described: str
    """The trainer in words."""

    @classmethod
    def of(cls, engine: Engine) -> Training:
        """That of the engine's project: its own trainer, or our recipe."""
        project = engine.project
        own = project.train.weights
        weights = torch.ones(engine.n, dtype=torch.float64) if own is None else own.double()
        trainer, told = trainer_of(project)
        return cls(project.model, project.train, weights, engine.weight_decay, trainer, engine.device, told)

    def on(self, rows: np.ndarray, seed: int, check: Check) -> nn.Module:
        """Trained on ``rows`` as if there were no others: their mean loss has the factor 1/len(rows)."""
        return self._trained(self.train.take(rows), self.weights[torch.as_tensor(rows)], seed, check)

    def without(self, row: int | None, seed: int, check: Check) -> nn.Module:
        """Trained on all rows but one, or on all; the factor 1/n stays, as everywhere in J."""
        return self.without_rows([] if row is None else [row], seed, check)

    def without_rows(self, rows: Sequence[int] | np.ndarray, seed: int, check: Check) -> nn.Module:
        """Trained on all rows but these; the factor 1/n stays, too."""
        weights = self.weights.clone()
        weights[torch.as_tensor(rows, dtype=torch.long)] = 0
        return self._trained(self.train, weights, seed, check)

    def _trained(self, split: Split, weights: Tensor, seed: int, check: Check) -> nn.Module:
        return from_scratch(
            self.trainer, self.model, split, weights, self.weight_decay, seed, self.device, lambda _: check()
        )


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Tensor, rows: int) -> np.ndarray:
    """Outputs (m, c) float64 of ``model``, ``rows`` rows at a time."""
    parts = [model(as_model_input(part, model)).double().cpu() for part in inputs.split(rows)]
    return torch.cat(parts).numpy()


def training_estimate(engine: Engine, rows: float, epochs: float, batch_size: int) -> Estimate:
    """What ``epochs`` passes over ``rows`` training rows cost."""
    costs = Costs.of(engine)
    held = int(3 * costs.graph(batch_size) + costs.vectors(4))
    return Estimate(costs.training(rows, epochs, batch_size), held, f"{epochs:g} epochs of {rows:,.0f} rows")


def retraining_estimate(engine: Engine, times: int, rows: int) -> Estimate:
    """What ``times`` trainings from scratch on ``rows`` rows each will cost, one after the other.

    Raises:
        ProjectError: the project brings a trainer of its own.
    """
    trainer, _ = trainer_of(engine.project)
    if not isinstance(trainer, Recipe):
        raise ProjectError(
            "expected one of our training recipes for an estimate, but the project brings its own trainer, "
            f"of which only a run can tell; {times:,} retraining{'s are' if times > 1 else ' is'} needed."
        )
    one = training_estimate(engine, rows, trainer.epochs, trainer.batch_size)
    return Estimate(times * one.seconds, one.bytes, f"{times:,} retrainings on {rows:,} rows")


def results(
    engine: Engine, work: Work, tasks: Sequence[Any], jobs: int | None, message: str
) -> Iterator[Any]:
    """``work(task, check)`` of each task, in their order.

    The first is done here, which tells what the others take. Whoever has seen enough stops iterating.

    Raises:
        Cancelled: the caller of the engine has asked for it; at once, even if tasks are under way.
    """
    import joblib

    engine.tick(0, len(tasks), message)
    begin = time.perf_counter()
    yield alone(work, tasks[0], engine.check_cancel)
    took, rest = time.perf_counter() - begin, tasks[1:]
    workers = min(_workers(engine, jobs, took * len(rest)), len(rest))
    if workers < 2:
        for done, task in enumerate(rest, 1):
            engine.tick(done, len(tasks), message)
            yield alone(work, task, engine.check_cancel)
        return
    parallel, size, start = joblib.Parallel(n_jobs=workers), workers, 0
    with contextlib.ExitStack() as stack:
        waiting = ThreadPoolExecutor(1)
        stack.callback(waiting.shutdown, wait=False)
        while start < len(rest):
            begin, tasks_now = time.perf_counter(), rest[start : start + size]
            batch = waiting.submit(parallel, [joblib.delayed(alone)(work, task) for task in tasks_now])
            while not batch.done():
                engine.check_cancel()
                wait([batch], timeout=POLL)
            start += len(tasks_now)
            each = (time.perf_counter() - begin) * workers / len(tasks_now)
            size = workers * max(1, round(BATCH / max(each, 1e-3)))
            engine.tick(start, len(tasks), message)
            yield from batch.result()


def alone(work: Work, task: Any, check: Check = lambda: None) -> Any:
    """``work`` of one task on one thread: small models lose by sharing, and sums keep their order."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return work(task, check)
    finally:
        torch.set_num_threads(threads)


def _workers(engine: Engine, jobs: int | None, seconds: float) -> int:
    """How many processes train, where ``seconds`` of work are left."""
    import joblib
    from joblib.parallel import get_active_backend

    if jobs is not None:
        return jobs
    configured = get_active_backend()[1]
    if configured not in (None, 1):
        return joblib.effective_n_jobs(configured)
    return joblib.cpu_count() if seconds > PAYS and engine.device.type == "cpu" else 1

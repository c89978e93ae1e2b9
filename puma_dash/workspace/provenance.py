"""What it takes to make a patch again, bit for bit, and to know it when one sees it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import threadpoolctl
import torch

from puma_dash._version import __version__
from puma_dash.core import api
from puma_dash.core.engine import CancelEvent, Progress
from puma_dash.core.plan import PatchPlan
from puma_dash.core.types import SPLITS, Patch, Project
from puma_dash.workspace import weights
from puma_dash.workspace.store import Arrays, key

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "safetensors", "torchmetrics")
Keep = Callable[[str, Callable[[], Arrays]], Arrays]


def use_threads(count: int) -> None:
    """Lets every library compute with ``count`` threads: sums in another order round differently."""
    threadpoolctl.threadpool_limits(count)
    torch.set_num_threads(count)


def patch_anew(
    project: Project,
    plan: PatchPlan,
    *,
    seed: int,
    device: str | None,
    keep: Keep | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Patch:
    """A patch that depends on nothing that was asked of ``project`` before, so that it can be made again.

    What an engine has solved for other questions moves the last digits of the next answer.

    Args:
        project: the version to start from.
        plan: what to do.
        seed: of everything drawn.
        device: where to compute.
        keep: what keeps costly arrays on disk (see ``Project.memo``).
        progress: as in ``api.patch``.
        cancel: as in ``api.patch``.
    """
    fresh = dataclasses.replace(project)
    if keep is not None:
        fresh.memo["store"] = keep
    torch.manual_seed(seed)
    return api.patch(fresh, plan, seed=seed, device=device, progress=progress, cancel=cancel)


def provenance(project: Project, made: Patch, *, seed: int | None) -> dict[str, Any]:
    """Where ``made``, a patch of ``project``, comes from: hashes, seed, threads, device, library versions."""
    device = torch.device(made.diagnostics["device"])
    cuda = device.type == "cuda"
    processor = platform.processor() or platform.machine()
    return {
        "project": project_facts(project),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "hashes": hashes(project, made),
        "machine": {
            "device": torch.cuda.get_device_name(device) if cuda else processor,
            "instructions": "CUDA" if cuda else torch.backends.cpu.get_cpu_capability(),
            "system": platform.platform(terse=True),
        },
        "libraries": {
            "puma-dash": __version__,
            "Python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
            **({"CUDA": torch.version.cuda} if cuda else {}),
        },
    }


def hashes(project: Project, made: Patch) -> dict[str, str]:
    """SHA-256 of the data, the marked rows, the model before and after, and what the patch trains with."""
    return {
        "data": data_hash(project),
        "rows": rows_hash(project, made.plan),
        "model before": weights.digest(state(project.model)),
        "model after": weights.digest(state(made.model)),
        "training weights": key(made.weights),
    }


def data_hash(project: Project) -> str:
    """SHA-256 of inputs, targets and weights of every split."""
    splits = {name: getattr(project, name) for name in SPLITS}
    parts = {
        name: [None if part is None else part.numpy(force=True) for part in (s.inputs, s.targets, s.weights)]
        for name, s in splits.items()
        if s is not None
    }
    return key("data", parts)


def rows_hash(project: Project, plan: PatchPlan) -> str:
    """SHA-256 of which rows a plan marks, as what, and what these rows are."""
    rows = list(plan.rows)
    marked = project.train.inputs[rows], project.train.targets[rows]
    upweight = {str(row): float(e) for row, e in plan.upweight.items()}
    relabel = {str(row): label for row, label in plan.relabel.items()}
    return key("rows", list(plan.remove), upweight, relabel, [part.numpy(force=True) for part in marked])


def project_facts(project: Project) -> dict[str, Any]:
    """What the report says of a project."""
    return {
        "name": project.name,
        "fingerprint": project.fingerprint,
        "rows": {name: len(getattr(project, name) or ()) for name in SPLITS},
        "inputs": list(project.train.inputs.shape[1:]),
        "classes": list(project.class_names or ()),
        "model": type(project.model).__name__,
        "parameters": sum(p.numel() for p in project.model.parameters()),
        "loss": str(project.loss),
        "weight_decay": project.weight_decay,
    }


def state(model: torch.nn.Module) -> Arrays:
    """The weights and buffers of ``model`` by name."""
    return {name: value.numpy(force=True) for name, value in model.state_dict().items()}

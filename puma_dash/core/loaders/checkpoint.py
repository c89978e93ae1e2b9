"""A model out of a file: which reader, which architecture, and whether it takes the project's rows."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puma_dash.core.architectures import ARCHITECTURES
from puma_dash.core.loaders.estimators import read_estimator
from puma_dash.core.loaders.exported import Exported, read_exported
from puma_dash.core.loaders.fitting import fit
from puma_dash.core.loaders.sequential import Plain
from puma_dash.core.loaders.weights import read_weights
from puma_dash.core.objective import as_model_input
from puma_dash.core.types import ProjectError

SUFFIXES = (".safetensors", ".pt", ".pth", ".pt2", ".skops")
FACTORIES = "PUMA_DASH_FACTORIES"
"""Environment variable with the modules, separated by commas, whose functions project files may name."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model, and what was assumed in reading it, one sentence each."""

    model: nn.Module
    notes: tuple[str, ...]


def load_model(weights: Path, settings: Mapping[str, Any], inputs: Tensor, outputs: int) -> nn.Module:
    """The model in a weight file, in eval mode on the CPU.

    Args:
        weights: a .safetensors, .pt, .pth, .pt2 or .skops file.
        settings: the ``[model]`` table of project.toml without the weights: ``architecture`` with its fields,
            or ``factory`` ("module:function") with its arguments, or nothing to have a plain network inferred
            (fields of ``Plain`` say what shapes cannot); ``order`` names the layers in the order of the
            network, ``key`` the entry of a checkpoint, ``classes`` the labels of a scikit-learn estimator.
        inputs: (b, ...) some rows as they enter the model.
        outputs: number of outputs c.

    Raises:
        ProjectError: the file or the settings cannot be used; one sentence for each fault.
    """
    return read_model(weights, settings, inputs, outputs).model


def read_model(weights: Path, settings: Mapping[str, Any], inputs: Tensor, outputs: int) -> Loaded:
    """As ``load_model``, with notes on what was assumed."""
    weights, settings = Path(weights), dict(settings)
    suffix = weights.suffix.lower()
    if suffix not in SUFFIXES:
        hint = {
            ".pkl": "skops.io.dump or safetensors: unpickling runs code",
            ".joblib": "skops.io.dump: unpickling runs code",
            ".onnx": "torch.export.save",
        }.get(suffix, "renaming it, if it is one of them")
        raise ProjectError(
            f"expected a weight file ({', '.join(SUFFIXES)}), but got {weights.name}; try {hint}."
        )
    if suffix == ".pt2":
        _nothing_left(settings, ".pt2 files, which bring their network")
        loaded = Loaded(read_exported(weights), ("The program of torch.export, node by node.",))
    elif suffix == ".skops":
        classes = _listed(settings, "classes")
        _nothing_left(settings, ".skops files, besides classes")
        loaded = Loaded(*read_estimator(weights, classes, outputs))
    else:
        loaded = _from_tensors(weights, settings, inputs, outputs)
    model = _in_one_type(loaded.model).eval()
    _check_outputs(model, inputs, outputs, weights)
    return Loaded(model, loaded.notes)


def _from_tensors(weights: Path, settings: dict[str, Any], inputs: Tensor, outputs: int) -> Loaded:
    """The network that the settings name or the shapes tell, with the tensors of the file."""
    key, order = settings.pop("key", None), _listed(settings, "order")
    if "architecture" in settings and "factory" in settings:
        raise ProjectError("expected an architecture or a factory in the [model] table, but got both.")
    if "factory" in settings:
        model = _built(str(settings.pop("factory")), settings)
    elif "architecture" in settings:
        name = settings.pop("architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise ProjectError(
                f"expected one of the architectures {', '.join(ARCHITECTURES)}, but got {name!r}; "
                "try none, to have a plain network inferred, or a factory."
            )
        architecture = _made(ARCHITECTURES[name], settings)
        with torch.device("meta"):  # sizes are compared before they take memory
            model = architecture(tuple(inputs.shape[1:]), outputs)
    else:
        plain = _made(Plain, settings)
        read = read_weights(weights, key)
        model, notes = plain(read, order, inputs)
        return Loaded(model, read.notes + notes)
    read = read_weights(weights, key)
    return Loaded(model, read.notes + fit(read, model, order))


def _listed(settings: dict[str, Any], name: str) -> list[Any] | None:
    value = settings.pop(name, None)
    if value is not None and not isinstance(value, list | tuple):
        raise ProjectError(f"expected {name} in the [model] table to be a list, but got {value!r}.")
    return None if value is None else list(value)


def _nothing_left(settings: Mapping[str, Any], of: str) -> None:
    if settings:
        raise ProjectError(
            f"expected nothing in the [model] table for {of}, but got {', '.join(map(str, settings))}."
        )


def _made(kind: Any, settings: Mapping[str, Any]) -> Any:
    """``kind`` with the settings as its fields."""
    fields = [entry.name for entry in dataclasses.fields(kind)]
    unknown = [str(name) for name in settings if name not in fields]
    if unknown:
        raise ProjectError(
            f"expected {', '.join(fields) or 'nothing more'}, key or order in the [model] table of "
            f"{'a plain network' if kind is Plain else kind.label}, but got {', '.join(unknown)}."
        )
    return kind(**settings)


def _built(factory: str, settings: Mapping[str, Any]) -> nn.Module:
    """The module that a trusted function returns, given the other settings."""
    module_name, _, function_name = factory.partition(":")
    trusted = [name.strip() for name in os.environ.get(FACTORIES, "").split(",") if name.strip()]
    if not any(f"{module_name}.".startswith(f"{name}.") for name in trusted):
        raise ProjectError(
            f"expected a factory in a module that this server trusts ({', '.join(trusted) or 'none yet'}), "
            f"but got {factory!r}; try starting with {FACTORIES}={module_name}, if you trust its code."
        )
    try:
        model = getattr(importlib.import_module(module_name), function_name)(**settings)
    except Exception as error:
        raise ProjectError(
            f"expected {factory} to return a module, but it raised {type(error).__name__}: {error}; "
            "try calling it in Python yourself."
        ) from error
    if not isinstance(model, nn.Module):
        raise ProjectError(f"expected {factory} to return an nn.Module, but got {type(model).__name__}.")
    return model


def _in_one_type(model: nn.Module) -> nn.Module:
    """The model with all its real numbers in the widest of their types."""
    tensors = (*model.parameters(), *model.buffers())
    dtypes = {value.dtype for value in tensors if value.is_floating_point()}
    if len(dtypes) > 1:
        first, *others = dtypes
        for dtype in others:
            first = torch.promote_types(first, dtype)
        model = model.to(first)
    return model


@torch.no_grad()
def _check_outputs(model: nn.Module, inputs: Tensor, outputs: int, weights: Path) -> None:
    """Checks that the model gives finite outputs (b, c) for all of ``inputs``, and for one row."""
    rows = as_model_input(inputs, model)
    for batch in (rows, rows[:1]):
        try:
            if isinstance(model, Exported):
                model.try_sizes(batch)
            found = model(batch)
        except ProjectError:
            raise
        except Exception as error:
            hint = (
                "exporting it for any number of rows, with dynamic_shapes=({0: torch.export.Dim.AUTO},)"
                if isinstance(model, Exported)
                else "other sizes in the [model] table, or inputs of another shape"
            )
            raise ProjectError(
                f"expected a model that takes inputs of shape {tuple(batch.shape)}, but the one in "
                f"{weights.name} raised {type(error).__name__}: {str(error)[:200]}; try {hint}."
            ) from error
        if not isinstance(found, Tensor) or found.shape != (len(batch), outputs):
            came, hint = type(found).__name__, "a module that returns one tensor"
            if isinstance(found, Tensor):
                came, hint = f"shape {tuple(found.shape)}", "another file"
                if found.ndim == 2:
                    hint += f", or targets that fit it (classes from 0 to {found.shape[1] - 1})"
            raise ProjectError(
                f"expected outputs of shape {(len(batch), outputs)} for {len(batch)} rows, but the model in "
                f"{weights.name} gives {came}; try {hint}."
            )
        if not found.isfinite().all():
            raise ProjectError(
                f"expected finite outputs, but the model in {weights.name} gives NaN or infinity; try inputs "
                "normalised as in training."
            )

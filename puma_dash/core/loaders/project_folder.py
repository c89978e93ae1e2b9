"""A project folder: project.toml beside a model and its rows, opened, or explained where it cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.checks import check_rows
from puma_dash.core.loaders.base import FILE, Folder, check_fits
from puma_dash.core.loaders.labels import class_numbers, put_aside, values
from puma_dash.core.loaders.normalise import Normalise, standard
from puma_dash.core.loaders.settings import Carve, Settings, Sources, read_settings, sources
from puma_dash.core.objective import PROBE_ROWS
from puma_dash.core.recorder import ARRAYS, FACTS, Records, read_records
from puma_dash.core.types import Project, ProjectError, Split

if TYPE_CHECKING:
    from torch import Tensor, nn

    from puma_dash.core.loaders.base import Rows


@dataclass(frozen=True, eq=False)
class Data:
    """The rows of a project folder, before a model is there.

    Args:
        splits: train, validation and maybe test.
        class_names: in the order of the model's outputs; empty where nothing names them.
        normalise: what stands in front of the model, or None.
        notes: what a reader of results should know of how the rows came about.
    """

    splits: dict[str, Split]
    class_names: tuple[str, ...]
    normalise: Normalise | None
    notes: tuple[str, ...]


def open_folder(path: str | Path, root: str | Path | None = None, code: bool = True) -> Project:
    """The project in the folder ``path``, which holds a project.toml.

    Args:
        path: the folder, or its project.toml.
        root: no file outside this folder is opened; None for no such limit.
        code: whether a factory may be named in it, of a module that is trusted by name; no other code is ever
            run.

    Raises:
        ProjectError: something in it does not fit; one sentence.
    """
    folder, settings = _folder(path, root, code)
    loss, trainer = settings.made_loss(), settings.recipe()
    data = _data(settings, folder)
    return Project(
        name=settings.name,
        model=_model(settings, folder, data),
        loss=loss,
        weight_decay=settings.weight_decay,
        class_names=data.class_names or None,
        trainer=trainer,
        notes=data.notes,
        records=_records(settings, folder),
        **data.splits,
    )


def read_data(path: str | Path, root: str | Path | None = None) -> Data:
    """The rows of the project in the folder ``path``, as its model takes them: to train one, say.

    Raises:
        ProjectError: something in them does not fit.
    """
    folder, settings = _folder(path, root)
    return _data(settings, folder)


def problems(path: str | Path, root: str | Path | None = None, code: bool = True) -> list[str]:
    """Everything that is wrong with the project in the folder ``path``, a sentence each.

    Splits and settings are tried one by one, so that one fault does not hide the next. The arguments are
    those of ``open_folder``.
    """
    found: list[str] = []

    @contextlib.contextmanager
    def trying() -> Iterator[None]:
        try:
            yield
        except ProjectError as error:
            if str(error) not in found:
                found.append(str(error))

    with trying():
        folder, settings = _folder(path, root, code)
        for part in (settings.made_loss, settings.recipe, settings.normaliser):
            with trying():
                part()
        with trying():
            _weights(settings, folder)
        with trying():
            asked, rows = sources(settings, folder), {}
            for name, files in asked.splits.items():
                with trying():
                    rows[name] = asked.loader(files, folder)
            with trying():
                _numbered(settings, asked, rows)
    if not found:
        with trying():
            open_folder(path, root, code)
    return found


def _folder(path: str | Path, root: str | Path | None, code: bool = True) -> tuple[Folder, Settings]:
    path = Path(path)
    folder = Folder(path.parent if path.name == FILE else path, None if root is None else Path(root), code)
    if not folder.path.is_dir() or not (folder.path / FILE).exists():
        raise ProjectError(
            f"expected a folder with a {FILE}, but {str(path)!r} has none; "
            f"try puma-dash init {path}, which writes one."
        )
    return folder, read_settings(folder.find(FILE))


def _data(settings: Settings, folder: Folder) -> Data:
    asked, notes = sources(settings, folder), []
    rows = {name: asked.loader(files, folder) for name, files in asked.splits.items()}
    targets, class_names = _numbered(settings, asked, rows)
    splits = {}
    for name, each in rows.items():
        arrays: dict[str, Any] = {"inputs": each.inputs, "targets": targets[name], "weights": each.weights}
        splits[name] = Split(**arrays, groups=each.groups, meta=each.meta)
        check_rows(splits[name], name)
    shapes = {name: tuple(split.inputs.shape[1:]) for name, split in splits.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise ProjectError(
                f"expected {name} rows of the shape of the training rows {shapes['train']}, but got {shape}."
            )
    if asked.carve is not None:
        splits, note = _carved(splits, asked.carve, class_names is not None)
        notes.append(note)
    own = settings.class_names if class_names is None else class_names
    return Data(splits, own, _normaliser(settings, splits["train"].inputs), tuple(notes))


def _numbered(
    settings: Settings, asked: Sources, rows: dict[str, Rows]
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Targets of each split as the loss takes them, and the class names; None for a regression."""
    given = {name: each.targets for name, each in rows.items()}
    if settings.loss == "squared_error":
        return {name: values(targets, name) for name, targets in given.items()}, None
    own = next((each.class_names for each in rows.values()), ())
    class_names = settings.class_names or own
    return class_numbers(given, class_names, asked.spelled), class_names


def _carved(splits: dict[str, Split], carve: Carve, by_class: bool) -> tuple[dict[str, Split], str]:
    """The splits with validation rows put aside, and a sentence that says so."""
    whole = splits[carve.source]
    check_fits(2 * whole.inputs.numel() * whole.inputs.element_size(), f"a copy of the {carve.source} rows")
    labels = whole.targets.numpy() if by_class else None
    aside = put_aside(labels, len(whole), carve.share, carve.seed)
    splits = {
        **splits,
        "validation": whole.take(np.flatnonzero(aside)),
        carve.source: whole.take(np.flatnonzero(~aside)),
    }
    how = "at random" + (" within each class" if by_class else "") + f", seed {carve.seed}"
    note = (
        f"No validation rows were given: {aside.sum():,} of {len(whole):,} {carve.source} rows ({how}) were "
        "put aside for validation"
    )
    if carve.source == "train":
        note += (
            "; if the model was trained on them, it looks better there than it is, and scores say less: "
            "give validation rows of their own"
        )
    return splits, f"{note}."


def _normaliser(settings: Settings, inputs: Tensor) -> Normalise | None:
    found = standard(inputs) if settings.normalise == "standard" else settings.normaliser()
    if found is not None:
        found.check(inputs)
    return found


def _model(settings: Settings, folder: Folder, data: Data) -> nn.Module:
    import torch

    from puma_dash.core.loaders.checkpoint import load_model

    weights, rest = _weights(settings, folder)
    train = data.splits["train"]
    rows, outputs = train.inputs[:PROBE_ROWS], train.targets.shape[1] if train.targets.ndim > 1 else 1
    if data.normalise is not None:
        rows = data.normalise(torch.nn.Identity(), (rows,))
    if settings.loss == "cross_entropy":
        outputs = len(data.class_names) or int(train.targets.max()) + 1
    model = load_model(weights, rest, rows, outputs)
    if data.normalise is not None:
        model.register_forward_pre_hook(data.normalise)
    return model


def _records(settings: Settings, folder: Folder) -> Records | None:
    """What training left behind, from the folder that [training] names."""
    if "records" not in settings.training:
        return None
    path = folder.find(settings.training["records"])
    for part in (ARRAYS, FACTS):
        folder.find(str(path / part))  # links may not lead out of the root
    return read_records(path)


def _weights(settings: Settings, folder: Folder) -> tuple[Path, dict[str, Any]]:
    """The file with the model's weights, and what else [model] says."""
    if "weights" not in settings.model:
        raise ProjectError(
            "expected weights in [model] to name the file of the trained model, but it is missing; "
            'try weights = "model.safetensors".'
        )
    if "factory" in settings.model and not folder.code:
        raise ProjectError(
            f"expected a model without code, since that of others is not run here, but got the factory "
            f"{settings.model['factory']!r}; try an architecture, or a .pt2 file of torch.export."
        )
    rest = {key: value for key, value in settings.model.items() if key != "weights"}
    return folder.find(settings.model["weights"]), rest

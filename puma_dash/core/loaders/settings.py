"""project.toml: what a project is called, where its model and rows lie and how they were trained."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from puma_dash.core.loaders import LOADERS
from puma_dash.core.loaders.base import Folder, Loader, names, refuse_unknown
from puma_dash.core.loaders.normalise import Normalise
from puma_dash.core.objective import LOSSES, Loss
from puma_dash.core.registry import Described
from puma_dash.core.training import AdamRecipe
from puma_dash.core.types import ProjectError

SOURCES = ("test", "train")
LARGEST = 2**24
"""Bytes of the largest project.toml that is read."""
EXAMPLE = 'train = "train.csv"'


@dataclass(frozen=True)
class Settings(Described):
    """The settings of project.toml, one field per key."""

    name: str = field(
        default="", metadata={"help": "What the pages call the project; empty for its folder's name."}
    )
    loss: str = field(
        default="cross_entropy", metadata={"help": "The training loss, per row.", "choices": " ".join(LOSSES)}
    )
    class_names: tuple[str, ...] = field(
        default=(), metadata={"help": "The classes, in the order of the model's outputs."}
    )
    weight_decay: float | None = field(
        default=None, metadata={"help": "L2 coefficient of training; left out if unknown.", "min": 0.0}
    )
    label_smoothing: float | None = field(
        default=None,
        metadata={"help": "Share of each label spread over all classes.", "min": 0.0, "max": 1.0},
    )
    class_weights: tuple[float, ...] = field(
        default=(),
        metadata={"help": "What a row of each class weighs in training, in the order of class_names."},
    )
    model: Any = field(default_factory=dict, metadata={"help": "weights, the file, and what the model is."})
    data: Any = field(
        default_factory=dict, metadata={"help": "train, validation, test, and how to read them."}
    )
    normalise: Any = field(
        default=None,
        metadata={"help": 'mean and std in front of the model, or "standard" for those of train.'},
    )
    training: Any = field(
        default_factory=dict,
        metadata={"help": "learning_rate, epochs, batch_size of retraining; records, a folder."},
    )

    def __post_init__(self) -> None:
        """Checks the fields that are no plain values."""
        super().__post_init__()
        object.__setattr__(
            self, "class_names", names([str(n) for n in _listed(self, "class_names")], "class_names")
        )
        weights = _listed(self, "class_weights")
        if not all(type(weight) in (int, float) and 0 <= weight < float("inf") for weight in weights):
            raise ProjectError(f"expected class_weights to be numbers >= 0, but got {weights!r}.")
        object.__setattr__(self, "class_weights", tuple(map(float, weights)))
        for key in ("model", "data", "training"):
            if not isinstance(getattr(self, key), Mapping):
                raise ProjectError(
                    f"expected {key} to be a table, but got {getattr(self, key)!r}; try [{key}]."
                )

    def made_loss(self) -> Loss:
        """The training loss with its settings.

        Raises:
            ProjectError: it has no such setting.
        """
        kind: Any = LOSSES[self.loss]
        asked = {key: getattr(self, key) for key in ("label_smoothing", "class_weights")}
        asked = {key: value for key, value in asked.items() if value not in (None, ())}
        known = {entry.name for entry in fields(kind)}
        for key in asked:
            if key not in known:
                raise ProjectError(
                    f"expected a loss with {key}, but {self.loss} has none; try leaving it out."
                )
        return kind(**asked)

    def recipe(self) -> AdamRecipe | None:
        """How to retrain, or None where it is not said."""
        refuse_unknown(self.training, ("learning_rate", "epochs", "batch_size", "records"), "[training]")
        told = {key: value for key, value in self.training.items() if key != "records"}
        return AdamRecipe(self.made_loss(), **told) if told else None

    def normaliser(self) -> Normalise | None:
        """What stands in front of the model, or None; "standard" is measured elsewhere."""
        asked = self.normalise
        if asked is None or asked == "standard":
            return None
        if not isinstance(asked, Mapping) or set(asked) != {"mean", "std"}:
            raise ProjectError(
                f'expected normalise to be "standard" or mean and std, but got {asked!r}; '
                "try normalise = { mean = 0.5, std = 0.25 }."
            )
        return Normalise(*(_numbers(asked[key], key) for key in ("mean", "std")))


@dataclass(frozen=True)
class Carve(Described):
    """Validation rows put aside from another split."""

    source: str = field(default="test", metadata={"help": "Where from.", "choices": " ".join(SOURCES)})
    share: float = field(default=0.5, metadata={"help": "Share of its rows.", "min": 0.01, "max": 0.99})
    seed: int = field(default=0, metadata={"help": "Seed of the draw.", "min": 0, "max": 2**32 - 1})


@dataclass(frozen=True)
class Sources:
    """What [data] says: the loader, and what each split is made of."""

    loader: Loader
    splits: dict[str, dict[str, str]]
    carve: Carve | None
    spelled: dict[str, str]


def read_settings(path: Path) -> Settings:
    """The settings in the file ``path``.

    Raises:
        ProjectError: it is no TOML, or has a setting that there is not.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ProjectError(f"expected {path.name} of at most {LARGEST:,} bytes, but it is larger.")
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProjectError(
            f"expected {path.name} to be TOML, but it is not: {error}; try puma-dash init, which writes one."
        ) from error
    refuse_unknown(found, [entry.name for entry in fields(Settings)], path.name)
    return Settings(**{"name": path.absolute().parent.name, **found})


def sources(settings: Settings, folder: Folder) -> Sources:
    """The loader and the files of each split that [data] names.

    Raises:
        ProjectError: a key is unknown or missing, or no loader takes such files.
    """
    told = dict(settings.data)
    splits = {name: told.pop(name) for name in ("train", "validation", "test") if name in told}
    key, spelled = told.pop("format", None), told.pop("labels", {})
    if "train" not in splits:
        raise ProjectError(
            f"expected train in [data] to name the training rows, but it is missing; try {EXAMPLE}."
        )
    if not isinstance(spelled, Mapping) or not all(isinstance(name, str) for name in spelled.values()):
        raise ProjectError(
            f'expected [data.labels] to map labels to class names, but got {spelled!r}; try "1" = "good".'
        )
    carve = splits.pop("validation", None) if _carved(splits.get("validation")) else None
    if "validation" not in splits:
        default = {"from": "test"} if "test" in splits else {"from": "train", "share": 0.2}
        carve = _carve(default if carve is None else carve, splits)
    files = {name: _files(split, name) for name, split in splits.items()}
    kind = _kind(key, files["train"]["inputs"], folder)
    of = next(name for name, each in LOADERS.items() if each is kind)
    for name, parts in files.items():
        refuse_unknown(parts, kind.parts, f"{name} in [data], for {of},")
    known = [entry.name for entry in fields(kind)]
    refuse_unknown(told, [*known, "train", "validation", "test", "format", "labels"], f"[data], for {of},")
    return Sources(kind(**told), files, carve, dict(spelled))


def _files(split: Any, name: str) -> dict[str, str]:
    parts = {"inputs": split} if isinstance(split, str) else split
    if not isinstance(parts, Mapping) or "inputs" not in parts:
        raise ProjectError(
            f"expected {name} in [data] to name a file, or inputs and targets, but got {split!r}; "
            f'try {name} = "{name}.csv", or {{ inputs = "x.npy", targets = "y.npy" }}.'
        )
    wrong = [part for part, file in parts.items() if not isinstance(file, str)]
    if wrong:
        raise ProjectError(f"expected {wrong[0]} of {name} to name a file, but got {parts[wrong[0]]!r}.")
    return dict(parts)


def _carved(split: Any) -> bool:
    return isinstance(split, Mapping) and "from" in split


def _carve(asked: Mapping[str, Any], splits: Mapping[str, Any]) -> Carve:
    refuse_unknown(asked, ("from", "share", "seed"), "validation in [data]")
    rest = dict(asked)
    source = rest.pop("from")
    if source not in [name for name in SOURCES if name in splits]:
        raise ProjectError(
            f"expected validation rows to come from test or train, if there is one, but got {source!r}; "
            'try validation = { from = "train", share = 0.2 }.'
        )
    return Carve(source, **rest)


def _kind(key: Any, file: str, folder: Folder) -> Any:
    """The loader class named ``key``, or that for such a file."""
    if key is not None:
        if not isinstance(key, str) or key not in LOADERS:
            raise ProjectError(f"expected format to be one of {', '.join(LOADERS)}, but got {key!r}.")
        return LOADERS[key]
    plain = file.partition(".npz:")[0] + ".npz" if ".npz:" in file else file
    name = f"{plain}/" if folder.find(plain).is_dir() else plain.lower().removesuffix(".gz")
    for kind in LOADERS.values():
        if name.endswith(kind.suffixes):
            return kind
    raise ProjectError(
        f"expected a name that says what {file} is (.csv, .parquet, .npy, .npz, -ubyte, or a folder), but it "
        f"does not; try format in [data], one of {', '.join(LOADERS)}."
    )


def _listed(settings: Settings, key: str) -> list[Any]:
    value = getattr(settings, key)
    if not isinstance(value, list | tuple):
        raise ProjectError(f"expected {key} to be a list, but got {value!r}; try [...].")
    return list(value)


def _numbers(value: Any, key: str) -> tuple[float, ...]:
    found = value if isinstance(value, list) else [value]
    if not all(type(each) in (int, float) and abs(each) < float("inf") for each in found):
        raise ProjectError(
            f"expected {key} of normalise to be a number or a list of them, but got {value!r}."
        )
    return tuple(map(float, found))

"""Writing a project.toml: what a person says, and what the files say themselves, such as encodings."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.loaders.base import FILE, Folder
from puma_dash.core.loaders.encoding import fitted
from puma_dash.core.loaders.settings import Settings, Sources, sources
from puma_dash.core.loaders.tables import Tables
from puma_dash.core.types import SPLITS, ProjectError

if TYPE_CHECKING:
    from puma_dash.core.loaders.encoding import Column

WEIGHTS = (".safetensors", ".pt", ".pth", ".pt2", ".skops")
WORDS = {"train": ("train",), "validation": ("valid", "val", "dev"), "test": ("test",)}
"""What files of a split are called."""
MOST_CLASSES = 1_000
QUESTIONS = {
    "weights": "File of the trained model",
    "train": "Training rows (a file, or INPUTS,TARGETS)",
    "validation": "Validation rows (empty to put some aside)",
    "test": "Test rows (empty for none)",
    "target": "Column with the label (tables only)",
    "loss": "Training loss: cross_entropy, binary_cross_entropy or squared_error",
}
"""What a person is asked for, in this order."""


def told(given: Mapping[str, str], lines: Sequence[str]) -> dict[str, Any]:
    """Settings as in project.toml from answers (keys as in ``QUESTIONS``) and from lines of TOML.

    Raises:
        ProjectError: a line is no TOML, or says again what an answer says.
    """
    places = {"weights": "model.weights", "loss": "loss"}
    found = [
        f"{places.get(key, f'data.{key}')} = {_value(_parts(key, value))}"
        for key, value in given.items()
        if value
    ]
    try:
        return tomllib.loads("\n".join([*found, *lines]))
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(
            f"expected lines of project.toml, each once, but got {'; '.join(lines)} ({error}); "
            "try --set 'data.groups = [\"sex\"]'."
        ) from error


def _parts(key: str, value: str) -> str | dict[str, str]:
    """A file, or inputs and targets where there is a comma."""
    inputs, comma, targets = value.partition(",")
    return {"inputs": inputs, "targets": targets} if comma and key in SPLITS else value


def start(path: Path, told: Mapping[str, Any], root: Path | None = None) -> list[str]:
    """Writes ``path``/project.toml, or adds the encoding of columns to one without; remarks on what to check.

    Args:
        path: the project folder.
        told: settings as in project.toml; empty to complete the one that is there.
        root: no file outside this folder is opened; None for no such limit.

    Raises:
        ProjectError: a file is there already, or what is told does not fit.
    """
    file = path / FILE
    if not path.is_dir():
        raise ProjectError(
            f"expected a folder, but {path} is none; try making it, with model and data in it."
        )
    if told and file.exists():
        raise ProjectError(
            f"expected a folder without a {FILE}, but {path} has one; try editing it, or removing it first."
        )
    if told:
        settings, notes = completed(told, Folder(path, root))
        file.write_text(toml(settings), "utf-8")
        return notes
    if not file.exists():
        raise ProjectError(
            f"expected to be told what to write, but {path} has no {FILE} and no option was given; "
            "try --train FILE --weights FILE."
        )
    with file.open("rb") as opened:
        found = tomllib.load(opened)
    settings, notes = completed(found, Folder(path, root))
    columns = settings["data"].get("columns", {})
    if "columns" not in found["data"] and columns:
        with file.open("a", encoding="utf-8") as opened_again:
            opened_again.write("\n" + toml({"data": {"columns": columns}}))
    return notes


def completed(told: Mapping[str, Any], folder: Folder) -> tuple[dict[str, Any], list[str]]:
    """The settings with the class names and encodings that the training rows suggest, and remarks."""
    settings = Settings(**{"name": folder.path.absolute().name, **told})
    asked, notes = sources(settings, folder), list[str]()
    made = {"name": settings.name, "loss": settings.loss, **told, "data": dict(settings.data)}
    files = asked.splits["train"]
    if isinstance(asked.loader, Tables) and not asked.loader.columns:
        loader = asked.loader
        frame = loader.frame(files, folder)
        others = {*loader.target, loader.weights, loader.id or "id"}
        columns, left_out = fitted(frame.drop(columns=[name for name in frame if name in others]))
        made["data"]["columns"] = {name: _entry(column) for name, column in columns.items()}
        asked = dataclasses.replace(asked, loader=dataclasses.replace(loader, columns=tuple(columns.items())))
        width = sum(column.width for column in columns.values())
        notes.append(
            f"[data.columns] makes {width} inputs of {len(columns)} columns; if the model was trained on "
            "another encoding, write that one."
        )
        if left_out:
            notes.append(f"Columns of too many different texts were left out: {', '.join(left_out)}.")
    if settings.loss != "squared_error" and not settings.class_names:
        found = _class_names(asked, folder)
        if found:
            made["class_names"] = list(found)
            notes.append(
                f"class_names must be in the order of the model's outputs: is it {', '.join(found[:12])}?"
            )
    return made, notes


def _class_names(asked: Sources, folder: Folder) -> tuple[str, ...]:
    """The labels of the training rows, sorted, where they are not 0, 1, 2, ... already."""
    rows = asked.loader(asked.splits["train"], folder)
    if rows.class_names:
        return rows.class_names
    if rows.targets.dtype != object and not asked.spelled:
        return ()
    texts = {
        asked.spelled.get(text, text)
        for text in (str(label).strip() for label in np.unique(_present(rows.targets)))
    }
    if all(re.fullmatch(r"\d+", text) for text in texts):
        found = sorted(texts, key=int)
        return () if found == [str(k) for k in range(len(found))] else tuple(found)
    if len(texts) > MOST_CLASSES:
        raise ProjectError(
            f"expected classes, but the target has {len(texts):,} different values; "
            'try loss = "squared_error", or another target.'
        )
    return tuple(sorted(texts))


def _present(labels: np.ndarray) -> np.ndarray:
    """Labels as texts, without the missing ones."""
    import pandas as pd

    return pd.Series(labels.ravel()).dropna().astype(str).to_numpy(str)


def _entry(column: Column) -> dict[str, Any]:
    """What [data.columns] says of a column: the fields that are not the defaults."""
    return {
        entry.name: value
        for entry in dataclasses.fields(column)
        if (value := getattr(column, entry.name)) != entry.default
    }


def guesses(folder: Path) -> dict[str, str]:
    """Answers to propose: files in ``folder`` that look like weights, train, validation and test."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    data = [name for name in names if not name.lower().endswith((*WEIGHTS, ".toml"))]
    found = {"weights": next((name for name in names if name.lower().endswith(WEIGHTS)), "")}
    for split, words in WORDS.items():
        found[split] = next((name for name in data if any(word in name.lower() for word in words)), "")
    return {**found, "loss": Settings.loss}


def toml(settings: Mapping[str, Any]) -> str:
    """``settings`` as TOML: plain values, then a section per table, and one for columns and for labels."""
    lines = [
        f"{_key(key)} = {_value(value)}" for key, value in settings.items() if not isinstance(value, Mapping)
    ]
    for name, table in settings.items():
        if not isinstance(table, Mapping):
            continue
        own = {key: table[key] for key in ("columns", "labels") if isinstance(table.get(key), Mapping)}
        rest = {key: value for key, value in table.items() if key not in own}
        if rest:
            lines += [
                "",
                f"[{_key(name)}]",
                *(f"{_key(key)} = {_value(value)}" for key, value in rest.items()),
            ]
        for key, entries in own.items():
            lines += ["", f"[{_key(name)}.{key}]", *(f"{_key(k)} = {_value(v)}" for k, v in entries.items())]
    return "\n".join(lines).strip() + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
            if value
            else "{}"
        )
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # TOML's basic strings are JSON's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return json.dumps(value)

"""What can be added, from criteria to demos: fields that describe themselves, and look-up by name."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np

from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.types import Project

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None"}
"""What a field may hold, in words."""


class Described:
    """A frozen dataclass whose fields say what they take; anything else is refused when it is made.

    A field takes what its annotation says, within what its metadata say: ``min`` and ``max`` of numbers,
    which are finite anyway, and the ``choices`` of text (words in one string). ``help`` is for people.
    Numbers of numpy become plain ones, and whole ones floats where floats are due, so that equal settings
    have equal names. Fields of other kinds (tuples) are left to the class.
    """

    def __post_init__(self) -> None:
        """Checks the fields and brings them into one form.

        Raises:
            ProjectError: a value is of another kind, outside its range or not among its choices.
        """
        of = _kinds(type(self))  # type: ignore[arg-type]
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            kinds = of[entry.name]
            if not set(kinds) <= set(KINDS):
                continue
            value = given = getattr(self, entry.name)
            if isinstance(value, np.generic):
                value = value.item()
            if type(value) is int and float in kinds and int not in kinds:
                with contextlib.suppress(OverflowError):
                    value = float(value)
            if not _fits(value, kinds, entry):
                raise ProjectError(
                    f"expected {entry.name} to be {_described(kinds, entry)}, but got {given!r}."
                )
            object.__setattr__(self, entry.name, value)


@functools.cache
def _kinds(described: type) -> dict[str, tuple[Any, ...]]:
    """Field -> the types that its annotation names."""
    hints = get_type_hints(described)
    return {name: get_args(h) if isinstance(h, types.UnionType) else (h,) for name, h in hints.items()}


def _fits(value: Any, kinds: tuple[Any, ...], entry: dataclasses.Field) -> bool:
    """Whether a plain value is of one of ``kinds``, in the range and among the choices of the field."""
    if type(value) not in kinds:
        return False
    told = entry.metadata
    if type(value) in (int, float):
        return abs(value) < math.inf and told.get("min", value) <= value <= told.get("max", value)
    return type(value) is not str or "choices" not in told or value in told["choices"].split()


def _described(kinds: tuple[Any, ...], entry: dataclasses.Field) -> str:
    """What the field takes, in words."""
    told, words = entry.metadata, list[str]()
    for kind in kinds:
        span = ""
        if kind in (int, float) and "min" in told:
            low, high = f"{told['min']:.10g}", f"{told.get('max', 0):.10g}"
            span = f" from {low} to {high}" if "max" in told else f" of at least {low}"
        choices = told["choices"].split() if kind is str and "choices" in told else ()
        words += choices or [KINDS[kind] + span]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def seed_field(of: str) -> Any:
    """The field that seeds ``of``: what every generator takes."""
    told = {"help": f"Seed of {of}.", "min": 0, "max": 2**32 - 1}
    return dataclasses.field(default=0, metadata=told)


def resolve(registry: Mapping[str, Any], value: Any, kind: str) -> Any:
    """An instance: ``value`` itself, or the registered class of that name with its defaults.

    Raises:
        ProjectError: no entry of that name; the message lists those there are.
    """
    if not isinstance(value, str):
        if type(value) not in registry.values():
            raise ProjectError(
                f"expected a {kind} or one of the names {', '.join(registry)}, but got {value!r}."
            )
        return value
    if value not in registry:
        raise ProjectError(f"expected one of the {kind} names {', '.join(registry)}, but got {value!r}.")
    return registry[value]()


def usable(registry: Mapping[str, Any], project: Project) -> dict[str, str | None]:
    """Key of every entry -> None where ``project`` can use it with its defaults, else the reason why not."""
    reasons: dict[str, str | None] = {}
    for key, kind in registry.items():
        try:
            if hasattr(kind, "check"):
                kind().check(project)
            reasons[key] = None
        except ProjectError as error:
            reasons[key] = str(error)
    return reasons


def parsed(registry: Mapping[str, Any], text: str, kind: str) -> Any:
    """The instance that ``text`` names: a registry key, with settings in brackets that are not the defaults.

    As on a command line: ``calibration`` or ``calibration(of_class=3, group=("sex", "female"))``. Settings
    are Python's plain values; nothing is run.

    Raises:
        ProjectError: it is not written like that, there is no such entry, or it takes no such settings.
    """
    name, bracket, _ = text.strip().partition("(")
    if not bracket:
        return resolve(registry, name, kind)
    kind_of = type(resolve(registry, name.strip(), kind))
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            raise ValueError("settings have names")
        settings = {str(setting.arg): ast.literal_eval(setting.value) for setting in call.keywords}
        if len(settings) < len(call.keywords):
            raise ValueError("a setting comes twice")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ProjectError(
            f"expected a {kind} such as {name}(setting=value), values as Python writes them, but got "
            f"{text!r}; try quotes around texts, and others around the whole."
        ) from error
    known = [entry.name for entry in dataclasses.fields(kind_of)]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ProjectError(f"expected settings of {name} ({', '.join(known)}), but got {', '.join(unknown)}.")
    return kind_of(**settings)

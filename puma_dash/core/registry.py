"""What can be added, from criteria to demos: fields that describe themselves, and look-up by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from puma_dash.core.types import ProjectError


class Described:
    """A frozen dataclass whose fields say what they take; anything else is refused when it is made.

    The metadata of a field are ``help``, ``min``, ``max`` and ``choices`` (words in one string).
    """

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ProjectError: a value is outside its range or not among its choices.
        """
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            value, told = getattr(self, entry.name), entry.metadata
            if "choices" in told and value not in told["choices"].split():
                words = ", ".join(told["choices"].split())
                raise ProjectError(f"expected {entry.name} to be one of {words}, but got {value!r}.")
            if type(entry.default) is int and isinstance(value, float):
                raise ProjectError(f"expected {entry.name} to be a whole number, but got {value!r}.")
            if {"min", "max"} & set(told) and isinstance(value, int | float):
                low, high = told.get("min", -float("inf")), told.get("max", float("inf"))
                if not low <= value <= high:
                    range_ = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
                    raise ProjectError(f"expected {entry.name} {range_}, but got {value!r}.")


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

"""Looking up by name what can be added: criteria, curvatures, valuations, unlearning methods, demos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puma_dash.core.types import ProjectError


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

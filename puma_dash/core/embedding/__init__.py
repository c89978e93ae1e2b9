"""Embeddings: two coordinates per training row, for the map."""

from __future__ import annotations

from typing import Any

from puma_dash.core.embedding.columns import Columns
from puma_dash.core.embedding.pca import Pca
from puma_dash.core.embedding.umap import Umap
from puma_dash.core.registry import resolve

__all__ = ["EMBEDDINGS", "Columns", "Pca", "Umap", "resolve_embedding"]

EMBEDDINGS: dict[str, Any] = {"pca": Pca, "umap": Umap, "columns": Columns}


def resolve_embedding(value: Any) -> Any:
    """The embedding named ``value``, or ``value`` itself."""
    return resolve(EMBEDDINGS, value, "embedding")

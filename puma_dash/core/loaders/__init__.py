"""Loaders: a person's own rows from files. A new kind of data is one file here and one line in LOADERS."""

from __future__ import annotations

from typing import Any

from puma_dash.core.loaders.arrays import Arrays
from puma_dash.core.loaders.base import Folder, Rows
from puma_dash.core.loaders.encoding import Categorical, Numeric
from puma_dash.core.loaders.idx import Idx
from puma_dash.core.loaders.images import Images
from puma_dash.core.loaders.tables import Tables

__all__ = ["LOADERS", "Arrays", "Categorical", "Folder", "Idx", "Images", "Numeric", "Rows", "Tables"]

LOADERS: dict[str, Any] = {"tables": Tables, "arrays": Arrays, "images": Images, "idx": Idx}

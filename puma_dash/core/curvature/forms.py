"""g^T B^-1 h for the gradients g and h of any rows, without a solve per row.

Where B is dense its factor gives the exact value. Elsewhere the Gauss-Newton matrix of M sampled gradients
stands in for that of all rows, F = J^T J + d I (``sample_space``), and with W = L^-1 J g

    g^T F^-1 h = (g^T h - W_g^T W_h) / d.

A sampled row counts in F for all those that it stands for. In products of a row with itself it would look
less unusual than it is, and any other row more: there each row's own share of the curvature is put right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from puma_dash.core import row_gradients
from puma_dash.core.curvature import Dense, inverse_of, settled
from puma_dash.core.curvature.base import Inverse, settle_damping
from puma_dash.core.curvature.sample_space import SampleSpace, drawn, sample_inverse
from puma_dash.core.row_gradients import Layout, Recording, RowGradients
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine
    from puma_dash.core.types import Split

T = TypeVar("T")

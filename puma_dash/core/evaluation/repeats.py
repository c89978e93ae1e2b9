"""Which rows are the same as others: exact repetitions inside a split and between splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from puma_dash.core.objective import model_dtype

if TYPE_CHECKING:
    from torch import Tensor, nn

    from puma_dash.core.types import Split

CHUNK_NUMBERS = 2**22
"""Rows are hashed in chunks of about this many numbers."""


class Repeats(NamedTuple):
    """Row numbers, ascending."""

    repeated: np.ndarray
    """Rows equal to an earlier row."""
    contradicting: np.ndarray
    """Rows equal to another row that has another target."""


def repeats(split: Split, model: nn.Module, rows: np.ndarray) -> Repeats:
    """Which of ``rows`` of ``split`` are the same to ``model``."""
    _, first, group = np.unique(
        row_keys(split.inputs, model)[rows], axis=0, return_index=True, return_inverse=True
    )
    group = group.ravel()
    _, label = np.unique(split.targets.numpy(force=True)[rows], axis=0, return_inverse=True)
    pairs = np.unique(np.stack([group, label.ravel()], axis=1), axis=0)
    labels_of = np.bincount(pairs[:, 0], minlength=len(first))
    return Repeats(rows[first[group] != np.arange(len(rows))], rows[labels_of[group] > 1])


def rows_also_in(split: Split, other: Split, model: nn.Module, rows: np.ndarray) -> np.ndarray:
    """Rows of ``split`` (k,) that are the same to ``model`` as one of ``rows`` of ``other``."""
    keys = np.concatenate([row_keys(split.inputs, model), row_keys(other.inputs, model)[rows]])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    mine, others = np.split(group.ravel(), [len(split)])
    return np.flatnonzero(np.isin(mine, others))


def row_keys(inputs: Tensor, model: nn.Module) -> np.ndarray:
    """128-bit hashes (n, 2), equal where rows are equal once they have the model's type.

    Each row is a list of 32-bit words; both hashes are their sums weighted by random 64-bit numbers, modulo
    2^64. Two rows that differ share both with a probability of at most 2^-64.

    References:
        Carter & Wegman (1979), Universal classes of hash functions.
    """
    wide = (
        torch.promote_types(model_dtype(model), torch.float32) if inputs.is_floating_point() else torch.int64
    )
    flat = inputs.detach().reshape(len(inputs), -1)
    generator = torch.Generator().manual_seed(0)
    words = flat.shape[1] * wide.itemsize // 4
    weights = torch.randint(-(2**63), 2**63 - 1, (words, 2), generator=generator)
    keys = []
    for part in flat.split(max(1, CHUNK_NUMBERS // max(1, words))):
        values = part.cpu().to(wide) + 0  # which turns -0.0 into 0.0
        keys.append(values.contiguous().view(torch.int32).long() @ weights)
    return torch.cat(keys).numpy()

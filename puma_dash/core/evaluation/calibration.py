"""Calibration of top-label confidence: bins, what chance alone would show in them, errors with intervals."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from puma_dash.core.evaluation.estimates import LEVEL, RESAMPLES, TAILS, Estimate, gap_estimate

CELLS = 200
"""Confidences are rounded to this many equal cells for the smooth ECE."""


class Bins(TypedDict):
    """Reliability bins (b,): edges, mean confidence and accuracy (NaN where empty), rows."""

    bin_low: np.ndarray
    bin_high: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def equal_width(bins: int = 15) -> np.ndarray:
    """Edges (bins + 1,) of bins of equal width."""
    return np.linspace(0, 1, bins + 1, dtype=np.float32)


def equal_mass(confidence: np.ndarray, bins: int = 15, least: int = 10) -> np.ndarray:
    """Edges (b + 1,) of at most ``bins`` bins with about as many rows each, ``least`` or more."""
    bins = max(1, min(bins, len(confidence) // least))
    inner = np.quantile(confidence, np.arange(1, bins) / bins)
    edges = np.unique(np.concatenate([[confidence.min()], inner, [confidence.max()]]).astype(np.float32))
    return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.float32(2))])


def bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of the bin of each confidence (n,); closed on the left, the last on both sides."""
    found = np.searchsorted(edges, confidence.astype(np.float32), side="right") - 1
    return np.clip(found, 0, len(edges) - 2)


def binned(confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray) -> Bins:
    """Reliability bins of top-label confidence (n,) and whether it was right (n,)."""
    number, bins = bin_of(confidence, edges), len(edges) - 1
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Bins(
            bin_low=edges[:-1],
            bin_high=edges[1:],
            confidence=np.bincount(number, confidence, bins) / count,
            accuracy=np.bincount(number, correct, bins) / count,
            count=count,
        )


def perfectly_calibrated(bins: Bins, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts and right answers (r, b) of resamples in which every confidence is exactly right.

    A row drawn from a bin, and right with the probability of its confidence, is right with the probability of
    the bin's mean confidence; so nothing but binomial draws is needed, however many rows there are.

    References:
        Bröcker & Smith (2007), Increasing the reliability of reliability diagrams.
    """
    rng, n = np.random.default_rng(seed), int(bins["count"].sum())
    counts = rng.multinomial(n, bins["count"] / n, size=RESAMPLES)
    return counts, rng.binomial(counts, np.clip(np.nan_to_num(bins["confidence"]), 0, 1))


def consistency_band(bins: Bins, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest accuracy (b,) that 95 % of perfectly calibrated models show; NaN where empty."""
    counts, right = perfectly_calibrated(bins, seed)
    low, high = np.full((2, len(bins["count"])), np.nan)
    filled = bins["count"] > 0
    with np.errstate(invalid="ignore"):
        low[filled], high[filled] = np.nanquantile((right / counts)[:, filled], TAILS, axis=0)
    return low, high


def calibrated_ece(bins: Bins, seed: int = 0) -> tuple[float, float]:
    """The ECE that perfectly calibrated models show in these bins by chance: mean, and 95th percentile."""
    counts, right = perfectly_calibrated(bins, seed)
    gaps = np.abs(right - counts * np.nan_to_num(bins["confidence"])).sum(1) / bins["count"].sum()
    return float(gaps.mean()), float(np.quantile(gaps, LEVEL))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, seed: int = 0) -> Estimate:
    """Top-label ECE in 15 equal-width bins (Naeini et al. 2015)."""
    edges = equal_width()
    gaps = _mean_gaps(confidence, correct, bin_of(confidence, edges), len(edges) - 1, seed)
    found, resampled, chance = (np.abs(each).sum(1) for each in gaps)
    return gap_estimate(float(found[0]), resampled, chance, len(confidence))


def smooth_calibration_error(confidence: np.ndarray, correct: np.ndarray, seed: int = 0) -> Estimate:
    """Smooth ECE of top-label confidence: gaps averaged by a kernel as wide as the error that it finds.

    References:
        Błasiok & Nakkiran (2023), Smooth ECE: principled reliability diagrams via kernel smoothing.
    """
    cell = np.minimum((confidence * CELLS).astype(int), CELLS - 1)
    gaps = _mean_gaps(confidence, correct, cell, CELLS, seed)
    narrow, wide = 0.0, 1.0
    for _ in range(20):  # the smoothed error falls as the kernel widens: they meet once
        width = (narrow + wide) / 2
        kernel = _kernel(width)
        narrow, wide = (width, wide) if np.abs(gaps[0] @ kernel).sum() > width else (narrow, width)
    found, resampled, chance = (np.abs(each @ kernel).sum(1) for each in gaps)
    return gap_estimate(float(found[0]), resampled, chance, len(confidence))


def _kernel(width: float) -> np.ndarray:
    """Shares (CELLS, CELLS) of a cell's gap that a Gaussian, reflected at 0 and 1, puts into each cell."""
    at = (np.arange(CELLS) + 0.5) / CELLS
    images = np.concatenate([at + 2 * k for k in (-1, 0, 1)] + [-at + 2 * k for k in (0, 1)])
    weights = np.exp(-0.5 * ((images - at[:, None]) / width) ** 2).reshape(CELLS, 5, CELLS).sum(1)
    return weights / weights.sum(1, keepdims=True)


def _mean_gaps(
    confidence: np.ndarray, correct: np.ndarray, cell: np.ndarray, cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum over n of correct - confidence in each cell, of the rows (1, cells) and of resamples (r, cells).

    And of resamples in which every confidence is exactly right. A resample draws how many rows fall into each
    cell, and their sum from its normal limit.
    """
    confidence = confidence.astype(np.float64)
    gap = correct - confidence
    n, count = len(gap), np.bincount(cell, minlength=cells)
    filled = np.maximum(count, 1)
    middle = np.bincount(cell, gap, cells) / filled
    spread = np.sqrt(np.bincount(cell, (gap - middle[cell]) ** 2, cells) / filled)
    chance = np.sqrt(np.bincount(cell, confidence * (1 - confidence), cells) / filled)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, count / n, size=RESAMPLES)
    noise = np.sqrt(drawn) * rng.standard_normal(drawn.shape)
    return (count * middle)[None] / n, (drawn * middle + noise * spread) / n, noise * chance / n

"""Figures of one model on one split with their uncertainty, at any number of rows, in numpy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict

import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
RESAMPLES = 2_000
MOST_DRAWN = 5_000
"""Up to this many rows a mean is bootstrapped; beyond, its distribution is normal for all purposes."""
BATCH_NUMBERS = 2**21
CELLS = 200
"""Confidences are rounded to this many equal cells for the smooth ECE."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of rows it rests on; NaN where not defined."""

    value: float
    low: float
    high: float
    n: int


class Bins(TypedDict):
    """Reliability bins (b,): edges, mean confidence and accuracy (NaN where empty), rows."""

    bin_low: np.ndarray
    bin_high: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def share_interval(successes: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval (...,) of the share ``successes`` (...,) out of ``n``; NaN where n is 0.

    References:
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.asarray(successes, dtype=np.float64) / n
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def share(right: np.ndarray) -> Estimate:
    """The share of true values (n,), with Wilson's interval."""
    successes, n = int(right.sum()), right.size
    low, high = share_interval(np.array(successes), np.array(n))
    return Estimate(successes / n if n else math.nan, float(low), float(high), n)


def mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of values (n,), with a percentile-bootstrap interval; the normal one for very many rows.

    References:
        Efron & Tibshirani (1993), An introduction to the bootstrap.
    """
    n, middle = len(values), float(values.mean(dtype=np.float64))
    if n > MOST_DRAWN:
        half = Z * float(values.std(dtype=np.float64)) / math.sqrt(n)
        return Estimate(middle, middle - half, middle + half, n)
    rng, batch = np.random.default_rng(seed), max(1, BATCH_NUMBERS // n)
    means = [
        values[rng.integers(n, size=(min(batch, RESAMPLES - start), n))].mean(1, dtype=np.float64)
        for start in range(0, RESAMPLES, batch)
    ]
    low, high = np.quantile(np.concatenate(means), TAILS)
    return Estimate(middle, float(low), float(high), n)


def gap_estimate(value: float, resampled: np.ndarray, by_chance: np.ndarray, n: int) -> Estimate:
    """A gap >= 0 with its bootstrap interval, as far down as up: to the upper end of resampled gaps.

    Noise makes gaps larger, in the data and again in every resample, so that percentiles alone would often
    lie above the truth and never reach 0. Where chance alone explains the gap, the interval holds 0.

    Args:
        value: the gap.
        resampled: gaps of resamples (r,).
        by_chance: gaps (r,) that show where there is none.
        n: rows.
    """
    above = max(0.0, float(np.quantile(resampled, TAILS[1])) - value)
    explained = value <= np.quantile(by_chance, LEVEL)
    return Estimate(value, 0.0 if explained else max(0.0, value - above), value + above, n)


# --- calibration ----------------------------------------------------------------------


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


def ece_of(bins: Bins) -> float:
    """Expected calibration error: sum over bins of count / n |accuracy - confidence|."""
    gaps = bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(gaps) / bins["count"].sum())


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


# --- groups and slices ----------------------------------------------------------------


def rate_gap(successes: np.ndarray, n: np.ndarray, seed: int = 0) -> Estimate:
    """The largest gap between the rates ``successes`` / ``n`` (k, g) of g groups, in any of k kinds of rows.

    Groups keep their sizes in resamples. Not defined for a single group, or where one has no rows of a kind.
    """
    if n.shape[1] < 2 or not n.all():
        return Estimate(math.nan, math.nan, math.nan, int(n.sum()))

    def gaps(rates: np.ndarray) -> np.ndarray:
        """Of rates (r, k, g)."""
        return (rates.max(2) - rates.min(2)).max(1)

    rng, rates, size = np.random.default_rng(seed), successes / n, (RESAMPLES, *n.shape)
    pooled = np.broadcast_to(successes.sum(1, keepdims=True) / n.sum(1, keepdims=True), n.shape)
    resampled, chance = (gaps(rng.binomial(n, p, size=size) / n) for p in (rates, pooled))
    return gap_estimate(float(gaps(rates[None])[0]), resampled, chance, int(n.sum()))


def chance_of_errors(errors: np.ndarray, n: np.ndarray, all_errors: int, rows: int) -> np.ndarray:
    """How often a random set of ``n`` (s,) of all rows holds as many errors or more: p-values (s,).

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, rows + 1)))])

    def log_choose(of: int, chosen: np.ndarray) -> np.ndarray:
        return log_factorial[of] - log_factorial[chosen] - log_factorial[of - chosen]

    p = np.ones(len(n))
    for i, (k, m) in enumerate(zip(errors.tolist(), n.tolist(), strict=True)):
        x = np.arange(max(k, m - (rows - all_errors)), min(m, all_errors) + 1)
        logs = (
            log_choose(all_errors, x) + log_choose(rows - all_errors, m - x) - log_choose(rows, np.array(m))
        )
        p[i] = min(1.0, np.exp(logs).sum())
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (m,) corrected for there being m of them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected

"""Figures of one model on one split with their uncertainty, at any number of rows, in numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
RESAMPLES = 2_000
MOST_DRAWN = 5_000
"""Up to this many rows a mean is bootstrapped; beyond, its distribution is normal for all purposes."""
BATCH_NUMBERS = 2**21


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of rows it rests on; NaN where not defined."""

    value: float
    low: float
    high: float
    n: int


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


def of_means(
    columns: np.ndarray, of: Callable[[np.ndarray], dict[str, np.ndarray]], seed: int = 0
) -> dict[str, Estimate]:
    """Figures that are functions of means over rows, with percentile-bootstrap intervals.

    For very many rows the means are drawn from their joint normal distribution instead.

    Args:
        columns: what each row contributes (n, q).
        of: means (..., q) -> figures by name (...).
        seed: of the resampling.
    """
    n, middle = len(columns), columns.mean(0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    if n > MOST_DRAWN:
        spread = np.atleast_2d(np.cov(columns, rowvar=False, ddof=0)) / n
        means = rng.multivariate_normal(middle, spread, RESAMPLES, method="svd")
    else:
        batch, drawn = max(1, BATCH_NUMBERS // n), []
        for start in range(0, RESAMPLES, batch):
            size = min(batch, RESAMPLES - start)
            drawn.append(rng.multinomial(n, np.full(n, 1 / n), size=size) @ columns / n)
        means = np.concatenate(drawn)
    found, resampled = of(middle), of(means)
    ends = {name: np.quantile(values, TAILS) for name, values in resampled.items()}
    return {
        name: Estimate(float(value), float(ends[name][0]), float(ends[name][1]), n)
        for name, value in found.items()
    }


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


def holm(p: ArrayLike) -> np.ndarray:
    """p-values (m,) adjusted so that all m claims hold together (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted

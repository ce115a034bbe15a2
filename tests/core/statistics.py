"""Are these draws those of that distribution? One answer for all tests, with fixed seeds and one stated chance of a false alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

FALSE_POSITIVES = 1e-6
"""The chance of each test, over all seeds, to fail for a sampler that is right."""

Array = npt.NDArray[Any]


def check_counts(counts: Array, probabilities: Array) -> None:
    """Chi-square: `counts`, ``(k,)``, are those of independent draws with these probabilities, ``(k,)``, which come to 1.

    What is impossible must not have been drawn. What is expected fewer than 5 times is taken together.
    """
    counts, probabilities = np.asarray(counts, np.int64), np.asarray(probabilities, np.float64)
    assert counts.shape == probabilities.shape
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-9)
    assert not counts[probabilities == 0].any(), f"impossible draws: {np.flatnonzero((counts > 0) & (probabilities == 0))[:10]}"
    expected = counts.sum() * probabilities
    often = expected >= 5
    seen, wanted = counts[often], expected[often]
    if (rest := expected[~often].sum()) >= 5:
        seen, wanted = np.append(seen, counts[~often].sum()), np.append(wanted, rest)
    elif rest > 0:  # too rare for a cell of its own: with the rarest that has one
        rarest = int(np.argmin(wanted))
        seen[rarest], wanted[rarest] = seen[rarest] + counts[~often].sum(), wanted[rarest] + rest
    if len(wanted) > 1:
        statistic = float(((seen - wanted) ** 2 / wanted).sum())
        limit = float(chi2.isf(FALSE_POSITIVES, len(wanted) - 1))
        assert statistic < limit, f"chi-square {statistic:.1f} over {len(wanted)} cells, at most {limit:.1f} was expected"


def check_means(counts: Array, mean: Array, variance: Array) -> None:
    """`counts`, ``(k,)``, are sums of many independent draws with these means and variances, such as stratified ones.

    Each is tested by itself at its share of the chance (Bonferroni), where the variance is at least 100: there the normal approximation
    holds far out. Where it is 0 the mean must be met.
    """
    counts, mean, variance = np.asarray(counts, np.float64), np.asarray(mean), np.asarray(variance)
    fixed = variance <= 1e-9
    np.testing.assert_allclose(counts[fixed], mean[fixed], atol=1e-6)
    often = variance >= 100
    assert often.any(), "too few draws to say anything"
    z = np.abs(counts[often] - mean[often]) / np.sqrt(variance[often])
    limit = float(norm.isf(FALSE_POSITIVES / 2 / often.sum()))
    assert z.max() < limit, f"|z| {z.max():.2f} at {np.flatnonzero(often)[z.argmax()]}, at most {limit:.2f} was expected"


def strata(probabilities: Array, n: int) -> tuple[Array, Array]:
    """Mean and variance of the counts in one stratified draw of `n`: one from each n-th of the mass, in the order given. ``(k,)`` each."""
    edges = np.concatenate([[0.0], np.cumsum(np.asarray(probabilities, np.float64))])
    edges /= edges[-1]
    cuts = np.arange(n + 1) / n
    chance = n * np.clip(np.minimum(edges[1:, None], cuts[None, 1:]) - np.maximum(edges[:-1, None], cuts[None, :-1]), 0.0, None)
    return chance.sum(1), (chance * (1.0 - chance)).sum(1)

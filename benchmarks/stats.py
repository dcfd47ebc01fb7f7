"""Statistics of repeated measurements."""

from collections.abc import Sequence


def ratios(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Return the quotient of each pair of samples, which were measured one after the other.

    Raises:
        ValueError: the numbers of samples differ.
    """
    return [one / other for one, other in zip(ours, peer, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values don't exceed (nearest rank).

    Raises:
        ValueError: there are no values, or `percent` isn't from 0 to 100.
    """
    if not values or not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        raise ValueError("a percentile needs values, and a percent from 0 to 100")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank) - 1, 0)]


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest sample."""
    return min(samples), max(samples)

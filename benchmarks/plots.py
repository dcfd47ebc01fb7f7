"""The plots, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def draw(plots: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], directory: Path) -> None:
    """Draw."""

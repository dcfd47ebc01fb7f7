"""Comparing two sorted streams in constant memory."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

LeftT = TypeVar("LeftT")
RightT = TypeVar("RightT")


async def full_join(
    left: AsyncIterator[LeftT],
    right: AsyncIterator[RightT],
    left_key: Callable[[LeftT], Any],
    right_key: Callable[[RightT], Any],
) -> AsyncIterator[tuple[LeftT | None, RightT | None]]:
    """Pair the items that have the same key. An item without a counterpart is paired with None.

    Both streams ascend by key. Keys on the right are unique. Several items on the left may have the same one.
    """
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and left_key(one) < right_key(other)):
            yield one, None
            one = await anext(left, None)
        elif one is None or right_key(other) < left_key(one):
            yield None, other
            other = await anext(right, None)
        else:
            yield one, other
            one = await anext(left, None)
            if one is None or left_key(one) != right_key(other):
                other = await anext(right, None)

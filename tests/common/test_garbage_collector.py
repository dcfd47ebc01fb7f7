import gc
from collections.abc import Iterator

import pytest

from common.garbage_collector import tune_garbage_collector


@pytest.fixture
def _untuned() -> Iterator[None]:
    """Python's defaults, since another test may have tuned the collector; afterwards it is as before."""
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_untuned")
def test_existing_objects_are_excluded_and_collections_are_fewer() -> None:
    tune_garbage_collector()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] > 7000

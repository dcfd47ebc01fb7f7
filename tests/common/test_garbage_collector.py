import subprocess
import sys

PROGRAM = """
import gc
from common.garbage_collector import tune_garbage_collector

tune_garbage_collector()
print(gc.get_freeze_count() > 0, gc.get_threshold()[0] > 700, gc.isenabled())
"""


def test_what_was_imported_is_excluded_and_collections_are_fewer() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]

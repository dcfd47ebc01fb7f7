import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["wallet_api.app", "history_consumer.run", "outbox_relay.run"])
def test_a_process_that_accepts_no_jwts_does_not_load_cryptography(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in ('cryptography', 'jwt') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == []

import pytest

from common.loopback import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.7", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_a_host_is_loopback_only_if_no_other_machine_can_reach_it(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected

import pytest

from common.access.token_settings import is_loopback
from common.http.addresses import client_address


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 0), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("unknown", 0), ""),
        (("192.0.2.7\r\nSet-Cookie: a=b", 0), ""),
        (("x" * 100_000, 0), ""),
        (None, ""),
    ],
)
def test_a_client_is_its_ipv4_address_or_its_ipv6_network_and_all_that_is_no_address_is_one(
    client: tuple[str, int] | None, address: str
) -> None:
    assert client_address({"client": client}) == address


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

import pytest

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

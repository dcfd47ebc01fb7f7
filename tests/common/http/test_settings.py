import pytest
from pydantic import ValidationError

from common.http.settings import HttpApiSettings


@pytest.mark.parametrize("value", ["", "127.0.0.1", "10.0.0.0/8, 2001:db8::/32 ,::1"])
def test_trusted_proxies_are_addresses_and_networks(value: str) -> None:
    assert HttpApiSettings(forwarded_allow_ips=value).forwarded_allow_ips == value


@pytest.mark.parametrize("value", ["*", "proxy", "127.0.0.1;10.0.0.1", "10.0.0.1/8", "300.0.0.1"])
def test_no_proxy_is_trusted_by_a_wildcard_or_a_name(value: str) -> None:
    with pytest.raises(ValidationError, match="name each trusted proxy"):
        HttpApiSettings(forwarded_allow_ips=value)


@pytest.mark.parametrize(
    "value", ["", "https://app.example", "https://app.example:8443,http://127.0.0.1:3000, http://[::1]:80"]
)
def test_origins_are_exact(value: str) -> None:
    assert HttpApiSettings(cors_allow_origins=value).cors_allow_origins == value


@pytest.mark.parametrize(
    "value",
    ["*", "null", "app.example", "https://app.example/", "https://*.example", "HTTPS://app.example", "file://x"],
)
def test_no_origin_is_a_pattern_or_a_path(value: str) -> None:
    with pytest.raises(ValidationError, match="as browsers send it"):
        HttpApiSettings(cors_allow_origins=value)

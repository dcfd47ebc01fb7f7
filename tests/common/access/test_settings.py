from typing import Any

import pytest
from pydantic import ValidationError

from history_consumer.settings import HistoryApiSettings
from wallet_api.settings import WalletApiSettings

URL = "postgresql://nowhere/wallet"


def test_authentication_is_on_by_default() -> None:
    assert WalletApiSettings(database_url=URL).auth == "keys"
    assert HistoryApiSettings(database_url=URL).auth == "keys"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "wallet.internal", "127.0.0.1.example"])
def test_without_authentication_an_api_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ValidationError, match="AUTH_NONE_ALLOWED_ANYWHERE") as refused:
        WalletApiSettings(database_url=URL, auth="none", wallet_api_host=host)
    assert "WALLET_API_HOST" in str(refused.value)
    with pytest.raises(ValidationError, match="HISTORY_API_HOST"):
        HistoryApiSettings(database_url=URL, auth="none", history_api_host=host)
    WalletApiSettings(database_url=URL, auth="keys", wallet_api_host=host)
    WalletApiSettings(database_url=URL, auth="none", wallet_api_host=host, auth_none_allowed_anywhere=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_without_authentication_an_api_may_listen_on_loopback(host: str) -> None:
    WalletApiSettings(database_url=URL, auth="none", wallet_api_host=host)


def test_a_history_api_with_keys_needs_the_wallet_database() -> None:
    with pytest.raises(ValidationError, match="DATABASE_URL"):
        HistoryApiSettings(history_database_url=URL)
    HistoryApiSettings(history_database_url=URL, auth="none")
    HistoryApiSettings(history_database_url=URL, database_url="postgresql://nowhere/other")


JWT: dict[str, Any] = {
    "jwt_issuer": "https://login.example",
    "jwt_audience": "wallet",
    "jwt_jwks_url": "https://login.example/jwks",
}


@pytest.mark.parametrize("auth", ["jwt", "keys,jwt"])
def test_jwts_are_accepted_only_if_they_are_configured(auth: Any) -> None:
    with pytest.raises(ValidationError, match=f"AUTH={auth} needs JWT_ISSUER, JWT_AUDIENCE"):
        WalletApiSettings(database_url=URL, auth=auth)
    assert WalletApiSettings(database_url=URL, auth=auth, **JWT).accepts_jwts
    with pytest.raises(ValidationError, match="AUTH=keys accepts no JWT"):
        WalletApiSettings(database_url=URL, **JWT)
    assert not WalletApiSettings(database_url=URL, auth="none", **JWT).accepts_jwts


def test_a_history_api_with_jwts_alone_needs_no_wallet_database() -> None:
    HistoryApiSettings(history_database_url=URL, auth="jwt", **JWT)
    with pytest.raises(ValidationError, match="DATABASE_URL: AUTH=keys,jwt needs"):
        HistoryApiSettings(history_database_url=URL, auth="keys,jwt", **JWT)

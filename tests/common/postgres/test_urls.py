"""URLs are read as libpq reads them, and a wrong one is refused in one line that shows no secret."""

from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.postgres.urls import Host, UrlWithPassword, parse_url
from common.secrets import Secret
from common.settings import WalletDatabaseSettings

CANARY = "c4n4ry"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://", ()),
        ("postgres:///db", ()),
        ("postgresql://a/db", (("a", None),)),
        ("postgresql://a:5433/db", (("a", 5433),)),
        ("postgresql://:5433/db", (("", 5433),)),
        ("postgresql://a:1,b:2/db", (("a", 1), ("b", 2))),
        ("postgresql://a,b:2/db", (("a", None), ("b", 2))),
        ("postgresql://a,b/db?port=7", (("a", 7), ("b", 7))),
        ("postgresql:///db?host=a,b&port=1,2", (("a", 1), ("b", 2))),
        ("postgresql:///db?host=a&host=b&port=1&port=2", (("a", 1), ("b", 2))),
        ("postgresql:///db?host=a:1&host=b:2", (("a", 1), ("b", 2))),
        ("postgresql://ignored/db?host=a", (("a", None),)),
        ("postgresql://ignored:5433/db?host=/run", (("/run", 5433),)),
        ("postgresql://a:1,b:2/db?port=3,4", (("a", 3), ("b", 4))),
        ("postgresql://[::1]:1,[fe80::1%25eth0]/db", (("::1", 1), ("fe80::1%eth0", None))),
        ("postgresql:///db?host=::1,[::2]:2", (("::1", None), ("::2", 2))),
        ("postgresql:///db?host=/run/postgresql&port=5433", (("/run/postgresql", 5433),)),
        ("postgresql://%2Frun%2Fpostgresql:5433/db", (("/run/postgresql", 5433),)),
    ],
)
def test_hosts_are_read_in_each_spelling(url: str, hosts: tuple[Host, ...]) -> None:
    assert parse_url(url).hosts == hosts


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("postgresql://ada@h", {"user": "ada"}),
        ("postgresql://ada:p%40%3A%2F%25%20%23@h/my%20db", {"user": "ada", "password": "p@:/% #", "database": "my db"}),
        ("postgresql://h?user=ada&password=a+b&dbname=x", {"user": "ada", "password": "a+b", "database": "x"}),
        ("postgresql://ada:p#?x@h/db", {"user": "ada", "password": "p#?x", "database": "db"}),
        ("postgresql://h/db?dbname=other", {"database": "other"}),
        ("postgresql://h/?passfile=%2Frun%2Fpgpass", {"passfile": "/run/pgpass"}),
        ("postgresql://h/?sslmode=", {}),
        ("postgresql://h/?ssl=true", {"dsn": "postgresql://?sslmode=require"}),
        (
            " postgresql://h/?sslmode=require&sslrootcert=/a%20b \n",
            {"dsn": "postgresql://?sslmode=require&sslrootcert=%2Fa+b"},
        ),
    ],
)
def test_what_a_url_says_reaches_the_driver(url: str, arguments: dict[str, Any]) -> None:
    assert parse_url(url).driver_arguments() == {"dsn": "postgresql://?", **arguments}


def test_the_urls_options_and_name_go_to_the_session_and_the_process_stays_recognisable() -> None:
    url = parse_url("postgresql://h/db?options=-c%20work_mem%3D8MB&application_name=eu")
    assert url.session_settings("outbox-relay") == {"application_name": "eu outbox-relay", "options": "-c work_mem=8MB"}
    assert parse_url("postgresql://h/db").session_settings("outbox-relay") == {"application_name": "outbox-relay"}


@pytest.mark.parametrize(
    ("timeout", "longest", "seconds"),
    [("3", 5.0, 3), ("9", 5.0, 5), ("0", 5.0, 5), ("3", None, 3), ("0", None, None)],
)
def test_connect_timeout_may_shorten_the_wait(timeout: str, longest: float | None, seconds: float | None) -> None:
    assert parse_url(f"postgresql://h/db?connect_timeout={timeout}").timeout_seconds(longest) == seconds


WRONG = {
    "": "must look like postgresql://",
    CANARY: "must look like postgresql://",
    "mysql://h/db": "must look like postgresql://",
    "postgresql+asyncpg://h/db": "must look like postgresql://",
    "postgresql:/h/db": "must look like postgresql://",
    f"host=h password={CANARY}": "has a space; write %20",
    f"postgresql://u:{CANARY} @h/db": "has a space; write %20",
    f"postgresql://u:p@{CANARY}@h/db": "write / as %2F, : as %3A, @ as %40",
    f"postgresql://u:p/{CANARY}@h/db": "write / as %2F, : as %3A, @ as %40",
    f"postgresql://u:{CANARY}/x": "a port that is not a number from 1 to 65535",
    "postgresql://h:0/db": "a port that is not a number",
    "postgresql://h:65536/db": "a port that is not a number",
    "postgresql://h:٥/db": "a port that is not a number",  # noqa: RUF001 an Arabic digit
    f"postgresql://u:{CANARY}%@h/db": "has a % in its password without two hexadecimal digits",
    f"postgresql://u:{CANARY}%ff@h/db": "has a password that is not UTF-8",
    f"postgresql://u:{CANARY}\udcff@h/db": "has a password that is not UTF-8",
    f"postgresql://u:{CANARY}%00@h/db": "has a zero byte in its password",
    "postgresql://a,,b/db": "has an empty host",
    "postgresql://a,b/db?port=1,2,3": "has 3 ports for 2 hosts",
    "postgresql://a..b/db": "has a host that can't be a name",
    f"postgresql://{'a' * 64}/db": "has a host that can't be a name",
    "postgresql://[::1/db": "has an IPv6 address without its closing ]",
    "postgresql://[]/db": "has an IPv6 address without its closing ]",
    "postgresql://[::1]x/db": "has an IPv6 address without its closing ]",
    f"postgresql://h/db?{CANARY}": "has a parameter without =",
    f"postgresql://h/db?{CANARY}=1": "has the unknown parameter; known are application_name, ",
    "postgresql://h/db?statement_cache_size=0": "has the parameter statement_cache_size; known are application_name, ",
    "postgresql://h/db?sslmode=on": "has a parameter sslmode that must be one of disable, ",
    "postgresql://h/db?ssl=on": "has a parameter sslmode that must be one of disable, ",
    "postgresql://h/db?target_session_attrs=x": "has a parameter target_session_attrs that must be one of any, ",
    "postgresql://h/db?connect_timeout=-1": "has a parameter connect_timeout that must be a number of whole seconds",
    f"postgresql://h/db?connect_timeout={'9' * 5000}": "has a parameter connect_timeout that must be",
    "postgresql://h/db?connect_timeout=1.5": "has a parameter connect_timeout that must be a number of whole seconds",
    "postgresql://h/db?ssl_min_protocol_version=3": "a parameter ssl_min_protocol_version that must be one of TLSv1",
    "postgresql://h/db?channel_binding=require": "has a parameter channel_binding that isn't supported",
    "postgresql://h/db?sslnegotiation=direct": "has sslnegotiation=direct, which needs sslmode=require",
    "postgresql://h/db?sslrootcert=system": "has sslrootcert=system, which needs sslmode=verify-full",
    "postgresql://h/db?sslkey=/key": "has sslkey without sslcert",
    f"postgresql://h/db?application_name={'x' * 41}": "must be at most 40 printable ASCII characters",
    f"postgresql://u:{CANARY}@h/db?password={CANARY}": "has two passwords; leave one out",
}


@pytest.mark.parametrize(("url", "said"), WRONG.items())
def test_a_wrong_url_is_refused_in_one_line_that_shows_no_secret(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        parse_url(url)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)


@given(st.text())
def test_any_other_text_is_refused_by_a_value_error(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://h/db?{text}"):
        with suppress(ValueError):
            parse_url(url)


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(user=WORDS, password=WORDS, database=WORDS)
def test_percent_encoded_parts_come_back_as_they_were(user: str, password: str, database: str) -> None:
    parts = {"user": user, "password": password, "database": database}
    if any("\0" in part or (not part.isprintable() and "\ud800" <= max(part) <= "\udfff") for part in parts.values()):
        return
    try:
        encoded = [quote(part, safe="") for part in parts.values()]
    except UnicodeEncodeError:
        return
    arguments = parse_url("postgresql://{}:{}@h/{}".format(*encoded)).driver_arguments()
    assert arguments == {"dsn": "postgresql://?", **parts}


def test_the_driver_takes_every_parameter_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asyncpg doesn't know, it would send to the server as a setting."""
    monkeypatch.setenv("HOME", "/nowhere")
    tls = "ssl_max_protocol_version=TLSv1.3&ssl_min_protocol_version=TLSv1.2&sslmode=require&sslnegotiation=direct"
    arguments = parse_url(f"postgresql://u:p@h/db?{tls}&sslpassword=x&passfile=/y").driver_arguments()
    names = ("host", "port", "ssl", "direct_tls", "service", "servicefile", "krbsrvname", "gsslib", "server_settings")
    unset = dict.fromkeys((*names, "target_session_attrs"))
    _, parameters = _parse_connect_dsn_and_args(**{**unset, **arguments})
    assert not parameters.server_settings
    assert (parameters.user, parameters.password, parameters.database) == ("u", "p", "db")
    assert parameters.sslmode.name == "require"


def test_a_url_shows_in_no_repr() -> None:
    assert CANARY not in repr(parse_url(f"postgresql://{CANARY}:{CANARY}@h/db?sslpassword={CANARY}"))


def test_urls_of_one_database_have_the_same_database() -> None:
    one = parse_url("postgresql://a:1@h/db?sslmode=require").database
    assert parse_url("postgresql://b:2@h/db").database == one
    assert parse_url("postgresql://a@other/db").database != one
    assert parse_url("postgresql://a@h/other").database != one


@pytest.mark.parametrize("url", ["postgresql://ada@h/db", "postgresql://ada@h/db?sslmode=require"])
def test_a_password_of_its_own_setting_is_put_into_the_url_at_each_use(url: str) -> None:
    settings = WalletDatabaseSettings(database_url=url, database_password=f"{CANARY}&/ ")
    assert parse_url(settings.database_url.read()).parameters["password"] == f"{CANARY}&/ "
    assert isinstance(settings.database_url, UrlWithPassword)
    assert CANARY not in repr(settings)


def test_a_second_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="DATABASE_PASSWORD: the URL has a password too") as refused:
        WalletDatabaseSettings(database_url=f"postgresql://ada:{CANARY}@h/db", database_password=Secret(CANARY))
    assert CANARY not in str(refused.value)

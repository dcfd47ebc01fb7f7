"""PostgreSQL URLs as libpq reads them (PostgreSQL manual, sections 34.1.1.2 and 34.1.2)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes, urlencode

from common.secrets import Secret

Host = tuple[str, int | None]
"""A name, an address or the directory of a Unix socket; and the port, or None for the default."""

_FORM: Final = re.compile(
    r"postgres(?:ql)?://(?:(?P<login>[^/@]*)@)?(?P<hosts>[^/?]*)(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL
)
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_ENCODE: Final = "write / as %2F, : as %3A, @ as %40 in a user's name or a password"
_APPLICATION_NAME_MAX: Final = 40
"""PostgreSQL cuts a name after 63 bytes. The name of the process stands after that of the URL."""

_PORT_MAX: Final = 65535

_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_TLS_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_MODES_REQUIRED: Final = _TLS_MODES[3:]
SYSTEM_CERTIFICATES: Final = "system"
"""The value of `sslrootcert` that means the system's authorities."""


def _one_of(*values: str) -> Callable[[str], str | None]:
    return lambda value: None if value in values else f"must be one of {', '.join(values)}"


def _any_text(_: str) -> None:
    return None


def _seconds(value: str) -> str | None:
    return None if re.fullmatch("[0-9]{1,9}", value) else "must be a number of whole seconds"


def _application_name(value: str) -> str | None:
    is_right = value.isascii() and value.isprintable() and len(value) <= _APPLICATION_NAME_MAX
    return None if is_right else f"must be at most {_APPLICATION_NAME_MAX} printable ASCII characters"


def _channel_binding(value: str) -> str | None:
    way_out = "isn't supported; leave it out, and protect the login by sslmode=verify-full"
    return way_out if value == "require" else _one_of("disable", "prefer")(value)


_PARAMETERS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "application_name": _application_name,
    "channel_binding": _channel_binding,
    "connect_timeout": _seconds,
    "dbname": _any_text,
    "host": _any_text,
    "options": _any_text,
    "passfile": _any_text,
    "password": _any_text,
    "port": _any_text,
    "ssl_max_protocol_version": _one_of(*_TLS_VERSIONS),
    "ssl_min_protocol_version": _one_of(*_TLS_VERSIONS),
    "sslcert": _any_text,
    "sslcrl": _any_text,
    "sslkey": _any_text,
    "sslmode": _one_of(*_TLS_MODES),
    "sslnegotiation": _one_of("postgres", "direct"),
    "sslpassword": _any_text,
    "sslrootcert": _any_text,
    "target_session_attrs": _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "user": _any_text,
}
"""The parameters that are known. Each has a function that says what is wrong with a value."""

_LISTS: Final = ("host", "port")
_DRIVER_ARGUMENTS: Final = {"user": "user", "password": "password", "dbname": "database", "passfile": "passfile"}


@dataclass(frozen=True)
class ConnectionUrl:
    """What a URL says. Its `repr` shows neither the user nor the password.

    Args:
        hosts: none of them means the driver's default.
        parameters: the other ones, by libpq's names. None of them is empty.
    """

    hosts: tuple[Host, ...]
    parameters: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> tuple[tuple[Host, ...], str | None]:
        """The hosts and the name of the database. URLs of one database have the same."""
        return self.hosts, self.parameters.get("dbname", self.parameters.get("user"))

    def driver_arguments(self) -> dict[str, Any]:
        """Return arguments of `asyncpg.connect`, without the host and the session's settings."""
        given = {_DRIVER_ARGUMENTS[name]: value for name, value in self.parameters.items() if name in _DRIVER_ARGUMENTS}
        tls = {name: value for name, value in self.parameters.items() if name.startswith("ssl")}
        return {**given, "dsn": f"postgresql://?{urlencode(tls)}"}

    def session_settings(self, application: str) -> dict[str, str]:
        """Return the session's settings that the URL has, and the name under which PostgreSQL shows the session.

        The name of the process stands after that of the URL: `outbox status` counts relays by it.
        """
        named = " ".join(filter(None, (self.parameters.get("application_name"), application)))
        options = self.parameters.get("options")
        return {"application_name": named} | ({"options": options} if options else {})

    def timeout_seconds(self, longest: float | None) -> float | None:
        """Return the longest wait for a connection: `longest`, or the URL's `connect_timeout` if that is shorter."""
        own = int(self.parameters.get("connect_timeout", "0")) or None
        return min(filter(None, (own, longest)), default=None)


class UrlWithPassword(Secret):
    """A URL whose password comes from another secret."""

    __slots__ = ("_password", "_url")

    def __init__(self, url: Secret, password: Secret) -> None:
        super().__init__()
        self._url = url
        self._password = password

    def read(self) -> str:
        """Return the URL with the password, both as they are now."""
        url = self._url.read().strip()
        return f"{url}{'&' if '?' in url else '?'}password={quote(self._password.read(), safe='')}"


def parse_url(url: str) -> ConnectionUrl:
    """Read a URL as libpq does.

    The parameter `host` may be given several times and may have ports: `host=a:5432&host=b:5432`. `ssl=true` means
    `sslmode=require`.

    Raises:
        ValueError: it can't be read, or isn't supported. The message shows nothing of the user or the password.
    """
    url = url.strip()
    if any(character.isspace() for character in url):
        raise ValueError("has a space; write %20")
    form = _FORM.fullmatch(url)
    if form is None:
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    if "@" in form["hosts"] + (form["dbname"] or ""):
        raise ValueError(f"has an @ after the first one; {_ENCODE}")
    parts = {**_login(form["login"] or ""), "dbname": _decoded(form["dbname"] or "", "dbname")}
    hosts = _hosts_of_authority(form["hosts"])
    query = _query(form["query"] or "")
    if "password" in query and parts.get("password"):
        raise ValueError("has two passwords; leave one out")
    parameters = {name: value for name, value in {**parts, **query}.items() if value}
    hosts = _hosts(parameters.pop("host", ""), parameters.pop("port", ""), hosts)
    for name, _ in hosts:
        if not name.startswith("/") and ":" not in name:
            _check_name(name)
    _check(parameters)
    return ConnectionUrl(hosts, parameters)


def _login(login: str) -> dict[str, str]:
    user, _, password = login.partition(":")
    return {"user": _decoded(user, "user"), "password": _decoded(password, "password")}


def _decoded(text: str, name: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"has a % in its {name} without two hexadecimal digits after it; write %25 for a %")
    try:
        value = unquote_to_bytes(text).decode()
    except UnicodeError:
        # The error would show the text.
        raise ValueError(f"has a {name} that is not UTF-8") from None
    if "\0" in value:
        raise ValueError(f"has a zero byte in its {name}")
    return value


def _query(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        encoded, separator, value = item.partition("=")
        if not separator:
            raise ValueError("has a parameter without =")
        name = "sslmode" if encoded == "ssl" else encoded
        if encoded == "ssl" and value == "true":
            value = "require"
        if name not in _PARAMETERS:
            # What looks like a name may be a part of a password.
            told = f"parameter {name}" if re.fullmatch("[a-z_]+", name) else "unknown parameter"
            raise ValueError(f"has the {told}; known are {', '.join(_PARAMETERS)}")
        decoded = _decoded(value, name)
        given[name] = f"{given[name]},{decoded}" if name in _LISTS and name in given else decoded
    return given


def _hosts_of_authority(text: str) -> tuple[Host, ...]:
    # The port stands after the name before the name is decoded: that may be a directory, `%2Frun:5432`.
    hosts = map(_host, text.split(",")) if text else ()
    return tuple((_decoded(name, "host"), port) for name, port in hosts)


def _hosts(host: str, port: str, of_authority: tuple[Host, ...]) -> tuple[Host, ...]:
    hosts = tuple(map(_host, host.split(","))) if host else tuple((name, None) for name, _ in of_authority)
    if not all(name for name, _ in hosts) and len(hosts) > 1:
        raise ValueError("has an empty host in its list")
    # A parameter overrides only its counterpart: `host` keeps the ports that stand before the query.
    ports = [_port(one) for one in port.split(",")] if port else [own for _, own in of_authority]
    if not any(ports):
        return hosts
    hosts = hosts or (("", None),)
    if len(ports) not in {1, len(hosts)}:
        raise ValueError(f"has {len(ports)} ports for {len(hosts)} hosts")
    ports *= len(hosts) if len(ports) == 1 else 1
    return tuple((name, own or other) for (name, own), other in zip(hosts, ports, strict=True))


def _check_name(name: str) -> None:
    try:
        name.encode("idna")
    except UnicodeError:
        # asyncio would raise it at each connection.
        raise ValueError("has a host that can't be a name in the DNS") from None


def _host(text: str) -> Host:
    if text.startswith("/"):
        return text, None
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        if not (closed and name) or rest[:1] not in {"", ":"}:
            raise ValueError("has an IPv6 address without its closing ]")
        return name, _port(rest[1:])
    if text.count(":") > 1:
        return text, None
    name, _, port = text.partition(":")
    return name, _port(port)


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) <= _PORT_MAX):
        raise ValueError(f"has a port that is not a number from 1 to 65535 ({_ENCODE})")
    return int(text)


def _check(parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        if wrong := _PARAMETERS[name](value):
            raise ValueError(f"has a parameter {name} that {wrong}")
    mode = parameters.get("sslmode")
    if parameters.get("sslnegotiation") == "direct" and mode not in _TLS_MODES_REQUIRED:
        raise ValueError(f"has sslnegotiation=direct, which needs sslmode={', '.join(_TLS_MODES_REQUIRED)}")
    if parameters.get("sslrootcert") == SYSTEM_CERTIFICATES and mode != "verify-full":
        raise ValueError("has sslrootcert=system, which needs sslmode=verify-full")
    if "sslkey" in parameters and "sslcert" not in parameters:
        raise ValueError("has sslkey without sslcert")

"""Secrets: values that no log, error or reply may show. A secret in a file is read again at each use."""

from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

HIDDEN: Final = "**********"

GIVEN_TWICE: Final = object()
"""Stands for a secret that the environment gives both as a value and as a file. A field of type `Secret` refuses it."""


class UnreadableSecretError(OSError):
    """A secret's file is missing, unreadable, empty or not UTF-8; the message names it and the way out."""


class Secret:
    """A secret, given by its value or by the path of a file that holds it.

    Its `repr` and `str` don't show it, and `==` compares identities. A field of settings with this type takes the
    value from the variable of its name, or the path of the file from that name with `_FILE`. A file is read when the
    settings are loaded, so that a missing one stops the process. It is read again at each use: a secret can be rotated
    without a restart.
    """

    __slots__ = ("_file", "_value")

    def __init__(self, value: str = "", *, file: Path | None = None) -> None:
        self._value = value
        self._file = file

    def read(self) -> str:
        """Return the secret. That of a file is the file's text now, without its last line break.

        Raises:
            UnreadableSecretError: the file is missing, unreadable, empty or not UTF-8.
        """
        return self._value if self._file is None else _text_of(self._file)

    def __repr__(self) -> str:
        return HIDDEN

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del handler
        hidden_in_json = core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        return core_schema.with_info_plain_validator_function(_secret, serialization=hidden_in_json)


def _text_of(file: Path) -> str:
    try:
        # Not in text mode, which would change other line breaks.
        text = file.read_bytes().decode()
    except OSError as error:
        raise UnreadableSecretError(f"{file}: {error.strerror} (name a file that this process can read)") from error
    except UnicodeDecodeError:
        # The error would show the secret.
        raise UnreadableSecretError(f"{file}: is not UTF-8 (write the secret as UTF-8 text)") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise UnreadableSecretError(f"{file}: is empty (write the secret to it)")
    return secret


def _secret(given: object, info: ValidationInfo) -> Secret:
    if isinstance(given, Secret):
        return given
    if isinstance(given, str):
        return Secret(given)
    if given is GIVEN_TWICE:
        raise ValueError(f"is set, and so is {(info.field_name or '').upper()}_FILE; unset one of them")
    if not isinstance(given, Path):
        raise ValueError("must be text, or the path of a file")  # noqa: TRY004 pydantic collects ValueErrors
    secret = Secret(file=given)
    try:
        secret.read()
    except UnreadableSecretError as error:
        raise ValueError(f"{(info.field_name or '').upper()}_FILE: {error}") from error
    return secret

"""The bodies of the POST routes: their fields, and what each accepts."""

from typing import Annotated, Any, Final
from uuid import UUID

import jiter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from common.identifiers import parse_uuid
from common.money import UnknownCurrencyError, exponent_of, without_zeros
from common.text import check_new_user_id, check_text

METADATA_KEYS_MAX: Final = 50
_INTEGER_MAX: Final = 2**53 - 1
# Above any amount that a wallet can hold, and short enough to print: the amount is then refused as too large.
_AMOUNT_MAX: Final = 10**300


def _currency(value: str) -> str:
    try:
        exponent_of(value)
    except UnknownCurrencyError as error:
        raise ValueError(str(error)) from error
    return value


def _amount(value: Any) -> str:
    """Accept a string as it is, and a number by its digits, never through binary floating point."""
    if isinstance(value, str):
        return value
    if isinstance(value, jiter.LosslessFloat):
        whole, _, decimals = str(value).partition(".")
        return f"{whole}.{decimals.rstrip('0')}".rstrip(".") if decimals else whole
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < _AMOUNT_MAX else str(_AMOUNT_MAX)
    raise PydanticCustomError("amount", 'must be a decimal string such as "50.00", or a number')


def _metadata(value: Any) -> Any:
    """Accept what any JSON reader can hold (RFC 7493): text without NUL, numbers within 2**53."""
    if isinstance(value, str):
        return check_text(value)
    if isinstance(value, jiter.LosslessFloat):
        number = float(value)
        # Larger numbers are whole, and `jsonb` returns them as integers.
        if abs(number) > _INTEGER_MAX:
            raise PydanticCustomError("metadata", "must not hold a number above 2^53 - 1; send it as a string")
        return number
    if isinstance(value, int) and abs(value) > _INTEGER_MAX:
        raise PydanticCustomError("metadata", "must not hold a number above 2^53 - 1; send it as a string")
    if isinstance(value, list):
        return [_metadata(item) for item in value]
    if isinstance(value, dict):
        return {check_text(key): _metadata(item) for key, item in value.items()}
    return value


WalletId = Annotated[UUID, BeforeValidator(parse_uuid)]
Text255 = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(check_text)]
Currency = Annotated[str, AfterValidator(_currency), Field(examples=["EUR"])]
Amount = Annotated[
    str,
    BeforeValidator(_amount, json_schema_input_type=str | float),
    # For the hash of the request: however an amount is spelled, the request is the same.
    PlainSerializer(without_zeros, when_used="json"),
    Field(examples=["50.00"], description="Major units; a plain decimal, as a string or a JSON number."),
]
Metadata = Annotated[
    dict[str, Any],
    BeforeValidator(_metadata),
    Field(default_factory=dict, max_length=METADATA_KEYS_MAX, examples=[{"order": "4711"}]),
]


class Body(BaseModel):
    """The fields that all bodies have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: Metadata


class CreateWalletBody(Body):
    """A wallet to create."""

    user_id: Annotated[str, AfterValidator(check_new_user_id), Field(examples=["ada"])]
    currency: Currency
    external_id: Text255 | None = None


class OperationBody(Body):
    """The fields that the bodies of all operations have."""

    reference: Text255 | None = None
    # Without it, the hash of the request stays what it was before the field was there.
    external_id: Annotated[
        Text255 | None,
        Field(
            examples=["order-4711"],
            description="The client's own id of the transaction: each wallet takes each id once, for ever.",
            exclude_if=lambda external_id: external_id is None,
        ),
    ] = None


class StatusBody(OperationBody):
    """Why the status of a wallet changes. Callers that may read its history read the reason."""

    reason: Annotated[Text255, Field(examples=["reported as stolen"])]


class MoneyBody(OperationBody):
    """Money to move."""

    amount: Amount
    currency: Currency | None = None

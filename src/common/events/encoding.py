"""Events as JSON: written for the outbox, read from records, and what of them is shown to all of their wallets."""

from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import Field, TypeAdapter

from common.events.kinds import SCHEMA_VERSION, MovementEvent
from common.events.models import EVENT_MODELS, TRANSACTION_EVENTS, AnyEvent, event_type_of

_any_event: Any = reduce(or_, EVENT_MODELS)
_decoder: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[_any_event, Field(discriminator="event_type")])

_SHARED_FIELDS: Final = MovementEvent.model_fields.keys() - {"external_id"}
_TRANSACTION_MODELS: Final = {event_type_of(model): model for model in TRANSACTION_EVENTS.values()}


def encode(
    model: type[AnyEvent],
    *,
    event_id: UUID,
    created_at: datetime,
    currency: str,
    metadata: Mapping[str, Any],
    **fields: object,
) -> str:
    """Return the JSON value of an event with these fields, which the outbox stores and the relay publishes unchanged.

    It is what the model would encode. The model does not check the fields again: that takes longer than the decision
    of a transfer, whose amounts and ids were checked already.
    """
    event = {
        "schema_version": SCHEMA_VERSION,
        "event_id": event_id,
        "created_at": created_at,
        "currency": currency,
        "metadata": metadata,
        "event_type": event_type_of(model),
        **fields,
    }
    return orjson.dumps(event, option=orjson.OPT_UTC_Z).decode()


def decode(value: object) -> AnyEvent:
    """Return the event of a record's value, which was parsed from JSON already.

    Raises:
        pydantic.ValidationError: the type, the shape or the schema version is unknown.
    """
    return _decoder.validate_python(value)


def shared_by_all(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an event, as JSON, the owner of a wallet that did not act may read; but all of its wallets."""
    both = {name: value for name, value in event.items() if name in _SHARED_FIELDS}
    model = _TRANSACTION_MODELS.get(event["event_type"])
    return both | model.shared_details(event) if model else both

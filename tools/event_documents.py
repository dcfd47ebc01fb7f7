"""Makes the events' JSON Schemas and AsyncAPI 3 document from the models that encode the events.

`make docs` writes them to `docs/events/`; a test compares.
"""

import sys
from pathlib import Path
from typing import Any, Final

import orjson

from common.events.headers import SOURCE
from common.events.kinds import SCHEMA_VERSION
from common.events.models import EVENT_MODELS, event_type_of

_TOPIC: Final = "wallet_events"


def documents() -> dict[str, dict[str, Any]]:
    """Return the documents by file name."""
    schemas = {f"{event_type_of(model)}.schema.json": _schema(model) for model in EVENT_MODELS}
    return {**schemas, "asyncapi.json": _asyncapi()}


def _schema(model: type[Any]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode="serialization")}


def _headers(event_type: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {
            "type": "string",
            "format": "uuid",
            "description": "The event's id; it stays the same if the event is sent again.",
        },
        "ce_source": {"type": "string", "const": SOURCE},
        "ce_type": {"type": "string", "const": event_type},
        "ce_subject": {
            "type": "string",
            "format": "uuid",
            "description": "The wallet that acted; also the record's key.",
        },
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_sourceepoch": {
            "type": "string",
            "pattern": "^[1-9][0-9]*$",
            "description": "Rises when the wallet database was restored to an earlier time. Events of lower epochs may "
            "then be missing from the database, and their wallets' versions are used again. A record without this "
            "header is of epoch 1.",
        },
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C Trace Context of the request, if the request had one."},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name != "traceparent"],
    }


def _asyncapi() -> dict[str, Any]:
    types = [event_type_of(model) for model in EVENT_MODELS]
    messages = {
        event_type: {
            "name": event_type,
            "summary": (model.__doc__ or "").splitlines()[0],
            "contentType": "application/json",
            "headers": _headers(event_type),
            "payload": {"$ref": f"./{event_type}.schema.json"},
            "bindings": {"kafka": {"key": {"type": "string", "format": "uuid"}}},
        }
        for event_type, model in zip(types, EVENT_MODELS, strict=True)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wallet events",
            "version": str(SCHEMA_VERSION),
            "description": "CloudEvents 1.0 in Kafka's binary mode. Delivered at least once, in order for each key.",
        },
        "channels": {
            _TOPIC: {
                "address": _TOPIC,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in types},
            }
        },
        "operations": {
            "publishWalletEvents": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_TOPIC}"},
                "messages": [{"$ref": f"#/channels/{_TOPIC}/messages/{name}"} for name in types],
            }
        },
        "components": {"messages": messages},
    }


def main() -> None:
    """Write the documents into the directory that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (folder / name).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()

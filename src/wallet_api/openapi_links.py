"""The links of the OpenAPI document: which requests take an id that a reply has (OpenAPI 3.1, "Link Object")."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from wallet_api.operation_objects import id_field
from wallet_api.operations.catalogue import ALL_OPERATIONS
from wallet_api.operations.operation import Operation
from wallet_api.reply_models import reply_model

_CREATED: Final = str(HTTPStatus.CREATED.value)

Ids = Mapping[str, str]
"""Where a reply has ids: a JSON pointer for each parameter of paths that takes one."""


def add_links(app: FastAPI) -> None:
    """Let the app's OpenAPI document link what makes a wallet, a hold or a transaction to all that takes its id."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for path, method, status, ids in _sources():
            document["paths"][path][method]["responses"][status]["links"] = _links(document["paths"], ids)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _sources() -> Iterator[tuple[str, str, str, Ids]]:
    """Yield path and method of each request that makes something, the status of its reply, and the ids in that."""
    yield "/wallets", "post", _CREATED, {"wallet_id": "/id"}
    for operation in ALL_OPERATIONS:
        path = operation.target_of(f"{{{id_field(operation)}}}")
        yield path, operation.method.lower(), str(int(operation.status)), _ids_of(operation)


def _ids_of(operation: type[Operation]) -> Ids:
    makes_hold = (
        operation.status == HTTPStatus.CREATED and "hold" in reply_model(operation.transaction_type).model_fields
    )
    return {"transaction_id": "/transaction_id", **({"hold_id": "/hold/id"} if makes_hold else {})}


def _links(paths: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    return {
        target["operationId"]: {
            "operationId": target["operationId"],
            "parameters": {name: f"$response.body#{pointer}"},
        }
        for name, pointer in ids.items()
        for path, methods in paths.items()
        if f"{{{name}}}" in path
        for target in methods.values()
    }

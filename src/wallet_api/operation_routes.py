"""The routes of the operations, each made from its class: parse, run one use case, reply."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import cache
from inspect import getdoc
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from common.access.caller import Caller, caller_of
from common.http.authorization import ScopedRoute, check_scope, needs
from common.http.paths import PathUuid, path_of, path_uuid
from wallet_api import metrics
from wallet_api.bodies import Body
from wallet_api.context import context_of
from wallet_api.errors import IfMatchRequired
from wallet_api.group_commit.transactions import execute
from wallet_api.openapi import post_documentation, put_documentation
from wallet_api.operation_objects import id_field, object_fields
from wallet_api.operations.catalogue import ALL_OPERATIONS
from wallet_api.operations.operation import Operation
from wallet_api.replies import JSON, Reply
from wallet_api.reply_models import reply_model
from wallet_api.requests import (
    IdempotencyKeyHeader,
    IfMatchHeader,
    PreviewQuery,
    read_body,
    read_claim,
    read_if_match,
    read_preview,
    read_traceparent,
)
from wallet_api.use_cases.use_cases import preview_operations


def _wallet_id(wallet_id: PathUuid) -> None:
    """Document the id in the path."""


def _hold_id(hold_id: PathUuid) -> None:
    """Document the id in the path."""


def _transaction_id(transaction_id: PathUuid) -> None:
    """Document the id in the path."""


# `labels` takes longer than the increment.
_counter_of: Final = cache(metrics.operations.labels)

_IDS: Final = {"wallets": _wallet_id, "holds": _hold_id, "transactions": _transaction_id}


def _parameters(
    idempotency_key: IdempotencyKeyHeader = None, if_match: IfMatchHeader = None, preview: PreviewQuery = False
) -> None:
    """Document what an operation's route reads besides."""


def _put_parameters(idempotency_key: IdempotencyKeyHeader = None, preview: PreviewQuery = False) -> None:
    """Document the same of a PUT, which needs `If-Match`: `put_documentation` has that."""


_DOCUMENTED: Final[Mapping[str, tuple[Callable[..., None], Callable[..., dict[str, Any]]]]] = {
    "POST": (_parameters, post_documentation),
    "PUT": (_put_parameters, put_documentation),
}


def _endpoint(operation: type[Operation]) -> Callable[[Request], Awaitable[Response]]:
    name = id_field(operation)

    async def act(request: Request) -> Response:
        if operation.method == "PUT" and "if-match" not in request.headers:
            raise IfMatchRequired
        id_ = path_uuid(request, name)
        return await _run(operation, request, await read_body(request, operation.body), id_)

    return act


async def _run(operation: type[Operation], request: Request, body: Body, id_: UUID) -> Response:
    """Run the operation, or preview it, and return its response.

    Args:
        operation: the class of the command.
        request: of the caller.
        body: parsed; its fields are fields of the command.
        id_: of the object on which it acts.

    Raises:
        HoldNotFound, TransactionNotFound: there is no such object on which the caller may act.
        Forbidden: the command needs a scope that the caller lacks.
    """
    caller = caller_of(request)
    fields = await object_fields(context_of(request).reader, operation, id_, body, caller)
    is_preview = read_preview(request)
    command = operation(
        **command_fields(request, caller, body, operation.target_of(id_), is_preview=is_preview),
        caller=caller,
        if_match=read_if_match(request.headers.get("if-match")),
        **fields,
    )
    if command.further_scope:
        check_scope(caller, command.further_scope)
    return respond(operation.name, await answer(request, command, is_preview=is_preview))


async def answer(request: Request, command: Operation, *, is_preview: bool) -> Reply:
    """Run the command in a batch, or preview it; return its reply."""
    context = context_of(request)
    if not is_preview:
        return await context.operations.submit(command)
    (reply,) = await execute(context.reader, preview_operations, [command])
    return reply


def command_fields(
    request: Request, caller: Caller, body: Body, target: str, *, is_preview: bool = False
) -> dict[str, Any]:
    """Return the fields of a command that come from the request's body, and those that all commands have.

    A preview claims no key: it would stand for a request that was never made.
    """
    fields = vars(body)
    # An external id is taken once, too.
    is_told_apart = is_preview or fields.get("external_id") is not None
    required = context_of(request).settings.idempotency_key_required and not is_told_apart
    claim = read_claim(
        request.method, target, caller.id, request.headers.get("idempotency-key"), body, required=required
    )
    return {
        **fields,
        "path": path_of(request),
        "claim": None if is_preview else claim,
        "traceparent": read_traceparent(request.headers),
    }


def respond(operation: str, reply: Reply) -> Response:
    """Return the response that the reply makes, and count it."""
    _counter_of(operation, reply.outcome).inc()
    return Response(reply.body, reply.status, {"Content-Type": JSON, **reply.headers})


def make_router(owner_operations: Collection[str]) -> APIRouter:
    """Return the routes, all of the fast path.

    Args:
        owner_operations: the names of operators' operations that owners may do with their own wallets.
    """
    router = APIRouter(route_class=ScopedRoute)
    for operation in ALL_OPERATIONS:
        parameters, documentation = _DOCUMENTED[operation.method]
        router.add_api_route(
            operation.target_of(f"{{{id_field(operation)}}}"),
            _endpoint(operation),
            methods=[operation.method],
            name=f"{operation.method.lower()}_{operation.name}",
            description=getdoc(operation),
            tags=[operation.collection],
            dependencies=[
                needs(operation.scope_for(owner_operations)),
                Depends(_IDS[operation.collection]),
                Depends(parameters),
            ],
            **documentation(operation.body, reply_model(operation.transaction_type), operation.status),
        )
    return router

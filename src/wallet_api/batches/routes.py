"""The route of batch requests: parse, run the operations, reply."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from common.access.caller import FUNDS_WRITE, OPS_WRITE, WALLETS_WRITE, caller_of
from common.http.authorization import ScopedRoute, needs
from common.http.problem_responses import unexpected_problem
from common.identifiers import new_id
from common.problems import Problem, ValidationProblem
from wallet_api import metrics
from wallet_api.batches.bodies import BATCHED, BatchBody, parse_batch
from wallet_api.batches.commands import Sender, plan
from wallet_api.batches.documentation import BATCH_DOCUMENTATION
from wallet_api.commands import IdempotencyClaim
from wallet_api.context import context_of
from wallet_api.errors import IdempotencyKeyRequired
from wallet_api.group_commit.command_queue import Answer
from wallet_api.group_commit.transactions import execute
from wallet_api.operation_routes import answer, respond
from wallet_api.operations.atomic_batch import AtomicBatch, name_operation
from wallet_api.operations.operation import ExternalId, Operation
from wallet_api.replies import DONE, JSON, Reply, problem_reply
from wallet_api.requests import (
    IdempotencyKeyHeader,
    PreviewQuery,
    read_claim,
    read_document,
    read_preview,
    read_traceparent,
)
from wallet_api.use_cases.batch_replies import batch_json
from wallet_api.use_cases.use_cases import preview_operations

BATCH_BYTES_MAX: Final = 512 * 1024
"""Of the body of a batch request: 100 operations with 5 KiB each."""

PATH: Final = "/batches"


def _parameters(idempotency_key: IdempotencyKeyHeader = None, preview: PreviewQuery = False) -> None:
    """Document what `post_batch` reads."""


def make_router(owner_operations: Collection[str]) -> APIRouter:
    """Return the route, which is of the fast path.

    Args:
        owner_operations: the names of operators' operations that owners may do with their own wallets.
    """
    router = APIRouter(tags=["batches"], route_class=ScopedRoute)
    scopes = {name: operation.scope_for(owner_operations) for name, operation in BATCHED.items()}

    @router.post(
        PATH,
        dependencies=[needs(WALLETS_WRITE, FUNDS_WRITE, OPS_WRITE), Depends(_parameters)],
        **BATCH_DOCUMENTATION,
    )
    async def post_batch(request: Request) -> Response:
        """Run up to 100 operations in their order, of any kind that has a route of its own.

        If the batch is `atomic`, either all operations are done or none is: the reply is 200, or the problem of the
        first operation that is refused, whose index is `item`. Else each operation has its own outcome in the reply,
        which is 207: what its own route would have answered.
        """
        is_preview = read_preview(request)
        body = parse_batch(await read_document(request, BATCH_BYTES_MAX))
        claim = _claim(request, body, is_preview=is_preview)
        sender = Sender(caller_of(request), read_traceparent(request.headers), new_id(), scopes, is_preview)
        planned = await plan(body, sender, context_of(request).reader)
        if body.atomic:
            return await _run_atomic(request, planned, sender, claim)
        return await _run_each(request, body, planned, sender)

    return router


def _claim(request: Request, body: BatchBody, *, is_preview: bool) -> IdempotencyClaim | None:
    """Return the idempotency claim of an atomic batch, unless it is a preview.

    Raises:
        ValidationProblem, IdempotencyKeyRequired: a key is where it can't be, is there twice, or is missing.
    """
    if "if-match" in request.headers:
        raise ValidationProblem.of("If-Match", "send if_match with an operation instead")
    key, keys = request.headers.get("idempotency-key"), [item.key for item in body.operations]
    required = context_of(request).settings.idempotency_key_required and not is_preview
    if body.atomic:
        for number in (number for number, own in enumerate(keys) if own is not None):
            raise ValidationProblem.of(
                f"operations.{number}.key", "an atomic batch has one key: send it as Idempotency-Key"
            )
        # An external id is taken once, too.
        required = required and any(item.external_id is None for item in body.operations)
        claim = read_claim("POST", PATH, caller_of(request).id, key, body, required=required)
        return None if is_preview else claim
    if key is not None:
        raise ValidationProblem.of(
            "Idempotency-Key", "a batch that is not atomic has a key for each operation: send it as operations.0.key"
        )
    _check_item_keys(body, required=required)
    return None


def _check_item_keys(body: BatchBody, *, required: bool) -> None:
    first: dict[str, int] = {}
    for number, item in enumerate(body.operations):
        if (key := item.key) is None:
            if required and item.external_id is None:
                raise IdempotencyKeyRequired(
                    f"operations.{number}.key: send a unique key with each operation, or an external_id."
                )
        elif first.setdefault(key, number) != number:
            raise ValidationProblem.of(f"operations.{number}.key", f"is the key of operations.{first[key]} too")


async def _run_atomic(
    request: Request, planned: Sequence[Operation | Problem], sender: Sender, claim: IdempotencyClaim | None
) -> Response:
    for number, refusal in enumerate(planned):
        if isinstance(refusal, Problem):
            name_operation(refusal, number)
            raise refusal
    operations = tuple(command for command in planned if isinstance(command, Operation))
    _check_external_ids(operations)
    command = AtomicBatch(
        path=PATH,
        claim=claim,
        traceparent=sender.traceparent,
        metadata={},
        caller=sender.caller,
        wallet_id=operations[0].wallet_id,
        reference=None,
        if_match=None,
        batch_id=sender.batch_id,
        operations=operations,
    )
    reply = await answer(request, command, is_preview=sender.is_preview)
    if reply.outcome == DONE:
        _count((operation.name, DONE) for operation in operations)
    return respond(AtomicBatch.name, reply)


def _check_external_ids(operations: Sequence[Operation]) -> None:
    """Refuse an external id that two operations of an atomic batch take.

    The refusal of the second one would name the first one's transaction, which is never made.

    Raises:
        ValidationProblem: there is one.
    """
    first: dict[ExternalId, int] = {}
    for number, operation in enumerate(operations):
        for external_id in operation.external_ids:
            if first.setdefault(external_id, number) != number:
                raise ValidationProblem.of(
                    f"operations.{number}.external_id", f"is that of operations.{first[external_id]} too"
                )


async def _run_each(
    request: Request, body: BatchBody, planned: Sequence[Operation | Problem], sender: Sender
) -> Response:
    commands = [command for command in planned if isinstance(command, Operation)]
    answers = iter(await _answers(request, commands, sender) if commands else ())
    replies = []
    for number, each in enumerate(planned):
        path = BATCHED[body.operations[number].op].target_of(body.id_of(number))
        replies.append(_reply(next(answers) if isinstance(each, Operation) else each, path))
    _count((item.op, reply.outcome) for item, reply in zip(body.operations, replies, strict=True))
    content = batch_json(sender.batch_id, replies, is_preview=sender.is_preview)
    return Response(content, 207, {"Content-Type": JSON})


async def _answers(request: Request, commands: Sequence[Operation], sender: Sender) -> Sequence[Answer]:
    context = context_of(request)
    if sender.is_preview:
        return await execute(context.reader, preview_operations, commands)
    return await context.operations.submit_all(commands)


def _reply(found: Answer, path: str) -> Reply:
    if isinstance(found, Reply):
        return found
    return problem_reply(found if isinstance(found, Problem) else unexpected_problem(found, path), path)


def _count(outcomes: Any) -> None:
    for labels, count in Counter(outcomes).items():
        metrics.operations.labels(*labels).inc(count)

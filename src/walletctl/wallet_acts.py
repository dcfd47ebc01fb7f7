"""How `walletctl` runs an operation of the wallet API, and prints its outcome."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer
from pydantic import ValidationError

from common.postgres.connections import OUTCOME_UNKNOWN
from common.problems import ValidationProblem
from wallet_api import operator_acts
from wallet_api.bodies import OperationBody, StatusBody
from wallet_api.group_commit.transactions import OutcomeUnknown
from wallet_api.operations.operation import Operation
from wallet_api.replies import DONE
from walletctl.console import Exit, fail, print_fields, print_json
from walletctl.databases import with_wallet_database

Reason = Annotated[str, typer.Option(help="Why: for the event and for the audit table. The owner may read it.")]
Reference = Annotated[str | None, typer.Option(help="The number of a case, for the ledger.")]


def act(
    operation: type[Operation],
    id_: UUID,
    fields: Mapping[str, Any],
    reason: str,
    *,
    see: str,
    as_json: bool,
    if_match: frozenset[int] | None = None,
) -> None:
    """Run an operation, and print its reply; exit with a line if it is refused, or if its outcome is unknown.

    Args:
        operation: whose body takes the fields.
        id_: of the object on which it acts.
        fields: of the body, by name. The reason is one of them, if the body has one.
        reason: for the audit.
        see: the command that shows whether the operation was done, if its outcome is unknown.
        as_json: whether JSON is printed instead of tables.
        if_match: the acting wallet must be at one of these versions; None means any.
    """
    body = _checked(operation, fields, reason)
    try:
        reply = with_wallet_database(lambda engine: operator_acts.run(engine, operation, body, reason, id_, if_match))
    except OutcomeUnknown:
        fail(f"{OUTCOME_UNKNOWN}. See: {see}", Exit.UNREACHABLE)
    told = orjson.loads(reply.body)
    if reply.outcome != DONE:
        fail(told["detail"], Exit.FOUND_WRONG)
    if as_json:
        print_json(told)
        return
    hold = told.pop("hold", None)
    print_fields(operation.name.capitalize(), told)
    if hold:
        print_fields("Hold", hold)


def _checked(operation: type[Operation], fields: Mapping[str, Any], reason: str) -> OperationBody:
    reasons: dict[str, Any] = {"reason": reason} if "reason" in operation.body.model_fields else {}
    try:
        StatusBody(reason=reason, metadata={})
        return operation.body(**fields, **reasons)
    except ValidationError as error:
        fail(f"--{ValidationProblem.of_errors(error.errors()).detail}", Exit.USAGE)

"""The body of a batch request: each operation has the fields of its own route's body, and says which it is."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from common.problems import ValidationProblem
from wallet_api.bodies import WalletId
from wallet_api.group_commit.command_queue import BATCH_OPERATIONS_MAX
from wallet_api.operation_objects import id_field
from wallet_api.operations.catalogue import ALL_OPERATIONS
from wallet_api.operations.operation import Operation
from wallet_api.requests import KEY_PATTERN

_ERRORS_MAX: Final = 100
_EXAMPLE: Final = {
    "op": "fund",
    "wallet_id": "0198c2a5-0000-7000-8000-000000000001",
    "amount": "50.00",
    "key": "payout-4711",
}

BATCHED: Final[Mapping[str, type[Operation]]] = {operation.name: operation for operation in ALL_OPERATIONS}
"""The operations that a batch request may have, by their names."""

Key = Annotated[
    str,
    Field(
        pattern=f"^{KEY_PATTERN}$",
        description="The operation's own idempotency key; only in a batch that is not atomic.",
    ),
]
Version = Annotated[
    int, Field(ge=1, lt=10**18, description="The version at which the acting wallet must be, as `If-Match` says it.")
]
MEMBERS: Final = ("op", "key", "if_match")
"""The fields that an operation in a batch has besides its id and those of its route's body."""


def _item_model(operation: type[Operation]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        "op": (Literal[operation.name], ...),
        id_field(operation): (WalletId, ...),
        "key": (Key | None, None),
        "if_match": (Version, ...) if operation.method == "PUT" else (Version | None, None),
    }
    if taken := fields.keys() & operation.body.model_fields.keys():
        raise TypeError(f"{operation.body.__name__}: rename {', '.join(taken)}, which an operation in a batch has too")
    return create_model(f"Batched{operation.__name__}", __base__=operation.body, __doc__=operation.__doc__, **fields)


_any_item: Any = reduce(or_, map(_item_model, BATCHED.values()))


class BatchBody(BaseModel):
    """Operations, in the order in which they are decided."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ID_FIELDS: ClassVar[Mapping[str, str]] = {name: id_field(operation) for name, operation in BATCHED.items()}

    atomic: Annotated[bool, Field(description="Whether either all operations are done or none.", examples=[False])]
    operations: Annotated[
        list[Annotated[_any_item, Field(discriminator="op")]],
        Field(min_length=1, max_length=BATCH_OPERATIONS_MAX, examples=[[_EXAMPLE]]),
    ]

    def id_of(self, number: int) -> UUID:
        """Return the id of the object on which the operation acts."""
        item = self.operations[number]
        found: UUID = getattr(item, self.ID_FIELDS[item.op])
        return found


def parse_batch(document: Mapping[str, Any]) -> BatchBody:
    """Return the body of a batch request.

    Raises:
        ValidationProblem: a field is wrong, named as `operations.7.amount`; or a key is there twice.
    """
    try:
        return BatchBody.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:_ERRORS_MAX]
        raise ValidationProblem.of_errors(map(_named, found)) from error


def _named(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error without the name of the operation's model among its places."""
    match error["loc"]:
        case ("operations", number) if error["type"].startswith("union_tag"):
            message = f"must be one of {', '.join(BATCHED)}"
            return {"loc": ("operations", number, "op"), "msg": message}
        case ("operations", number, _, *field):
            return {**error, "loc": ("operations", number, *field)}
    return error

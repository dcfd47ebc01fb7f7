"""The objects on which operations act: a wallet, a hold or a ledger transaction, by the id in the route's path."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from common.access.caller import Caller
from common.problems import Problem
from wallet_api.errors import HoldNotFound, TransactionNotFound
from wallet_api.holds import queries as holds
from wallet_api.operations.operation import Operation
from wallet_api.operations.original import Original
from wallet_api.operations.reverse import Reverse, ReverseBody
from wallet_api.use_cases.reversal_queries import find_originals

Objects = Mapping[UUID, Any]
"""What commands must know of objects before their batch, by the objects' ids. It never changes."""
Fields = dict[str, Any]


class _Collection(NamedTuple):
    """How the objects of a collection are found, and what they say of a command.

    Attributes:
        find: takes ids and a caller; returns the objects on which the caller may act.
        fields: takes an id, its object, the request's body and the caller; returns fields of the command.
        missing: takes an id; returns the problem of an object that is not found.
    """

    find: Callable[[AsyncConnection, Collection[UUID], Caller], Awaitable[Objects]]
    fields: Callable[[UUID, Any, Any, Caller], Fields]
    missing: Callable[[UUID], Problem]


async def _find_holds(connection: AsyncConnection, ids: Collection[UUID], caller: Caller) -> Objects:
    return await holds.find_holds(connection, ids, caller.user_id)


def _hold_fields(hold_id: UUID, wallet_ids: tuple[UUID, UUID | None], _body: object, _caller: Caller) -> Fields:
    wallet_id, to_wallet_id = wallet_ids
    return {"hold_id": hold_id, "wallet_id": wallet_id, "to_wallet_id": to_wallet_id}


def _reversal_fields(_id: UUID, original: Original, body: ReverseBody, caller: Caller) -> Fields:
    return {"original": original, "wallet_id": Reverse.acting_wallet_id(original, body, caller)}


# Of a wallet a command knows all that it needs: its id.
_COLLECTIONS: Final[Mapping[str, _Collection]] = {
    "holds": _Collection(_find_holds, _hold_fields, HoldNotFound),
    "transactions": _Collection(find_originals, _reversal_fields, TransactionNotFound),
}


def id_field(operation: type[Operation]) -> str:
    """Return what the id in the path of the operation's route is called, such as `hold_id`."""
    return f"{operation.collection.removesuffix('s')}_id"


async def find_objects(reader: AsyncEngine, collection: str, ids: Collection[UUID], caller: Caller) -> Objects:
    """Return those of the collection's objects on which the caller may act; none of wallets."""
    if not ids or collection not in _COLLECTIONS:
        return {}
    async with reader.connect() as connection:
        return await _COLLECTIONS[collection].find(connection, ids, caller)


def fields_from(objects: Objects, operation: type[Operation], id_: UUID, body: object, caller: Caller) -> Fields:
    """Return the fields of a command that come from its object.

    Raises:
        HoldNotFound, TransactionNotFound: the object is not among these.
    """
    if (collection := _COLLECTIONS.get(operation.collection)) is None:
        return {"wallet_id": id_}
    if id_ not in objects:
        raise collection.missing(id_)
    return collection.fields(id_, objects[id_], body, caller)


async def object_fields(
    reader: AsyncEngine, operation: type[Operation], id_: UUID, body: object, caller: Caller
) -> Fields:
    """Return the fields of a command that come from its object, as it is in the database.

    Raises:
        HoldNotFound, TransactionNotFound: there is no such object on which the caller may act.
    """
    return fields_from(await find_objects(reader, operation.collection, [id_], caller), operation, id_, body, caller)

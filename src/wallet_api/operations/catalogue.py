"""The operations, each with a route and its own name."""

from typing import Final

from wallet_api.operations.fund import Fund
from wallet_api.operations.operation import Operation
from wallet_api.operations.transfer import Transfer

OPERATIONS: Final[tuple[type[Operation], ...]] = (Fund, Transfer)

"""The operations, each with a route and its own name."""

from typing import Final

from wallet_api.operations.capture_hold import CaptureHold
from wallet_api.operations.close import Close
from wallet_api.operations.freeze import Freeze
from wallet_api.operations.fund import Fund
from wallet_api.operations.holds import HoldOperation
from wallet_api.operations.operation import Operation
from wallet_api.operations.place_hold import PlaceHold
from wallet_api.operations.reopen import Reopen
from wallet_api.operations.reverse import Reverse
from wallet_api.operations.set_limits import SetLimits
from wallet_api.operations.split import Split
from wallet_api.operations.transfer import Transfer
from wallet_api.operations.unfreeze import Unfreeze
from wallet_api.operations.void_hold import VoidHold
from wallet_api.operations.withdraw import Withdraw

OPERATIONS: Final[tuple[type[Operation], ...]] = (
    *(Fund, Withdraw, Transfer, Split, PlaceHold),
    *(Freeze, Unfreeze, Close, Reopen),
)
"""Those of a wallet: `POST /wallets/{wallet_id}/NAME`."""

HOLD_OPERATIONS: Final[tuple[type[HoldOperation], ...]] = (CaptureHold, VoidHold)
"""Those of a hold: `POST /holds/{hold_id}/NAME`."""

TRANSACTION_OPERATIONS: Final[tuple[type[Reverse], ...]] = (Reverse,)
"""Those of a ledger transaction: `POST /transactions/{transaction_id}/NAME`."""

ALL_OPERATIONS: Final[tuple[type[Operation], ...]] = (
    *OPERATIONS,
    *HOLD_OPERATIONS,
    *TRANSACTION_OPERATIONS,
    SetLimits,
)

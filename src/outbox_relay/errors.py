"""Which errors a relay's step may get over by itself."""

from common.database import (
    LOCK_NOT_AVAILABLE,
    QUERY_CANCELED,
    is_unreachable,
    may_succeed_again,
    sqlstate,
)


def is_temporary(error: BaseException) -> bool:
    """Whether the step may succeed later: the database is away, or it gave up this transaction and not the work.

    An operator's cancel, a lock that a migration holds and a deadlock are no reason for a relay to end.
    """
    return is_unreachable(error) or may_succeed_again(error) or sqlstate(error) in {QUERY_CANCELED, LOCK_NOT_AVAILABLE}

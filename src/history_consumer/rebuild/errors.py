"""Why a history can't be rebuilt just now.

CannotRebuildError
├── RebuildUnderWayError     another rebuild has the shadow tables
├── InTheWayError            something hangs on the live tables that a new table can't take over
├── TablesAlteredError       the live tables were altered meanwhile
└── TopicUnfitError          the topic hasn't got the whole history, or changed meanwhile
"""


class CannotRebuildError(Exception):
    """The history stays as it was; the text says why and what to do."""


class RebuildUnderWayError(CannotRebuildError):
    """Another rebuild has the shadow tables."""


class InTheWayError(CannotRebuildError):
    """A view, a foreign key or the like hangs on the live tables."""


class TablesAlteredError(CannotRebuildError):
    """An index, a grant or the like came or went while the new tables were filled."""


class TopicUnfitError(CannotRebuildError):
    """The topic hasn't got the whole history, or changed meanwhile."""

"""Why a history cannot be rebuilt now.

CannotRebuildError
├── RebuildUnderWayError     another rebuild is under way
├── InTheWayError            an object depends on the live tables that a new table cannot take over
├── TablesAlteredError       the live tables were altered or migrated during the rebuild
└── TopicUnfitError          the topic lacks a part of the history, or changed during the rebuild
"""


class CannotRebuildError(Exception):
    """The history is as it was. The message says why, and what to do."""


class RebuildUnderWayError(CannotRebuildError):
    """Another rebuild is under way."""


class InTheWayError(CannotRebuildError):
    """A view, a foreign key or a similar object depends on the live tables."""


class TablesAlteredError(CannotRebuildError):
    """An index, a grant or the schema's revision changed while the new tables were filled."""


class TopicUnfitError(CannotRebuildError):
    """The topic lacks a part of the history, or changed during the rebuild."""

"""Why a history can't be rebuilt just now.

CannotRebuildError
├── RebuildUnderWayError     another rebuild has the shadow tables
└── TopicUnfitError          the topic hasn't got the whole history, or changed meanwhile
"""


class CannotRebuildError(Exception):
    """The history stays as it was; the text says why and what to do."""


class RebuildUnderWayError(CannotRebuildError):
    """Another rebuild has the shadow tables."""


class TopicUnfitError(CannotRebuildError):
    """The topic hasn't got the whole history, or changed meanwhile."""

"""The problem for which only the history API refuses a request.

Problem
└── HistoryBehind              503 history-behind (+ Retry-After)
"""

from common.problems import Problem


class HistoryBehind(Problem):
    """The events up to `min_version` did not arrive in time."""

    status = 503
    code = "history-behind"
    title = "History behind"
    retry_after_seconds = 1

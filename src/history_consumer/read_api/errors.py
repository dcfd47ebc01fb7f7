"""What a history request can be refused for, beside what all requests can.

Problem
└── HistoryBehind              503 history-behind (+ Retry-After)
"""

from common.problems import Problem


class HistoryBehind(Problem):
    """The version that `min_version` asks for hasn't come through the pipeline in time."""

    status = 503
    code = "history-behind"
    title = "The history is not that far yet"
    retry_after_seconds = 1

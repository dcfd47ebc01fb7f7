"""A statement's response: sent while it is read, and broken off if the database goes away meanwhile."""

from typing import Final

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Send

from common.postgres.errors import is_temporary, message_with_remedy
from common.rate_limited_logs import RateLimitedLog

log: Final = RateLimitedLog(structlog.get_logger())


class StatementResponse(StreamingResponse):
    """A response whose client learns that it is not whole: the connection ends without the end of the body."""

    async def stream_response(self, send: Send) -> None:
        """Send the parts. Once the reply has begun, no problem document can be sent."""
        try:
            await super().stream_response(send)
        except Exception as error:
            if not is_temporary(error):
                raise
            # The server closes the connection of an application that returns without the end of its reply.
            log.warning("statement_broken_off", error=error, why=message_with_remedy(error))

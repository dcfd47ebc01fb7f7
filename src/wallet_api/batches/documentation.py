"""What the OpenAPI document says of batch requests."""

from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from common.http.openapi import ProblemOut
from wallet_api.batches.bodies import BatchBody
from wallet_api.openapi import POST_ERRORS, body_documentation


class BatchItemOut(BaseModel):
    """What came of one operation: what its own route would have answered."""

    status: int = Field(examples=[200], description="The HTTP status that the operation's own route would have sent.")
    body: dict[str, Any] | None = Field(None, description="The reply, if the operation is done.")
    problem: ProblemOut | None = Field(None, description="Why the operation is not done.")
    headers: dict[str, str] = Field(examples=[{"ETag": '"3"'}], description="Further headers of the reply.")


class BatchOut(BaseModel):
    """What came of each operation, in the order of the request."""

    batch_id: UUID
    items: list[BatchItemOut]
    preview: Literal[True] | None = Field(None, description="Only in the reply to a preview: nothing was done.")


BATCH_DOCUMENTATION: Final[dict[str, Any]] = {
    "status_code": 200,
    "response_model": BatchOut,
    "responses": {207: {"model": BatchOut, "description": "Of a batch that is not atomic."}, **POST_ERRORS},
    "openapi_extra": body_documentation(BatchBody),
}

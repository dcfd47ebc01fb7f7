from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from common.events.encoding import decode
from common.events.models import EVENT_MODELS, AnyEvent, TransferDone, event_type_of
from common.events.parts import WalletChange
from tools.event_documents import documents

FOLDER = Path(__file__).parents[2] / "docs" / "events"


def test_the_documents_are_what_the_models_say() -> None:
    """Run `make docs` after a change."""
    assert {path.name: orjson.loads(path.read_bytes()) for path in FOLDER.iterdir()} == documents()


@pytest.mark.parametrize("model", EVENT_MODELS, ids=event_type_of)
def test_each_event_type_has_a_valid_json_schema(model: type[AnyEvent]) -> None:
    Draft202012Validator.check_schema(documents()[f"{event_type_of(model)}.schema.json"])


def test_an_encoded_event_fits_its_schema_and_decodes_to_itself() -> None:
    change = WalletChange(wallet_id=uuid4(), user_id="ada", version=2, balance_after="1.00", direction="out")
    event = TransferDone(
        event_id=uuid4(),
        created_at=datetime.now(UTC),
        currency="EUR",
        metadata={"a": [1, None]},
        transaction_id=uuid4(),
        amount="1.00",
        reference=None,
        wallets=[change, change.model_copy(update={"wallet_id": uuid4(), "direction": "in"})],
    )
    value = event.encode()
    schema = documents()["TRANSFER_DONE.schema.json"]
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(orjson.loads(value))
    assert decode(orjson.loads(value)) == event

"""Events of this version can be read by the last release's consumers, and the other way round."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.events.models import EVENT_MODELS

# 0.2.0 has its models in `common.events`. Releases after it have them in `common.events.models`.
PROGRAM = """
import json
from common.events import EVENT_MODELS

print(json.dumps([model.model_json_schema(mode="serialization") for model in EVENT_MODELS]))
"""


def schemas(environment: dict[str, str]) -> dict[str, Any]:
    """Return the JSON Schema of each event type, as the code that the variable names writes it."""
    printed = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout
    return {schema["title"]: schema for schema in json.loads(printed)}


def test_the_last_release_is_another_code_than_this_one(last_release: dict[str, str]) -> None:
    program = "import common.events; print(common.events.__file__)"
    printed = subprocess.run([sys.executable, "-c", program], env=last_release, capture_output=True, check=True).stdout
    assert printed.decode().startswith(last_release["PYTHONPATH"])


def test_an_event_has_every_field_of_the_last_release_and_what_it_adds_is_optional_to_readers(
    last_release: dict[str, str],
) -> None:
    before, now = schemas(last_release), {model.__name__: model.model_json_schema() for model in EVENT_MODELS}
    assert before.keys() <= now.keys()
    for title, old in before.items():
        parts = {"": (old, now[title])} | {
            name: (part, now[title]["$defs"][name]) for name, part in old["$defs"].items()
        }
        for name, (was, is_now) in parts.items():
            where = f"{title} {name}"
            changed = {
                field for field, schema in was["properties"].items() if is_now["properties"].get(field) != schema
            }
            # A balance may be below zero now. An older reader makes a dead letter of it: see test_new_event_types.py.
            changed -= {"balance_after"} if name == "WalletChange" else set()
            assert changed == set(), f"{where}: a reader of the last release does not know these fields any more"
            # This version reads events without them: those of the topic, and of relays that are not upgraded yet.
            added = is_now["properties"].keys() - was["properties"].keys()
            assert added.isdisjoint(is_now.get("required", ())), f"{where}: a new field needs a default"


def test_the_kept_wheel_is_of_the_newest_version_in_the_changelog(last_release_wheel: Path) -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\d+\.\d+\.\d+) - ", changelog, re.MULTILINE)
    assert not released or last_release_wheel.name.startswith(f"wallet_outbox-{released[0]}-")

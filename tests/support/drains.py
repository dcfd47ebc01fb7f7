"""How long each process may take to finish what is under way, from SIGTERM on, by the settings' defaults."""

from common.http import server
from history_consumer.settings import ConsumerSettings
from outbox_relay.publisher import PUBLISH_MARGIN_SECONDS
from outbox_relay.run import HUNG_TRANSACTION_SECONDS
from outbox_relay.settings import RelaySettings

_CLOSE_SECONDS = 2.0
_RELAY = RelaySettings.model_fields
_CONSUMER = ConsumerSettings.model_fields

DRAIN_SECONDS = {
    "wallet-api": server.DRAIN_SECONDS,
    "history-api": server.DRAIN_SECONDS,
    # It claims, publishes, settles and closes its producers.
    "outbox-relay": 2 * HUNG_TRANSACTION_SECONDS
    + _RELAY["relay_delivery_timeout_seconds"].default
    + PUBLISH_MARGIN_SECONDS
    + _CLOSE_SECONDS,
    # It waits for its poll, writes a batch, learns whether a lost COMMIT was done, and leaves the group.
    "history-consumer": _CONSUMER["consumer_poll_seconds"].default
    + 2 * _CONSUMER["consumer_transaction_timeout_seconds"].default
    + _CONSUMER["consumer_leave_seconds"].default,
}

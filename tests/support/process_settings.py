"""The settings that each process reads, and the port on which it listens by default."""

from common.settings import Settings
from history_consumer.settings import ConsumerSettings, HistoryApiSettings
from outbox_relay.settings import RelaySettings
from wallet_api.settings import WalletApiSettings

PROCESS_SETTINGS: dict[str, type[Settings]] = {
    "wallet-api": WalletApiSettings,
    "outbox-relay": RelaySettings,
    "history-consumer": ConsumerSettings,
    "history-api": HistoryApiSettings,
}

PORTS: dict[str, int] = {
    "wallet-api": WalletApiSettings.model_fields["wallet_api_port"].default,
    "outbox-relay": RelaySettings.model_fields["relay_ops_port"].default,
    "history-consumer": ConsumerSettings.model_fields["consumer_ops_port"].default,
    "history-api": HistoryApiSettings.model_fields["history_api_port"].default,
}

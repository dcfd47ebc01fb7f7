"""`walletctl relay`."""

import typer

from walletctl.console import load_settings

app = typer.Typer(help="The outbox relay.", no_args_is_help=True)


@app.command(epilog="Example:  DATABASE_URL=postgresql://… KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 walletctl relay run")
def run() -> None:
    """Publish outbox rows to Kafka until SIGTERM. Any number of relays may run at the same time.

    Settings come from the environment: DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC, RELAY_OPS_PORT, …
    """
    from common.worker import run_worker
    from outbox_relay.run import run as run_relay
    from outbox_relay.settings import RelaySettings

    run_worker(run_relay(load_settings(RelaySettings)))

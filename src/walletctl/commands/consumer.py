"""`walletctl consumer`."""

import typer

from walletctl.console import load_settings

app = typer.Typer(help="The history consumer.", no_args_is_help=True)


@app.command(
    epilog="Example:  DATABASE_URL=postgresql://… KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 walletctl consumer run"
)
def run() -> None:
    """Apply events to the history until SIGTERM. Any number of consumers may run at the same time.

    Settings come from the environment: DATABASE_URL or HISTORY_DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS,
    KAFKA_TOPIC, CONSUMER_GROUP, CONSUMER_OPS_PORT, …
    """
    from common.worker import run_worker
    from history_consumer.run import run as run_consumer
    from history_consumer.settings import ConsumerSettings

    run_worker(run_consumer(load_settings(ConsumerSettings)))

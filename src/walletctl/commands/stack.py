"""`walletctl stack`."""

import asyncio
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from walletctl.console import Exit, JsonOption, err, fail, print_json

if TYPE_CHECKING:
    from walletctl.stack.show import Progress
    from walletctl.stack.specs import StackOptions

app = typer.Typer(
    help="The local stack: a real PostgreSQL, a real Apache Kafka and the four services.", no_args_is_help=True
)


def _named(data_dir: Path) -> Path:
    from walletctl.stack import data

    with _one_line_errors():
        data.check_name(data_dir)
    return data_dir


DataDirOption = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="WALLET_STACK_DIR",
        help="The directory of data, logs and state. Stacks in other directories can run at the same time.",
        file_okay=False,
        resolve_path=True,
        callback=_named,
    ),
]
DEFAULT_DATA_DIR = Path(".wallet-stack")


@app.command(
    epilog="Examples:  walletctl stack up  ·  walletctl stack up --detach --relays 2 --consumers 2"
    "  ·  walletctl stack up --detach --ephemeral --data-dir /tmp/trial"
)
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run the stack in the background; return when it is ready.")
    ] = False,
    relays: Annotated[int, typer.Option(help="The number of outbox relays.", min=0, max=64)] = 1,
    consumers: Annotated[int, typer.Option(help="The number of history consumers.", min=0, max=64)] = 1,
    api_workers: Annotated[int, typer.Option(help="The number of wallet-api's worker processes.", min=1, max=64)] = 1,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Delete the data when the stack stops.")] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Start the stack and restart processes that end, until Ctrl-C or `walletctl stack down`.

    The services get their settings from your environment, such as KAFKA_TOPIC or RELAY_BATCH_ROWS. Other variables,
    such as PGSSLMODE or JAVA_TOOL_OPTIONS, are not passed on. WALLET_STACK_JAVA_OPTIONS has options for Kafka's JVM.
    The stack uses the usual ports if they are free: `walletctl stack env` prints the addresses.
    """
    from walletctl.stack.specs import StackOptions

    options = StackOptions(data_dir, relays, consumers, api_workers, ephemeral)
    with _one_line_errors():
        if detach:
            _up_detached(options)
        else:
            asyncio.run(_up(options))


@app.command(epilog="Example:  walletctl stack down --data-dir /tmp/trial")
def down(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Stop the stack, or the processes that a killed stack left. The data is kept, unless the stack was ephemeral."""
    from walletctl.stack import control

    with _one_line_errors(), err.status(f"stopping the stack on {escape(str(data_dir))}"):
        ran = control.stop(data_dir)
    result = "stopped the stack on" if ran else "no stack runs on"
    err.print(f"{result} {data_dir}", highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example:  walletctl stack status --json | jq '.processes[] | select(.state != \"ready\")'")
def status(as_json: JsonOption = False, data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Show the state of each process; exit 1 if one isn't ready, or no stack runs."""
    from walletctl.stack import control
    from walletctl.stack.errors import NotRunningError
    from walletctl.stack.show import print_status

    with _one_line_errors():
        try:
            state = asyncio.run(control.present_state(data_dir))
        except NotRunningError:
            if as_json:
                print_json({"processes": []})
            raise
    if as_json:
        print_json({"processes": [process.public() for process in state.processes]})
    else:
        print_status(state)
    if not state.ready:
        raise typer.Exit(Exit.FOUND_WRONG)


@app.command(
    epilog='Example:  eval "$(walletctl stack env)"; '
    'curl -H "Authorization: Bearer $WALLET_API_KEY" "$WALLET_API_URL/users/ada/wallets"'
)
def env(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Print `export` lines: the APIs' addresses, an API key, the database's URLs, the broker's address.

    The variables are WALLET_API_URL, HISTORY_API_URL, WALLET_API_KEY, DATABASE_URL, DATABASE_SUPERUSER_URL and
    KAFKA_BOOTSTRAP_SERVERS. The API key has all scopes. DATABASE_URL is that of the operator, who may run all commands
    but `db …`. The stack makes key and passwords, and only the owner of its files can read them.
    """
    from walletctl.stack import control

    with _one_line_errors():
        state = control.running_state(data_dir)
    for name, value in state.environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command(epilog="Example:  walletctl stack reset --yes --data-dir /tmp/trial")
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Delete the data, logs and state of a stopped stack, and the directory if nothing else is in it."""
    from walletctl.stack import data

    with _one_line_errors():
        found = data.owned_by_a_stack(data_dir)
        if not found:
            err.print(f"{data_dir} has no data of a stack", highlight=False, markup=False, soft_wrap=True)
            return
        if not yes:
            typer.confirm(f"Delete {', '.join(found)} in {data_dir}?", abort=True, err=True)
        data.reset(data_dir)
    err.print(f"deleted the data in {data_dir}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="Examples:  walletctl stack demo --json | jq .verify.ok   ·   "
    "docker compose run --rm -e WALLET_API_KEY walletctl stack demo --against-env"
)
def demo(
    against_env: Annotated[
        bool,
        typer.Option(
            "--against-env", help="Run on the services that the environment names, not on a stack of the demo's own."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on a temporary stack, with thousands of requests, and check what it promises.

    With --against-env, the settings come from the environment: WALLET_API_URL, HISTORY_API_URL and WALLET_API_KEY. With
    DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS, and what else `walletctl verify` reads, it verifies too. It leaves 40 new
    wallets with invented money behind: do not run it on a system with real money.

    Exit 1 if a check failed; the output names the check.
    """
    from walletctl.demo.demo import run_demo
    from walletctl.demo.pipelines import pipeline_of_environment, temporary_stack

    with _one_line_errors():
        code = run_demo(pipeline_of_environment() if against_env else temporary_stack(), as_json=as_json)
    raise typer.Exit(code)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn an error of the stack into one line, the end of the failed process's log, and an exit code."""
    from walletctl.stack.control import tail
    from walletctl.stack.errors import SetupError, StackError

    try:
        yield
    except StackError as error:
        lines = [str(error), *(f"  {line}" for line in tail(error.log_file))] if error.log_file else [str(error)]
        fail("\n".join(lines), Exit.USAGE if isinstance(error, SetupError) else Exit.FOUND_WRONG)


def _up_detached(options: "StackOptions") -> None:
    from walletctl.stack import control
    from walletctl.stack.show import Progress, print_next_steps, print_status

    arguments = [
        f"--relays={options.relays}",
        f"--consumers={options.consumers}",
        f"--api-workers={options.api_workers}",
        f"--data-dir={options.data_dir}",
        *(["--ephemeral"] if options.ephemeral else []),
    ]
    with Progress("starting") as progress:
        state = control.start_detached(options.data_dir, arguments, progress.seen)
    print_status(state)
    print_next_steps(options.data_dir, detached=True)


async def _up(options: "StackOptions") -> None:
    from walletctl.stack.show import Progress

    force = asyncio.Event()
    _stop_on_signals(force)
    with Progress("starting") as progress:
        try:
            await _run(options, progress, force)
        except asyncio.CancelledError:
            err.print(f"stopped the stack on {options.data_dir}", highlight=False, markup=False, soft_wrap=True)


async def _run(options: "StackOptions", progress: "Progress", force: asyncio.Event) -> None:
    from walletctl.stack.show import print_next_steps, print_status
    from walletctl.stack.supervisor import running_stack

    async with running_stack(options, progress.changed, force=force) as stack:
        progress.done()
        print_status(stack.state)
        print_next_steps(options.data_dir, detached=False)
        await stack.wait()


def _stop_on_signals(force: asyncio.Event) -> None:
    """Stop the stack in order at the first signal, kill it at the second."""
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1 or main is None:
            force.set()
            return
        err.print("stopping … (press Ctrl-C again to kill)", highlight=False)
        main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)

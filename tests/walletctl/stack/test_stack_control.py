import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.ports import free_port
from walletctl.stack.control import present_state
from walletctl.stack.errors import NotRunningError
from walletctl.stack.state import ProcessState, StackState, Status, stack_lock, write_state


async def test_a_process_that_was_ready_is_asked_whether_it_still_is(tmp_path: Path) -> None:
    replies = {"wallet-api": b"200 OK", "history-api": b"503 Service Unavailable"}
    servers = {name: await asyncio.start_server(_answering(reply), "127.0.0.1", 0) for name, reply in replies.items()}
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    urls |= {
        "outbox-relay-1": f"http://127.0.0.1:{free_port()}",
        "postgres": f"postgresql://postgres@127.0.0.1:{free_port()}/wallet",
        "kafka": f"127.0.0.1:{free_port()}",
    }
    processes = [ProcessState(name=name, state=Status.READY, url=url) for name, url in urls.items()]
    processes.append(ProcessState(name="history-consumer-1", state=Status.STARTING, url=urls["wallet-api"]))
    with stack_lock(tmp_path):
        write_state(tmp_path, StackState(supervisor_pid=os.getpid(), ephemeral=False, ports={}, processes=processes))
        state = await present_state(tmp_path)
    for server in servers.values():
        server.close()
    assert {process.name: process.state.value for process in state.processes} == {
        "wallet-api": "ready",
        "history-api": "unready",
        "outbox-relay-1": "unready",
        "postgres": "unready",
        "kafka": "unready",
        "history-consumer-1": "starting",
    }
    assert not state.ready
    with pytest.raises(NotRunningError):
        await present_state(tmp_path)


def _answering(reply: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"GET /ready " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + reply + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    return answer

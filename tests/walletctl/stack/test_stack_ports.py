import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from walletctl.stack.ports import FREE_PORTS, HOST, USUAL_PORTS, PortReservations, is_free


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with closing(PortReservations()) as reservations:
        return reservations.choose(["any"], {})["any"]


def test_a_name_without_a_usual_port_gets_a_free_one() -> None:
    with closing(PortReservations()) as reservations:
        chosen = reservations.choose(["outbox-relay-1", "outbox-relay-2"], {})
    assert len(set(chosen.values())) == 2
    assert set(chosen.values()) <= set(FREE_PORTS)


def test_the_port_of_last_time_comes_before_the_usual_one(free_port: int) -> None:
    with closing(PortReservations()) as reservations:
        assert reservations.choose(["postgres"], {"postgres": free_port}) == {"postgres": free_port}


def test_a_taken_port_is_not_chosen(taken_port: int) -> None:
    assert not is_free(taken_port)
    with closing(PortReservations()) as reservations:
        assert reservations.choose(["kafka"], {"kafka": taken_port})["kafka"] != taken_port


def test_two_stacks_that_start_at_once_choose_different_ports() -> None:
    with closing(PortReservations()) as first, closing(PortReservations()) as second:
        ours = first.choose(USUAL_PORTS, {})
        theirs = second.choose(USUAL_PORTS, ours)
    assert not set(ours.values()) & set(theirs.values())


def test_closed_reservations_can_be_had_again(free_port: int) -> None:
    for _ in range(2):
        with closing(PortReservations()) as reservations:
            assert reservations.choose(["any"], {"any": free_port}) == {"any": free_port}

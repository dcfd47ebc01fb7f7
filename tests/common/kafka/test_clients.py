from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from common.kafka import clients
from common.kafka.clients import ask_broker
from common.kafka.connection import KafkaConnection

ELECTIONS = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
]


class Broker:
    """Answers after so many errors."""

    def __init__(self, code: int, errors: int) -> None:
        self.code = code
        self.errors_left = errors
        self.asked = 0

    def __call__(self, _: AdminClient) -> dict[str, "Future[str]"]:
        self.asked += 1
        answer: Future[str] = Future()
        if self.errors_left:
            self.errors_left -= 1
            answer.set_exception(KafkaException(KafkaError(self.code)))
        else:
            answer.set_result("answer")
        return {"topic": answer}


@pytest.mark.parametrize("code", ELECTIONS)
async def test_a_question_is_repeated_while_a_leader_or_coordinator_is_elected(code: int) -> None:
    broker = Broker(code, errors=2)
    assert await ask_broker(KafkaConnection("127.0.0.1:1"), broker) == {"topic": "answer"}
    assert broker.asked == 3


async def test_an_election_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ELECTION_SECONDS_MAX", 0.1)
    broker = Broker(KafkaError.NOT_COORDINATOR, errors=1_000)
    with pytest.raises(KafkaException, match="NOT_COORDINATOR"):
        await ask_broker(KafkaConnection("127.0.0.1:1"), broker)
    assert broker.asked > 1


async def test_a_refusal_is_not_repeated() -> None:
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, errors=1)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        await ask_broker(KafkaConnection("127.0.0.1:1"), broker)
    assert broker.asked == 1

"""Single commands and batch requests share transactions, and neither waits for the other's end."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wallet_api.commands import Command, IdempotencyKey
from wallet_api.group_commit.command_queue import BATCH_OPERATIONS_MAX, CommandQueue, Submission

COMMANDS_MAX = 128
A_COMMAND = Command(path="/x", claim=None, traceparent=None, metadata={})


def a_submission(weight: int = 1, key: str | None = None) -> Submission[Command]:
    keys = [IdempotencyKey("", key)] if key else []
    loop = asyncio.new_event_loop()
    done = loop.create_future()
    loop.close()
    return Submission([A_COMMAND] * weight, keys, weight, done, 0.0, range(weight), [None] * weight)


def queue_with(*submissions: Submission[Command]) -> CommandQueue[Command]:
    queue: CommandQueue[Command] = CommandQueue()
    for submission in submissions:
        queue.of(submission.weight).add(submission)
    return queue


def weights(submissions: list[Submission[Command]]) -> list[int]:
    return [submission.weight for submission in submissions]


def test_single_commands_fill_a_batch_in_their_order() -> None:
    submissions = [a_submission() for _ in range(COMMANDS_MAX + 5)]
    queue = queue_with(*submissions)
    assert queue.next_batch(COMMANDS_MAX) == submissions[:COMMANDS_MAX]
    assert queue.next_batch(COMMANDS_MAX) == submissions[COMMANDS_MAX:]
    assert queue.next_batch(COMMANDS_MAX) == []


def test_a_batch_request_is_never_divided_and_one_always_fits() -> None:
    queue = queue_with(*(a_submission(100) for _ in range(3)))
    assert [weights(queue.next_batch(4)) for _ in range(4)] == [[100], [100], [100], []]


def test_neither_lane_keeps_the_other_waiting() -> None:
    """However many are in each."""
    queue = queue_with(*(a_submission() for _ in range(1000)), *(a_submission(100) for _ in range(20)))
    for _ in range(15):
        assert Counter(weights(queue.next_batch(COMMANDS_MAX))) == {1: COMMANDS_MAX // 2, 100: 1}


def test_a_few_operations_of_batch_requests_leave_the_rest_to_single_commands() -> None:
    queue = queue_with(*(a_submission() for _ in range(1000)), a_submission(3))
    assert Counter(weights(queue.next_batch(COMMANDS_MAX))) == {1: COMMANDS_MAX - 3, 3: 1}


def test_of_one_key_only_the_first_is_in_a_batch_and_the_next_goes_before_those_after_it() -> None:
    first, second, other = a_submission(key="k"), a_submission(key="k"), a_submission(key="l")
    queue = queue_with(first, second, other)
    later = a_submission()
    assert queue.next_batch(COMMANDS_MAX) == [first, other]
    queue.of(1).add(later)
    assert queue.next_batch(COMMANDS_MAX) == [second, later]


@given(st.lists(st.integers(1, BATCH_OPERATIONS_MAX)), st.integers(1, 300))
def test_each_submission_is_taken_once_and_a_lane_knows_its_weight(sizes: list[int], commands_max: int) -> None:
    queue = queue_with(*map(a_submission, sizes))
    taken: list[int] = []
    while batch := weights(queue.next_batch(commands_max)):
        taken += batch
        assert sum(batch) <= commands_max - commands_max // 2 + max(commands_max // 2, BATCH_OPERATIONS_MAX)
        left = sum(sizes) - sum(taken)
        assert queue.single.weight + queue.batched.weight == left
    assert sorted(taken) == sorted(sizes)

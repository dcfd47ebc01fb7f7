import pytest

from common.kafka.topic_settings import (
    TopicConfiguration,
    WrongSetting,
    needed_settings,
    settings_warning,
    wrong_settings,
)

MONTH_MS = 30 * 86_400_000


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("cleanup.policy", "compact", "delete"),
        ("cleanup.policy", "compact,delete", "delete"),
        ("retention.ms", "604800000", str(MONTH_MS)),
        ("retention.ms", "0", str(MONTH_MS)),
        ("retention.bytes", "1073741824", "-1"),
        ("unclean.leader.election.enable", "true", "false"),
        ("max.message.bytes", "1000", "1048588"),
    ],
)
def test_a_setting_that_may_lose_events_is_wrong(setting: str, value: str, wanted: str) -> None:
    found = TopicConfiguration({**needed_settings(MONTH_MS), setting: value}, 1)
    assert wrong_settings(found, MONTH_MS) == {setting: WrongSetting(value, wanted)}
    assert f"--add-config {setting}={wanted}" in settings_warning("events", wrong_settings(found, MONTH_MS))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "-1"),
        ("retention.ms", str(2 * MONTH_MS)),
        ("max.message.bytes", "10000000"),
        ("message.timestamp.type", "CreateTime"),
        ("min.insync.replicas", "1"),
    ],
)
def test_more_than_is_needed_is_right(setting: str, value: str) -> None:
    assert wrong_settings(TopicConfiguration({**needed_settings(MONTH_MS), setting: value}, 2), MONTH_MS) == {}


def test_where_events_are_kept_for_ever_every_retention_time_is_wrong() -> None:
    assert set(wrong_settings(TopicConfiguration(needed_settings(MONTH_MS), 1), -1)) == {"retention.ms"}


def test_two_of_three_replicas_must_acknowledge() -> None:
    settings = {**needed_settings(-1), "min.insync.replicas": "1"}
    assert wrong_settings(TopicConfiguration(settings, 3), -1) == {"min.insync.replicas": WrongSetting("1", "2")}

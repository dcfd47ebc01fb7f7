"""The rights that docs/kafka-security.md lists for each identity in Kafka."""

import re
from pathlib import Path

Row = tuple[str, str, str]
"""The identity (relay, consumer, operator), the resource (topic, group), and the operation: `DESCRIBE_CONFIGS`."""

_PAGE = (Path(__file__).parents[2] / "docs" / "kafka-security.md").read_text()
ACLS: list[Row] = re.findall(r"^\| (relay|consumer|operator) \| (topic|group) \| ([A-Z_]+) \|", _PAGE, re.MULTILINE)


def operation_of(name: str) -> str:
    """Return the page's name of an operation from that of Kafka's tools: `DescribeConfigs`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()

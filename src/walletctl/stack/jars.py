"""Jars of Apache Kafka and other programs, which jgo downloads into the user's Maven cache (`~/.m2/repository`).

As a program, `python -m walletctl.stack.jars ENDPOINT`, it prints the class path as JSON. In its own process, jgo's
warnings and its half second of imports don't reach the caller, and a long download can be stopped.
"""

import fcntl
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

from tenacity import retry, stop_after_attempt, wait_exponential

from walletctl.stack.environment import download_environment
from walletctl.stack.launch import launch, run_step

KAFKA_VERSION = "4.1.0"

# kafka-clients is named, because jgo resolves it to 3.8.0 otherwise, with which the broker fails.
ENDPOINT = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
        "org.apache.logging.log4j:log4j-core:2.24.3",
    )
)

DOWNLOAD_SECONDS_MAX = 600.0


def class_path(endpoint: str = ENDPOINT, title: str = "Apache Kafka") -> list[str]:
    """Return the jars' paths. Downloads missing ones: about 20 s the first time, 0.5 s later.

    Args:
        endpoint: `group:artifact:version`, several joined by `+`; the broker's by default.
        title: the program's name, for errors.

    Raises:
        StackError: a jar can't be downloaded.
    """
    command = [sys.executable, "-P", "-W", "ignore", "-m", "walletctl.stack.jars", endpoint]
    step = launch(command, on_parent_death=SIGKILL, env={**download_environment(), "PYTHONWARNINGS": "ignore"})
    answer = run_step(f"fetching {title}'s jars", step, timeout_seconds=DOWNLOAD_SECONDS_MAX)
    return [str(jar) for jar in json.loads(answer)]


@contextmanager
def _one_download_at_a_time(cache: Path) -> Iterator[None]:
    """Lock the cache: two stacks that start at the same time would write the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".walletctl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@retry(stop=stop_after_attempt(4), wait=wait_exponential(multiplier=1, max=8), reraise=True)
def _fetch(endpoint: str) -> list[str]:
    # Not `jgo.build`, which downloads a whole JDK 11 to tell modules from jars.
    import jgo

    jars = [artifact.resolve() for artifact in jgo.resolve(endpoint)]
    broken = [jar for jar in jars if not zipfile.is_zipfile(jar)]
    for jar in broken:
        # A download that was killed leaves part of a jar, which jgo would use for ever.
        jar.unlink()
    if broken:
        raise OSError(f"{broken[0].name} was incomplete")
    return [str(jar) for jar in jars]


def main() -> None:
    """Print the class path as a JSON list."""
    from jgo.config import GlobalSettings

    with _one_download_at_a_time(GlobalSettings.load().repo_cache):
        jars = _fetch(sys.argv[1])
    sys.stdout.write(json.dumps(jars))


if __name__ == "__main__":
    main()

"""Brokers that refuse a client: which errors say so, and what an operator does about each."""

from typing import Final, Literal, NamedTuple

from confluent_kafka import KafkaError
from prometheus_client import Counter

Reason = Literal["authentication", "tls", "authorization"]

refusals: Final = Counter(
    "kafka_refusals_total",
    "Times that a broker refused this process, by reason: authentication, tls, authorization.",
    ("reason",),
)

_AUTHENTICATION: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's public name
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
# librdkafka reports these with the code of a broker that is away: only the text tells them from it.
_ALERT: Final = "SSL alert number"
_PLAINTEXT_LISTENER: Final = "connecting to a PLAINTEXT broker listener?"


class Refusal(NamedTuple):
    """Why a broker refuses a client, and what an operator does about it."""

    reason: Reason
    remedy: str


def refusal_of(error: KafkaError) -> Refusal | None:
    """Return how the broker refuses the client, or None if the error says something else."""
    text = error.str()
    if "uthorization failed" in text:
        return Refusal("authorization", "grant it in Kafka's ACLs, as docs/kafka-security.md lists them")
    if error.code() in _AUTHENTICATION:
        return Refusal("authentication", _login_remedy(text))
    if error.code() == KafkaError._SSL or _ALERT in text or _PLAINTEXT_LISTENER in text:  # noqa: SLF001 - public name
        return Refusal("tls", _tls_remedy(text))
    return None


def is_login_refused(error: KafkaError) -> bool:
    """Whether the broker refuses the connection itself: a new client, with the files read again, may be accepted.

    A connection that ends before the TLS handshake doesn't count: a broker that stops ends connections, too.
    """
    refusal = refusal_of(error)
    return refusal is not None and refusal.reason != "authorization" and _PLAINTEXT_LISTENER not in error.str()


def explained(error: KafkaError) -> str:
    """Return the error's text on one line, with the remedy if a broker refuses."""
    text = " ".join(error.str().split())
    refusal = refusal_of(error)
    return text if refusal is None else f"{text} ({refusal.remedy})"


def count_refusal(error: KafkaError) -> None:
    """Count the error if a broker refuses."""
    if refusal := refusal_of(error):
        refusals.labels(refusal.reason).inc()


def _login_remedy(text: str) -> str:
    if "OAUTHBEARER" in text:
        return "correct KAFKA_SASL_OAUTHBEARER_…, or the token endpoint"
    if "supported mechanisms" in text:
        return "set KAFKA_SASL_MECHANISM or KAFKA_SECURITY_PROTOCOL as the listener has it"
    return "correct KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD, or the broker's user"


def _tls_remedy(text: str) -> str:
    if _PLAINTEXT_LISTENER in text:
        return "set KAFKA_SECURITY_PROTOCOL as the listener has it"
    if _ALERT in text:
        return "correct KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE: the broker wants another client certificate"
    if "verify failed" in text:
        return "correct KAFKA_SSL_CA_FILE, or the broker's certificate: it may have expired, or have another name"
    return "correct KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_…"

"""Which keys of a JWKS or of PEM may verify tokens, and for which algorithms."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from common.access.key_documents import ALGORITHMS, Unusable
from common.access.signing_keys import KEYS_MAX, SigningKeys, read_keys
from support.token_issuer import jwk, jwks, private_key, public_pem

RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def read(*keys: dict[str, Any]) -> set[tuple[str | None, str]]:
    """Return the ids and algorithms of the keys that count."""
    found = read_keys(jwks(*keys), ALGORITHMS)
    assert isinstance(found, SigningKeys)
    return set(found.keys)


def short_key() -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (jwk("first"), RSA_ALGORITHMS),
        (jwk("first", alg="RS256"), {"RS256"}),
        (jwk("first", alg="HS256"), set()),
        (jwk("first", alg="none"), set()),
        (jwk("first", alg="ES256"), set()),
        (jwk("first", alg=["RS256"]), set()),
        (jwk("first", use="enc"), set()),
        (jwk("first", use=None), set()),
        (jwk("first", key_ops=["verify"]), RSA_ALGORITHMS),
        (jwk("first", key_ops=["encrypt"]), set()),
        (jwk("first", key_ops="verify"), set()),
        (jwk("first", kid=1), set()),
        (jwk("first", kid="x" * 256), set()),
        (jwk("first", kid="x" * 255), RSA_ALGORITHMS),
        (jwk("first", kty=["RSA"]), set()),
        (jwk("first", n="AA"), set()),
        (jwk("first", n=None), set()),
        (jwk("first", e=17), set()),
        (jwk("curve", "ES256"), {"ES256"}),
        (jwk("curve", "ES384"), {"ES384"}),
        (jwk("curve", "ES256", crv="P-384"), set()),
        (jwk("curve", "ES256", crv="secp256k1"), set()),
        (jwk("curve", "ES256", x=jwk("curve", "ES256")["y"]), set()),
        (jwk("edwards", "EdDSA"), {"EdDSA"}),
        (jwk("edwards", "EdDSA", crv="X25519"), set()),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}, set()),
        (short_key(), set()),
        ({}, set()),
    ],
)
def test_a_key_counts_only_for_the_algorithms_of_its_type_curve_and_use(
    key: dict[str, Any], algorithms: set[str]
) -> None:
    assert {algorithm for _, algorithm in read(key)} == algorithms
    assert read(jwk("edwards", "EdDSA"), key) >= {("edwards", "EdDSA")}, "a bad key does not harm the others"


def test_only_the_algorithms_of_the_operator_count() -> None:
    found = read_keys(jwks(jwk("first"), jwk("curve", "ES256")), ["RS256"])
    assert isinstance(found, SigningKeys)
    assert set(found.keys) == {("first", "RS256")}


def test_no_private_key_is_kept() -> None:
    private = private_key("first")
    assert isinstance(private, rsa.RSAPrivateKey)
    made = RSAAlgorithm.to_jwk(private, as_dict=True)
    assert "d" in made
    found = read_keys(jwks(made), ["RS256"])
    assert isinstance(found, SigningKeys)
    assert all(isinstance(key.key, rsa.RSAPublicKey) for keys in found.keys.values() for key in keys)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "is neither"),
        (b"<html>", "is neither"),
        (b"\xff", "is neither"),
        (b'{"keys": [], "keys": []}', "is neither"),
        (b'{"keys": ' + b"[" * 5000, "is neither"),
        (b"[]", "is JSON without"),
        (b"{}", "is JSON without"),
        (b'{"keys": {}}', "is JSON without"),
        (jwks(*[jwk("first")] * (KEYS_MAX + 1)), f"has more than {KEYS_MAX} keys"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "has no PUBLIC KEY"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "has a public key that cannot"),
        (
            private_key("first").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + public_pem("first"),
            "has a private key",
        ),
    ],
)
def test_what_is_no_set_of_public_keys_is_told(document: bytes, reason: str) -> None:
    found = read_keys(document, ALGORITHMS)
    assert isinstance(found, Unusable)
    assert found.reason.startswith(reason)


def test_pem_may_have_several_keys_which_have_no_id() -> None:
    other = dsa.generate_private_key(1024).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    found = read_keys(b"\n" + public_pem("first") + other + public_pem("edwards", "EdDSA"), ["RS256", "EdDSA"])
    assert isinstance(found, SigningKeys)
    assert set(found.keys) == {(None, "RS256"), (None, "EdDSA")}


def test_a_token_without_an_id_may_be_of_any_key_of_its_algorithm() -> None:
    found = read_keys(jwks(jwk("first"), jwk("second"), jwk("curve", "ES256")), ALGORITHMS)
    assert isinstance(found, SigningKeys)
    assert [key.key_type for key in found.candidates(None, "RS256")] == ["RSA", "RSA"]
    assert found.candidates("curve", "RS256") == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"])
BASES = st.sampled_from([jwk("first"), jwk("curve", "ES256"), jwk("edwards", "EdDSA")])


@given(BASES, st.dictionaries(MEMBERS, JSON, max_size=3))
def test_no_member_of_a_jwks_raises(base: dict[str, Any], changes: dict[str, Any]) -> None:
    document = json.dumps({"keys": [{**base, **changes}]}).encode()
    assert isinstance(read_keys(document, ALGORITHMS), SigningKeys)


@given(st.binary())
def test_no_bytes_raise(document: bytes) -> None:
    read_keys(document, ALGORITHMS)
    read_keys(b"-----BEGIN PUBLIC KEY-----" + document + b"-----END PUBLIC KEY-----", ALGORITHMS)

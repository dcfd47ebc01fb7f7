import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wallet_api.app import create_app
from wallet_api.operations.catalogue import HOLD_OPERATIONS, OPERATIONS, TRANSACTION_OPERATIONS
from wallet_api.settings import WalletApiSettings

POSTS = [
    "/wallets",
    *(f"/wallets/{{wallet_id}}/{operation.name}" for operation in OPERATIONS),
    *(f"/holds/{{hold_id}}/{operation.name}" for operation in HOLD_OPERATIONS),
    *(f"/transactions/{{transaction_id}}/{operation.name}" for operation in TRANSACTION_OPERATIONS),
    "/batches",
]
CREATIONS = ["/wallets", "/wallets/{wallet_id}/holds", "/transactions/{transaction_id}/reverse"]
LIMITS = "/wallets/{wallet_id}/limits"
GETS = [
    "/wallets/{wallet_id}",
    "/wallets/{wallet_id}/transactions",
    "/wallets/{wallet_id}/holds",
    "/wallets/{wallet_id}/balance",
    "/wallets/{wallet_id}/statement",
    "/users/{user_id}/wallets",
    "/transactions",
    "/transactions/{transaction_id}",
    "/holds/{hold_id}",
    LIMITS,
]
BODIES = [*((path, "post") for path in POSTS), (LIMITS, "put")]
ROUTES = [*BODIES, *((path, "get") for path in GETS)]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_app(WalletApiSettings(auth="none", database_url="postgresql://nowhere/x", log_level="warning"))
    made: dict[str, Any] = json.loads(json.dumps(app.openapi(), allow_nan=False))
    return made


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Make a schema that stands by itself, with the document's components beside it."""
    assert isinstance(schema, dict)
    return {**schema, "components": document["components"]}


def schema_of(document: dict[str, Any], content: dict[str, Any]) -> Draft202012Validator:
    schema = resolved(document, content["schema"])
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def references_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return here.union(*(references_in(item) for item in value.values()))
    return set().union(*(references_in(item) for item in value)) if isinstance(value, list) else set()


def test_the_document_describes_exactly_the_routes(document: dict[str, Any]) -> None:
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == set(ROUTES)
    assert document["openapi"].startswith("3.1")


def test_the_credentials_are_a_bearer_token(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = {reference.rpartition("/")[2] for reference in references_in(document)}
    assert names
    assert names <= document["components"]["schemas"].keys()


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_documents_its_reply_and_its_problems(document: dict[str, Any], path: str, method: str) -> None:
    responses = document["paths"][path][method]["responses"]
    success = responses["201" if path in CREATIONS and method == "post" else "200"]
    schema_of(document, success["content"]["application/json"])
    refusals = {status for status in responses if status[0] in "45"}
    assert refusals >= {"400", "401", "403", "422", "429", "503"}
    (needed,) = document["paths"][path][method]["security"]
    assert len(needed["bearer"]) == (3 if path == "/batches" else 1)
    has_id = any(f"{{{name}}}" in path for name in ("wallet_id", "transaction_id", "hold_id"))
    assert ("404" in refusals) == (has_id or path == "/batches")
    assert ("406" in refusals) == (len(success["content"]) > 1)
    for status in refusals:
        content = responses[status]["content"]["application/problem+json"]
        schema_of(document, content).validate(content["example"])
        assert responses[status]["description"]


def test_links_lead_to_each_route_with_an_id_from_a_reply_that_has_it(document: dict[str, Any]) -> None:
    routes = {item["operationId"]: (path, item) for path, each in document["paths"].items() for item in each.values()}
    linked = set()
    for _, route in routes.values():
        for status, response in route["responses"].items():
            for link in response.get("links", {}).values():
                assert status[0] == "2"
                target, taken = routes[link["operationId"]]
                ((name, expression),) = link["parameters"].items()
                assert {item["name"] for item in taken["parameters"] if item["in"] == "path"} == {name}
                schema = response["content"]["application/json"]["schema"]
                for member in expression.removeprefix("$response.body#/").split("/"):
                    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"][member]
                assert "uuid" in json.dumps(schema)
                linked.add(target)
    assert linked == {path for path, _ in routes.values() if "_id}" in path and "user_id" not in path}


@pytest.mark.parametrize(("path", "method"), BODIES)
def test_every_body_has_a_schema_whose_examples_are_valid(document: dict[str, Any], path: str, method: str) -> None:
    body = document["paths"][path][method]["requestBody"]
    assert body["required"] is True
    content = body["content"]["application/json"]
    validator = schema_of(document, content)
    assert content["schema"]["additionalProperties"] is False
    properties = content["schema"]["properties"]
    example = {name: field["examples"][0] for name, field in properties.items() if field.get("examples")}
    assert example
    missing = set(content["schema"].get("required", [])) - example.keys()
    example |= dict.fromkeys(missing, "0198c2a5-0000-7000-8000-000000000001")
    validator.validate(example)
    assert not validator.is_valid({**example, "colour": "green"})


@pytest.mark.parametrize(("path", "method"), BODIES)
def test_every_post_and_put_documents_its_idempotency_key(document: dict[str, Any], path: str, method: str) -> None:
    names = {(item["in"], item["name"]) for item in document["paths"][path][method]["parameters"]}
    assert ("header", "Idempotency-Key") in names
    assert (("header", "If-Match") in names) == (path not in {"/wallets", "/batches"})


def test_a_batch_documents_each_operation_with_the_fields_of_its_route(document: dict[str, Any]) -> None:
    def body_of(path: str) -> dict[str, Any]:
        route = document["paths"][path]
        schema: dict[str, Any] = route["put" if path == LIMITS else "post"]["requestBody"]["content"][
            "application/json"
        ]["schema"]
        return schema

    kinds = body_of("/batches")["properties"]["operations"]["items"]["oneOf"]
    by_name = {kind["properties"]["op"]["const"]: kind for kind in kinds}
    for path in [*POSTS[1:-1], LIMITS]:
        kind = by_name.pop(path.rpartition("/")[2])
        id_field = path.split("{")[1].split("}")[0]
        own = body_of(path)
        assert kind["properties"].keys() == {*own["properties"], "op", id_field, "key", "if_match"}
        needed = {"op", id_field, "if_match"} if path == LIMITS else {"op", id_field}
        assert set(kind["required"]) == {*own.get("required", []), *needed}
        assert kind["additionalProperties"] is False
    assert not by_name
    assert "207" in document["paths"]["/batches"]["post"]["responses"]

"""README's tour sends a request to each route of both APIs."""

import re
from pathlib import Path

from fastapi import FastAPI

from history_consumer.read_api.app import create_app as create_history_api
from history_consumer.settings import HistoryApiSettings
from wallet_api.app import create_app as create_wallet_api
from wallet_api.settings import WalletApiSettings

README = Path(__file__).parents[2] / "README.md"
UNUSED = "postgresql://nobody@127.0.0.1:1/none"


def routes_of(api: FastAPI) -> set[tuple[str, str]]:
    """Return the method and the path of each documented route, `*` for each parameter."""
    return {
        (method.upper(), re.sub(r"{.*?}", "*", path))
        for path, operations in api.openapi()["paths"].items()
        for method in operations
    }


def requests_of_the_tour() -> set[tuple[str, str]]:
    """Return what the shell lines of the tour send, `*` for each variable and each user's id."""
    tour = README.read_text().split("## A tour")[1].split("\n## ")[0]
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", tour, re.DOTALL)).replace("\\\n", " ").splitlines()
    return {
        (method_of(line), re.sub(r"(?<=/)(\$\w+|(?<=users/)\w+)", "*", path))
        for line in lines
        for path in re.findall(r"(?:post \"?|\$(?:WALLET|HISTORY)_API_URL)(/[^\s\"?]+)", line)
    }


def method_of(line: str) -> str:
    if "-X PUT" in line:
        return "PUT"
    return "POST" if "post /" in line or 'post "/' in line or " -d " in line else "GET"


def test_the_tour_of_the_readme_uses_every_route() -> None:
    wallet_api = create_wallet_api(WalletApiSettings(database_url=UNUSED, auth="none"))
    history_api = create_history_api(HistoryApiSettings(history_database_url=UNUSED, auth="none"))
    assert routes_of(wallet_api) | routes_of(history_api) == requests_of_the_tour()

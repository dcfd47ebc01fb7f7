"""The API's documentation for people: Swagger UI from this server, with no asset from elsewhere."""

import html
from importlib.resources import files
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

DOCS_PATHS: Final = frozenset({"/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"})
OPENAPI_PATH: Final = "/openapi.json"

_ASSETS: Final = Path(str(files("fastapi_offline"))) / "static"
# Swagger UI styles its elements from its script. All else comes from this server.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = (
    'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true,'
    " presets: [SwaggerUIBundle.presets.apis], validatorUrl: null})\n"
)


def docs_routes(title: str) -> list[BaseRoute]:
    """Return the page `/docs` and its assets."""
    page = _PAGE.format(title=html.escape(title))

    async def docs(_: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def start(_: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    async def style(_: Request) -> Response:
        return FileResponse(_ASSETS / "swagger-ui.css")

    async def script(_: Request) -> Response:
        return FileResponse(_ASSETS / "swagger-ui-bundle.js")

    return [
        Route("/docs", docs),
        Route("/docs/start.js", start),
        Route("/docs/swagger-ui.css", style),
        Route("/docs/swagger-ui-bundle.js", script),
    ]

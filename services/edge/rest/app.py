"""The HTTP application: merchants' API, channels' callbacks, and the probe."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from services.edge.rest.door import Door


async def _answer_probe(_: Request) -> Response:
    return PlainTextResponse("ok")


def build_app(merchants: Door, channels: Door) -> Starlette:
    """Return the application; whatever is neither probe nor callback is the merchants'."""
    return Starlette(
        routes=[
            Route("/healthz", _answer_probe, methods=["GET"]),
            Route("/callbacks/{channel:path}", channels),
            Mount("/", app=merchants),
        ]
    )

"""The parties' HTTP side: their real paths, and `/payer/…` for whoever plays the payer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.sandbox.alipay.gateway import AlipayGateway
from services.sandbox.alipay.records import RefusedError
from services.sandbox.faults.conduct import Conduct, LineBrokenError
from services.sandbox.faults.plan import ALIPAY, UNIONPAY
from services.sandbox.unionpay.gateway import UnionpayGateway

BODY_BYTES_MAX: Final = 64 * 1024
"""No request of these protocols comes near this."""

_FORM: Final = "application/x-www-form-urlencoded"


class _BodyTooLargeError(Exception):
    pass


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise _BodyTooLargeError
        pieces.append(piece)
    return b"".join(pieces)


async def _form(request: Request) -> Mapping[str, str]:
    """Return query parameters and form fields together; merchants' programs use either."""
    text = (await _body(request)).decode(errors="replace")
    return {**request.query_params, **dict(parse_qsl(text, keep_blank_values=True))}


async def _too_large(_request: Request, _error: Exception) -> Response:
    return Response("body too large", status_code=413)


class Line(HttpToolsProtocol):
    """HTTP as ever, but whoever handles a request can break the connection that it came over."""

    def on_message_begin(self) -> None:
        """Hand the connection on with the request."""
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


async def _hang_up(request: Request, _error: Exception) -> Response:
    """Close the connection without a word."""
    request.state.transport.abort()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()  # goes nowhere


class Doors:
    """The handlers of every path."""

    def __init__(
        self, alipay: AlipayGateway, unionpay: UnionpayGateway | None, conduct: Conduct
    ) -> None:
        self._alipay = alipay
        self._unionpay = unionpay
        self._conduct = conduct

    async def alipay(self, request: Request) -> Response:
        """`/gateway.do`."""
        self._conduct.check_line(ALIPAY)
        body = await self._alipay.handle(await _form(request))
        return Response(body, media_type="application/json;charset=utf-8")

    async def unionpay_transact(self, request: Request) -> Response:
        """`/gateway/api/backTransReq.do`."""
        if self._unionpay is None:
            return Response(status_code=404)
        self._conduct.check_line(UNIONPAY)
        body = await self._unionpay.transact(await _form(request))
        return Response(body, media_type=_FORM)

    async def unionpay_query(self, request: Request) -> Response:
        """`/gateway/api/queryTrans.do`."""
        if self._unionpay is None:
            return Response(status_code=404)
        self._conduct.check_line(UNIONPAY)
        body = await self._unionpay.query(await _form(request))
        return Response(body, media_type=_FORM)

    async def payer_alipay(self, request: Request) -> Response:
        """`/payer/alipay/pay`: the person who scanned a code pays or refuses."""
        try:
            wish = orjson.loads(await _body(request))
            qr_code, outcome = wish["qr_code"], wish["outcome"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return JSONResponse({"error": "qr_code and outcome are needed"}, 400)
        if not isinstance(qr_code, str) or outcome not in ("pay", "refuse"):
            return JSONResponse({"error": "outcome is pay or refuse"}, 400)
        try:
            trade = await self._alipay.play_payer(qr_code, pays=outcome == "pay")
        except RefusedError as error:
            status = 404 if error.sub_code == "ACQ.TRADE_NOT_EXIST" else 409
            return JSONResponse({"error": error.sub_code}, status)
        return JSONResponse({"trade_no": trade.trade_no, "trade_status": trade.state})

    async def health(self, _request: Request) -> Response:
        """`/health`."""
        return Response("ok")

    def application(self) -> Starlette:
        """Return the routes."""
        return Starlette(
            routes=[
                Route("/gateway.do", self.alipay, methods=["GET", "POST"]),
                Route("/gateway/api/backTransReq.do", self.unionpay_transact, methods=["POST"]),
                Route("/gateway/api/queryTrans.do", self.unionpay_query, methods=["POST"]),
                Route("/payer/alipay/pay", self.payer_alipay, methods=["POST"]),
                Route("/health", self.health, methods=["GET"]),
            ],
            exception_handlers={_BodyTooLargeError: _too_large, LineBrokenError: _hang_up},
        )

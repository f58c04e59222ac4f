"""What the server answers with: `/livez` by itself, all else by the Flask application in a pool of threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final

from flask import Flask
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from api import auth, bodies
from api.metrics import counted
from api.routes.health import AliveBody
from api.server import plain
from api.server.bodies import Body, Bounds, Gone, Late, receive_body
from api.server.bridge import Bridge, environ, refuse
from api.server.connection import Deadlines
from api.server.room import Room, Spool
from shared.errors import FarmError
from shared.settings import Settings

_ALIVE: Final = AliveBody().model_dump_json().encode()


class Application:
    """The ASGI application of a farm."""

    def __init__(self, app: Flask, settings: Settings, deadlines: Deadlines) -> None:
        self._app = app
        self._settings = settings
        self._deadlines = deadlines
        self._pool = ThreadPoolExecutor(settings.api_threads, "request")
        self._room = Room(settings.max_spool_mb * 2**20)
        self._bridge = Bridge(app.wsgi_app, self._pool, self._room)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/livez" and scope["method"] in ("GET", "HEAD"):
            await self._livez(scope, send)
            return
        try:
            body = await receive_body(scope, receive, self._room, self._bounds(scope), self._deadlines)
        except Gone:
            return
        except Late as error:
            await refuse(send, HTTPStatus.REQUEST_TIMEOUT, str(error))
            return
        except FarmError as error:
            await refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        try:
            await self._bridge.answer(scope, body, receive, send)
        finally:
            body.close()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _livez(self, scope: HTTPScope, send: ASGISendCallable) -> None:
        """Answer without a thread: it must be heard however busy those are."""
        headers = plain.headers("application/json", len(_ALIVE))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ALIVE, "more_body": False})
        counted(self._app, "/livez", scope["method"], 200, 0)

    def _bounds(self, scope: HTTPScope) -> Bounds:
        async def is_known() -> bool:
            asked = environ(scope, Body(Spool(self._room), 0))
            return await asyncio.get_running_loop().run_in_executor(self._pool, auth.is_known, self._app, asked)

        return Bounds(bodies.most(self._settings, scope["path"]), is_known)

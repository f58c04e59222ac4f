"""What the server answers with: `/livez` by itself, all else by the Flask application in a pool of threads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

from flask import Flask
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from api.http import body as bodies
from api.metrics import counted
from api.routes.health import AliveBody
from api.security import auth, proxies
from api.security.key_guesses import place
from api.server import plain
from api.server.bodies import BodyTooSlow, Bounds, ClientGone, receive_body
from api.server.bridge import Bridge, Environ, environ_of, refuse
from api.server.connection import Deadlines
from api.server.room import Room, Spool
from api.server.threads import Threads
from shared.errors import FarmError
from shared.settings import Settings

_ALIVE: Final = AliveBody().model_dump_json().encode()


class Application:
    """The ASGI application of a farm."""

    def __init__(self, app: Flask, settings: Settings, deadlines: Deadlines) -> None:
        self._app = app
        self._settings = settings
        self._deadlines = deadlines
        self._threads = Threads(settings.api_threads)
        whole = settings.max_spool_mb * 2**20
        is_alone = settings.is_loopback and not settings.api_keys  # nobody's address is another owner's
        self._room = Room(whole, whole if is_alone else whole // 2)
        self._bridge = Bridge(app.wsgi_app, self._threads, self._room)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/livez" and scope["method"] in ("GET", "HEAD"):
            await self._livez(scope, send)
            return
        environ = environ_of(scope)
        proxies.unwrap(environ, self._settings.proxies)
        spool = Spool(self._room, str(place(environ["REMOTE_ADDR"])), is_body=True)
        try:
            await self._answer(scope, environ, spool, receive, send)
        except asyncio.CancelledError:  # the server has stopped, and waits no longer
            with suppress(RuntimeError):  # an answer has begun
                await refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, "The farm is stopping: try again later.")
        finally:
            spool.close()

    async def _answer(
        self,
        scope: HTTPScope,
        environ: Environ,
        spool: Spool,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        try:
            body = await receive_body(scope, receive, spool, self._bounds(scope, environ), self._deadlines)
        except ClientGone:
            return
        except BodyTooSlow as error:
            await refuse(send, HTTPStatus.REQUEST_TIMEOUT, str(error))
        except FarmError as error:
            await refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            await self._bridge.answer(environ, body, receive, send)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.close()

    async def _livez(self, scope: HTTPScope, send: ASGISendCallable) -> None:
        """Answer without a thread: it must be heard however busy those are."""
        headers = plain.headers("application/json", len(_ALIVE))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ALIVE, "more_body": False})
        counted(self._app, "/livez", scope["method"], 200, 0)

    def _bounds(self, scope: HTTPScope, environ: Environ) -> Bounds:
        async def is_known() -> bool:
            return await self._threads.run(partial(auth.is_known, self._app, environ))

        return Bounds(bodies.most(self._settings, scope["path"]), is_known)

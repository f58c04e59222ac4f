"""A bare endpoint of jobs: what one writes first with Flask and SQLAlchemy, behind the server of the farm's API.

It checks a body, writes a job with its images, and reads them again: no keys, no queue, no events, no explanations.
As a command it serves the socket that is passed on to it, with its tables in the farm's database.
"""

from __future__ import annotations

import argparse
import socket
from datetime import UTC, datetime
from typing import Any, Final, cast

import uvicorn
from flask import Flask, Response, abort, jsonify, request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from api.metrics import COUNTING
from api.server.application import Application
from api.server.connection import Deadlines
from api.server.connections import Connections
from shared.settings import Settings, load

_DEADLINES: Final = Deadlines(10, 30, 600)


class _Base(DeclarativeBase):
    pass


class Job(_Base):
    """A job and its parameters."""

    __tablename__ = "bare_jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    state: Mapped[str]
    prompt: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    steps: Mapped[int]
    cfg_scale: Mapped[float]
    seed: Mapped[int]
    created_at: Mapped[datetime]
    images: Mapped[list[Image]] = relationship(order_by="Image.index")


class Image(_Base):
    """One picture of a job."""

    __tablename__ = "bare_images"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id), index=True)
    index: Mapped[int]
    state: Mapped[str]
    seed: Mapped[int]
    progress: Mapped[float] = mapped_column(default=0.0)


class JobRequest(BaseModel):
    """What a client sends."""

    prompt: str = Field(max_length=10_000)
    width: int = Field(512, ge=64, le=2048, multiple_of=8)
    height: int = Field(512, ge=64, le=2048, multiple_of=8)
    steps: int = Field(20, ge=1, le=150)
    cfg_scale: float = Field(7.0, ge=0, le=30)
    seed: int = Field(0, ge=0)
    count: int = Field(1, ge=1, le=64)


def create_app(sessions: sessionmaker[Session]) -> Flask:
    """Return the application."""
    app = Flask(__name__)
    app.extensions[COUNTING] = lambda *_: None  # the server counts what it answers itself

    @app.post("/api/v1/jobs")
    def submit() -> tuple[Response, int]:
        try:
            wanted = JobRequest.model_validate(request.get_json())
        except ValidationError as error:
            abort(422, str(error))
        values = wanted.model_dump(exclude={"count"})
        job = Job(owner="ann", state="queued", created_at=datetime.now(UTC).replace(tzinfo=None), **values)
        job.images = [
            Image(index=index, state="queued", seed=wanted.seed + index, progress=0.0) for index in range(wanted.count)
        ]
        with sessions.begin() as session:
            session.add(job)
            session.flush()
            return jsonify(_body(job)), 202

    @app.get("/api/v1/jobs/<int:job_id>")
    def look(job_id: int) -> Response:
        with sessions() as session:
            job = session.get(Job, job_id) or abort(404)
            return jsonify(_body(job))

    @app.post("/api/v1/jobs/<int:job_id>/cancel")
    def cancel(job_id: int) -> Response:
        with sessions.begin() as session:
            job = session.get(Job, job_id) or abort(404)
            job.state = "cancelled"
            for image in job.images:
                image.state = "cancelled"
            return jsonify(_body(job))

    return app


def _body(job: Job) -> dict[str, Any]:
    parameters = ("prompt", "width", "height", "steps", "cfg_scale", "seed")
    return {
        "id": job.id,
        "owner": job.owner,
        "state": job.state,
        "created_at": job.created_at.isoformat(),
        "params": {name: getattr(job, name) for name in parameters},
        "images": [
            {"index": image.index, "state": image.state, "seed": image.seed, "progress": image.progress}
            for image in job.images
        ],
    }


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve the endpoint on `listener` until the process is told to stop."""
    engine = create_engine(settings.database, pool_size=settings.api_threads)
    _Base.metadata.create_all(engine)
    application = Application(create_app(sessionmaker(engine)), settings, _DEADLINES)
    config = uvicorn.Config(
        cast("Any", application),
        http=cast("Any", Connections(_DEADLINES, settings.max_connections).make),
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run([listener])


def main() -> None:
    """Serve the socket that the parent process passed on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    serve(load(), socket.socket(fileno=parser.parse_args().fd))


if __name__ == "__main__":
    main()

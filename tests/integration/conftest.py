"""The API as a test asks it: the real application on the test's own database and Redis, without a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.services import EXTENSION, Services
from shared.settings import Settings


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The application of a farm without keys."""
    made = create_app(settings)
    yield made
    made.extensions[EXTENSION].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Asks the application as a program on this machine would."""
    return app.test_client()


@pytest.fixture
def services(app: Flask) -> Services:
    """What the application works with."""
    return app.extensions[EXTENSION]

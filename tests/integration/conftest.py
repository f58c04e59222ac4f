"""The API as a test asks it: the real application on the test's own database and Redis, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing import Rule

from api import background_polls
from api.app import create_app
from api.services import EXTENSION, Services
from shared.db.sessions import Sessions
from shared.errors import Refused
from shared.media.decode import PictureReader
from shared.settings import Limits, Settings
from tests.support.applications import application

if TYPE_CHECKING:
    from worker.render.engine_card import EngineCard


class CompiledTemplates(BytecodeCache):
    """Templates that any application of this run has compiled."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], object] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._compiled.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._compiled[bucket.key, bucket.checksum] = bucket.code


@pytest.fixture(autouse=True, scope="session")
def _templates_are_compiled_once() -> None:
    """Every test has an application of its own, and to compile the form's templates takes longer than most tests."""
    Flask.jinja_options = {"bytecode_cache": CompiledTemplates()}


@pytest.fixture(autouse=True, scope="session")
def _polls_are_waited_for() -> Iterator[None]:
    """An application that is closed waits a second for its polls; on a busy machine one would leave its connection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background_polls, "_LAST_SECONDS", 30.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _routes_are_compiled_once() -> Iterator[None]:
    """Most of the time that an application takes to be made goes into its routes, which are those of all others."""
    compile_route = Rule.compile
    compiled: dict[tuple[object, ...], dict[str, Any]] = {}

    def compile_once(rule: Rule) -> None:
        converters = frozenset(rule.map.converters.items())
        what = (rule.rule, rule.host, rule.subdomain, rule.merge_slashes, repr(rule.defaults), converters)
        if what not in compiled:
            compile_route(rule)
            compiled[what] = {name: vars(rule)[name] for name in ("_parts", "_trace", "_converters", "arguments")}
            compiled[what] |= {name: getattr(rule, name).__func__ for name in ("_build", "_build_unknown")}
        made = compiled[what]
        rule._parts, rule._trace, rule._converters = made["_parts"], made["_trace"], made["_converters"]
        rule.arguments = set(made["arguments"])
        rule._build, rule._build_unknown = (made[name].__get__(rule) for name in ("_build", "_build_unknown"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "compile", compile_once)
        yield


class StandingReader(PictureReader):
    """Reads the pictures of all applications of this run, and outlives each of them."""

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True, scope="session")
def _pictures_are_read_by_the_same_processes() -> Iterator[None]:
    """A decoder takes longer to start than most tests of the API, and keeps nothing of a picture."""

    @cache
    def standing(limits: Limits, is_shared: bool) -> StandingReader:  # noqa: FBT001 - a key
        return StandingReader(limits, is_shared=lambda: is_shared)

    readers: set[StandingReader] = set()

    def reader(limits: Limits, *, is_shared: Callable[[], bool]) -> StandingReader:
        readers.add(found := standing(limits, is_shared()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.services.PictureReader", reader)
        yield
    for found in readers:
        super(StandingReader, found).close()


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The application of a farm without keys."""
    made = create_app(settings)
    yield made
    made.extensions[EXTENSION].close()


@pytest.fixture(scope="module")
def standing_app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An application that all tests of a module share: for those to which it is the same what others left behind.

    It has the checkpoint `demo`. A module that wants it makes its own `app` of it.
    """
    with application(home, tmp_path_factory.mktemp("farm"), port=0) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Asks the application as a program on this machine would."""
    return app.test_client()


@pytest.fixture
def services(app: Flask) -> Services:
    """What the application works with."""
    return app.extensions[EXTENSION]


@pytest.fixture
def refusals(admit):
    """What an object is refused for by the module's own `admit`: field -> (message, accepted)."""

    def ask(given, **options):
        with pytest.raises(Refused) as caught:
            admit(given, **options)
        return {field.field: (field.message, field.accepted) for field in caught.value.fields}

    return ask


@pytest.fixture
def card(settings: Settings, sessions: Sessions) -> Iterator[EngineCard]:
    """The real card of a worker on the CPU."""
    from worker.render.engine_card import EngineCard  # noqa: PLC0415 - imports PyTorch, which most tests do without
    from worker.supervisor.gpus import Address  # noqa: PLC0415 - as above

    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
    yield card
    card.stop()

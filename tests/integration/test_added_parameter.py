"""A parameter's facts stand once: fields that are added to the model appear wherever parameters do, and reach the job.

The model is replaced before anything is imported that derives from it, so the process has nothing but the new fields.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import CheckpointFactory

MODEL = """
from typing import Annotated, Literal
from pydantic import Field
from shared.params import facts, fields, groups, img2img, render
from shared.params.facts import Fact, Key, Option, Takes
from shared.models import model_set

class ModelSet(model_set.ModelSet):
    enlarge: model_set.Sha256 | None = None

model_set.ModelSet = ModelSet
SIGN = True
ROLE = "enlarge"

class Glow(fields.Parameters):
    colour: Annotated[fields.Text, Fact("Colour of the glow")]
    strength: Annotated[fields.Share, Fact("How strong the glow is")] = 1.0

class Mask(img2img.Mask):
    feather: Annotated[
        fields.Share,
        Fact("How feathery the mask is", option=Option("--feather"), keys=(Key("Mask feather"),)),
    ] = 0.0

class Img2Img(img2img.Img2Img):
    fade: Annotated[fields.Share, Fact("How much fades", option=Option("--fade"), keys=(Key("Fade"),))] = 0.0
    mask: Annotated[Mask | None, Fact("The mask")] = None

class Hires(groups.Hires):
    shine: Annotated[
        fields.Share,
        Fact("How much it shines", label="Shine", slider=(0, 1, 0.1), option=Option("--shine"), keys=(Key("Shine"),)),
    ] = 0.0

class Upscale(fields.Parameters):
    factor: Annotated[
        int,
        Field(ge=1, le=8),
        Fact("How much larger", option=Option("--factor"), keys=(Key("Factor", is_always=True, is_sign=SIGN),)),
    ] = 2
    checkpoint: Annotated[
        fields.CheckpointName,
        Takes("checkpoint", role=ROLE),
        Fact("Upscaling checkpoint", means={"": "the first pass's"}, keys=(Key("Enlarged by"),)),
    ] = ""
    grain: Annotated[fields.Share, Fact("How grainy", option=Option("--grain"), keys=(Key("Grain"),))] = 0.0

class RenderParams(render.RenderParams):
    mood: Annotated[
        Literal["calm", "wild"],
        Fact("What it feels like", label="Mood of the picture", group=facts.EVERYDAY, labels={"wild": "Untamed"},
             option=Option("--mood"), keys=(Key("Mood"),)),
    ] = "calm"
    depth: Annotated[
        int,
        Field(ge=0, le=9),
        Fact("How deep it goes", means={0: "flat"}, group=facts.OUTPUT, option=Option("--depth"), keys=(Key("Depth"),)),
    ] = 0
    folds: Annotated[
        Literal[1, 2, 4],
        Fact("How often it folds", group=facts.OUTPUT, option=Option("--folds"), keys=(Key("Folds"),)),
    ] = 1
    frame: Annotated[
        bool,
        Fact("Draw a frame", group=facts.OUTPUT, option=Option("--no-frame", sets=False), keys=(Key("Frame"),)),
    ] = True
    tags: Annotated[
        tuple[fields.Text, ...],
        Field(strict=False),
        Fact("Words about it", group=facts.OUTPUT, option=Option("--tag"), keys=(Key("Tags"),)),
    ] = ()
    glow: Annotated[
        tuple[Glow, ...],
        Field(strict=False),
        Fact("Glows", group=facts.OUTPUT, keys=(Key("Glows"),)),
    ] = ()
    enlarge: Annotated[Upscale | None, Fact("A larger picture", label="Enlarge it", group=facts.OUTPUT)] = None
    hires: Annotated[Hires | None, Fact("A second pass", label="Render a second pass", group=facts.HIRES)] = None
    img2img: Annotated[Img2Img | None, Fact("A picture to start from", group=facts.IMG2IMG)] = None

render.RenderParams = RenderParams

from shared.admission import pairing  # reads the fields of the class above

pairing.ORDER = (*pairing.ORDER, "enlarge.checkpoint")
"""
ADDED = (
    *("mood", "depth", "folds", "frame", "tags", "hires.shine", "img2img.fade", "img2img.mask.feather"),
    *("enlarge", "enlarge.factor", "enlarge.grain"),
)
PARAMS = {
    "prompt": "sea", "width": 64, "height": 64, "seed": 7, "checkpoint": "demo [0123456789]",
    "mood": "wild", "depth": 3, "folds": 4, "frame": False, "tags": ["new"],
    "glow": [{"colour": "red, blue", "strength": 0.5}, {"colour": "green"}],
    "hires": {"shine": 0.25, "upscaler": "Lanczos"},
}  # fmt: skip
COMMAND = (
    *("render", "sea", "--mood", "wild", "--no-frame", "--folds", "2", "--depth", "3", "--tag", "new", "--tag", "red"),
    *("--shine", "0.25", "--fade", "0.5", "--feather", "0.75"),
    *("--param", "glow.0.colour=red", "--param", "glow.1.strength=0.5"),
)


def output(script: str, environ: dict[str, str] | None = None, *, model: str = MODEL, **given: object) -> Any:
    """Return what a script prints as JSON, in a process whose model has the added fields; it gets `given`."""
    whole = f"{model}\nimport json, sys\ngiven = json.loads(sys.argv[1])\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", whole, json.dumps(given)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """The added fields in pictures, in the documentation and on the command line: one process, without a farm."""
    script = """
from shared.infotext.reader import read
from shared.infotext.writer import text
written = text(RenderParams.model_validate(given["params"]), version="1")
groups = [given["params"] | more for more in ({}, {"enlarge": {}}, {"enlarge": {"grain": 0.5}})]
groups = [read(text(RenderParams.model_validate(one), version="1")) for one in groups]

from tools.parameter_docs import page
from shared.params.table import parameters
documented = page("prose", parameters(), {})

from typer.testing import CliRunner
from cli import render
from cli.main import app
asked = {}
render.render = lambda settings, params, pictures, out, **how: asked.update(params) or 0
help = CliRunner().invoke(app, ["render", "--help"], terminal_width=110).output
answer = CliRunner().invoke(app, given["command"])

print(json.dumps({
    "written": [written, read(written)], "groups": groups, "documented": documented,
    "help": help, "asked": asked, "status": answer.exit_code, "output": answer.output,
}))
"""
    return output(script, params=PARAMS, command=COMMAND)


def test_it_is_written_into_pictures_and_read_back(told):
    written, (params, left_out, *_) = told["written"]
    assert written.endswith(
        r"""Mood: wild, Shine: 0.25, Depth: 3, Folds: 4, Frame: False, Tags: "[\"new\"]", """
        r"""Glows: "[{\"colour\": \"red, blue\", \"strength\": 0.5}, """
        r"""{\"colour\": \"green\"}]", Version: stepfarm 1"""
    )
    assert left_out == []
    assert {name: params[name] for name in ("mood", "depth", "folds", "frame", "tags", "glow")} == {
        name: PARAMS[name] for name in ("mood", "depth", "folds", "frame", "tags", "glow")
    }
    assert params["hires"]["shine"] == 0.25


def test_an_optional_group_of_defaults_is_written_and_read_back_where_it_was_used(told):
    found = told["groups"]
    assert [params.get("enlarge") for params, *_ in found] == [None, {"factor": 2}, {"factor": 2, "grain": 0.5}]
    assert [left_out for _, left_out, *_ in found] == [[], [], []]


def test_an_optional_group_without_a_sign_is_refused_at_import():
    script = """
try:
    import shared.infotext.keys
except TypeError as error:
    print(json.dumps(str(error)))
"""
    refusal = output(script, model=MODEL.replace("SIGN = True", "SIGN = False"))
    assert refusal == "enlarge: an optional group needs a key that is always written and is a sign of it"


def test_a_checkpoint_without_a_role_is_refused_at_import():
    script = """
try:
    import shared.admission.named_models
except TypeError as error:
    print(json.dumps(str(error)))
"""
    refusal = output(script, model=MODEL.replace('ROLE = "enlarge"', 'ROLE = ""'))
    assert refusal == "enlarge.checkpoint: a field that names a model file needs a role that ModelSet has"


def test_it_is_documented(told):
    rows = told["documented"].splitlines()
    assert '| `mood` | `"calm"` | calm or wild | What it feels like. | `--mood` | `Mood` |' in rows
    assert "| `depth` | `0` | a whole number from 0 to 9 | How deep it goes; 0: flat. | `--depth` | `Depth` |" in rows
    assert "| `hires.shine` | `0.0` | a number from 0 to 1 | How much it shines. | `--shine` | `Shine` |" in rows
    assert "| `glow` | `[]` | see below | Glows. |  | `Glows` |" in rows
    assert "| `glow.strength` | `1.0` | a number from 0 to 1 | How strong the glow is. |  |  |" in rows


def test_it_is_an_option_of_the_command_line(told):
    assert told["status"] == 0, told["output"]
    assert told["asked"] == {
        "prompt": "sea", "mood": "wild", "depth": 3, "folds": 2, "frame": False,
        "tags": ["new", "red"], "hires": {"shine": 0.25},
        "img2img": {"fade": 0.5, "mask": {"feather": 0.75}}, "glow": [{"colour": "red"}, {"strength": 0.5}],
    }  # fmt: skip


def test_it_is_in_the_help_of_the_command_line(told):
    lines = [line.strip() for line in told["help"].splitlines()]
    assert any(line.startswith("--mood") and line.endswith("What it feels like: calm or wild.") for line in lines)
    assert any(line.startswith("--depth") and line.endswith("How deep it goes; 0: flat (0 to 9).") for line in lines)


def test_it_is_on_the_form_and_reaches_the_job(environ: dict[str, str], checkpoint_factory: CheckpointFactory):
    """A checkpoint with a role is among the models of its job."""
    checkpoint_factory("demo", native_size=64)
    larger = checkpoint_factory("larger", native_size=64, sha256="e" * 64)
    script = """
from api.app import create_app
from shared.settings import load
from werkzeug.datastructures import MultiDict
from api.pages.form_data import read, typed
from shared.admission.named_models import NamedModels
from shared.db.sessions import connect_once, sessions, transact
from shared.models.catalogue import Catalogue
from tests.support.browsing import look, page, send
settings = load()
client = create_app(settings).test_client()
catalogue = transact(sessions(connect_once(settings.database_url)), Catalogue.read)
models = NamedModels.found(
    catalogue, RenderParams(checkpoint="demo", enlarge=Upscale(checkpoint="larger")), settings.limits
).models
form = look(client, "/")
answer = send(client, "/jobs", **given["typed"])
refused = send(client, "/jobs", mood="dull", depth="10", hires="on", **{"hires.shine": "2", "glow.0.strength": "2"})
job = answer.location.rpartition("/")[2] if answer.status_code == 303 else ""
print(json.dumps({
    "markup": form.markup, "refused": refused.get_data(as_text=True), "failed": "" if job else page(answer).text,
    "params": client.get(f"/api/v1/jobs/{job}").get_json().get("params"), "job": client.get(f"/jobs/{job}").text,
    "again": client.get(f"/?from={job}").text,
    "enlarged": [read(MultiDict(one)).get("enlarge") for one in ({"enlarge.grain": "1"}, {"enlarge": "on"},
                 {"enlarge": "on", "enlarge.grain": "0.5"})],
    "again_enlarged": typed(RenderParams(enlarge=Upscale()).model_dump())["enlarge"],
    "models": [models.to_stored()["enlarge"], list(models.checkpoints)[1:]],
    "schema": client.get("/openapi.json").get_json()["components"]["schemas"],
}))
"""
    typed = {
        "prompt": "sea",
        "mood": "wild",
        "depth": "3",
        "folds": "4",
        "frame": "no",
        "glow.0.colour": "",
        "glow.0.strength": "1",
        "glow.1.colour": "red",
        "glow.1.strength": "0.5",
        "glow.99999999.colour": "x",
        "tags": ["new", " ", "red"],
        "hires": "on",
        "hires.shine": "0.25",
    }
    shown = output(script, environ, typed=typed)
    assert shown["failed"] == ""
    assert shown["models"] == [larger.sha256, [larger.sha256]]
    for name in ADDED:
        assert shown["markup"].count(f' name="{name}"') == 1, name
    assert "Mood of the picture" in shown["markup"]
    assert '<option value="wild">Untamed</option>' in shown["markup"]
    assert 'data-slides="0 1 0.1"' in shown["markup"]
    assert "How deep it goes; empty: flat." in shown["markup"]
    assert shown["params"] | {"mood": "wild", "depth": 3, "folds": 4, "frame": False} == shown["params"]
    assert shown["params"]["hires"]["shine"] == 0.25
    assert "<dt>Mood of the picture</dt><dd>Untamed</dd>" in shown["job"]
    assert "<dt>Depth</dt><dd>3</dd>" in shown["job"]
    assert shown["params"]["enlarge"] is None
    assert shown["enlarged"] == [None, {}, {"grain": 0.5}]
    assert shown["again_enlarged"] == "on"
    assert shown["params"]["tags"] == ["new", "red"]
    assert shown["params"]["glow"] == [{"colour": "red", "strength": 0.5}]
    assert "<dt>Glow 1: Colour</dt><dd>red</dd>" in shown["job"]
    assert 'name="glow.0.strength" data-default="1"' in shown["markup"]
    assert "<legend>Glow 1</legend>" in shown["markup"]
    assert 'name="glow.1.colour"' in shown["again"]
    assert 'name="glow.2.colour"' not in shown["again"]
    assert 'id="glow.0.strength-error"' in shown["refused"]
    assert "<dt>Tags</dt><dd>new, red</dd>" in shown["job"]
    assert [f'value="{tag}"' in shown["again"] for tag in ("new", "red")] == [True, True]
    assert '<option value="wild" selected>Untamed</option>' in shown["again"]
    assert [f'id="{name}-error"' in shown["refused"] for name in ("mood", "depth", "hires.shine")] == [True] * 3
    assert shown["schema"]["NewJob"]["properties"]["depth"]["description"] == "How deep it goes; 0: flat."

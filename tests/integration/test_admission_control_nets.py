"""Control nets of a job: each names a file that steers its checkpoints, or is refused with what would be right."""

from __future__ import annotations

import pytest

from shared.admission.salvage import fit
from shared.db.sessions import transact
from shared.errors import Refused
from shared.media import uploads
from shared.models.model_set import ModelSet
from shared.settings import Limits
from tests.conftest import catalogue_of_its_own
from tests.support.admissions import admitted

SEA, XL, TWO, SMALL = (digit * 64 for digit in "1234")
CANNY, DEPTH, XL_CANNY, UNION, NARROW = (letter * 64 for letter in "abcde")
PICTURE, MASK = "5" * 64, "6" * 64


@pytest.fixture(scope="module")
def sessions(home):
    """A farm with checkpoints, control nets and uploads; no test changes it."""
    with catalogue_of_its_own(home) as (factory, make):
        make("sea", sha256=SEA, details={"width": 320, "context": 768})
        make("xl", sha256=XL, architecture="sdxl", details={"width": 320, "context": 2048})
        make("two", sha256=TWO, architecture="sd2", details={"width": 320, "context": 1024})
        make("small", sha256=SMALL, details={"width": 64, "context": 128})

        def net(name: str, sha256: str, architecture: str = "sd1", **details: object):
            path = f"ControlNet/{name}.pth"
            make(name, path=path, sha256=sha256, kind="controlnet", architecture=architecture, details=details)

        net("canny", CANNY, width=320, context=768)
        net("depth", DEPTH, width=320, context=768)
        net("xl-canny", XL_CANNY, "sdxl", width=320)
        net("union", UNION, "sdxl", width=320, context=2048, types=6)
        net("narrow", NARROW, width=64, context=128)
        yield factory


@pytest.fixture
def admit(sessions, monkeypatch):
    monkeypatch.setattr(uploads, "is_kept", lambda _session, _owner, sha256: sha256 in {PICTURE, MASK})
    monkeypatch.setattr("shared.admission.sizes.of_source", lambda *_: None)
    return lambda given: transact(sessions, lambda session: admitted(session, {"checkpoint": "sea"} | given, "ann"))


def unit(model: str = "canny", **more: object) -> dict[str, object]:
    return {"model": model, "picture": PICTURE, **more}


def test_nets_are_resolved_in_their_order_and_are_part_of_the_lane(admit):
    admission = admit({"controlnet": [unit("depth"), unit("ControlNet/canny.pth"), unit("aaaaaaaaaa")]})
    assert admission.models.controls == (DEPTH, CANNY, CANNY)
    assert [one.model for one in admission.params.controlnet] == [f"depth [{'b' * 10}]", *[f"canny [{'a' * 10}]"] * 2]
    assert admission.models.companions
    assert admission.models.companions == admit({"controlnet": [unit("canny"), unit("depth")]}).models.companions
    assert admission.models.companions != admit({"controlnet": [unit("canny")]}).models.companions
    assert ModelSet.from_stored(admission.models.to_stored()) == admission.models
    assert set(admission.params.pictures.values()) == {PICTURE}
    assert "controls" not in admit({}).models.to_stored()


def test_a_net_may_follow_the_picture_that_img2img_starts_from(admit):
    given = {"controlnet": [{"model": "canny", "preprocessor": "canny"}], "img2img": {"picture": PICTURE}}
    assert admit(given).params.pictures == {"img2img.picture": PICTURE}


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"controlnet": [unit("nothing")]}, "controlnet.0.model", "nothing"),
        ({"controlnet": [unit(), unit("sea")]}, "controlnet.1.model", "sea"),
        ({"controlnet": [unit("xl-canny")]}, "controlnet.0.model", "does not fit"),
        ({"controlnet": [unit()], "checkpoint": "xl"}, "controlnet.0.model", "does not fit"),
        ({"controlnet": [unit("narrow")]}, "controlnet.0.model", "64 channels"),
        ({"controlnet": [unit()], "hires": {"checkpoint": "two"}}, "controlnet.0.model", "does not fit"),
        (
            {"controlnet": [unit("union")], "checkpoint": "xl"},
            "controlnet.0.shows",
            "is automatic, and union is a union",
        ),
        (
            {"controlnet": [unit("union", shows="repaint")], "checkpoint": "xl"},
            "controlnet.0.shows",
            "is repaint, and union",
        ),
        ({"controlnet": [{"model": "canny"}]}, "controlnet.0.picture", "is missing"),
        ({"controlnet": [unit(picture="x")]}, "controlnet.0.picture", "neither an upload nor a data URL"),
        ({"controlnet": [unit(picture="7" * 64)]}, "controlnet.0.picture", "no upload"),
        ({"controlnet": [unit(preprocessor="inpaint")]}, "controlnet.0.preprocessor", "no mask"),
        ({"controlnet": [unit(start=0.5, end=0.5)]}, "controlnet.0.end", "is 0.5"),
        ({"controlnet": [unit(preprocessor="canny", threshold_a=0)]}, "controlnet.0.threshold_a", "low threshold"),
        ({"controlnet": [unit(preprocessor="tile", threshold_a=9)]}, "controlnet.0.threshold_a", "is 9"),
        ({"controlnet": [unit(weight=3)]}, "controlnet.0.weight", "2"),
        ({"controlnet": [unit(mode="strong")]}, "controlnet.0.mode", "balanced"),
        ({"controlnet": [unit()] * 5}, "controlnet", "4"),
        ({"controlnet": [{}]}, "controlnet.0.model", "missing"),
    ],
)
def test_what_cannot_steer_is_refused_with_its_field(admit, given, field, said):
    with pytest.raises(Refused) as caught:
        admit(given)
    problems = {one.field: one for one in caught.value.fields}
    assert field in problems, problems
    assert said in f"{problems[field].message} {problems[field].accepted}"
    assert problems[field].accepted


@pytest.mark.parametrize(
    ("named", "found", "notes"),
    [
        ("canny", f"canny [{'a' * 10}]", 0),
        ("models\\ControlNet\\canny.pth", f"canny [{'a' * 10}]", 0),
        ("canny [0123456789]", f"canny [{'a' * 10}]", 1),
        ("pose", None, 1),
    ],
)
def test_a_net_of_a_picture_is_one_of_this_farm_or_is_left_out(sessions, monkeypatch, named, found, notes):
    monkeypatch.setattr(uploads, "is_kept", lambda *_: True)
    monkeypatch.setattr("shared.admission.sizes.of_source", lambda *_: None)
    fitting = fit(sessions, {"checkpoint": "sea", "controlnet": [unit(named), unit("depth")]}, "ann", Limits())
    names = [one["model"] for one in fitting.params["controlnet"]]
    assert names == [*([found] if found else []), f"depth [{'b' * 10}]"]
    assert sum("controlnet" in note for note in fitting.left_out) == notes


def test_a_net_without_a_picture_is_left_out_of_what_is_read(sessions):
    fitting = fit(sessions, {"checkpoint": "sea", "controlnet": [{"model": "canny"}]}, "ann", Limits())
    assert not fitting.params["controlnet"]
    assert any(note.startswith("controlnet.0.picture: is missing") for note in fitting.left_out)


def test_a_refusal_offers_nets_that_fit(admit):
    with pytest.raises(Refused) as caught:
        admit({"controlnet": [unit("xl-canny")]})
    assert "canny [aaaaaaaaaa]" in str(caught.value.fields[0].accepted)


def test_a_union_takes_what_the_preprocessor_shows(admit):
    given = {"checkpoint": "xl", "controlnet": [unit("union", preprocessor="canny"), unit("union", shows="depth")]}
    assert admit(given).models.controls == (UNION, UNION)
    assert [one.type for one in admit(given).params.controlnet] == [3, 1]

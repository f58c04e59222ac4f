"""IP-Adapters of a job: each names a file that fits its checkpoints, with an image encoder, or is refused."""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image
from pydantic import ValidationError, create_model

from shared.admission.ip_adapters import named_ip_adapters
from shared.admission.parse import digest
from shared.admission.salvage import fit
from shared.db.sessions import transact
from shared.errors import Refused
from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.media import uploads
from shared.media.decode import PictureReader
from shared.models import image_encoders
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.params.render import RenderParams
from shared.settings import Limits
from tests.conftest import catalogue_of_its_own
from tests.support.admissions import admitted

SEA, XL, SMALL = (digit * 64 for digit in "123")
PLAIN, PLUS, XL_PLAIN, NARROW, ODD, CANNY = (letter * 64 for letter in "abcdef")
VIT_H, SECOND, WIDE = "7" * 64, "8" * 64, "9" * 64
PICTURE, OTHER = "5" * 64, "6" * 64


@pytest.fixture(scope="module")
def sessions(home):
    """A farm with checkpoints, IP-Adapters and one image encoder in two files; no test changes it."""
    with catalogue_of_its_own(home) as (factory, make):
        make("sea", sha256=SEA, details={"width": 320, "context": 768})
        make("xl", sha256=XL, architecture="sdxl", details={"width": 320, "context": 2048})
        make("small", sha256=SMALL, details={"width": 64, "context": 128})
        canny = {"kind": "controlnet", "details": {"width": 320, "context": 768}}
        make("canny", path="ControlNet/canny.pth", sha256=CANNY, architecture="sd1", **canny)

        def adapter(name: str, sha256: str, architecture: str = "sd1", **details: object):
            path = f"ipadapter/{name}.bin"
            make(name, path=path, sha256=sha256, kind="ip-adapter", architecture=architecture, details=details)

        adapter("plain", PLAIN, form="plain", image_features="projected", image_width=1024, context=768, tokens=4)
        adapter("plus", PLUS, form="plus", image_features="hidden", image_width=1280, context=768, tokens=16)
        adapter("xl-plain", XL_PLAIN, "sdxl", image_features="projected", image_width=1280, context=2048, tokens=4)
        adapter("narrow", NARROW, image_features="projected", image_width=1024, context=128, tokens=4)
        adapter("odd", ODD, image_features="projected", image_width=33, context=768, tokens=4)

        def encoder(name: str, sha256: str, **details: object):
            make(
                name,
                path=f"clip_vision/{name}.safetensors",
                sha256=sha256,
                kind="image-encoder",
                architecture=None,
                details=details,
            )

        encoder("vit-h", VIT_H, projected=1024, hidden=1280)
        encoder("vit-h-too", SECOND, projected=1024, hidden=1280)
        encoder("wide", WIDE, projected=77, hidden=88)
        yield factory


@pytest.fixture
def admit(sessions, monkeypatch):
    monkeypatch.setattr(
        uploads, "is_kept", lambda _session, whose, sha256: whose.owner == "ann" and sha256 in {PICTURE, OTHER}
    )
    return lambda given, owner="ann": transact(
        sessions, lambda session: admitted(session, {"checkpoint": "sea"} | given, owner)
    )


def unit(model: str = "plain", **more: object) -> dict[str, object]:
    return {"model": model, "pictures": [PICTURE], **more}


def test_adapters_are_resolved_with_the_encoder_that_they_read(admit):
    units = [unit("plus"), unit("ipadapter/plain.bin", pictures=[PICTURE, OTHER]), unit("aaaaaaaaaa")]
    admission = admit({"ip_adapters": units})
    assert admission.models.ip_adapters == (PLUS, PLAIN, PLAIN)
    assert admission.models.image_encoders == (VIT_H,) * 3
    titles = [one.model for one in admission.params.ip_adapters]
    assert titles == [f"plus [{'b' * 10}]", *[f"plain [{'a' * 10}]"] * 2]
    assert admission.params.pictures == {
        "ip_adapters.0.pictures.0": PICTURE,
        "ip_adapters.1.pictures.0": PICTURE,
        "ip_adapters.1.pictures.1": OTHER,
        "ip_adapters.2.pictures.0": PICTURE,
    }


def test_adapters_are_part_of_the_lane_and_are_stored(admit):
    one, both = admit({"ip_adapters": [unit()]}).models, admit({"ip_adapters": [unit(), unit("plus")]}).models
    assert one.companions
    assert one.companions != both.companions
    assert both.companions == admit({"ip_adapters": [unit("plus"), unit("plain")]}).models.companions
    assert ModelSet.from_stored(both.to_stored()) == both
    plain = admit({}).models
    assert not {"ip_adapters", "image_encoders"} & plain.to_stored().keys()
    assert plain.companions == ""


def test_adapters_stand_beside_control_nets(admit):
    admission = admit({"ip_adapters": [unit()], "controlnet": [{"model": "canny", "picture": OTHER}]})
    assert (admission.models.controls, admission.models.ip_adapters) == ((CANNY,), (PLAIN,))
    assert set(admission.params.pictures.values()) == {PICTURE, OTHER}


def test_a_job_without_adapters_has_the_digest_that_it_had_before():
    params = RenderParams(prompt="sea", ip_adapters=[])
    assert params.model_dump(exclude_defaults=True) == {"prompt": "sea"}
    assert digest(params) == digest(RenderParams(prompt="sea"))
    assert digest(params) != digest(RenderParams(prompt="sea", ip_adapters=[unit()]))


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"ip_adapters": [unit("nothing")]}, "ip_adapters.0.model", "nothing"),
        ({"ip_adapters": [unit(), unit("canny")]}, "ip_adapters.1.model", "is a ControlNet, not an IP-Adapter"),
        ({"ip_adapters": [unit("vit-h")]}, "ip_adapters.0.model", "is an image encoder, not an IP-Adapter"),
        ({"ip_adapters": [unit("xl-plain")]}, "ip_adapters.0.model", "xl-plain (Stable Diffusion XL) does not fit sea"),
        ({"ip_adapters": [unit()], "checkpoint": "xl"}, "ip_adapters.0.model", "does not fit"),
        ({"ip_adapters": [unit()], "checkpoint": "small"}, "ip_adapters.0.model", "width 768"),
        ({"ip_adapters": [unit("narrow")]}, "ip_adapters.0.model", "width 128"),
        ({"ip_adapters": [unit()], "hires": {"checkpoint": "small"}}, "ip_adapters.0.model", "width 768"),
        ({"ip_adapters": [unit(), unit(pictures=[PICTURE, "x"])]}, "ip_adapters.1.pictures.1", "neither an upload"),
        ({"ip_adapters": [unit(pictures=["7" * 64])]}, "ip_adapters.0.pictures.0", "no upload"),
        ({"ip_adapters": [unit(pictures=["http://a/b.png"])]}, "ip_adapters.0.pictures.0", "is an address"),
        ({"ip_adapters": [unit(start=0.5, end=0.5)]}, "ip_adapters.0.end", "is 0.5"),
        ({"ip_adapters": [unit(start=0.9, end=0.1)]}, "ip_adapters.0.end", "a larger share than start"),
        ({"ip_adapters": [unit(weight=-1)]}, "ip_adapters.0.weight", "0 to 2"),
        ({"ip_adapters": [unit(weight="1")]}, "ip_adapters.0.weight", "must be a number"),
        ({"ip_adapters": [unit(weight=None)]}, "ip_adapters.0.weight", "must be a number"),
        ({"ip_adapters": [unit(weight=float("nan"))]}, "ip_adapters.0.weight", "finite number"),
        ({"ip_adapters": [unit(weight=True)]}, "ip_adapters.0.weight", "must be a number"),
        ({"ip_adapters": [unit()] * 10}, "ip_adapters", "at most 4"),
        ({"ip_adapters": unit()}, "ip_adapters", "must be a list"),
        ({"ip_adapters": None}, "ip_adapters", "must be a list"),
        ({"ip_adapters": ["plain"]}, "ip_adapters.0", "must be an object"),
        ({"ip_adapters": [{}]}, "ip_adapters.0.pictures", "is missing"),
        ({"ip_adapters": [{"pictures": [PICTURE]}]}, "ip_adapters.0.model", "is missing"),
        ({"ip_adapters": [unit(model=5)]}, "ip_adapters.0.model", "must be text"),
        ({"ip_adapters": [unit(model="")]}, "ip_adapters.0.model", "There is no IP-Adapter"),
        ({"ip_adapters": [unit(pictures=[])]}, "ip_adapters.0.pictures", "a list of 1 to 4, each the id of an upload"),
        ({"ip_adapters": [unit(pictures=[PICTURE] * 5)]}, "ip_adapters.0.pictures", "holds too many"),
        ({"ip_adapters": [unit(pictures=PICTURE)]}, "ip_adapters.0.pictures", "must be a list"),
        ({"ip_adapters": [unit(pictures=[None])]}, "ip_adapters.0.pictures.0", "must be text"),
        ({"ip_adapters": [unit(pictures=[{}])]}, "ip_adapters.0.pictures.0", "the id of an upload"),
        ({"ip_adapters": [unit(picture=PICTURE)]}, "ip_adapters.0.picture", "pictures"),
        ({"ip_adapters": [unit(image_encoder="nothing")]}, "ip_adapters.0.image_encoder", "no image encoder 'nothing'"),
        ({"ip_adapters": [unit(), unit(image_encoder="plus")]}, "ip_adapters.1.image_encoder", "is an IP-Adapter, not"),
        ({"ip_adapters": [unit(image_encoder="wide")]}, "ip_adapters.0.image_encoder", "features of width 77, and pl"),
        ({"ip_adapters": [unit("plus", image_encoder="wide")]}, "ip_adapters.0.image_encoder", "hidden features of"),
        ({"ip_adapters": [unit(image_encoder="wide")]}, "ip_adapters.0.image_encoder", "vit-h [7777777777] or vit-h-t"),
        ({"ip_adapters": [unit("odd", image_encoder="wide")]}, "ip_adapters.0.image_encoder", "of width 33 in the fol"),
        ({"ip_adapters": [unit(image_encoder=None)]}, "ip_adapters.0.image_encoder", "must be text"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_field(admit, given, field, said):
    with pytest.raises(Refused) as caught:
        admit(given)
    problems = {one.field: one for one in caught.value.fields}
    assert field in problems, problems
    assert said in f"{problems[field].message} {problems[field].accepted}", problems[field]
    assert problems[field].accepted


def test_an_image_encoder_is_named_by_its_name_or_hash_and_recorded_by_both(admit):
    units = [unit(), unit(image_encoder="vit-h-too"), unit("plus", image_encoder="88888888"), unit(image_encoder="")]
    admission = admit({"ip_adapters": units})
    assert admission.models.image_encoders == (VIT_H, SECOND, SECOND, VIT_H)
    first, second = f"vit-h [{'7' * 10}]", f"vit-h-too [{'8' * 10}]"
    assert [one.image_encoder for one in admission.params.ip_adapters] == [first, second, second, first]


def test_the_encoder_that_adapters_were_trained_with_comes_before_others_of_its_widths(home):
    published = "6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030"
    with catalogue_of_its_own(home) as (sessions, make):
        make("sea", details={"width": 320, "context": 768})
        reads = {"form": "plain", "image_features": "projected", "image_width": 1024, "context": 768, "tokens": 4}
        make("plain", kind="ip-adapter", details=reads)
        for name, path, sha256 in (
            ("DFN5B-CLIP-ViT-H-14-378", "DFN5B-CLIP-ViT-H-14-378.safetensors", "1" * 64),
            ("vit-h-laion2b-fp16", "vit-h-laion2b-fp16.safetensors", "2" * 64),
            ("model", "CLIP-ViT-H-14-laion2B-s32B-b79K/model.safetensors", "3" * 64),
            ("image_encoder", "image_encoder/model.safetensors", published),
        ):
            widths = {"projected": 1024, "hidden": 1280}
            make(name, path=f"clip_vision/{path}", sha256=sha256, kind="image-encoder", details=widths)
        found = transact(sessions, Catalogue.read)
    (adapter,) = found.usable("ip-adapter")
    encoders = {one.sha256: image_encoders.rank(one, adapter.details) for one in found.usable("image-encoder")}
    assert encoders == {"1" * 64: 2, "2" * 64: 1, "3" * 64: 0, published: 0}
    named = named_ip_adapters(found, RenderParams(ip_adapters=[unit()]), {"checkpoint": found.usable()[0]})
    assert named.roles["image_encoders"] == [published]  # the first by name of the best


def test_a_picture_rendered_again_has_its_encoder_after_one_that_sorts_earlier_was_added(sessions, admit):
    known = transact(sessions, Catalogue.read)
    before = admit({"ip_adapters": [unit(), unit("plus", image_encoder="vit-h-too")]})
    read_back = read(text(before.params, version="1"))
    assert not read_back.left_out
    (vit_h,) = known.meant("vit-h", "image-encoder")
    earlier = vit_h._replace(path="clip_vision/a.safetensors", name="a", sha256="0" * 64)
    now = replace(known, files=(earlier, *known.files))
    assert named_ip_adapters(now, RenderParams(ip_adapters=[unit()]), {}).roles["image_encoders"] == ["0" * 64]
    again = named_ip_adapters(now, RenderParams.model_validate(read_back.params), {})
    assert again.roles["image_encoders"] == [VIT_H, SECOND] == [*before.models.image_encoders]


@pytest.mark.parametrize(
    ("named", "found", "said"),
    [
        ("vit-h-too", f"vit-h-too [{'8' * 10}]", ""),
        ("models\\clip_vision\\vit-h-too.safetensors", f"vit-h-too [{'8' * 10}]", ""),
        ("renamed [8888888888]", f"vit-h-too [{'8' * 10}]", ""),
        ("vit-h-too [0123456789]", f"vit-h-too [{'8' * 10}]", "no file here has the hash 0123456789; vit-h-too"),
        ("gone [0123456789]", None, "There is no image encoder 'gone [0123456789]'"),
        ("wide", None, "wide makes projected features of width 77"),
        ("", "", ""),
    ],
)
def test_the_encoder_of_a_picture_is_one_of_this_farm_or_the_usual_one_with_a_note(
    sessions, monkeypatch, named, found, said
):
    monkeypatch.setattr(uploads, "is_kept", lambda *_: True)
    fitting = fit(sessions, {"checkpoint": "sea", "ip_adapters": [unit(image_encoder=named)]}, "ann", Limits())
    (adapter,) = fitting.params["ip_adapters"]
    assert adapter.get("image_encoder") == found
    assert all(note.startswith(f"ip_adapters.0.image_encoder: {said}") for note in fitting.left_out)
    assert len(fitting.left_out) == bool(said)


def test_a_job_that_was_stored_without_the_names_of_its_encoders_is_read_as_it_was():
    row = {"prompt": "sea", "ip_adapters": [{"model": "plain", "pictures": [PICTURE]}]}
    params = RenderParams.from_stored(row)
    assert params.ip_adapters[0].image_encoder == ""
    assert "Image encoder" not in text(params, version="1")
    assert digest(params) == digest(RenderParams(prompt="sea", ip_adapters=[unit()]))


def test_what_is_wrong_behind_an_item_that_is_no_adapter_is_not_told_of_another_one(admit):
    with pytest.raises(Refused) as caught:
        admit({"ip_adapters": [unit(start=0.5, end=0.5), 7, unit(start=0.9, end=0.1)]})
    assert [one.field for one in caught.value.fields] == ["ip_adapters.1", "ip_adapters.0.end"]


def test_an_upload_of_another_owner_is_not_followed(admit):
    with pytest.raises(Refused) as caught:
        admit({"ip_adapters": [unit()]}, owner="bob")
    assert [one.field for one in caught.value.fields] == ["ip_adapters.0.pictures.0"]


@pytest.mark.parametrize(
    ("checkpoint", "model", "name", "accepted"),
    [
        ("xl", "xl-plain", "CLIP-ViT-bigG-14-laion2B-39B-b160k", "(model.safetensors) in the folder clip_vision of"),
        (
            "sea",
            "odd",
            "with projected features of width 33",
            "an image encoder with projected features of width 33 in",
        ),
    ],
)
def test_a_missing_image_encoder_is_named_with_the_folder_for_it(admit, checkpoint, model, name, accepted):
    with pytest.raises(Refused) as caught:
        admit({"checkpoint": checkpoint, "ip_adapters": [unit(model)]})
    (problem,) = caught.value.fields
    assert problem.field == "ip_adapters.0.model"
    assert f"{model} needs the image encoder {name}, which is not here" in problem.message
    assert accepted in problem.accepted
    assert "FARM_MODELS" in problem.accepted


def test_a_refusal_offers_adapters_that_fit(admit):
    with pytest.raises(Refused) as caught:
        admit({"ip_adapters": [unit("xl-plain")]})
    assert "an IP-Adapter of Stable Diffusion 1, such as odd" in caught.value.fields[0].accepted


def test_adapters_have_no_effect_on_jobs_that_enlarge_pictures(admit):
    with pytest.raises(Refused) as caught:
        admit({"checkpoint": "", "upscale": {"pictures": [{"picture": PICTURE}]}, "ip_adapters": [unit()]})
    assert [one.field for one in caught.value.fields] == ["ip_adapters"]


def test_pictures_may_come_as_data_urls(sessions):
    out = BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    url = f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"
    given = {"checkpoint": "sea", "ip_adapters": [unit(pictures=[url, url])]}
    with closing(PictureReader(Limits())) as picture_reader:
        admission = transact(sessions, lambda session: admitted(session, given, "ann", {}, picture_reader))
    first, second = admission.params.ip_adapters[0].pictures
    assert first == second
    assert len(first) == 64


@pytest.mark.parametrize(
    ("named", "found", "notes"),
    [
        ("plain", f"plain [{'a' * 10}]", 0),
        ("models\\ipadapter\\plain.safetensors", f"plain [{'a' * 10}]", 0),
        ("plain [0123456789]", f"plain [{'a' * 10}]", 1),
        ("faces", None, 1),
    ],
)
def test_an_adapter_of_a_picture_is_one_of_this_farm_or_is_left_out(sessions, monkeypatch, named, found, notes):
    monkeypatch.setattr(uploads, "is_kept", lambda *_: True)
    fitting = fit(sessions, {"checkpoint": "sea", "ip_adapters": [unit(named), unit("plus")]}, "ann", Limits())
    names = [one["model"] for one in fitting.params["ip_adapters"]]
    assert names == [*([found] if found else []), f"plus [{'b' * 10}]"]
    assert sum("ip_adapters" in note for note in fitting.left_out) == notes, fitting.left_out


def test_an_adapter_whose_pictures_are_gone_is_left_out_of_what_is_read(sessions):
    fitting = fit(sessions, {"checkpoint": "sea", "ip_adapters": [unit()]}, "ann", Limits())
    assert not fitting.params["ip_adapters"]
    assert any(note.startswith("ip_adapters.0.pictures.0: You have no upload") for note in fitting.left_out)


def test_workers_of_an_older_version_refuse_the_roles_and_no_others(admit):
    roles = {"ip_adapters", "image_encoders"}
    known = {name: (one.annotation, one) for name, one in ModelSet.model_fields.items() if name not in roles}
    older = create_model("Older", __config__=ModelSet.model_config, **known)
    assert older.model_validate(admit({}).models.to_stored())
    with pytest.raises(ValidationError) as caught:
        older.model_validate(admit({"ip_adapters": [unit()]}).models.to_stored())
    assert {problem["loc"][0] for problem in caught.value.errors()} == roles

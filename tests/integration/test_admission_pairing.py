"""Which checkpoints and VAEs can render one picture together: the others are refused with what would be accepted."""

from __future__ import annotations

import hashlib

import pytest

from shared.admission import salvage
from shared.db.sessions import transact
from shared.errors import Refused
from shared.models.architectures import ARCHITECTURES, can_refine, label, shares_latents
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.settings import Limits
from shared.wording import choices
from tests.support.admissions import admitted

FILES = {"one": "sd1", "two": "sd2", "xl": "sdxl", "ripe": "sdxl-refiner", "later": "sd9", "odd": None}
SOURCE = {"picture": "data:image/png;base64,aaaa"}


@pytest.fixture(autouse=True)
def catalogue(checkpoint_factory):
    """One checkpoint of each architecture, one of a newer version's and one of an unknown one."""
    return {name: checkpoint_factory(name, architecture=architecture).sha256 for name, architecture in FILES.items()}


@pytest.fixture
def admit(sessions):
    return lambda given: transact(sessions, lambda session: admitted(session, given))


@pytest.mark.parametrize(
    ("own", "refiners"),
    [
        ("one", {"one", "odd"}),
        ("two", {"two", "odd"}),
        ("xl", {"xl", "ripe", "odd"}),
        ("later", {"later", "odd"}),
        ("odd", set(FILES)),
    ],
)
def test_a_refiner_takes_over_from_its_own_kind(admit, refusals, catalogue, own, refiners):
    for refiner, sha256 in catalogue.items():
        given = {"checkpoint": own, "refiner": {"checkpoint": refiner}}
        if refiner in refiners:
            assert admit(given).models == ModelSet(checkpoint=catalogue[own], refiner=sha256)
        else:
            assert "cannot take over from" in refusals(given)["refiner.checkpoint"][0]


@pytest.mark.parametrize(
    ("own", "seconds"),
    [("one", {"one", "two", "odd"}), ("xl", {"xl", "ripe", "odd"}), ("later", {"later", "odd"}), ("odd", set(FILES))],
)
def test_a_second_pass_continues_with_latents_that_it_can_read(admit, refusals, catalogue, own, seconds):
    for second, sha256 in catalogue.items():
        given = {"checkpoint": own, "hires": {"scale": 1.5, "checkpoint": second}}
        if second in seconds:
            assert admit(given).models == ModelSet(checkpoint=catalogue[own], hires=sha256)
        else:
            assert "cannot continue with the latents of" in refusals(given)["hires.checkpoint"][0]


def test_a_refusal_says_why_and_offers_what_would_fit(refusals):
    assert refusals({"checkpoint": "xl", "refiner": {"checkpoint": "one"}}) == {
        "refiner.checkpoint": (
            "one (Stable Diffusion 1) cannot take over from xl (Stable Diffusion XL)",
            f"a checkpoint of {label('sdxl')} or {label('sdxl-refiner')}, such as {titles('odd', 'xl', 'ripe')}",
        )
    }
    assert refusals({"checkpoint": "two", "hires": {"checkpoint": "ripe"}}) == {
        "hires.checkpoint": (
            "ripe (Stable Diffusion XL refiner) cannot continue with the latents of two (Stable Diffusion 2)",
            f"a checkpoint of Stable Diffusion 1 or Stable Diffusion 2, such as {titles('odd', 'one', 'two')}",
        )
    }
    later = refusals({"checkpoint": "later", "refiner": {"checkpoint": "one"}})["refiner.checkpoint"]
    assert later[1].startswith("a checkpoint of sd9, such as later [")


def test_a_refiner_suits_the_pass_that_it_takes_part_in(admit, refusals):
    both = {"checkpoint": "one", "hires": {"checkpoint": "two"}, "refiner": {"checkpoint": "two"}}
    assert admit(both).models.refiner
    found = refusals(both | {"refiner": {"checkpoint": "one"}})
    assert found["refiner.checkpoint"][0].endswith("cannot take over from two (Stable Diffusion 2)")
    assert list(refusals(both | {"hires": {"scale": 1.5}})) == ["refiner.checkpoint"]


def test_every_unfit_file_is_named_at_once(refusals, checkpoint_factory):
    checkpoint_factory("white", kind="vae", architecture="sdxl")
    given = {"checkpoint": "one", "vae": "white", "refiner": {"checkpoint": "xl"}, "hires": {"checkpoint": "ripe"}}
    assert set(refusals(given)) == {"hires.checkpoint", "vae"}  # the refiner would suit the second pass
    assert set(refusals(given | {"hires": {"scale": 1.5}})) == {"refiner.checkpoint", "vae"}


def test_a_refiner_renders_alone_only_what_starts_from_a_picture(admit, refusals, sessions):
    alone = refusals({"checkpoint": "ripe"})
    assert alone["checkpoint"][0].startswith("ripe (Stable Diffusion XL refiner) only renders pictures that start from")
    assert alone["checkpoint"][1].startswith("img2img with a picture, or another checkpoint, such as ")
    assert "ripe" not in alone["checkpoint"][1]
    assert "checkpoint" not in refusals({"checkpoint": "ripe", "img2img": SOURCE})  # only the picture is not there


def test_a_job_without_a_checkpoint_takes_none_that_is_a_refiner(admit, checkpoint_factory):
    checkpoint_factory("a-refiner", architecture="sdxl-refiner")
    assert admit({}).params.checkpoint.startswith("later [")


def test_a_wrong_name_is_told_the_nearest_ones_that_fit(refusals, checkpoint_factory):
    checkpoint_factory("sea-xl", architecture="sdxl")
    checkpoint_factory("sea-x1", architecture="sd1")
    found = refusals({"checkpoint": "xl", "refiner": {"checkpoint": "seaxl"}})
    assert found["refiner.checkpoint"] == ("There is no checkpoint 'seaxl'", titles("sea-xl"))
    found = refusals({"checkpoint": "one", "hires": {"checkpoint": "nothing like it"}})
    assert found["hires.checkpoint"][1] == " or ".join(map(titles, ("odd", "one", "sea-x1", "two")))
    assert set(refusals({"checkpoint": "oen", "refiner": {"checkpoint": "noe"}})) == {
        "checkpoint",
        "refiner.checkpoint",
    }


def test_a_name_of_several_files_is_told_those_that_fit_first(refusals, checkpoint_factory):
    for folder, architecture in (("a", "sd1"), ("b", "sdxl")):
        checkpoint_factory("sea", path=f"{folder}/sea.ckpt", architecture=architecture, sha256=folder * 64)
    message, accepted = refusals({"checkpoint": "xl", "refiner": {"checkpoint": "sea"}})["refiner.checkpoint"]
    assert message == "'sea' names 2 checkpoints: b/sea.ckpt, a/sea.ckpt"
    assert accepted.startswith("sea [bbbbbbbbbb]")


@pytest.mark.parametrize(("own", "vaes"), [("two", {"thin", "plain"}), ("ripe", {"wide", "plain"}), ("odd", {"wide"})])
def test_a_vae_decodes_its_own_latents(sessions, checkpoint_factory, own, vaes):
    for name, architecture in (("thin", "sd1"), ("wide", "sdxl"), ("plain", None)):
        checkpoint_factory(name, kind="vae", architecture=architecture)
    known = transact(sessions, Catalogue.read)
    checkpoint = known.resolve(own)
    for name in vaes:
        assert known.vae_for(name, checkpoint).name == name
    for name in {"thin", "wide"} - vaes if own != "odd" else ():
        with pytest.raises(Refused, match=rf"{name} \(.+\) cannot decode the latents of {own}") as caught:
            known.vae_for(name, checkpoint)
        offered = caught.value.fields[0].accepted
        assert offered.startswith("automatic or none or plain [")
        assert f"{name} [" not in offered
    with pytest.raises(Refused) as caught:
        known.vae_for("whidth", checkpoint)
    assert ("wide [" in caught.value.fields[0].accepted) == (own != "two")


def test_the_automatic_vae_is_of_the_same_latent_space(sessions, checkpoint_factory):
    checkpoint_factory("bare", architecture="sdxl", has_vae=False)
    for stem in ("xl", "bare"):
        checkpoint_factory(f"{stem}.vae", path=f"{stem}.vae.safetensors", kind="vae", architecture="sd1")
    known = transact(sessions, Catalogue.read)
    assert known.vae_for("automatic", known.resolve("xl")) is None
    with pytest.raises(Refused, match=r"bare has no VAE inside") as caught:
        known.vae_for("automatic", known.resolve("bare"))
    assert "vae [" not in caught.value.fields[0].accepted
    checkpoint_factory("xl.vae", path="xl.vae.pt", kind="vae", architecture="sdxl", sha256="5" * 64)
    known = transact(sessions, Catalogue.read)
    assert known.vae_for("automatic", known.resolve("xl")).path == "xl.vae.pt"


def test_parameters_of_a_file_lose_a_refiner_that_does_not_fit(sessions):
    given = {"prompt": "sea", "checkpoint": "one", "refiner": {"checkpoint": "xl", "switch_at": 0.7}}
    params, left_out = salvage.fit(sessions, given, "local", Limits())
    assert params["prompt"] == "sea"
    assert "refiner" not in params
    assert any(one.startswith("refiner.checkpoint: xl (Stable Diffusion XL) cannot take over") for one in left_out)


def test_the_rules_of_the_table():
    for name, facts in ARCHITECTURES.items():
        assert can_refine(name, name)
        assert all(shares_latents(name, refiner) for refiner in facts.refiners)
        assert label(name) == facts.label
    assert label("sd9") == "sd9"
    assert label(None) == "unknown architecture"


def titles(*names: str) -> str:
    """Return the files of these names as a refusal offers them."""
    return choices([f"{name} [{hashlib.sha256(name.encode()).hexdigest()[:10]}]" for name in names])

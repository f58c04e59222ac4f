"""The catalogue: what a scan records, and what a name means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import PurePath

import pytest
from sqlalchemy import select, update
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import insert

from shared.db.sessions import transact
from shared.db.tables import ModelFile
from shared.errors import NotLooked, Refused
from shared.models import first_scan, inspection, recording
from shared.models.catalogue import GONE, Catalogue
from shared.models.components import Component
from shared.models.details import Details
from shared.models.inspection import Inspection, Scanned
from shared.models.kept_catalogue import KeptCatalogue
from shared.models.kinds import Kind
from shared.models.listing import Listing
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from tests.support.waiting import until

GOOD = Inspection("checkpoint", "sd1", 512)


def scanned(name: str, sha256: str | None = None, inspection: Inspection | None = GOOD, **changes) -> Scanned:
    fields = {"path": f"{name}.ckpt", "name": name, "size": 7, "mtime_ns": 1, "sha256": sha256 or name[0] * 64}
    return Scanned(**(fields | changes), inspection=inspection)


@pytest.fixture
def record(sessions):
    return lambda *files: transact(sessions, lambda session: recording.record(session, files))


@pytest.fixture
def age(sessions):
    """Lets time pass for what the scans have noted."""

    def pass_by(**time: float) -> None:
        back = update(ModelFile).values(scanned_at=ModelFile.scanned_at - timedelta(**time))
        transact(sessions, lambda session: session.execute(back))

    return pass_by


@pytest.fixture
def entries(sessions):
    return lambda: transact(sessions, Catalogue.read).entries()


@pytest.fixture
def resolve(sessions):
    return lambda text: transact(sessions, Catalogue.read).resolve(text)


def test_what_a_scan_saw_is_read_back_by_name(record, entries):
    record(scanned("beta"), scanned("Alpha"))
    assert [(file.name, file.path, file.usable) for file in entries()] == [
        ("Alpha", "Alpha.ckpt", True),
        ("beta", "beta.ckpt", True),
    ]


def test_a_file_that_a_scan_left_to_the_next_one_keeps_its_row(record, entries):
    record(scanned("demo"))
    assert record(scanned("demo", inspection=None)) == 0
    assert [file.usable for file in entries()] == [True]


def test_a_row_of_the_version_before_learns_what_its_network_predicts(record, entries):
    record(scanned("demo"))
    assert [file.prediction for file in entries()] == [None]
    assert record(scanned("demo", inspection=replace(GOOD, prediction="velocity"))) == 1
    assert [file.prediction for file in entries()] == ["velocity"]


def test_a_worker_of_the_version_before_does_not_undo_what_it_cannot_read(record, entries, sessions):
    xl = Inspection("checkpoint", "sdxl", 1024, prediction="noise")
    record(scanned("demo", "a" * 64, inspection=xl, parts="1"), scanned("other"))

    def scan_of_the_version_before(**changes: object) -> None:
        found = {
            "kind": "other",
            "architecture": None,
            "usable": False,
            "reason": "is a Stable Diffusion XL checkpoint",
        }
        columns = {"path": "demo.ckpt", "name": "demo", "size": 7, "mtime_ns": 1, "parts": "1", "strikes": 0}
        merged = columns | found | changes
        statement = insert(ModelFile).values(**merged)
        update_row = statement.on_conflict_do_update(index_elements=[ModelFile.path], set_=merged)
        transact(sessions, lambda session: session.execute(update_row))

    def usable() -> list[str]:
        return [file.name for file in entries() if file.usable]

    scan_of_the_version_before()
    assert usable() == ["demo", "other"]
    record(scanned("other"))
    assert usable() == ["other"]
    record(scanned("demo", "a" * 64, inspection=xl, parts="1"), scanned("other"))
    for _ in range(2):
        transact(sessions, lambda session: recording.count_crash(session, ["a" * 64], "it was ended by SIGBUS"))
    assert usable() == ["other"]
    record(scanned("demo", "b" * 64, inspection=xl, parts="2"), scanned("other"))
    assert usable() == ["demo", "other"]
    record(scanned("demo", None, inspection=Inspection("checkpoint", reason="is torn"), parts="2"), scanned("other"))
    assert usable() == ["other"]
    record(scanned("demo", "b" * 64, inspection=xl, parts="2"), scanned("other"))
    scan_of_the_version_before(parts="3")  # the file changed
    assert usable() == ["other"]


def test_a_lora_that_the_version_before_cannot_use_stays_usable(record, sessions):
    lora = Inspection("lora", "sd1", details={"form": "rows"})
    record(scanned("ink", inspection=lora, parts="1"), scanned("fine", inspection=Inspection("embedding"), parts="1"))
    found = {"kind": "other", "architecture": None, "usable": False, "reason": "is a LoRA", "strikes": 0}

    def scan_of_the_version_before(**changes: object) -> list[tuple[str, str]]:
        transact(sessions, lambda session: session.execute(update(ModelFile).values(**found | changes)))
        files = transact(sessions, Catalogue.read).files
        return [(file.name, file.kind) for file in files if file.usable]

    assert scan_of_the_version_before() == [("fine", "embedding"), ("ink", "lora")]
    assert scan_of_the_version_before(parts="2") == []
    record(scanned("ink", inspection=lora, parts="2"))
    torn = Inspection("lora", reason="is torn", details={"form": "rows"})
    record(scanned("ink", None, inspection=torn, parts="2"))
    (ink,) = transact(sessions, Catalogue.read).entries("lora")
    assert (ink.usable, ink.stored_details) == (False, None)


UNSEEN = {"loras/ink.bin": "lora", "embeddings/storm.BIN": "embedding", "ControlNet/canny": "controlnet"}
"""Files that a scan of the version before passes over."""
SEEN = {
    "demo.ckpt": "checkpoint",
    "vae/clear.pt": "vae",
    "Lora/wash.safetensors": "lora",
    "ESRGAN/sharp.pth": "upscaler",
    "ControlNet/depth.PTH": "controlnet",
}


def of_kinds(files: dict[str, Kind]) -> list[Scanned]:
    return [
        scanned(PurePath(path).stem, path=path, inspection=Inspection(kind, "sd1", prediction="noise"), parts="1")
        for path, kind in files.items()
    ]


def test_what_a_worker_of_the_version_before_cannot_see_is_not_gone(record, sessions):
    record(*of_kinds(UNSEEN | SEEN))

    def usable() -> set[str]:
        return {file.path for file in transact(sessions, Catalogue.read).files if file.usable}

    gone = update(ModelFile).where(ModelFile.path.in_({*UNSEEN, *SEEN}))
    transact(sessions, lambda session: session.execute(gone.values(usable=False, reason=GONE)))
    assert usable() == {*UNSEEN}, "a worker of the version before that sees nothing at all, or not these"
    record(*of_kinds(UNSEEN | SEEN))
    assert usable() == {*UNSEEN, *SEEN}, "they are back"
    record(*of_kinds(SEEN))
    assert usable() == {*SEEN}, "a worker of this version looked, and they are gone"
    record(*of_kinds(UNSEEN | SEEN))
    assert usable() == {*UNSEEN, *SEEN}


def test_details_are_read_back_and_words_only_for_lists(record, sessions):
    details = {"form": "rows", "rank": 8, "alias": "Ink", "trigger_words": ["ink", "wash"], "of a newer version": [1]}
    seen = scanned("ink", inspection=Inspection("lora", "sd1", details=details))
    assert (record(seen), record(seen)) == (1, 0)
    for read, words in ((partial(Catalogue.read, kind="lora"), ()), (Listing().page, ("ink", "wash"))):
        (file,) = getattr(found := transact(sessions, read), "files", found)
        assert file.details == Details(form="rows", rank=8, alias="Ink", trigger_words=words)


def test_only_what_changed_is_written(record):
    assert record(scanned("alpha"), scanned("beta")) == 2
    assert record(scanned("alpha"), scanned("beta")) == 0
    assert record(scanned("alpha"), scanned("beta", sha256="d" * 64)) == 1


def test_a_file_that_is_gone_leaves_the_list_but_its_hash_is_remembered(record, entries, sessions):
    record(scanned("alpha"), scanned("beta"))
    assert record(scanned("beta")) == 1
    assert record(scanned("beta")) == 0
    assert [file.name for file in entries()] == ["beta"]
    known = {seen.path: seen for seen in recording.remembered(transact(sessions, recording.recorded))}
    seen = known["alpha.ckpt"]
    assert (seen.sha256, seen.inspection) == ("a" * 64, None)
    record(scanned("alpha"), scanned("beta"))
    assert [file.usable for file in entries()] == [True, True]


def test_a_scan_that_saw_nothing_at_all_believes_it_only_when_no_machine_has_seen_more(record, entries, age):
    record(scanned("alpha"))
    assert record() == 0
    age(minutes=4)
    record(scanned("alpha", inspection=None))  # another machine, whose disk is there
    age(minutes=4)
    assert record() == 0
    assert [file.usable for file in entries()] == [True]
    age(minutes=2)
    assert record() == 1
    assert entries() == []


SHA = "abcdef0123" + "4" * 54


@pytest.mark.parametrize(
    "text", ["Sea-v2", "sea-V2", "Sea-v2.ckpt", "folder/Sea-v2.ckpt", SHA, SHA.upper(), SHA[:10], "Sea-v2 [abcdef0123]",
             "renamed [abcdef0123]", " Sea-v2 "],
)  # fmt: skip
def test_a_checkpoint_is_known_by_name_file_path_hash_and_title(record, resolve, text):
    record(scanned("Sea-v2", SHA, path="folder/Sea-v2.ckpt"), scanned("other"))
    assert resolve(text).sha256 == SHA


def test_without_a_name_it_is_the_first_usable_one(record, resolve):
    record(scanned("a-broken", inspection=Inspection("checkpoint", reason="It is empty.")), scanned("C"), scanned("b"))
    assert resolve("").name == "b"


@pytest.mark.parametrize("kind", ["vae", "controlnet", "ip-adapter", "upscaler"])
def test_an_empty_name_means_no_file_but_a_checkpoint(sessions, record, kind):
    record(scanned("canny", inspection=Inspection(kind, "sd1")))
    with pytest.raises(Refused, match="There is no"):
        transact(sessions, Catalogue.read).resolve("", kind)


def test_without_a_name_it_is_the_one_that_the_farm_puts_first(record, sessions):
    record(scanned("a"), scanned("b"))

    def first(name: str) -> str:
        return transact(sessions, Catalogue.read).resolve("", first=name).name

    assert [first("b"), first("a"), first("gone")] == ["b", "a", "a"]


def refusal(resolve, text: str):
    with pytest.raises(Refused) as caught:
        resolve(text)
    (field,) = caught.value.fields
    assert field.field == "checkpoint"
    return field


def test_an_unknown_name_is_refused_with_those_most_alike(record, resolve):
    record(scanned("sea"), scanned("desert"), scanned("mountain"))
    field = refusal(resolve, "dessert")
    assert "'dessert'" in field.message
    assert field.accepted == "desert [dddddddddd]"
    assert refusal(resolve, "?" * 10_000).accepted.count(" or ") == 2


def test_a_title_whose_hash_nobody_has_is_refused_though_the_name_fits(record, resolve):
    record(scanned("sea"), scanned("desert"))
    assert refusal(resolve, "sea [0123456789]").accepted == "sea [ssssssssss]"


def test_an_unusable_one_is_refused_with_its_reason(record, resolve):
    record(scanned("sea", inspection=Inspection("checkpoint", reason="unet.weight is missing.")), scanned("good"))
    field = refusal(resolve, "sea")
    assert "unet.weight is missing." in field.message
    assert field.accepted == "good [gggggggggg]"


def test_farm_without_a_usable_one_says_what_to_do(record, resolve, sessions):
    assert "`farm worker`" in refusal(resolve, "").message
    Farmhand(sessions).worker()
    transact(sessions, first_scan.record_scan)
    assert "none lies in the models folder" in refusal(resolve, "").message
    assert "FARM_MODELS" in refusal(resolve, "sea").accepted
    record(scanned("moon", inspection=Inspection("checkpoint", reason="unet.weight is missing.")))
    assert "moon cannot be used: unet.weight is missing" in refusal(resolve, "sea").message


def test_nothing_is_refused_for_what_a_first_look_may_still_find(record, resolve, sessions):
    record(scanned("moon"), scanned("broken", inspection=Inspection("checkpoint", reason="unet.weight is missing.")))
    transact(sessions, first_scan.record_start)
    for name in ("sea", "moon's sister"):
        with pytest.raises(NotLooked, match="still reading its models"):
            resolve(name)
    assert resolve("").name == "moon"
    assert "unet.weight is missing" in refusal(resolve, "broken").message
    transact(sessions, first_scan.record_scan)
    assert "no checkpoint 'sea'" in refusal(resolve, "sea").message
    Farmhand(sessions).worker()  # of a farm that has begun once more: the file may have come meanwhile
    with pytest.raises(NotLooked):
        resolve("sea")
    transact(sessions, first_scan.record_scan)
    assert "no checkpoint 'sea'" in refusal(resolve, "sea").message


def test_one_that_is_gone_is_refused_with_that(record, resolve):
    record(scanned("sea"), scanned("other"))
    record(scanned("other"))
    assert GONE in refusal(resolve, "sea").message


def test_two_of_one_name_must_be_told_apart(record, resolve):
    record(scanned("sea", "1" * 64, path="a/sea.ckpt"), scanned("sea", "2" * 64, path="b/sea.ckpt"))
    assert refusal(resolve, "sea").accepted == "sea [1111111111] or sea [2222222222]"
    assert resolve("b/sea.ckpt").sha256 == "2" * 64
    assert resolve("sea [1111111111]").path == "a/sea.ckpt"


def test_two_copies_of_one_file_are_one_checkpoint(record, resolve):
    record(scanned("sea", "1" * 64, path="a/sea.ckpt"), scanned("sea", "1" * 64, path="b/sea.ckpt"))
    assert resolve("sea").sha256 == "1" * 64


# VAEs.


VAE = Inspection("vae", "sd1")


@pytest.fixture
def vae_for(sessions):
    """The VAE's path that a text means for the checkpoint of a name."""

    def found(text: str, checkpoint: str = "sea"):
        known = transact(sessions, Catalogue.read)
        file = known.vae_for(text, known.resolve(checkpoint))
        return file and file.path

    return found


def vae(path: str, inspection: Inspection = VAE, **changes) -> Scanned:
    name = path.rpartition("/")[2].rpartition(".")[0]
    return scanned(name, path=path, inspection=inspection, sha256=f"{abs(hash(path)) % 10**12:064x}", **changes)


def test_vaes_are_no_checkpoints(record, entries, resolve, sessions):
    record(scanned("sea"), vae("sea.vae.pt"), vae("VAE/fine.safetensors"))
    assert [file.name for file in entries()] == ["sea"]
    assert resolve("").name == "sea"
    listed = transact(sessions, Catalogue.read).entries("vae")
    assert [file.path for file in listed] == ["VAE/fine.safetensors", "sea.vae.pt"]
    refusal(resolve, "fine")


def test_a_vae_is_automatic_built_in_or_named(record, vae_for):
    record(scanned("sea"), scanned("moon"), vae("sea.vae.pt"), vae("VAE/fine.safetensors"))
    assert vae_for("automatic") == "sea.vae.pt"
    assert vae_for("automatic", "moon") is None
    assert vae_for("none") is None
    assert vae_for("fine") == vae_for("VAE/fine.safetensors") == "VAE/fine.safetensors"


def test_the_vae_beside_a_checkpoint_has_its_stem_and_folder(record, vae_for):
    record(
        scanned("sea", path="deep/sea.v2.ckpt"), scanned("folder.x", path="folder.x"),
        vae("sea.v2.vae.pt"), vae("deep/sea.v2.vae.ckpt"), vae("deep/sea.v2.vae.pt"), vae("folder.x.vae.pt"),
    )  # fmt: skip
    assert vae_for("automatic", "sea.v2.ckpt") == "deep/sea.v2.vae.ckpt"
    assert vae_for("automatic", "folder.x") == "folder.x.vae.pt"


def test_a_vae_that_cannot_be_used_is_refused_with_its_reason(record, vae_for):
    torn = Inspection("vae", reason="is damaged")
    record(scanned("sea"), vae("sea.vae.pt", torn), vae("VAE/fine.safetensors"))
    with pytest.raises(Refused, match=r"sea\.vae\.pt beside the checkpoint cannot be used: is damaged") as caught:
        vae_for("automatic")
    assert [problem.field for problem in caught.value.fields] == ["vae"]
    with pytest.raises(Refused, match="There is no VAE 'fien'") as caught:
        vae_for("fien")
    assert "fine [" in caught.value.fields[0].accepted
    assert caught.value.fields[0].accepted.startswith("none or fine [")


def test_weights_keep_the_hash_that_all_programs_know_unless_something_else_is_said_of_them():
    assert inspection.identity("a" * 64, None) == "a" * 64
    described = inspection.identity("a" * 64, "v")
    assert described not in ("a" * 64, inspection.identity("a" * 64, "w"), inspection.identity("b" * 64, "v"))


def test_what_a_file_is_comes_before_what_its_weights_are(record, resolve):
    weights = "a" * 64
    record(
        scanned("sea", "a" * 64, weights=weights),
        scanned("turned", "b" * 64, weights=weights),
        scanned("moon", "c" * 64, weights="d" * 64),
    )
    for text, name in (
        ("sea [aaaaaaaaaa]", "sea"), ("other [aaaaaaaaaa]", "sea"), ("turned [bbbbbbbbbb]", "turned"),
        ("moon [dddddddddd]", "moon"), ("other [dddddddddd]", "moon"), ("d" * 10, "moon"), ("a" * 64, "sea"),
    ):  # fmt: skip
        assert resolve(text).name == name, text
    record(scanned("one", "e" * 64, weights="f" * 64), scanned("two", "9" * 64, weights="f" * 64))
    assert resolve("two [ffffffffff]").name == "two"
    with pytest.raises(Refused, match="names 2 checkpoints"):
        resolve("ffffffffff")


def lora(path: str, sha256: str, **details: object) -> Scanned:
    name = path.rpartition("/")[2].rpartition(".")[0]
    return scanned(name, sha256, path=path, inspection=Inspection("lora", "sd1", details=details))


@pytest.fixture
def resolve_lora(sessions):
    return lambda text: transact(sessions, Catalogue.read).resolve(text, "lora")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ink", "Lora/ink.safetensors"), ("INK", "Lora/ink.safetensors"), ("ink.safetensors", "Lora/ink.safetensors"),
        ("Lora/ink", "Lora/ink.safetensors"), ("wash", "Lora/style/wash.pt"), ("style/wash", "Lora/style/wash.pt"),
        ("Style\\wash.pt", "Lora/style/wash.pt"), ("Water Colour", "Lora/style/wash.pt"),
        ("ink [aaaaaaaaaa]", "Lora/ink.safetensors"), ("a" * 12, "Lora/ink.safetensors"),
        ("0123456789ab", "Lora/style/wash.pt"), ("Pencil", "Lora/ink.safetensors"),
    ],
)  # fmt: skip
def test_a_lora_is_known_by_name_end_of_path_other_name_and_every_hash(record, resolve_lora, text, path):
    record(
        lora("Lora/ink.safetensors", "a" * 64, alias="pencil"),
        lora("Lora/style/wash.pt", "b" * 64, alias="water colour", short_hash="0123456789ab"),
        lora("Lora/dash.pt", "c" * 64, alias="INK"),
    )
    assert resolve_lora(text).path == path


def test_a_lora_that_is_not_there_is_refused_with_what_helps(record, resolve_lora):
    def said(text: str) -> tuple[str, str]:
        with pytest.raises(Refused) as caught:
            resolve_lora(text)
        (problem,) = caught.value.fields
        return problem.message, problem.accepted

    empty = "the file of a LoRA in the folder Lora of the models folder (FARM_MODELS)"
    assert said("ink") == ("There is no LoRA 'ink'", empty)
    record(scanned("sea"), lora("Lora/ink.pt", "a" * 64, alias="fluid"), lora("Lora/dash.pt", "b" * 64, alias="Fluid"))
    assert said("inc") == ("There is no LoRA 'inc'", "ink [aaaaaaaaaa]")
    assert said("sea") == ("sea is a whole checkpoint, not a LoRA", "dash [bbbbbbbbbb] or ink [aaaaaaaaaa]")
    message, accepted = said("fluid")
    assert message == "'fluid' names 2 LoRAs: Lora/dash.pt, Lora/ink.pt"
    assert accepted == "dash [bbbbbbbbbb] or ink [aaaaaaaaaa]"
    assert said("ash") == ("There is no LoRA 'ash'", "dash [bbbbbbbbbb]")


def test_a_name_may_end_as_a_title_does(record, resolve):
    record(scanned("sea [0123456789]", "a" * 64))
    assert resolve("sea [0123456789]").sha256 == "a" * 64
    assert resolve("sea [0123456789] [aaaaaaaaaa]").sha256 == "a" * 64


def test_files_of_one_name_are_offered_by_their_folders(record, resolve):
    record(scanned("sea", "a" * 64, path="old/sea.ckpt"), scanned("sea", "b" * 64, path="new/sea.ckpt"))
    with pytest.raises(Refused, match=r"'sea' names 2 checkpoints: new/sea\.ckpt, old/sea\.ckpt"):
        resolve("sea")
    assert resolve("old/sea.ckpt").sha256 == "a" * 64


def test_a_checkpoint_without_a_vae_needs_one(record, vae_for):
    record(scanned("sea", inspection=replace(GOOD, has_vae=False)), vae("VAE/fine.safetensors"))
    for text in ("automatic", "none"):
        with pytest.raises(Refused, match="sea has no VAE inside: name one, or lay sea") as caught:
            vae_for(text)
        assert caught.value.fields[0].accepted.startswith("fine [")
    assert vae_for("fine") == "VAE/fine.safetensors"
    record(scanned("sea", inspection=replace(GOOD, has_vae=False)), vae("sea.vae.pt"))
    assert vae_for("automatic") == "sea.vae.pt"


@pytest.mark.parametrize(
    ("has_vae", "beside", "words"),
    [
        (True, None, ["automatic", "none"]),
        (True, "sound", ["automatic", "none"]),
        (True, "torn", ["none"]),
        (False, None, []),
        (False, "sound", ["automatic"]),
        (False, "torn", []),
    ],
)
def test_a_refusal_of_a_vae_offers_only_what_is_accepted(record, vae_for, has_vae, beside, words):
    torn = Inspection("vae", reason="is damaged")
    files = [vae("sea.vae.pt", *([torn] if beside == "torn" else []))] if beside else []
    record(scanned("sea", inspection=replace(GOOD, has_vae=has_vae)), *files)
    refused = {}
    for text in ("automatic", "none", "nothing like it"):
        try:
            vae_for(text)
        except Refused as refusal:
            refused[text] = refusal.fields[0].accepted.split(" or ")
    assert refused.keys() == {"automatic", "none", "nothing like it"} - {*words}
    for offered in refused.values():
        assert [one for one in offered if one in {"automatic", "none"}] == words
        assert len(offered) == len(words) + 1, "and a file, or where to lay one"


def test_a_file_is_struck_until_it_changes(record, entries, sessions):
    def strike() -> int:
        return transact(sessions, lambda session: recording.count_crash(session, ["a" * 64], "it was ended by SIGBUS"))

    again = "replace the file, or touch it to have it tried again"
    reason = f"reading it ended its process twice: it was ended by SIGBUS; {again}"
    seen = scanned("alpha", parts="1")
    record(seen)
    assert (strike(), strike(), strike()) == (1, 1, 0)
    assert [(file.usable, file.reason) for file in entries()] == [(False, reason)]
    record(seen)
    assert [(file.usable, file.reason) for file in entries()] == [(False, reason)]
    record()
    record(seen)
    assert [file.usable for file in entries()] == [False]
    record(replace(seen, parts="2"))
    assert [(file.usable, file.strikes) for file in entries()] == [(True, 0)]


def test_a_crash_that_is_counted_while_a_scan_goes_on_is_not_forgotten(record, entries, sessions):
    seen = [scanned("alpha"), scanned("beta")]
    record(*seen)
    before = transact(sessions, recording.recorded)
    for _ in range(2):
        transact(sessions, lambda session: recording.count_crash(session, ["a" * 64], "it was ended by SIGBUS"))
    noticed = [replace(one, inspection=replace(GOOD, note="an odd header")) for one in seen]
    assert transact(sessions, lambda session: recording.record(session, noticed, before)) == 2
    assert [(file.name, file.usable, file.strikes, file.note) for file in entries()] == [
        ("alpha", False, 2, "an odd header"),
        ("beta", True, 0, "an odd header"),
    ]


def test_networks_of_files_are_not_read_where_names_are_looked_up(record, sessions):
    record(scanned("sea", components={"unet": Component("d", {"float16": 2})}))
    with statements(sessions) as sent:
        known = transact(sessions, Catalogue.read)
    assert known.resolve("sea").path == "sea.ckpt"
    assert any("model_files" in one for one in sent)
    assert not any("components" in one for one in sent)


def test_a_title_means_its_own_file_though_another_one_is_called_so(record, resolve):
    record(scanned("foo", "a" * 64), scanned(f"foo [{'a' * 10}]", "b" * 64))
    assert resolve(f"foo [{'a' * 10}]").sha256 == "a" * 64
    assert resolve(f"Foo [{'A' * 10}] [{'b' * 10}]").sha256 == "b" * 64


def test_a_file_that_was_loaded_somewhere_is_used_again(record, entries, sessions):
    record(scanned("alpha"), scanned("broken", inspection=replace(GOOD, reason="is damaged")))
    for _ in range(2):
        transact(sessions, lambda session: recording.count_crash(session, ["a" * 64], "gone"))
    assert not any(file.usable for file in entries())
    for sha256 in ("a" * 64, "b" * 64):
        transact(sessions, partial(recording.forget_crashes, sha256=sha256))
    assert [(file.usable, file.strikes, file.reason) for file in entries()] == [
        (True, 0, None),
        (False, 0, "is damaged"),
    ]


def test_files_are_struck_in_the_order_of_their_paths(record, sessions, settings):
    """Two burials that strike the same copies wait for one another, never both."""
    names = ("c", "a", "b")
    record(*(scanned(name, "f" * 64) for name in names))
    with sessions() as first, ThreadPoolExecutor() as others:
        first.execute(select(ModelFile.path).where(ModelFile.path == "a.ckpt").with_for_update())
        waiting = others.submit(transact, sessions, lambda session: recording.count_crash(session, ["f" * 64], "gone"))
        until(lambda: transact(sessions, is_anybody_waiting))
        rest = select(ModelFile.path).where(ModelFile.path != "a.ckpt").with_for_update(nowait=True)
        assert len(first.scalars(rest).all()) == 2
        first.rollback()
        assert waiting.result(10) == 3


def is_anybody_waiting(session):
    return session.scalar(sql("SELECT count(*) FROM pg_locks WHERE NOT granted")) > 0


def test_kept_catalogue_is_read_again_when_a_file_has_changed(sessions, record):
    kept = KeptCatalogue()

    def seen():
        with statements(sessions) as asked:
            names = {file.name for file in transact(sessions, kept.read).files}
        return names, len(asked)

    def forget(name):
        transact(sessions, lambda session: session.execute(sql("DELETE FROM model_files WHERE name = :name"), name))

    record(scanned("one"), scanned("two"))
    first, again = seen(), seen()
    record(scanned("three"))
    with_three = seen()
    forget({"name": "one"})
    assert (first[0], again, with_three[0]) == ({"one", "two"}, (first[0], 1), {"one", "two", "three"})
    assert seen()[0] == {"two", "three"}
    assert seen()[1] == 1


def test_kept_catalogue_knows_that_a_scan_is_awaited_now(sessions, record):
    record(scanned("one"))
    kept = KeptCatalogue()
    awaited = [transact(sessions, kept.read).awaited_since]
    transact(sessions, first_scan.record_start)
    awaited.append(transact(sessions, kept.read).awaited_since)
    transact(sessions, first_scan.record_scan)
    awaited.append(transact(sessions, kept.read).awaited_since)
    assert [since is not None for since in awaited] == [False, True, False]


def test_catalogue_without_a_usable_checkpoint_is_not_kept(sessions):
    kept, hand = KeptCatalogue(), Farmhand(sessions)
    assert not transact(sessions, kept.read).has_workers
    hand.worker()
    assert transact(sessions, kept.read).has_workers

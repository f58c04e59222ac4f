"""Words that embeddings teach: found in prompts without a tag, counted alike by form, API and engine."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.admission.learned_words import Lexicon
from shared.db.sessions import transact
from shared.errors import Refused
from shared.infotext.networks import written
from shared.models.catalogue import Catalogue
from shared.prompts.learned_words import LearnedWord, word_of
from shared.prompts.tokenizer import MAX_TOKENS, Tokenizer
from tests.conftest import catalogue_of_its_own
from tests.support.admissions import admitted

INK, MOOD, XL, TINY, SAME, BROKEN, TWICE = (letter * 64 for letter in "abcdef0")


@pytest.fixture(scope="module")
def sessions(home):
    """A farm with checkpoints and embeddings; no test changes it."""
    with catalogue_of_its_own(home) as (factory, make):
        make("sea", details={"width": 320, "context": 768})
        make("old")  # a row of an earlier version
        make("xl", architecture="sdxl", details={"width": 320, "context": 2048})
        make("refiner", architecture="sdxl-refiner", details={"width": 384, "context": 1280})
        make("small", details={"width": 64, "context": 96})

        def embedding(path: str, sha256: str, architecture: str | None, context: int, **vectors: int):
            details = {"context": context, "vectors": vectors}
            usable = sha256 != BROKEN
            reason = None if usable else "is damaged"
            make(
                word_of(path), path=path, kind="embedding", sha256=sha256, architecture=architecture, details=details,
                usable=usable, reason=reason,
            )  # fmt: skip

        embedding("embeddings/ink-style.pt", INK, "sd1", 768, text_encoder=3)
        embedding("embeddings/sd1/mood.bin", MOOD, "sd1", 768, text_encoder=1)
        embedding("embeddings/xl/mood.safetensors", XL, "sdxl", 2048, text_encoder=5, text_encoder_2=5)
        embedding("embeddings/tiny.pt", TINY, None, 96, text_encoder=2)
        embedding("embeddings/zz/INK-style.pt", SAME, "sd1", 768, text_encoder=7)
        embedding("embeddings/bad.pt", TWICE, "sd1", 768, text_encoder=2)
        embedding("embeddings/easyneg.pt", TWICE, "sd1", 768, text_encoder=2)
        embedding("embeddings/torn.pt", BROKEN, "sd1", 768, text_encoder=1)
        yield factory


@pytest.fixture(scope="module")
def admit(sessions):
    return lambda given: transact(sessions, lambda session: admitted(session, {"checkpoint": "sea"} | given, "ann"))


INK_FILE, MOOD_FILE = {"embeddings/ink-style.pt": INK}, {"embeddings/sd1/mood.bin": MOOD}
XL_FILE = {"embeddings/xl/mood.safetensors": XL}
BAD_FILE, EASYNEG_FILE = {"embeddings/bad.pt": TWICE}, {"embeddings/easyneg.pt": TWICE}  # the same bytes


@pytest.mark.parametrize(
    ("params", "embeddings"),
    [
        ({"prompt": "a boat"}, {}),
        ({"prompt": "an INK-style boat"}, INK_FILE),
        ({"prompt": "a boat", "negative_prompt": "(mood:1.2)"}, MOOD_FILE),
        ({"prompt": "[ink-style|mood] boat"}, INK_FILE | MOOD_FILE),
        ({"prompt": "[ink-style:mood:0] boat"}, MOOD_FILE),
        ({"prompt": "ink-styled moods torn"}, {}),
        ({"prompt": "mood", "checkpoint": "xl"}, XL_FILE),
        ({"prompt": "mood", "checkpoint": "old"}, MOOD_FILE),
        ({"prompt": "tiny mood", "checkpoint": "small"}, {"embeddings/tiny.pt": TINY}),
        ({"prompt": "mood tiny", "hires": {"checkpoint": "small"}}, MOOD_FILE | {"embeddings/tiny.pt": TINY}),
        ({"prompt": "boat", "hires": {"prompt": "mood"}}, MOOD_FILE),
        ({"prompt": "[boat:mood:30]", "steps": 20, "hires": {}}, MOOD_FILE),
        ({"prompt": "[boat:mood:30]", "steps": 20}, {}),
        ({"prompt": "mood", "checkpoint": "xl", "refiner": {"checkpoint": "refiner"}}, XL_FILE),
        ({"prompt": "a photo, bad"}, BAD_FILE),
        ({"prompt": "a photo", "negative_prompt": "easyneg"}, EASYNEG_FILE),
        ({"prompt": "easyneg", "negative_prompt": "bad"}, BAD_FILE | EASYNEG_FILE),
    ],
    ids=range(17),
)
def test_a_job_takes_the_embeddings_whose_words_it_mentions(admit, params, embeddings):
    models = admit(params).models
    assert models.embeddings == embeddings
    assert models.hashes == {f"embedding:{word_of(path)}": embeddings[path][:12] for path in embeddings}
    assert models.companions == admit(params | {"prompt": "", "negative_prompt": ""}).models.companions
    assert type(models).from_stored(json.loads(json.dumps(models.to_stored()))) == models


def test_the_text_of_a_picture_has_the_hashes_of_words(admit):
    models = admit({"prompt": "an ink-style boat", "negative_prompt": "mood"}).models
    assert written(models.hashes) == {"TI hashes": f"ink-style: {INK[:12]}, mood: {MOOD[:12]}"}


@pytest.mark.parametrize(
    ("params", "notes"),
    [
        ({"prompt": "tiny boat"}, ["tiny is an embedding for other checkpoints: sea (Stable Diffusion 1) reads"]),
        ({"prompt": "ink-style", "checkpoint": "xl"}, ["INK-style (Stable Diffusion 1) is an embedding for other"]),
        ({"prompt": "mood", "checkpoint": "xl"}, []),  # one of two files of that name fits
        ({"prompt": "a boat"}, []),
    ],
)
def test_a_word_for_other_checkpoints_is_noted(admit, params, notes):
    found = [note for note in admit(params).notes if "embedding" in note]
    assert len(found) == len(notes)
    assert all(note.casefold().startswith(start.casefold()) for note, start in zip(found, notes, strict=True))


def test_a_prompt_is_refused_that_words_make_too_long(admit):
    prompt = "ink-style " * (MAX_TOKENS // 3)
    assert admit({"prompt": prompt[: -len("ink-style ")]}).models.embeddings == INK_FILE
    with pytest.raises(Refused) as refused:
        admit({"prompt": prompt + "ink-style"})
    assert [(one.field, "tokens long" in one.message) for one in refused.value.fields] == [("prompt", True)]


PIECES = st.sampled_from(
    ["ink-style", "INK-STYLE", "mood", "tiny", "cat", ",", " ", "(", ":1.3)", "[", "]", "|", ":", "0.5", "BREAK"]
)


@given(st.lists(PIECES, max_size=40).map(" ".join))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_engine_cuts_the_chunks_that_admission_counted(sessions, admit, prompt: str):
    catalogue = transact(sessions, Catalogue.read)
    models = admit({"prompt": prompt}).models
    counts = {INK: 3, MOOD: 1, SAME: 7}
    tokenizer = Tokenizer()
    words = tokenizer.learn(
        tuple(LearnedWord(word_of(path), sha256, counts[sha256]) for path, sha256 in models.embeddings.items())
    )
    every = Lexicon.of(catalogue, catalogue.resolve("sea")).words
    assert tokenizer.chunks(prompt, words=words) == tokenizer.chunks(prompt, words=every)
    assert tokenizer.measure(prompt, words=words) == tokenizer.measure(prompt, words=every)

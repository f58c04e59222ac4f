"""Tags in prompts: each names a model file that fits the checkpoint, or is refused with what would be right."""

from __future__ import annotations

import json

import pytest

from shared.admission.adapters import MOST_ADAPTERS
from shared.db.sessions import transact
from shared.models.model_set import Merge, ModelSet
from shared.prompts.styles import Style
from tests.conftest import catalogue_of_its_own
from tests.support.admissions import admitted

SEA, XL, SMALL, TWO = "1" * 64, "2" * 64, "3" * 64, "4" * 64
INK, WASH, BIG, HAZE, LOHA, DORA, NARROW = (letter * 64 for letter in "abcdef0")
CALM, CALM_SEA, GRAND = (digit * 64 for digit in "987")
STYLES = {"inked": Style("inked", "<lora:ink:0.5>", "")}


@pytest.fixture(scope="module")
def sessions(home):
    """A farm with checkpoints and adapters; no test changes it."""
    with catalogue_of_its_own(home) as (factory, make):
        make("sea", sha256=SEA, details={"width": 320, "context": 768})
        make("xl", sha256=XL, architecture="sdxl", details={"width": 320, "context": 2048})
        make("small", sha256=SMALL, details={"width": 64, "context": 96})
        make("two", sha256=TWO, architecture="sd2", details={"width": 320, "context": 1024})

        def adapter(path: str, sha256: str, kind: str = "lora", architecture: str | None = "sd1", **details: object):
            name = path.rpartition("/")[2].rpartition(".")[0]
            make(name, path=path, sha256=sha256, kind=kind, architecture=architecture, details=details)

        adapter("Lora/ink.safetensors", INK, form="rows", alias="India Ink", short_hash="0123456789ab", context=768)
        adapter("Lora/style/wash.safetensors", WASH, form="rows")
        adapter("Lora/big.safetensors", BIG, architecture="sdxl", form="rows")
        adapter("hypernetworks/haze.pt", HAZE, "hypernetwork", None)
        adapter("Lora/loha.safetensors", LOHA, form="merged", algorithm="LoHa")
        adapter("Lora/dora.safetensors", DORA, form="merged", algorithm="DoRA")
        adapter("Lora/narrow.safetensors", NARROW, form="rows", width=64, context=96)
        make("torn", path="Lora/torn.pt", kind="lora", sha256=None, usable=False, reason="is cut off")
        adapter("embeddings/calm.pt", CALM, "embedding", vectors={"text_encoder": 4}, context=768)
        adapter("embeddings/calm sea.pt", CALM_SEA, "embedding", vectors={"text_encoder": 75}, context=768)
        both = {"text_encoder": 2, "text_encoder_2": 2}
        adapter("embeddings/grand.pt", GRAND, "embedding", "sdxl", vectors=both, context=2048)
        yield factory


@pytest.fixture
def admit(sessions):
    return lambda given: transact(
        sessions, lambda session: admitted(session, {"checkpoint": "sea"} | given, "ann", STYLES)
    )


@pytest.mark.parametrize(
    ("prompt", "adapters"),
    [
        ("a boat", {}),
        ("a boat <lora:ink:0.8>", {"lora:ink": INK}),
        ("<lyco:INK> <lora:india ink:-1>", {"lora:INK": INK, "lora:india ink": INK}),
        ("<lora:style/wash> <lora:Lora/ink.safetensors>", {"lora:style/wash": WASH, "lora:Lora/ink.safetensors": INK}),
        ("<lora:ink [aaaaaaaaaa]>", {"lora:ink [aaaaaaaaaa]": INK}),
        ("<lora:other [0123456789]:te=0:unet=0@0,1@0.5>", {"lora:other [0123456789]": INK}),
        ("(a <hypernet:haze:0.5>:1.2) AND [b:<lora:ink>:0.5]", {"hypernet:haze": HAZE, "lora:ink": INK}),
        ("a boat # <lora:nothing:1>\nat sea", {}),
    ],
)
def test_tags_name_files_by_what_the_catalogue_calls_them(admit, prompt, adapters):
    admission = admit({"prompt": prompt})
    assert (admission.models.adapters, admission.params.prompt) == (adapters, prompt)
    assert admission.models.hashes.keys() == adapters.keys()
    assert admission.models.companions == "", "they ride along, in calls that images with and without them share"


def test_a_style_may_bring_a_tag(admit):
    assert admit({"prompt": "a boat", "styles": ["inked"]}).models.adapters == {"lora:ink": INK}


def test_both_passes_name_adapters(admit):
    given = {"prompt": "<lora:ink>", "hires": {"prompt": "<lora:ink:0.2> <lora:wash:0.5>"}}
    assert admit(given).models.adapters == {"lora:ink": INK, "lora:wash": WASH}


def test_pictures_name_files_by_the_hashes_that_other_programs_write(admit):
    assert admit({"prompt": "<lora:ink> <lora:wash>"}).models.hashes == {
        "lora:ink": "0123456789ab",
        "lora:wash": "b" * 12,
    }


def test_what_is_stored_reads_as_it_was(admit):
    models = admit({"prompt": "<lora:ink> <lora:loha:0.5> <hypernet:haze>"}).models
    assert ModelSet.from_stored(json.loads(json.dumps(models.to_stored()))) == models
    assert admit({"prompt": "a boat"}).models.to_stored() == {"checkpoint": SEA}


NEGATIVE = "the tag in the prompt: it acts on both prompts; a negative weight reverses it"


@pytest.mark.parametrize(
    ("given", "field", "message", "accepted"),
    [
        ({"prompt": "<lora:inc>"}, "prompt", "There is no LoRA 'inc'", "ink [aaaaaaaaaa]"),
        (
            {"prompt": "<hypernet:ink>"}, "prompt", "ink is a LoRA, not a hypernetwork", "haze [dddddddddd]",
        ),
        ({"prompt": "<lora:calm>"}, "prompt", "calm is an embedding, not a LoRA", "dora [ffffffffff]"),
        ({"prompt": "<lora:torn>"}, "prompt", "torn cannot be used: is cut off", "dora [ffffffffff]"),
        ({"prompt": "<lora:big>"}, "prompt", "big (Stable Diffusion XL) does not fit sea (Stable Diffusion 1)",
         "a LoRA of Stable Diffusion 1, such as dora [ffffffffff], ink [aaaaaaaaaa] or loha [eeeeeeeeee]"),
        ({"prompt": "<lora:narrow>"}, "prompt", "narrow changes U-Nets of 64 channels, and that of sea has 320",
         "a LoRA of Stable Diffusion 1, such as"),
        ({"checkpoint": "small", "prompt": "<lora:ink>"}, "prompt",
         "ink changes U-Nets that read text of width 768, and that of small reads 96", "a LoRA of Stable Diffusion 1"),
        ({"prompt": "<lora:ink:loud>"}, "prompt", "'loud' is not a number", "<lora:name:0.8>"),
        ({"prompt": "<lora:ink:99>"}, "prompt", "from -10 to 10", "<lora:name:0.8>"),
        ({"prompt": "<mood:blue>"}, "prompt", "means nothing here", "<lora:name:0.8>"),
        ({"prompt": "<lora:ink:0.1>" * (MOST_ADAPTERS + 1)}, "prompt", "has 17 tags for adapters", "at most 16 tags"),
        ({"negative_prompt": "<lora:ink:1>"}, "negative_prompt", "names lora 'ink'", NEGATIVE),
        ({"hires": {"negative_prompt": "<lora:ink:1>"}}, "hires.negative_prompt", "names lora 'ink'", NEGATIVE),
        ({"hires": {"prompt": "<lora:inc>"}}, "hires.prompt", "There is no LoRA 'inc'", "ink"),
        ({"prompt": "<lora:ink>", "hires": {"checkpoint": "two"}}, "prompt",
         "ink (Stable Diffusion 1) does not fit two (Stable Diffusion 2)",
         "a LoRA of Stable Diffusion 1 or Stable Diffusion 2"),
        ({"prompt": "<lora:loha:0@0,1@0.5>"}, "prompt", "LoHa is merged into the checkpoint before the first step",
         "<lora:loha:0.8>"),
        ({"prompt": "<lora:loha:1:1:8>"}, "prompt", "loha cannot change its weight or rank on the way", "one weight"),
        ({"prompt": "<lora:loha:1>", "hires": {"prompt": "<lora:loha:0.5>"}}, "hires.prompt",
         "loha is merged into the checkpoint before the first step", "the same tags with the same weights"),
        ({"prompt": "a", "hires": {"prompt": "<lora:loha:0.5>"}}, "hires.prompt", "loha is merged", "the same tags"),
    ],
)  # fmt: skip
def test_a_tag_that_names_nothing_that_fits_is_refused_with_what_would(refusals, given, field, message, accepted):
    found = refusals({"checkpoint": "sea"} | given)
    assert found.keys() == {field}
    assert message in found[field][0]
    assert accepted in found[field][1]


def test_what_is_merged_makes_a_lane_of_its_own_whatever_the_order(admit):
    both = admit({"prompt": "<lora:dora:0.5> <lora:ink> <lora:loha:0.25:1>"}).models
    merges = (Merge(sha256=LOHA, text_encoder=0.25, unet=1.0), Merge(sha256=DORA, text_encoder=0.5, unet=0.5))
    assert (both.merges, both.adapters) == (tuple(sorted(merges)), {"lora:ink": INK})
    again = admit({"prompt": "<lora:loha:0.25:1> a boat <lora:dora:0.5>"}).models
    other = admit({"prompt": "<lora:loha:0.25:1> a boat <lora:dora:0.6>"}).models
    assert both.companions == again.companions != other.companions
    assert "" not in {both.companions, other.companions}
    assert both.checkpoints == (SEA,)


def test_weights_of_one_merged_file_add_up_and_none_is_left_out(admit):
    assert admit({"prompt": "<lora:loha:0.5><lora:LOHA:0.25>"}).models.merges == (
        Merge(sha256=LOHA, text_encoder=0.75, unet=0.75),
    )
    assert admit({"prompt": "<lora:loha:0><lora:dora:1><lora:dora:-1>"}).models.companions == ""


def test_the_second_pass_shares_what_is_merged(admit):
    assert admit({"prompt": "<lora:loha:1>", "hires": {"scale": 2}}).models.merges
    assert admit({"prompt": "<lora:loha:1>", "hires": {"prompt": "<lora:ink> <lora:loha:1>"}}).models.merges


# Embeddings: words of prompts.


@pytest.mark.parametrize(
    ("given", "embeddings"),
    [
        ({"prompt": "a boat"}, {}),
        ({"prompt": "a Calm, grand boat"}, {"calm": CALM}),
        ({"prompt": "(CALM sea:1.2) AND [a:calm:0.5]"}, {"calm": CALM, "calm sea": CALM_SEA}),
        ({"prompt": "a", "negative_prompt": "calm"}, {"calm": CALM}),
        ({"prompt": "calmness"}, {}),
        ({"hires": {"prompt": "calm", "negative_prompt": "calm sea"}}, {"calm": CALM, "calm sea": CALM_SEA}),
        ({"checkpoint": "xl", "prompt": "a calm, grand boat"}, {"grand": GRAND}),
        ({"checkpoint": "two", "prompt": "a calm boat", "hires": {"checkpoint": "sea"}}, {"calm": CALM}),
    ],
)  # fmt: skip
def test_prompts_mention_embeddings_that_were_made_for_their_checkpoints(admit, given, embeddings):
    models = admit(given).models
    assert models.embeddings == {f"embeddings/{name}.pt": sha256 for name, sha256 in embeddings.items()}
    assert models.hashes == {f"embedding:{name}": sha256[:12] for name, sha256 in embeddings.items()}
    assert ModelSet.from_stored(json.loads(json.dumps(models.to_stored()))) == models


def test_a_prompt_that_is_too_long_with_the_vectors_of_its_words_is_refused(admit, refusals):
    prompt = "calm sea, " * 16
    assert admit({"checkpoint": "xl", "prompt": prompt})
    assert "tokens long" in refusals({"checkpoint": "sea", "prompt": prompt})["prompt"][0]

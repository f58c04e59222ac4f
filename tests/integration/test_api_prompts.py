"""Tokens and styles over HTTP, and the prompts that admission takes."""

from __future__ import annotations

import pytest

from shared.prompts.tokenizer import MAX_TOKENS


def count(client, **body):
    answer = client.post("/api/v1/tokens", json=body)
    return answer.get_json() if answer.status_code == 200 else answer


@pytest.mark.parametrize(
    ("prompt", "tokens", "limit"),
    [
        ("", 0, 75),
        ("a photo of a cat", 5, 75),
        ("(a photo:1.3) of [a cat|two dogs]", 5, 75),
        ("cat " * 76, 76, 150),
        ("cat BREAK dog", 76, 150),
        ("cat AND dog AND cow", 1, 75),
        ("cat # not this", 1, 75),
    ],
)
def test_tokens_are_counted_as_they_will_be_used(client, prompt: str, tokens: int, limit: int):
    assert count(client, prompt=prompt) == {"tokens": tokens, "limit": limit}


def test_what_else_a_job_says_counts(client):
    assert count(client, prompt="[cat:two dogs:30]", steps=20)["tokens"] == 1
    assert count(client, prompt="[cat:two dogs:30]", steps=40)["tokens"] == 2
    assert count(client, prompt="[cat:two dogs:30]", steps=20, sampler="Heun")["tokens"] == 2
    assert count(client, prompt="(cat)", emphasis="None")["tokens"] == 3


def test_and_is_a_word_of_a_negative_prompt(client):
    assert count(client, negative_prompt="cat AND dog AND cow") == {"tokens": 5, "limit": 75}
    assert count(client, negative_prompt="[cat:two dogs:30]", steps=20)["tokens"] == 1
    assert count(client, negative_prompt="cat AND dog", prompt="cat AND dog")["tokens"] == 1, "the prompt's"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": 7},
        {"prompt": "x" * 10_001},
        {"negative_prompt": "x" * 10_001},
        {"promt": "cat"},
        {"prompt": "\ud800"},
    ],
)
def test_what_is_no_prompt_is_refused_by_its_field(client, body: dict):
    answer = count(client, **body)
    assert answer.status_code == 422
    (problem,) = answer.get_json()["errors"]
    assert problem["field"] in body
    assert problem["accepted"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"cat"'])
def test_a_body_that_is_no_object_is_refused(client, body: bytes):
    answer = client.post("/api/v1/tokens", data=body, content_type="application/json")
    assert answer.status_code in {400, 422}
    assert answer.get_json()["errors"][0]["field"] == "body"


def test_styles_are_listed(client, settings):
    settings.styles_path.parent.mkdir(parents=True, exist_ok=True)
    settings.styles_path.write_text("name,prompt,negative_prompt\nInk,ink,colour\n")
    assert client.get("/api/v1/styles").get_json() == {
        "styles": [{"name": "Ink", "prompt": "ink", "negative_prompt": "colour"}]
    }


def test_styles_that_cannot_be_read_are_told(client, settings):
    settings.styles_path.parent.mkdir(parents=True, exist_ok=True)
    settings.styles_path.write_bytes(b"\xff\xff")
    answer = client.get("/api/v1/styles")
    assert answer.status_code == 503
    assert str(settings.styles_path) in answer.get_json()["detail"]


@pytest.mark.parametrize("prompt", ["", "🌅🏖️ at dawn", "غروب الشمس (فوق البحر:1.3)", "[a|b] AND c :0.5 BREAK d", "((("])
def test_prompts_of_all_kinds_are_taken(client, checkpoint_factory, prompt: str):
    checkpoint_factory()
    answer = client.post("/api/v1/jobs", json={"prompt": prompt, "negative_prompt": prompt})
    assert answer.status_code == 202
    assert answer.get_json()["params"]["prompt"] == prompt


@pytest.mark.parametrize(
    ("field", "prompt"),
    [
        ("prompt", "a " * 5000),
        ("negative_prompt", "a " * 5000),
        ("prompt", "BREAK " * 30),
        ("prompt", "cat AND [dog:" + "a " * 2000 + ":5]"),
        ("negative_prompt", "a " * 700 + "AND " + "b " * 700),
    ],
    ids=["prompt", "negative", "breaks", "edited", "joined"],
)
def test_a_prompt_over_the_limit_is_refused_with_it(client, checkpoint_factory, field: str, prompt: str):
    checkpoint_factory()
    answer = client.post("/api/v1/jobs", json={field: prompt})
    assert answer.status_code == 422
    (problem,) = answer.get_json()["errors"]
    assert problem["field"] == field
    assert "tokens long" in problem["message"]
    assert f"{MAX_TOKENS:,} tokens" in problem["accepted"] or str(MAX_TOKENS) in problem["accepted"]


@pytest.mark.parametrize(
    ("field", "hires"),
    [
        ("prompt", {}),
        ("hires.prompt", {"prompt": "[cat:" + "a " * 2000 + ":25]"}),
        ("hires.prompt", {"prompt": "[cat:" + "a " * 2000 + ":1.5]", "steps": 3, "sampler": "Heun"}),
    ],
)
def test_what_a_prompt_says_in_the_second_pass_alone_counts(client, checkpoint_factory, field: str, hires: dict):
    checkpoint_factory()
    prompt = "cat" if hires else "[cat:" + "a " * 2000 + ":1.5]"
    answer = client.post("/api/v1/jobs", json={"prompt": prompt, "steps": 20, "hires": hires})
    assert answer.status_code == 422
    assert {problem["field"] for problem in answer.get_json()["errors"]} == {field}


def test_a_prompt_that_says_too_much_on_its_way_is_refused(client, checkpoint_factory):
    options = "|".join(f"a{number}" for number in range(150))
    checkpoint_factory()
    answer = client.post("/api/v1/jobs", json={"prompt": f"[{options}]" + " cat" * 400, "steps": 100})
    assert answer.status_code == 422
    (problem,) = answer.get_json()["errors"]
    assert (problem["field"], problem["message"]) == (
        "prompt",
        "is longer than 256 chunks of 75 tokens, with all variants of AND and editing",
    )
    assert problem["accepted"].startswith("at most 256")


@pytest.mark.parametrize("tag", ["<lora:ink:0.8>", "<hypernet:ink>", "<unheard:of>"])
def test_networks_are_refused_by_their_names(client, checkpoint_factory, tag: str):
    checkpoint_factory()
    answer = client.post("/api/v1/jobs", json={"prompt": f"a cat {tag}"})
    assert answer.status_code == 422
    (problem,) = answer.get_json()["errors"]
    assert problem["field"] == "prompt"
    assert any(word in problem["message"] for word in ("'ink'", "<unheard:…>"))


def test_a_farm_without_any_says_where_to_put_one(client, checkpoint_factory):
    checkpoint_factory("demo")
    answer = client.post("/api/v1/jobs", json={"prompt": "<lora:ink:0.8>"}).get_json()
    assert [one["message"] for one in answer["errors"]] == ["There is no LoRA 'ink'"]
    assert "in the folder Lora of the models folder (FARM_MODELS)" in answer["errors"][0]["accepted"]


def test_tags_are_no_tokens(client, checkpoint_factory):
    counted = [
        client.post("/api/v1/tokens", json={"prompt": f"a boat{tag}"}).get_json()["tokens"]
        for tag in ("", "<lora:ink:0.8>")
    ]
    assert counted == [2, 2]


def test_the_words_of_embeddings_are_counted_by_their_vectors(client, checkpoint_factory):
    def count(**given: str) -> int:
        return client.post("/api/v1/tokens", json={"prompt": "a Calm boat", **given}).get_json()["tokens"]

    checkpoint_factory("demo")
    checkpoint_factory("xl", architecture="sdxl")
    assert count() == 3
    checkpoint_factory("calm", kind="embedding", path="embeddings/calm.pt", details={"vectors": {"text_encoder": 5}})
    assert (count(), count(checkpoint="demo"), count(checkpoint="xl"), count(checkpoint="nothing")) == (7, 7, 3, 3)

"""What the farm has, over HTTP."""

from __future__ import annotations

from shared.db.sessions import transact
from shared.models import recording
from shared.models.inspection import Inspection, Scanned
from shared.params.samplers import SAMPLERS, SCHEDULES
from tests.support.queueing import Farmhand
from tests.support.waiting import until


def test_checkpoints_are_listed_with_why_some_cannot_be_used(client, checkpoint_factory):
    checkpoint_factory("good", native_size=256, sha256="ab" * 32, prediction="velocity")
    checkpoint_factory("torn", usable=False, reason="The file is cut off.", sha256=None, architecture=None)
    good, torn = client.get("/api/v1/checkpoints").get_json()["checkpoints"]
    assert (good["title"], good["native_size"], good["usable"]) == ("good [ababababab]", 256, True)
    assert (good["prediction"], torn["prediction"]) == ("velocity", None)
    assert (torn["title"], torn["usable"], torn["reason"]) == ("torn", False, "The file is cut off.")


def test_decoders_are_listed_apart_with_what_is_wrong_with_them(client, sessions):
    found = [
        Scanned("VAE-approx/taesd_decoder.pth", "taesd_decoder", 7, 1, "ab" * 32, Inspection("decoder")),
        Scanned("VAE-approx/torn.pth", "torn", 7, 1, None, Inspection("decoder", reason="is damaged")),
    ]
    transact(sessions, lambda session: recording.record(session, found))
    fine, torn = client.get("/api/v1/decoders").get_json()["decoders"]
    assert (fine["name"], fine["usable"], fine["reason"]) == ("taesd_decoder", True, None)
    assert (torn["usable"], torn["reason"]) == (False, "is damaged")
    assert client.get("/api/v1/vaes").get_json() == {"vaes": []}


def test_vaes_are_listed_apart_from_checkpoints(client, sessions):
    files = [
        Scanned("VAE/fine.pt", "fine", 7, 1, "ab" * 32, Inspection("vae", "sd1")),
        Scanned("VAE/torn.pt", "torn", 7, 1, None, Inspection("vae", reason="is damaged")),
    ]
    transact(sessions, lambda session: recording.record(session, files))
    fine, torn = client.get("/api/v1/vaes").get_json()["vaes"]
    assert (fine["title"], fine["path"], fine["usable"]) == ("fine [ababababab]", "VAE/fine.pt", True)
    assert (torn["title"], torn["usable"], torn["reason"]) == ("torn", False, "is damaged")
    assert client.get("/api/v1/checkpoints").get_json()["checkpoints"] == []


def test_samplers_and_schedules_are_listed(client):
    samplers = client.get("/api/v1/samplers").get_json()["samplers"]
    schedules = client.get("/api/v1/schedules").get_json()["schedules"]
    assert [sampler["name"] for sampler in samplers] == list(SAMPLERS)
    assert {name for sampler in samplers for name in sampler["schedules"]} == set(SCHEDULES)
    assert [schedule["name"] for schedule in schedules] == list(SCHEDULES)
    options = {listed["name"]: set(listed["options"]) for listed in (*samplers, *schedules)}
    assert "s_churn" in options["Euler"]
    assert "s_churn" not in options["Euler a"]
    assert options["karras"] == {"sigma_min", "sigma_max", "rho"}
    assert "k_euler_a" in next(listed for listed in samplers if listed["name"] == "Euler a")["aliases"]


def test_workers_are_listed_with_what_they_do(client, sessions, job_factory):
    job_factory()
    worker = Farmhand(sessions).worker(slots=8)
    claim = worker.claim()
    worker.heartbeat({claim.image_id: claim.attempt}, phase="loading checkpoint, about 8 s", resident=["ab" * 32])
    (told,) = client.get("/api/v1/workers").get_json()["workers"]
    assert (told["name"], told["slots"], told["running"]) == (worker.name, 8, 1)
    assert told["phase"] == "loading checkpoint, about 8 s"
    assert told["resident"] == ["ab" * 32]
    assert told["is_late"] is False


def test_rescan_asks_the_workers(client, services):
    asked = []
    services.events.listen_rescans(lambda: asked.append(1))
    assert client.post("/api/v1/checkpoints/rescan").status_code == 202
    until(lambda: asked, what="the order to reach a worker")


def test_files_of_other_kinds_are_listed_apart(client, sessions):
    found = [
        Scanned("Lora/ink.safetensors", "ink", 7, 1, None, Inspection("other", reason="is a LoRA: …")),
        Scanned("sea.safetensors", "sea", 7, 1, "ab" * 32, Inspection("checkpoint", "sd1", 512)),
    ]
    transact(sessions, lambda session: recording.record(session, found))
    (other,) = client.get("/api/v1/others").get_json()["others"]
    assert (other["path"], other["reason"]) == ("Lora/ink.safetensors", "is a LoRA: …")
    assert [one["name"] for one in client.get("/api/v1/checkpoints").get_json()["checkpoints"]] == ["sea"]
    refused = client.post("/api/v1/jobs", json={"checkpoint": "ink"})
    assert "ink cannot be used: is a LoRA" in refused.get_data(as_text=True)
    page = client.get("/").get_data(as_text=True)
    assert "1 file of kinds that the farm cannot use yet" in page
    assert "cannot be used" not in page


def lora(number: int, **details: object) -> Scanned:
    inspection = Inspection("lora", "sd1" if number % 2 else "sdxl", details={"form": "rows", **details})
    return Scanned(f"Lora/ink-{number}.pt", f"ink-{number}", 7, 1, f"{number:064x}", inspection)


EVERY_KIND = [
    Scanned("sea.safetensors", "sea", 7, 1, "ab" * 32, Inspection("checkpoint", "sd1", 512, prediction="noise")),
    Scanned("VAE/fine.pt", "fine", 7, 1, "cd" * 32, Inspection("vae", "sd1")),
    lora(1, rank=8, trigger_words=["Moss", "fern"], alias="Green", short_hash="0123456789ab"),
    *(lora(number) for number in range(2, 6)),
    Scanned("embeddings/calm.pt", "calm", 7, 1, "ef" * 32, Inspection("embedding", details={"vectors": {"unet": 2}})),
    Scanned("unet/x.pt", "x", 7, 1, None, Inspection("other", reason="is a U-Net alone: …")),
]


def test_model_files_of_every_kind_are_listed_with_what_they_say(client, sessions):
    transact(sessions, lambda session: recording.record(session, EVERY_KIND))
    body = client.get("/api/v1/models").get_json()
    assert [one["kind"] for one in body["models"]] == ["checkpoint", "vae", *["lora"] * 5, "embedding", "other"]
    assert (body["next"], body["total"], body["is_complete"]) == (None, 9, True)
    assert body["counts"]["kind"] == {"checkpoint": 1, "vae": 1, "lora": 5, "embedding": 1, "other": 1}
    ink, other = body["models"][2], body["models"][-1]
    assert (ink["title"], ink["usable"]) == ("ink-1 [0000000000]", True)
    assert {name: value for name, value in ink["details"].items() if value} == {
        "form": "rows", "rank": 8, "trigger_words": ["Moss", "fern"], "alias": "Green", "short_hash": "0123456789ab",
    }  # fmt: skip
    assert (other["usable"], other["reason"], other["details"]["form"]) == (False, "is a U-Net alone: …", None)


def test_model_files_are_filtered_searched_and_paged(client, sessions):
    transact(sessions, lambda session: recording.record(session, EVERY_KIND))

    def listed(query: str) -> list[str]:
        return [one["name"] for one in client.get(f"/api/v1/models?{query}").get_json()["models"]]

    assert listed("kind=lora&architecture=sd1") == ["ink-1", "ink-3", "ink-5"]
    assert listed("search=moss") == listed("search=GREEN") == listed("kind=lora&search=fern%20ink") == ["ink-1"]
    assert listed("search=moss%20wood") == []
    assert listed("search=embeddings/") == ["calm"]
    names, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/api/v1/models?kind=lora&limit=2{cursor and f'&cursor={cursor}'}").get_json()
        assert len(page["models"]) <= 2
        names, cursor = names + [one["name"] for one in page["models"]], page["next"]
    assert names == [f"ink-{number}" for number in range(1, 6)]
    assert listed("cursor=99999") == []
    for wrong in ("kind=loras", "limit=0", "limit=1001", "cursor=0", f"search={'x' * 201}", "kinds=lora"):
        assert client.get(f"/api/v1/models?{wrong}").status_code == 422, wrong


def test_checkpoints_come_all_at_once_or_by_pages(client, checkpoint_factory):
    for name in "abc":
        checkpoint_factory(name)
    whole = client.get("/api/v1/checkpoints").get_json()
    assert ([one["name"] for one in whole["checkpoints"]], whole["next"]) == ([*"abc"], None)
    page = client.get("/api/v1/checkpoints?limit=2").get_json()
    assert ([one["name"] for one in page["checkpoints"]], page["next"], page["total"]) == ([*"ab"], 2, 3)
    rest = client.get("/api/v1/checkpoints?limit=2&cursor=2").get_json()
    assert ([one["name"] for one in rest["checkpoints"]], rest["next"]) == (["c"], None)


def test_a_name_of_another_kind_is_refused_with_what_it_is(client, sessions):
    transact(sessions, lambda session: recording.record(session, EVERY_KIND))
    refused = client.post("/api/v1/jobs", json={"checkpoint": "ink-1"}).get_json()
    assert refused["errors"][0]["message"] == "ink-1 is a LoRA, not a whole checkpoint"

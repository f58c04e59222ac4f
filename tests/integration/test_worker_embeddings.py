"""Embeddings and hypernetworks on a worker's card: scanned, named by a prompt, loaded for its picture and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from shared.db.sessions import transact
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.scan import scan
from tests.support.admissions import admitted
from tests.support.checkpoints import NATIVE_SIZE, inspected, tiny_shape, write_tiny
from tests.support.hypernetwork_files import content, drawn
from tests.support.rendering import Farm, Seen
from worker.in_flight import Cancellation
from worker.render.model_cache import Model


def test_a_prompt_gets_the_vectors_of_its_words_and_the_hypernetworks_of_its_tags(settings, sessions, card):
    farm = Farm(settings.models, sessions)
    write_tiny(settings.models / "tiny.safetensors")
    (settings.models / "embeddings").mkdir()
    width = tiny_shape().text_width
    draw = torch.Generator().manual_seed(1)
    for name, wide in (("ink", width), ("wide", 768)):
        one = {
            "string_to_param": {"*": torch.randn(2, wide, generator=draw)},
            "string_to_token": {"*": 265},
            "name": "x",
        }
        torch.save(one, settings.models / "embeddings" / f"{name}.pt")
    shape = tiny_shape()
    (settings.models / "hypernetworks").mkdir()
    nets = content(drawn(1, [shape.unet_width, width], activation="relu"), activation="relu")
    torch.save(nets, settings.models / "hypernetworks" / "haze.pt")
    seen = scan(settings.models, [], inspected)
    transact(sessions, lambda session: recording.record(session, seen))
    assert [file.reason for file in transact(sessions, Catalogue.read).entries("embedding")] == [None, None]

    def painted(prompt: str):
        given = {
            "prompt": prompt,
            "checkpoint": "tiny",
            "steps": 2,
            "seed": 7,
            "width": NATIVE_SIZE,
            "height": NATIVE_SIZE,
        }
        admission = transact(sessions, lambda session: admitted(session, given, "ann"))
        claim = replace(
            farm.claim(),
            checkpoint=admission.models.checkpoint,
            stored=admission.params.model_dump(mode="json"),
            stored_models=admission.models.to_stored(),
        )
        return card.render(claim, Seen().watch(claim), Cancellation()).pixels, admission

    plain, _ = painted("a boat")
    other, admission = painted("a boat, ink wide")
    assert [*admission.models.embeddings] == ["embeddings/ink.pt"]
    (note,) = admission.notes
    assert note.startswith("wide (Stable Diffusion 1) is an embedding for other checkpoints: tiny")
    assert Model("embedding", admission.models.embeddings["embeddings/ink.pt"]) in card._model_cache.models()
    assert not np.array_equal(plain, other)
    hazy, admission = painted("a boat <hypernet:haze:0.8>")
    assert admission.notes == ()
    assert not np.array_equal(plain, hazy)
    assert np.array_equal(plain, painted("a boat")[0]), "the checkpoint is as before"

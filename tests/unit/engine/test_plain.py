"""The benchmark's plain loop and the engine paint the same pictures: neither leaves out work that is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench import plain
from shared.params.render import RenderParams
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.render import Kit, text_to_image


def test_the_engine_paints_what_a_plain_loop_paints(engine: Engine, tiny: Weights, tiny_path: Path) -> None:
    networks = plain.load(tiny_path)
    size = {"width": tiny.native_size, "height": tiny.native_size}
    runs = []
    for seed in range(4):
        params = RenderParams(
            prompt="sea at night", checkpoint="tiny", seed=seed, cfg_scale=plain.SCALE, steps=6, **size
        )
        runs.append(engine.render(text_to_image(params, Kit(tiny))))
    for seed, run in enumerate(runs):
        expected = plain.picture(networks, "sea at night", seed, steps=6, side=tiny.native_size)
        distance = np.abs(run.result(60).astype(int) - expected.astype(int))
        assert (distance > 1).mean() <= 0.001
        assert distance.max() <= 8

"""The engine alone, without a farm around it: what continuous batching gives by itself.

As a command it loads a checkpoint, then reads numbers of pictures and answers each with the seconds that they took,
rendered with a fixed number of pictures in flight.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from bench import plain
from shared.params.render import RenderParams
from worker.engine.architectures.weights import Weights
from worker.engine.devices import default_dtype, device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.render import Kit, Picture, text_to_image


def render(engine: Engine, weights: Weights, prompt: str, seed: int) -> Picture:
    """Return the picture of `seed`, as a slot of a worker asks for it."""
    params = RenderParams(
        prompt=prompt, checkpoint="bench", width=plain.SIDE, height=plain.SIDE, steps=plain.STEPS, seed=seed
    )
    picture: Picture = engine.render(text_to_image(params, Kit(weights))).result()
    return picture


def main() -> None:
    """Answer each line of standard input, a number of pictures, with the seconds that they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, required=True)
    options = plain.parse(parser)
    card = device(options.card)
    weights = load.load(options.checkpoint, card, default_dtype(card, "auto"))
    engine = Engine(weights.device)
    engine.start()
    with ThreadPoolExecutor(options.in_flight) as slots:
        plain.answer(
            lambda seeds: list(slots.map(lambda seed: render(engine, weights, options.prompt, seed), seeds)),
            options.seed,
        )
    engine.stop()


if __name__ == "__main__":
    main()

"""Files of the farm in the hands of another program's reader: the package `sd-parsers`."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from sd_parsers import ParserManager

from shared.infotext.writer import text
from shared.params.render import RenderParams
from worker.encode import picture

PARAMS = RenderParams(
    prompt="a boat at sea <lora:ink:0.8>, night", negative_prompt="fog, (rain:1.2)", steps=12, sampler="DPM++ 2M",
    schedule="karras", cfg_scale=5.5, seed=2**63 + 1, width=64, height=96, checkpoint="sea [0123456789]",
)  # fmt: skip


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_another_program_reads_prompts_sampler_and_checkpoint(form):
    said = text(PARAMS, version="1", hashes={"lora:ink": "0123456789ab"})
    file = picture(np.zeros((96, 64, 3), np.uint8), said, form)
    found = ParserManager().parse(BytesIO(file))
    [sampler] = found.samplers
    assert [one.value for one in sampler.prompts] == [PARAMS.prompt]
    assert [one.value for one in sampler.negative_prompts] == [PARAMS.negative_prompt]
    assert (sampler.name, sampler.model.name, sampler.model.hash) == ("DPM++ 2M", "sea", "0123456789")
    assert {name: sampler.parameters[name] for name in ("scheduler", "cfg_scale", "seed", "steps")} == {
        "scheduler": "Karras", "cfg_scale": "5.5", "seed": str(2**63 + 1), "steps": "12",
    }  # fmt: skip
    assert found.metadata["Size"] == "64x96"

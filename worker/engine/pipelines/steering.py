"""The steering of a pass beside its prompts."""

from __future__ import annotations

from worker.engine.architectures.conditioning import Steering
from worker.engine.pipelines.controls import controls
from worker.engine.pipelines.denoise_pass import Pass
from worker.engine.pipelines.image_prompts import image_prompts
from worker.engine.pipelines.img2img_host import Canvas
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks


def steering(this_pass: Pass, kit: Kit, canvas: Canvas | None = None) -> Asks[Steering]:
    """Return the control nets and the image prompts of a pass, which starts from `canvas` if from a picture.

    Raises RenderError if one of them does not suit the checkpoint, or a picture is missing.
    """
    return Steering((yield from controls(this_pass, kit, canvas)), (yield from image_prompts(this_pass, kit)))

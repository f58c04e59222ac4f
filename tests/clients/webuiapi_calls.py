"""The 27 calls of webuiapi, run in its environment: prints what it answered, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from PIL import Image
from webuiapi import ControlNetUnit, WebUIApi, WebUIApiResult
from webuiapi.webuiapi import raw_b64_img

SIDE = 64


def shown(answer: WebUIApiResult) -> dict[str, Any]:
    return {"images": [[one.format, *one.size] for one in answer.images], "info": answer.info}


answers, sys.stdout = sys.stdout, sys.stderr  # the client prints what it does
api = WebUIApi(baseurl=f"{sys.argv[1]}/sdapi/v1", username="anyone", password=sys.argv[2])
grey = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
mask = Image.new("L", (SIDE, SIDE), 255)
size = {"width": SIDE, "height": SIDE, "steps": 4}
told: dict[str, Any] = {}

# 17 lists
told["scripts"] = api.get_scripts()
told["options"] = api.get_options()
told["flags"] = api.get_cmd_flags()
told["progress"] = api.get_progress()
told["samplers"] = [one["name"] for one in api.get_samplers()]
told["schedulers"] = [one["label"] for one in api.get_schedulers()]
told["vaes"] = api.get_sd_vae()
told["upscalers"] = [one["name"] for one in api.get_upscalers()]
told["latent modes"] = [one["name"] for one in api.get_latent_upscale_modes()]
told["loras"] = api.get_loras()
told["models"] = [one["title"] for one in api.get_sd_models()]
told["hypernetworks"] = api.get_hypernetworks()
told["face restorers"] = api.get_face_restorers()
told["realesrgan models"] = api.get_realesrgan_models()
told["styles"] = [one["name"] for one in api.get_prompt_styles()]
told["embeddings"] = api.get_embeddings()
told["memory"] = api.get_memory()

# 10 actions
told["refreshed"] = api.refresh_checkpoints()
told["set"] = api.set_options({"CLIP_stop_at_last_layers": 2})
told["clip skip"] = api.get_options()["CLIP_stop_at_last_layers"]
api.util_set_model("demo")
told["model"] = api.util_get_current_model()
api.util_wait_for_ready()
told["txt2img"] = shown(
    api.txt2img(prompt="a lake at dawn", negative_prompt="rain", seed=7, n_iter=2, cfg_scale=5, **size)
)
told["controlled"] = shown(
    api.txt2img(
        prompt="a lake at dawn",
        seed=8,
        controlnet_units=[ControlNetUnit(image=grey, module="canny", model="edges", weight=0.8)],
        **size,
    )
)
told["plot"] = shown(
    api.txt2img(
        prompt="a lake at dawn",
        seed=9,
        script_name="X/Y/Z Plot",
        script_args=[4, "2,3", [], 9, "Euler a, LMS", [], 0, "", [], "True", "True", "False", "False", 0],
        **size,
    )
)
told["img2img"] = shown(
    api.img2img(images=[grey], prompt="a red sailboat", mask_image=mask, seed=10, denoising_strength=0.5, **size)
)
told["enlarged"] = shown(api.extra_single_image(image=grey, upscaler_1="Lanczos", upscaling_resize=2))
told["all enlarged"] = shown(api.extra_batch_images(images=[grey, grey], upscaler_1="Nearest", upscaling_resize=2))
told["png info"] = api.png_info(api.txt2img(prompt="a lake", seed=11, **size).image).info
told["interrupted"] = api.interrupt()
told["skipped"] = api.skip()
try:
    api.interrogate(raw_b64_img(grey))
except RuntimeError as error:
    told["interrogated"] = error.args[0]
try:
    api.txt2img(prompt="a lake", sampler_name="Eulre")
except RuntimeError as error:
    told["refused"] = [error.args[0], json.loads(error.args[1])]
json.dump(told, answers)

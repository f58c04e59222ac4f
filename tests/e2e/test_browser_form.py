"""Scripts of the form in a real browser: counts, choices that fit, pictures, masks, files that fill it in."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Locator, Page, expect

from api.use_cases.catalogue import OFFERED
from tests.conftest import CheckpointFactory
from tests.e2e import browsers
from tests.e2e.browsers import fill
from tests.support.queueing import Farmhand

pytestmark = pytest.mark.browser
OTHERS = (
    "a castle\nNegative prompt: fog\nSteps: 12, Sampler: Euler, Schedule type: Karras, CFG scale: 5.5, Seed: 42, "
    "Size: 64x128, Clip skip: 2, Hires upscale: 2, Hires upscaler: Latent, Token merging ratio: 0.5"
)


def png(colour: str = "teal", size: tuple[int, int] = (96, 64), text: str = "") -> bytes:
    info, data = PngInfo(), BytesIO()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", size, colour).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def file(data: bytes) -> dict[str, object]:
    return {"name": "picture.png", "mimeType": "image/png", "buffer": data}


def unfold(page: Page, title: str) -> Locator:
    """Open a folding group and return it."""
    group = page.locator("details.group").filter(has=page.locator("summary", has_text=title))
    group.locator("summary").click()
    return group


def drop(page: Page, target: str, data: bytes) -> None:
    """Drag a picture's file over the page, and let it fall on `target`."""
    files = page.evaluate_handle(
        """(text) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], "castle.png", { type: "image/png" }));
          return files;
        }""",
        base64.b64encode(data).decode(),
    )
    page.locator("body").dispatch_event("dragenter", {"dataTransfer": files})
    expect(page.locator('[data-shows="veil"]')).to_be_visible()
    page.locator(target).dispatch_event("drop", {"dataTransfer": files})


def submit(page: Page, *, watches: bool = False) -> dict[str, object]:
    """Press Render and return the job's parameters; `watches` goes to its page."""
    job = browsers.submit(page)
    if watches:
        page.goto(f"/jobs/{job}")
    return page.request.get(f"/api/v1/jobs/{job}").json()["params"]


def start_from(page: Page, data: bytes, width: int = 96) -> None:
    """Choose a picture to start from, and wait until the farm has it."""
    unfold(page, "img2img")
    page.get_by_label("Source picture").set_input_files(file(data))
    expect(page.get_by_alt_text("The source picture")).to_have_js_property("naturalWidth", width)


def scribble(page: Page) -> None:
    """Draw a stroke over the left half of the picture."""
    canvas = page.get_by_label("Mask over the picture")
    canvas.hover()  # which waits until the page has scrolled to it
    box = canvas.bounding_box()
    x, y = box["x"], box["y"] + box["height"] / 2
    page.mouse.move(x + box["width"] * 0.1, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.4, y, steps=5)
    page.mouse.up()


def test_tokens_are_counted_while_one_writes(visit):
    page = visit()
    counted = page.locator('[data-counts="prompt"]')
    expect(counted).to_be_hidden()
    page.get_by_label("Prompt", exact=True).press_sequentially("a red boat")
    expect(counted).to_have_text("3 / 75")
    page.get_by_label("Negative prompt", exact=True).fill("word " * 80)
    expect(page.locator('[data-counts="negative_prompt"]')).to_have_text("80 / 150")
    page.get_by_label("Prompt", exact=True).fill("word " * 2001)
    expect(counted).to_have_text("too long")
    expect(counted).to_have_attribute("title", re.compile("10,005 characters"))
    page.get_by_label("Prompt", exact=True).fill("a red boat")
    expect(counted).to_have_text("3 / 75")


def test_sampler_narrows_schedules_and_quiets_options_that_it_has_no_use_for(visit):
    page = visit()
    unfold(page, "Sampling options")
    churn = page.locator(".field").filter(has=page.get_by_label("Churn", exact=True))
    sampler = page.get_by_label("Sampler", exact=True)
    sampler.select_option("Euler")
    expect(churn).not_to_have_class(re.compile("is-useless"))
    page.get_by_label("Schedule", exact=True).select_option("karras")
    sampler.select_option("DDIM")
    expect(page.locator("#schedule option[value=karras]")).to_be_disabled()
    expect(page.get_by_label("Schedule", exact=True)).to_have_value("automatic")
    expect(churn).to_have_class(re.compile("is-useless"))


def test_folded_group_tells_what_was_set(visit):
    page = visit()
    group = unfold(page, "Noise & variation")
    page.get_by_label("Variation strength").fill("0.4")
    group.locator("summary").click()
    expect(group.locator("summary")).to_contain_text("Variation strength 0.4")


def test_title_of_a_group_in_which_much_is_set_fits_a_phone(visit):
    page = visit(viewport={"width": 390, "height": 800})
    group = unfold(page, "Noise & variation")
    for box in group.locator("input[inputmode]").all():
        box.fill("8")
    expect(group.locator("summary")).to_contain_text("·")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_styles_are_ticked(visit):
    page = visit()
    fill(page, "a castle")
    page.get_by_label("Oil").check()
    assert submit(page)["prompt"] == "a castle, oil on canvas"


def test_mask_is_drawn_over_the_picture_and_goes_up_with_the_job(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    scribble(page)
    undo.click()
    expect(page.get_by_label("Repaint only the part")).not_to_be_checked()
    page.get_by_role("button", name="Redo").click()
    expect(page.get_by_label("Repaint only the part")).to_be_checked()
    page.get_by_label("Inpaint area").select_option("only masked")
    fill(page, "a boat")
    img2img = submit(page, watches=True)["img2img"]
    assert img2img["mask"]["area"] == "only masked"
    mask = Image.open(BytesIO(page.request.get(f"/api/v1/uploads/{img2img['mask']['picture']}").body())).convert("L")
    assert mask.size == (96, 64)
    assert mask.getpixel((24, 32)) == 255
    assert mask.getpixel((80, 32)) == 0
    expect(page.get_by_alt_text("The mask")).to_have_js_property("naturalWidth", 96)


@pytest.mark.nightly
def test_mask_is_drawn_with_keys_and_kept_for_again(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    canvas = page.get_by_label("Mask over the picture")
    expect(canvas).to_be_focused()
    for key in ("ArrowUp", "[", "Space", "i"):
        page.keyboard.press(key)
    expect(page.get_by_label("Repaint only the part")).to_be_checked()
    fill(page, "a boat")
    first = submit(page, watches=True)["img2img"]
    page.get_by_role("link", name="Edit and render again").click()
    expect(canvas).to_be_visible()
    assert submit(page)["img2img"] == first


def test_picture_chosen_last_is_the_one_to_start_from_whichever_arrives_first(visit):
    page = visit()
    unfold(page, "img2img")
    held = []
    page.route("**/api/v1/uploads", lambda route: route.continue_() if held else held.append(route))
    chosen = page.get_by_label("Source picture")
    chosen.set_input_files(file(png("red")))
    expect(page.locator('[data-shows="sending"]')).to_have_text("Sending the picture…")
    chosen.set_input_files(file(png("navy", (48, 64))))
    expect(page.locator('[data-shows="sending"]')).to_have_text("48 × 64 pixels")
    with page.expect_response(re.compile("/api/v1/uploads$")) as answer:
        held[0].continue_()
    first = answer.value.json()["id"]
    page.evaluate("async (src) => Object.assign(new Image(), { src }).decode()", f"/api/v1/uploads/{first}")
    expect(page.get_by_alt_text("The source picture")).to_have_js_property("naturalWidth", 48)
    expect(page.get_by_label("Start from this picture")).not_to_have_value(first)
    fill(page, "a boat")
    assert submit(page)["img2img"]["picture"] != first


def test_mask_takes_back_its_last_hundred_deeds(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    undo, is_masked = page.get_by_role("button", name="Undo"), page.get_by_label("Repaint only the part")
    press = "(button, times) => { for (let i = 0; i < times; i += 1) button.click(); }"
    page.get_by_role("button", name="Invert").evaluate(press, 103)
    expect(is_masked).to_be_checked()
    undo.evaluate(press, 99)
    expect(is_masked).not_to_be_checked()
    expect(undo).to_be_enabled()
    undo.click()
    expect(undo).to_be_disabled()
    expect(is_masked).to_be_checked()
    fill(page, "a boat")
    picture = submit(page)["img2img"]["mask"]["picture"]
    mask = Image.open(BytesIO(page.request.get(f"/api/v1/uploads/{picture}").body())).convert("L")
    assert mask.getextrema() == (255, 255)


def test_picture_that_is_not_one_is_told_at_once(visit):
    page = visit()
    unfold(page, "img2img")
    page.get_by_label("Source picture").set_input_files(file(b"<svg onload=alert(1)>"))
    expect(page.locator('[data-shows="sending"]')).to_contain_text("not taken")
    fill(page, "a castle")
    assert submit(page)["img2img"] is None


def test_control_picture_is_shown_as_its_net_would_be_given_it(visit):
    page = visit(viewport={"width": 390, "height": 800}, color_scheme="dark")
    group = unfold(page, "ControlNet")
    given, said = group.get_by_alt_text("What ControlNet 1 is given"), group.get_by_role("status")
    expect(said).to_be_hidden()
    chosen = group.get_by_label("Control picture")
    chosen.set_input_files(file(png(size=(96, 64))))
    expect(said).to_have_text("None: the picture as it is, such as a depth map, 64 × 64")
    expect(given).to_have_js_property("naturalWidth", 64)  # the checkpoint's own size
    page.get_by_label("Width, pixels").fill("128")
    group.get_by_label("Preprocessor").select_option("blur")
    expect(said).to_have_text("Blur, 128 × 64")
    before = given.get_attribute("src")
    group.get_by_label("Threshold A").fill("300")
    expect(said).to_contain_text("No preview: Threshold A 300 is too large")
    assert given.get_attribute("src") == before  # the last good one stays
    larger = group.get_by_role("button", name="What ControlNet 1 is given")
    larger.focus()
    page.keyboard.press("Enter")
    expect(larger).to_have_attribute("aria-expanded", "true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    chosen.set_input_files(file(b"no picture"))
    expect(said).to_contain_text("No preview: Control picture is not a picture of a format")
    chosen.set_input_files([])
    expect(given).to_be_hidden()


def test_control_pictures_are_asked_for_one_at_a_time_and_the_newest_state_is_shown(visit):
    page = visit()
    group = unfold(page, "ControlNet")
    said, blurred = group.get_by_role("status"), group.get_by_label("Threshold A")
    group.get_by_label("Control picture").set_input_files(file(png()))
    group.get_by_label("Preprocessor").select_option("blur")
    expect(said).to_have_text("Blur, 64 × 64")
    held, given = [], group.get_by_alt_text("What ControlNet 1 is given")
    before, figure = given.get_attribute("src"), group.locator("figure").first
    page.clock.install()
    page.route("**/controlnet/preview", lambda route: held.append(route))  # noqa: PLW0108 - it sets an attribute
    for sigma in ("20", "30", ""):  # the last state is the one that is shown already
        blurred.fill(sigma)
        page.clock.run_for(1000)
        expect(figure).to_have_attribute("aria-busy", "true")
    assert [one.request.post_data_json["controlnet"][0]["threshold_a"] for one in held] == [20]
    held[0].continue_()
    expect(figure).to_have_attribute("aria-busy", "false")
    expect(said).to_have_text("Blur, 64 × 64")
    assert (len(held), given.get_attribute("src")) == (1, before)


def test_dropped_picture_fills_the_form_and_tells_what_cannot_be_honoured(visit):
    page = visit()
    drop(page, "#prompt", png(text=OTHERS))
    expect(page.get_by_text("Filled in from castle.png")).to_be_visible()
    expect(page.get_by_text("Token merging ratio")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a castle")
    for label, value in {
        "Steps": "12",
        "Sampler": "Euler",
        "Schedule": "karras",
        "Seed": "42",
        "Clip skip": "2",
    }.items():
        expect(page.get_by_label(label, exact=True)).to_have_value(value)
    expect(page.get_by_label("Render a second pass")).to_be_checked()
    expect(page.get_by_role("button", name="Restore your settings")).to_have_count(0)


def test_what_was_typed_is_put_back_after_a_picture_filled_the_form_in(visit):
    page = visit()
    prompt, steps = page.get_by_label("Prompt", exact=True), page.get_by_label("Steps", exact=True)
    prompt.fill("a hill\nat dawn")
    steps.fill("33")
    drop(page, "#prompt", png(text=OTHERS))
    expect(prompt).to_have_value("a castle")
    page.get_by_role("button", name="Restore your settings").click()
    expect(prompt).to_have_value("a hill\nat dawn")
    expect(steps).to_have_value("33")
    expect(page.get_by_label("Render a second pass")).not_to_be_checked()


def test_dropped_picture_becomes_the_one_to_start_from(visit):
    page = visit()
    drop(page, '[data-drops="source"]', png())
    expect(page.get_by_label("Start from this picture")).to_be_checked()
    fill(page, "a boat")
    assert submit(page)["img2img"]["denoising"] == 0.75


def test_finished_picture_is_looked_at_and_sent_on_to_be_inpainted(visit):
    page = visit()
    fill(page, "plain", Images="2", Seed="7")
    submit(page, watches=True)
    first = page.get_by_role("article", name="Image 1")
    first.get_by_role("link", name="plain").click()
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("1 of 2 · seed 7")
    page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text("2 of 2 · seed 8")
    page.keyboard.press("Escape")
    first.get_by_role("button", name="Inpaint").click()
    expect(page.get_by_label("Mask over the picture")).to_be_visible()
    scribble(page)
    assert submit(page)["img2img"]["mask"]["content"] == "original"


def test_second_pass_is_asked_for_without_scripts(visit):
    page = visit(java_script_enabled=False)
    fill(page, "a castle")
    unfold(page, "Hires")
    page.get_by_label("Render a second pass").check()
    page.get_by_label("Scale", exact=True).fill("1.5")
    unfold(page, "img2img")
    expect(page.get_by_role("button", name="Draw a mask")).to_be_hidden()
    assert submit(page)["hires"]["scale"] == 1.5


@pytest.mark.nightly
def test_fields_without_an_effect_on_the_chosen_checkpoint_are_quiet_and_keep_what_was_typed(
    chromium: Browser, environ, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=512)
    checkpoint_factory("beta", native_size=1024, architecture="sdxl")
    checkpoint_factory("gamma", native_size=768, architecture="sd2")
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        checkpoint = page.get_by_label("Checkpoint", exact=True)
        sdxl, guidance = page.locator("#group-sdxl"), page.locator("#group-guidance")
        for group in (sdxl, guidance):
            group.locator("summary").click()
        skip, original = (
            page.locator(".field").filter(has=page.locator(f'[id="{name}"]'))
            for name in ("clip_skip", "original_size.width")
        )
        quiet = re.compile("is-useless")

        expect(original).to_have_class(quiet)
        expect(skip).not_to_have_class(quiet)
        expect(sdxl).to_contain_text("These settings have no effect on Stable Diffusion 1.")
        page.get_by_label("Clip skip", exact=True).fill("2")
        page.get_by_label("Original width").fill("2048")
        page.get_by_label("Original height").fill("1536")

        checkpoint.select_option(index=1)
        expect(page.locator("#width")).to_have_attribute("placeholder", "1024")
        expect(original).not_to_have_class(quiet)
        expect(sdxl).not_to_contain_text("no effect")
        expect(guidance).to_contain_text(
            "Clip skip has no effect on Stable Diffusion XL unless “Clip skip on CLIP-L” is ticked."
        )
        page.get_by_label("Clip skip on CLIP-L").check()
        expect(skip).not_to_have_class(quiet)
        expect(guidance).not_to_contain_text("no effect")

        checkpoint.select_option(index=2)
        expect(page.locator("#width")).to_have_attribute("placeholder", "768")
        expect(skip).to_have_class(quiet)
        expect(guidance).to_contain_text("Clip skip has no effect on Stable Diffusion 2.")
        checkpoint.select_option(index=1)
        fill(page, "a fox")
        submit(page, watches=True)
        told = page.locator(".parameters").inner_text()
        for one in ("1024 × 1024", "Original width\n2048", "Clip skip on CLIP-L\nyes", "Clip skip\n2"):
            assert one in told


def test_adapters_are_searched_weighed_and_written_into_the_prompts(
    chromium: Browser, environ, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=512)
    checkpoint_factory("beta", native_size=1024, architecture="sdxl")
    words = {"algorithm": "LoCon", "rank": 8, "trigger_words": ["wet paper", "wash"]}
    checkpoint_factory("watercolour", kind="lora", path="Lora/style/watercolour.safetensors", details=words)
    checkpoint_factory("large", kind="lora", path="Lora/large.pt", architecture="sdxl")
    checkpoint_factory("calm", kind="embedding", path="embeddings/calm.pt", details={"vectors": {"text_encoder": 4}})
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        prompt, negative = page.get_by_label("Prompt", exact=True), page.locator("#negative_prompt")
        part = page.locator("#adapters")
        items = part.locator(".adapter")
        prompt.fill("a boat")
        part.locator("summary").focus()
        page.keyboard.press("Enter")
        search = part.get_by_label("Search")
        expect(search).to_be_visible()
        page.keyboard.press("Tab")
        expect(search).to_be_focused()
        page.keyboard.type("wash")
        page.keyboard.press("Enter")
        expect(items).to_have_count(1)
        expect(page).to_have_url(f"{address}/")  # Enter searches, and submits nothing
        page.keyboard.press("Tab")  # the first trigger word
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(prompt).to_have_value("a boat, wash")
        weight = part.get_by_label("Weight of watercolour")
        weight.focus()
        page.keyboard.press("ArrowRight")
        expect(part.locator("code")).to_have_text("<lora:watercolour:0.85>")
        part.get_by_role("button", name="Insert watercolour into the prompt").click()
        expect(prompt).to_have_value("a boat, wash <lora:watercolour:0.85>")
        expect(part.get_by_role("status")).to_have_text("The prompt has <lora:watercolour:0.85>")
        weight.press("Home")
        part.get_by_role("button", name="Insert watercolour into the prompt").click()
        expect(prompt).to_have_value("a boat, wash <lora:watercolour:-1>")
        search.fill("")
        expect(items).to_have_count(3)
        part.get_by_role("button", name="insert calm into the negative prompt").click()
        expect(negative).to_have_value("calm")
        expect(items.last).to_contain_text("large (Stable Diffusion XL) does not fit alpha")
        beta = page.locator("#checkpoint option").filter(has_text="beta").get_attribute("value")
        page.get_by_label("Checkpoint", exact=True).select_option(beta)
        expect(items.first).to_contain_text("large")


def test_pictures_side_by_side_fit_a_phone_with_all_that_can_be_done_with_them(
    chromium: Browser, environ, sessions, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=512)
    checkpoint_factory("a-very-long-name-of-an-upscaler", kind="upscaler")
    with (
        browsers.served(environ) as address,
        chromium.new_context(base_url=address, viewport={"width": 390, "height": 800}) as context,
    ):
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        asked = {"prompt": "two boats", "count": 2}
        job = page.request.post("/api/v1/jobs", data=asked).json()["id"]
        hand = Farmhand(sessions)
        worker = hand.worker()
        for _ in range(2):
            hand.finish(worker.claim())
        page.goto(f"/jobs/{job}")
        expect(page.locator(".image.is-succeeded")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        first, second = (page.locator(".image").nth(number) for number in range(2))
        border = second.bounding_box()["x"]
        for one in first.locator("button, .button, select, a").all():
            if not one.is_visible():  # in a menu that is closed
                continue
            box = one.bounding_box()
            assert box["x"] + box["width"] <= border
        for one in (first, second):
            one.get_by_text("Remix").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.nightly
def test_a_long_list_of_files_is_searched_and_picked_from_with_keys(
    chromium: Browser, environ, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=512)
    for number in range(12):
        checkpoint_factory(f"{number}x-{'sharp' if number % 4 else 'soft'}", kind="upscaler")
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        expect(page.get_by_label("Search Checkpoint")).to_have_count(0)  # it has few choices
        unfold(page, "Hires")
        page.get_by_label("Render a second pass").check()
        upscaler, search = page.locator('[id="hires.upscaler"]'), page.get_by_label("Search Upscaler")
        search.press_sequentially("SOFT x-")
        shown = upscaler.locator("option:not([hidden])")
        expect(shown).to_have_count(3)
        search.press("Enter")
        expect(page).to_have_url(f"{address}/")  # it picks, and submits nothing
        expect(upscaler).to_have_value(re.compile("^0x-soft "))
        expect(upscaler).to_be_focused()
        expect(search).to_have_value("")
        expect(shown).to_have_count(21)
        search.press_sequentially("soft")
        search.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(upscaler).to_have_value(re.compile("^4x-soft "))
        search.press_sequentially("8x")
        shown.first.click()
        expect(upscaler).to_have_value(re.compile("^8x-soft "))
        search.press_sequentially("sharp")
        page.get_by_label("Prompt", exact=True).fill("a fox")
        expect(search).to_have_value("")
        expect(upscaler).to_have_value(re.compile("^8x-soft "))  # what was searched for and not picked changes nothing
        submit(page, watches=True)
        assert "8x-soft" in page.locator(".parameters").inner_text()


@pytest.mark.nightly
def test_the_farm_is_asked_for_files_that_a_very_long_list_lacks(
    chromium: Browser, environ, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=512)
    for number in range(OFFERED + 20):
        folder, name = "late" if number > OFFERED else "early", f"{number:03}x"
        checkpoint_factory(name, kind="upscaler", path=f"{folder}/{name}.pt")
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        unfold(page, "Hires")
        page.get_by_label("Render a second pass").check()
        upscaler, search = page.locator('[id="hires.upscaler"]'), page.get_by_label("Search Upscaler")
        files = upscaler.locator("option:not([hidden])").filter(has_text="x [")
        expect(files).to_have_count(OFFERED)
        search.press_sequentially("late/")
        expect(files).to_have_count(19)  # by a folder, which no label shows
        search.press("Enter")
        expect(upscaler).to_have_value(re.compile(f"^{OFFERED + 1}x "))
        expect(files).to_have_count(OFFERED + 1)  # the first ones again, and the choice
        search.press_sequentially("119x")
        search.press("Enter")  # sooner than the farm is asked
        expect(upscaler).to_have_value(re.compile("^119x "))
        page.route("**/choices?*", lambda _: None)  # no answer yet
        search.press_sequentially("11")
        with page.expect_request("**/choices?*"):
            search.press("Enter")
        search.press("8")
        expect(search).to_have_value("118")
        expect(upscaler).to_have_value(re.compile("^119x "))
        page.unroute("**/choices?*")
        search.press("x")
        expect(files).to_have_count(1)
        expect(search).to_have_value("118x")
        search.fill("nothing")
        expect(files).to_have_count(0)
        search.press("Escape")
        expect(upscaler).to_have_value(re.compile("^119x "))
        page.get_by_label("Prompt", exact=True).fill("a fox")
        submit(page, watches=True)
        assert "119x" in page.locator(".parameters").inner_text()


@pytest.mark.nightly
def test_ip_adapter_takes_pictures_and_keeps_those_that_stay_ticked(
    chromium: Browser, environ, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("alpha", native_size=64)
    reads = {"image_features": "projected", "image_width": 1024, "form": "plain", "tokens": 4}
    checkpoint_factory("plain", kind="ip-adapter", path="ipadapter/plain.bin", sha256="5" * 64, details=reads)
    made = {"projected": 1024, "hidden": 1280}
    checkpoint_factory("vit", kind="image-encoder", path="clip_vision/vit.bin", sha256="6" * 64, details=made)
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        fill(page, "a castle")
        group = unfold(page, "IP-Adapter")
        group.get_by_label("IP-Adapter", exact=True).select_option(f"plain [{'5' * 10}]")
        group.get_by_label("Pictures").set_input_files([file(png("teal")), file(png("orange"))])
        group.locator("input[type=range]").first.fill("0.6")
        expect(group.get_by_label("Weight")).to_have_value("0.6")
        group.get_by_label("End").fill("0.8")
        expect(group.locator("summary")).to_contain_text(f"IP-Adapter plain [{'5' * 10}]")
        (unit,) = submit(page, watches=True)["ip_adapters"]
        assert (unit["weight"], unit["start"], unit["end"]) == (0.6, 0, 0.8)
        teal, orange = unit["pictures"]
        shown = page.locator(".started-from").filter(has_text="IP-Adapter 1 follows these pictures").locator("img")
        expect(shown).to_have_count(2)
        expect(shown.first).to_have_js_property("naturalWidth", 96)

        page.get_by_role("link", name="Again").first.click()
        held = page.locator(".held-pictures label")
        expect(held).to_have_count(2)
        held.first.click()
        assert submit(page)["ip_adapters"] == [unit | {"pictures": [orange]}]
        assert teal != orange


def test_what_varies_is_found_by_a_word_of_any_language_and_its_values_are_ticked(visit):
    page = visit()
    row = unfold(page, "Vary").locator(".vary-row").first
    finder = row.get_by_label("Search Setting that varies")
    finder.fill("采样方法")
    finder.press("Enter")
    expect(row.locator("select")).to_have_value("sampler")
    ticks = row.get_by_role("group", name="Values to choose from")
    ticks.get_by_label("LMS", exact=True).check()
    ticks.get_by_label("Heun", exact=True).check()
    values = row.get_by_label("Values", exact=True)
    expect(values).to_have_value("LMS, Heun")
    expect(page.locator('[data-shows="sweep-says"]')).to_contain_text("2 pictures")
    values.fill('euler, "LMS", "Heun" x')
    expect(ticks.get_by_label("Euler", exact=True)).to_be_checked()
    ticks.get_by_label("Euler", exact=True).uncheck()
    expect(values).to_have_value('LMS, """Heun"" x"')
    values.press_sequentially(", x")  # a change of the form that the click itself ends
    ticks.get_by_label("DDIM", exact=True).click()
    expect(values).to_have_value('LMS, """Heun"" x", x, DDIM')
    expect(ticks.get_by_label("DDIM", exact=True)).to_be_focused()
    values.press_sequentially(", y")
    values.press("Tab")
    expect(ticks.get_by_role("checkbox").first).to_be_focused()


def test_a_draft_brings_back_items_pictures_and_texts_beyond_those_that_a_fresh_form_has(visit):
    page, picture = visit(), "a" * 64
    fields = {
        "prompt": ["a castle"],
        "after": ["901", "902", ""],
        "controlnet.0.model": ["tile"],
        "controlnet.0.picture": [picture],
        "controlnet.1.model": ["canny"],
        "controlnet.1.weight": ["0.5"],
    }
    keep = "([owner, kept]) => localStorage.setItem(`stepfarm.draft.${owner}`, JSON.stringify(kept))"
    page.evaluate(keep, [page.locator(".composer").get_attribute("data-owner"), {"fields": fields}])
    other = page.context.new_page()
    other.route("**/typed", lambda route: route.fulfill(content_type="text/html", body="Sign in"))
    other.goto("/")
    prompt = other.locator('[name="prompt"]')
    expect(prompt).to_have_value("a castle")
    other.goto("/jobs")  # which keeps the draft, whole
    other.unroute("**/typed")
    held = []
    other.route("**/typed", lambda route: held.append(route))  # noqa: PLW0108 - it sets an attribute
    with other.expect_request("**/typed"):
        other.goto("/")
    prompt.fill("a castle by night")  # before the farm has answered
    held[0].continue_()
    expect(other.locator('[name="controlnet.1.weight"]')).to_have_value("0.5")
    expect(prompt).to_have_value("a castle by night")
    sent = other.evaluate("() => [...new FormData(document.querySelector('.composer'))]")
    assert [text for name, text in sent if name == "after" and text] == ["901", "902"]
    assert [text for name, text in sent if name == "controlnet.0.picture"] == [picture]
    assert [text for name, text in sent if name.startswith("controlnet.") and name.endswith(".model") and text] == [
        "tile",
        "canny",
    ]

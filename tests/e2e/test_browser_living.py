"""Pages that come alive under a person's hands: focus, place and what was drawn stay; what is not so is not said."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from api.use_cases.catalogue import OFFERED
from shared.db.sessions import transact
from shared.models import first_scan
from tests.conftest import CheckpointFactory
from tests.e2e import browsers
from tests.e2e.browsers import fill
from tests.e2e.test_browser_form import png, scribble, start_from, submit
from tests.support.waiting import until

pytestmark = pytest.mark.browser
LONG = ", ".join(["a painting of the desert at sunset with pyramids"] * 9) + "\nsun"


def render(page: Page, prompt: str, **fields: str) -> None:
    fill(page, prompt, **fields)
    submit(page, watches=True)


@pytest.mark.nightly
def test_a_list_that_grows_long_while_the_form_is_open_gets_its_search(
    chromium: Browser, environ, sessions, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("zebra", native_size=128)
    transact(sessions, first_scan.record_start)
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        checkpoint, search = page.locator("#checkpoint"), page.get_by_label("Search Checkpoint")
        expect(search).to_have_count(0)
        expect(checkpoint.locator("option").filter(has_text="zebra")).to_have_count(1)
        checkpoint.select_option(index=checkpoint.locator("option").count() - 1)
        for number in range(OFFERED + 1):
            checkpoint_factory(f"{number:03}x", path=f"{number:03}x.ckpt")
        transact(sessions, first_scan.record_scan)
        expect(search).to_be_visible()
        expect(checkpoint).to_have_value(re.compile("^zebra "))
        search.fill(f"{OFFERED:03}x")
        search.press("Enter")
        expect(checkpoint).to_have_value(re.compile(f"^{OFFERED:03}x "))


def mask_of(page: Page, img2img: dict[str, object]) -> Image.Image:
    picture = page.request.get(f"/api/v1/uploads/{img2img['mask']['picture']}").body()
    return Image.open(BytesIO(picture)).convert("L")


def test_job_of_a_first_visit_goes_off_when_the_models_folder_has_been_looked_at(
    chromium: Browser, environ, sessions, checkpoint_factory: CheckpointFactory
):
    transact(sessions, first_scan.record_start)
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        failed = []
        page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
        page.goto("/")
        chosen = page.locator("#checkpoint option:checked")
        expect(chosen).to_have_text("Scanning the models folder…")
        expect(page.get_by_text("The workers are starting")).to_be_visible()
        fill(page, "a red boat")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_text("your job will be submitted after that")).to_be_visible()
        expect(page.get_by_role("button", name="Render")).to_be_enabled()
        checkpoint_factory("demo", native_size=128)
        checkpoint_factory("later", native_size=64)
        transact(sessions, first_scan.record_scan)
        page.get_by_role("heading", name="a red boat").get_by_role("link").click()
        told = page.locator(".parameters").inner_text()
        assert "demo" in told
        assert "128 × 128" in told
        assert "later" not in told  # nor has any other field changed
        assert "Refiner" not in told
        assert failed == []


@pytest.mark.nightly
def test_checkpoints_that_come_and_go_leave_what_was_chosen(
    chromium: Browser, environ, sessions, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("beta")
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        select = page.get_by_label("Checkpoint", exact=True)
        mine = select.input_value()
        select.focus()
        checkpoint_factory("alpha", native_size=64)
        expect(select.locator("option")).to_have_count(2)
        expect(select).to_have_value(mine)
        expect(select).to_be_focused()
        select.select_option(index=0)
        expect(page.locator("#width")).to_have_attribute("placeholder", "64")


@pytest.mark.nightly
def test_drawn_mask_is_still_there_after_going_back(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    scribble(page)
    fill(page, "a boat")
    first = submit(page, watches=True)["img2img"]
    page.go_back()
    expect(page.get_by_label("Repaint only the part")).to_be_checked()
    expect(page.get_by_label("Mask over the picture")).to_be_visible()
    again = submit(page)["img2img"]
    assert again["picture"] == first["picture"]
    first_mask, again_mask = (mask_of(page, one).point(lambda value: 255 * (value > 127)) for one in (first, again))
    assert again_mask.tobytes() == first_mask.tobytes()


def test_drawn_mask_survives_a_reload_and_its_ticks_stay_as_they_were(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    scribble(page)
    page.get_by_label("Repaint only the part").uncheck()
    until(lambda: page.evaluate("history.state?.source?.isMasked === false && history.state.source.mask !== ''"))
    page.reload()
    expect(page.get_by_label("Mask over the picture")).to_be_visible()
    expect(page.get_by_label("Repaint only the part")).not_to_be_checked()
    expect(page.get_by_label("Start from this picture")).to_be_checked()
    fill(page, "a boat")
    assert submit(page)["img2img"]["mask"] is None


def test_ticked_box_over_an_empty_mask_is_refused(visit):
    page = visit()
    start_from(page, png())
    page.get_by_role("button", name="Draw a mask").click()
    scribble(page)
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Repaint only the part").check()
    fill(page, "a boat")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#notice")).to_contain_text("The page no longer has the mask")
    expect(page.locator("#notice")).to_be_focused()


def test_chosen_picture_brings_its_size_and_offers_its_own(visit):
    page = visit()
    width, height = page.get_by_label("Width, pixels"), page.get_by_label("Height, pixels")
    width.fill("64")
    height.fill("64")
    start_from(page, png(size=(96, 480)), width=96)
    expect(width).to_have_value("64")
    expect(height).to_have_value("320")
    expect(page.get_by_text("The picture’s proportions in the place of 64 × 64.")).to_be_visible()
    page.get_by_role("button", name="Its own size, 96 × 480").click()
    fill(page, "a boat")
    params = submit(page)
    assert (params["width"], params["height"]) == (96, 480)
    page.reload()
    expect(width).to_have_value("96")


def test_size_that_was_filled_in_goes_with_the_picture(visit):
    page = visit()
    start_from(page, png())
    expect(page.get_by_label("Width, pixels")).to_have_value("96")
    page.get_by_label("Start from this picture").uncheck()
    expect(page.get_by_label("Width, pixels")).to_have_value("")
    expect(page.get_by_label("Width, pixels")).to_have_attribute("placeholder", "64")


def test_focus_and_marked_text_outlive_what_is_drawn_anew(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    render(page, f"wait for {gate}", Images="2")
    again = page.get_by_role("link", name="Edit and render again")
    again.focus()
    page.evaluate(
        """() => {
          const words = document.querySelector(".prompt").firstChild;
          getSelection().setBaseAndExtent(words, 0, words, 8);
        }"""
    )
    gate.touch()
    expect(page.locator('[data-part="head"] .badge')).to_have_text("succeeded")
    expect(again).to_be_focused()
    assert page.evaluate("String(getSelection())") == "wait for"


def test_focus_goes_to_what_comes_in_the_place_of_a_button(visit):
    page = visit("/workers")
    page.get_by_role("button", name="Pause").click()
    resume = page.get_by_role("button", name="Resume")
    expect(resume).to_be_focused()
    expect(page.get_by_text("paused by ann")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause")).to_be_focused()


@pytest.mark.parametrize(
    ("width", "height"),
    [(390, 844), *(pytest.param(*size, marks=pytest.mark.nightly) for size in [(1280, 720), (1440, 900)])],
)
def test_picture_comes_before_the_rest_of_a_long_prompt(visit, width, height):
    page = visit(viewport={"width": width, "height": height})
    render(page, LONG)
    picture = page.locator(".image .picture").first
    expect(page.locator(".image.is-succeeded")).to_be_visible()
    expect(page.locator(".job-head progress")).to_be_hidden()  # it comes a moment after the picture, and moves it up
    assert picture.bounding_box()["y"] < height * 0.48
    more = page.locator(".whole summary")
    expect(page.locator(".whole .when-closed")).to_be_visible()
    before = page.locator(".prompt").bounding_box()["height"]
    more.click()
    assert page.locator(".prompt").bounding_box()["height"] > before
    page.goto("/")
    page.goto("/jobs")
    page.evaluate("scrollTo(0, 0)")
    assert page.locator(".job-row").first.bounding_box()["height"] < height * 0.5


def test_short_prompt_has_nothing_to_unfold(visit):
    page = visit(viewport={"width": 1440, "height": 900})
    render(page, "a painting of the desert at sunset, pyramids and sun")
    expect(page.locator(".whole summary")).to_be_hidden()


def test_nothing_is_asked_for_that_is_not_there(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    answers = []
    page.on("response", lambda answer: answers.append((answer.status, answer.url)))
    page.on("requestfailed", lambda request: answers.append((0, request.url)))
    render(page, f"wait for {gate}", Images="3", Steps="40")
    preview = page.locator(".preview").first
    expect(preview).to_be_visible()
    expect(preview).to_have_js_property("naturalWidth", 8)
    gate.touch()
    expect(page.locator(".image.is-succeeded")).to_have_count(3)
    assert any("preview.webp" in url for _, url in answers)
    left = (
        "/api/v1/tokens",
        "/events",
        "/strips",
        "/",
    )  # given up by the page itself, when it was left or the job had ended
    assert [one for one in answers if one[0] >= 400 or (one[0] == 0 and not one[1].endswith(left))] == []


def test_cancelling_one_of_many_leaves_the_page_where_it_is(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit(viewport={"width": 1280, "height": 720})
    render(page, f"wait for {gate}", Images="20")
    card = page.get_by_role("article", name="Image 16", exact=True)
    expect(page.locator(".image.is-running").first).to_be_visible()
    card.get_by_role("button", name="Cancel").scroll_into_view_if_needed()
    place = card.bounding_box()["y"]
    assert page.evaluate("scrollY") > 0
    card.get_by_role("button", name="Cancel").click()
    expect(card.locator(".badge")).to_have_text("cancelled")
    told = page.get_by_text("1 image cancelled")
    expect(told).to_be_in_viewport()
    expect(card.get_by_role("button", name="Retry")).to_be_focused()
    assert card.bounding_box()["y"] == pytest.approx(place, abs=2)
    card.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("1 image back in the queue")).to_be_in_viewport()
    gate.touch()


def test_list_that_is_filtered_stays_filtered_when_a_job_is_cancelled(visit, tmp_path: Path):
    page = visit()
    render(page, f"wait for {tmp_path / 'open'}")
    expect(page.locator('[data-part="head"] .badge')).to_have_text("running")
    page.goto("/jobs?state=running")
    page.get_by_role("article").first.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("1 image cancelled")).to_be_visible()
    expect(page.get_by_role("link", name="Running")).to_have_attribute("aria-current", "true")
    assert page.url.endswith("/jobs?state=running")


def test_lost_connection_is_told_until_it_is_back(visit):
    page = visit("/jobs")
    line = page.locator('[data-shows="connection"]')
    expect(line).to_have_text("")
    page.route("**/jobs", lambda route: route.abort())
    expect(line).to_have_text("Connection lost, trying again.")
    assert line.get_attribute("role") == "status"
    page.unroute("**/jobs")
    expect(line).to_have_text("")


def test_slider_shows_what_is_typed(visit):
    page = visit()
    for label, value in (("CFG scale", "25.5"), ("Steps", "100"), ("CFG scale", "60")):
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        assert float(box.evaluate("(box) => box.nextElementSibling.value")) == float(value)
    assert json.loads(page.locator("#cfg_scale + input").evaluate("(slider) => slider.max")) == 60


CUT = "(hints) => hints.filter((hint) => hint.scrollWidth > hint.clientWidth + 1).map((hint) => hint.textContent)"


@pytest.mark.parametrize("width", [390, 1280, 1440])
@pytest.mark.parametrize("path", ["/", "/jobs", "/workers", "/reference"])
def test_page_fits_its_window(visit, path, width):
    page = visit(path, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".above .hint").evaluate_all(CUT) == []
    first = page.locator("main > :not(.notices)").first.bounding_box()
    assert first["x"] < width * 0.1


@pytest.mark.nightly
def test_checkpoints_of_several_architectures_are_told_apart(
    chromium: Browser, environ, sessions, checkpoint_factory: CheckpointFactory
):
    checkpoint_factory("beach", prediction="noise")
    checkpoint_factory("noob", architecture="sdxl", prediction="velocity", native_size=1024)
    with browsers.served(environ) as address, chromium.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        select = page.get_by_label("Checkpoint", exact=True)
        expect(page.get_by_text("Stable Diffusion 1, predicts noise")).to_be_visible()
        select.select_option(index=1)
        expect(page.get_by_text("Stable Diffusion XL, predicts velocity")).to_be_visible()
        expect(page.locator("#width")).to_have_attribute("placeholder", "1024")
        checkpoint_factory("alps", architecture="sdxl", prediction="noise", native_size=1024)
        expect(select.locator("optgroup[label='Stable Diffusion XL'] option")).to_have_count(2)
        expect(page.get_by_text("Stable Diffusion XL, predicts velocity")).to_be_visible()
        page.get_by_role("link", name="Models", exact=True).click()
        page.get_by_role("link", name="Velocity 1").click()
        expect(page.get_by_role("heading", name="noob")).to_be_visible()
        expect(page.get_by_role("heading", name="alps")).to_have_count(0)

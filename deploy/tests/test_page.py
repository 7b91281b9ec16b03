"""The status page in a real browser, on a server under load: no errors, no sideways scrolling, every text to be seen and read."""

import json
import re

import pytest
from browser import Mirror, chromium, screenshot, title
from watched import get, until

PHONE, DESKTOP, HEIGHT = 360, 1100, 3000
PAGES = ["/", "/jobs/pictures", "/jobs/lm", "/jobs/scenes"]


@pytest.fixture(scope="module")
def mirror(watched):
    with Mirror(watched.addresses["http"]) as running:
        # Rates need two samples.
        until("no rate was told", lambda: "batches per second" in get(watched.addresses["http"] + "/"))
        yield running


def measured(mirror, path, width, scheme):
    """What a page of some width says of itself."""
    address = mirror.frame("measured", (path, width, HEIGHT), scheme=scheme)
    flags = ["--dump-dom", f"--window-size={DESKTOP + 100},{HEIGHT}"]
    document, console = chromium(address, *flags, scheme=scheme)
    assert not console
    return json.loads(title(document))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_under_its_own_policy_without_complaints(watched, path):
    document, console = chromium(f"{watched.addresses['http']}{path}?still", "--dump-dom")
    assert not console
    assert "</main>" in document and "<script" not in document
    headings = re.findall(r"<h([1-6])", document)
    assert headings[0] == "1" and headings.count("1") == 1
    assert all(int(next_) <= int(one) + 1 for one, next_ in zip(headings, headings[1:], strict=False)), headings


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("path", PAGES)
def test_every_text_is_within_the_page_and_stands_out_from_it(mirror, path, width, scheme):
    found = measured(mirror, f"{path}?still", width, scheme)
    assert found["width"] == width, "scrolls sideways"
    assert not found["clipped"]
    assert not found["pale"]
    assert found["texts"] > 20


def test_a_page_that_is_wrong_is_measured_as_such(mirror):
    mirror.replaced["/wrong"] = (
        "<!doctype html><body style='background:#fff'><p style='width:700px'>a text of its own width that goes on and on "
        "and does not end before the page does</p><p style='color:#ddd'>pale</p><p style='visibility:hidden'>away</p></body>"
    )
    found = measured(mirror, "/wrong", PHONE, "light")
    assert found["width"] == 700
    assert found["pale"] == ["pale"]
    assert "away" in found["clipped"] and len(found["clipped"]) == 2


def test_the_dark_page_is_dark(mirror, tmp_path):
    size = {}
    for scheme in ("light", "dark"):
        file = tmp_path / f"{scheme}.png"
        screenshot(f"{mirror.address}/?still", file, 800, 600, scheme)
        found = measured(mirror, "/?still", PHONE, scheme)
        size[scheme] = sum(found["paper"])
        assert file.read_bytes().startswith(b"\x89PNG")
    assert size["dark"] < 200 < 600 < size["light"]


def test_pictures_of_the_last_batch_are_asked_for_once(mirror, watched):
    """Twelve views of one file; they come while the CPU has time for them."""
    page = f"{watched.addresses['http']}/jobs/pictures?still"
    until("no rows were shown", lambda: 'class="thumbs"' in get(page))
    mirror.asked.clear()
    chromium(f"http://127.0.0.1:{mirror.port}/jobs/pictures?still", "--dump-dom")
    assert 1 <= len([path for path in mirror.asked if "batch.png" in path]) <= 2

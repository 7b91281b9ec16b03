"""The status page in a real browser, on a server under load: no complaints, no sideways scrolling, every text to be read."""

import json
import re

import pytest
from browser import Mirror, chromium, title
from watched import get, until

PHONE, DESK, HEIGHT = 360, 1100, 3000
PAGES = ["/", "/jobs/pictures", "/jobs/lm", "/jobs/scenes"]


@pytest.fixture(scope="module")
def mirror(watched):
    with Mirror(watched.addresses["http"]) as running:
        # Rates need two samples.
        until("no rate was told", lambda: "batches per second" in get(watched.addresses["http"] + "/"))
        yield running


def measured(mirror, path, scheme):
    """What a page says of itself on a phone and on a desk, by the width that it was given."""
    address = mirror.frame("both", (path, PHONE, HEIGHT), (path, DESK, HEIGHT), scheme=scheme)
    document, console = chromium(address, "--dump-dom", f"--window-size=1500,{HEIGHT}", scheme=scheme)
    assert not console
    found = [json.loads(each) for each in title(document).splitlines()]
    return {each["given"]: each for each in found}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_under_its_own_policy_without_complaints(watched, path):
    document, console = chromium(f"{watched.addresses['http']}{path}?still", "--dump-dom")
    assert not console
    assert "</main>" in document and "<script" not in document
    headings = [int(level) for level in re.findall(r"<h([1-6])", document)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(headings, headings[1:], strict=False)), headings


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_every_text_is_within_the_page_and_stands_out_from_it(mirror, path, scheme):
    found = measured(mirror, f"{path}?still", scheme)
    assert set(found) == {PHONE, DESK}
    for width, page in found.items():
        assert page["width"] == width, "scrolls sideways"
        assert not page["clipped"]
        assert not page["pale"]
        assert page["texts"] > 20
        assert sum(page["paper"]) > 600 if scheme == "light" else sum(page["paper"]) < 200


def test_a_page_that_is_wrong_is_measured_as_such(mirror):
    mirror.replaced["/wrong"] = (
        "<!doctype html><body style='background:#fff'><p style='width:700px'>a text of its own width that goes on and on "
        "and does not end before a phone does</p><p style='color:#ddd'>pale</p><p style='visibility:hidden'>away</p></body>"
    )
    found = measured(mirror, "/wrong", "light")
    assert found[PHONE]["width"] > 700 and found[DESK]["width"] == DESK
    assert found[PHONE]["pale"] == ["pale"] == found[DESK]["pale"]
    assert "away" in found[PHONE]["clipped"] and len(found[PHONE]["clipped"]) == 2
    assert found[DESK]["clipped"] == ["away"]


def test_views_of_the_last_batch_share_one_file(mirror, watched):
    """Twelve views; rows are made while the CPU has time for them."""
    page = f"{watched.addresses['http']}/jobs/pictures?still"
    until("no rows were shown", lambda: 'class="thumbs"' in get(page))
    mirror.asked.clear()
    chromium(f"http://127.0.0.1:{mirror.port}/jobs/pictures?still", "--dump-dom")
    assert 1 <= len([path for path in mirror.asked if "batch.png" in path]) <= 2

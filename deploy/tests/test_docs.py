"""docs/operations.md names everything that an operator can meet."""

import re
import subprocess

import pytest
from promql import ROOT, alerts, families

TEXT = (ROOT / "docs/operations.md").read_text()


def section(title):
    """Text below a heading, up to the next one of its level or above."""
    level = title.split(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", TEXT.split(f"\n{title}\n")[1], maxsplit=1, flags=re.M)[0]


def first_cells(text):
    """What is in backquotes at the beginning of a table's lines."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.M))


def test_every_metric():
    assert first_cells(section("## Metrics")) == families()


def test_every_alert_has_a_runbook_and_no_other():
    assert re.findall(r"^### (Mixfeed\w+)$", TEXT, re.M) == [alert["alert"] for alert in alerts()]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_a_runbook_says_how_to_confirm_and_what_to_do(alert):
    runbook = section(f"### {alert['alert']}")
    assert f"*{alert['labels']['severity']}.*" in runbook
    assert "**Confirm:**" in runbook and "**Do:**" in runbook


def test_every_flag_of_serve(program):
    text = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"(--[a-z-]+)", text)) - {"--help", "--version"}
    table = section("### Flags of `mixfeed serve`")
    assert first_cells(table) == flags
    assert set(re.findall(r"MIXFEED_[A-Z_]+", text)) == set(re.findall(r"MIXFEED_[A-Z_]+", table)) - {
        "MIXFEED_ENDPOINT"
    }


def test_every_key_of_the_server_table():
    source = (ROOT / "server/src/config.rs").read_text()
    keys = re.findall(r"^    pub (\w+):", source.split("pub struct Server {")[1].split("\n}")[0], re.M)
    assert first_cells(section("### `[server]`")) == set(keys)


def test_every_key_of_the_limits_table():
    source = (ROOT / "server/src/config/limits.rs").read_text()
    keys = re.findall(r"^    pub (\w+):", source.split("pub struct Limits {")[1].split("\n}")[0], re.M)
    assert first_cells(section("### `[server.limits]`")) == set(keys)


def test_links_inside_the_page_lead_somewhere():
    headings = re.findall(r"^#+ (.+)$", TEXT, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {link for link in re.findall(r"\]\(#([^)]+)\)", TEXT)} <= anchors

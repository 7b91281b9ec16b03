"""Dashboards: their shape, and what Grafana would trip over."""

import json
import re

import jsonschema
import pytest
import yaml
from promql import DEPLOY, boards

SCHEMA = json.loads((DEPLOY / "tests/dashboard.schema.json").read_text())
BOARDS = boards()


@pytest.fixture(params=BOARDS, ids=lambda name: name.removesuffix(".json"))
def board(request):
    return request.param, BOARDS[request.param]


def test_shape(board):
    jsonschema.validate(board[1], SCHEMA, jsonschema.Draft202012Validator)


def test_uid_is_the_file_name(board):
    name, board = board
    assert board["uid"] == f"mixfeed-{name.removesuffix('.json')}"


def test_panels_have_ids_of_their_own_and_do_not_overlap(board):
    panels = board[1]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


def test_variables_that_are_used_exist_and_filter(board):
    board = board[1]
    known = {variable["name"] for variable in board["templating"]["list"]} - {"datasource"}
    text = json.dumps(board["panels"])
    used = set(re.findall(r"\$(\w+)", text)) - {"__rate_interval"}
    assert used == known


def test_queries_of_a_panel_are_told_apart(board):
    for panel in board[1]["panels"]:
        ids = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(ids)) == len(ids), panel["title"]


def test_first_row_answers_the_question():
    panels = BOARDS["overview.json"]["panels"]
    first = next(i for i, panel in enumerate(panels) if i and panel["type"] == "row")
    text = json.dumps(panels[1:first])
    for series in ("mixfeed_stall", "mixfeed_stream_waits", "mixfeed_stage_busy", "mixfeed_pool_busy", "mixfeed_mixture_error"):
        assert series in text
    assert "alertlist" in {panel["type"] for panel in panels[1:first]}
    assert all(panel["gridPos"]["y"] + panel["gridPos"]["h"] <= 8 for panel in panels[1:first]), (
        "seen without scrolling"
    )


def test_provisioning_points_at_what_compose_mounts():
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/mixfeed.yml").read_text())["providers"]
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    mounts = {volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounts and not provider["allowUiUpdates"]
    assert {source["url"].split("/")[2].split(":")[0] for source in sources} <= set(compose["services"])

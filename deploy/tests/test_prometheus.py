"""Prometheus' own checks of its files, and ours: every alert is tested both ways and has a runbook."""

import subprocess

import pytest
import yaml
from promql import DEPLOY, alerts, board_queries, boards, families, family, names, recorded, rule_files, rules

TESTS = sorted((DEPLOY / "prometheus/tests").glob("*.yml"))

#: Metrics that no dashboard shows, with the reason.
ABSENT = {"mixfeed_stream_seconds_total": "its panels come with those of clients"}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_valid():
    run("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml")
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *rule_files())


def test_alertmanager_takes_its_configuration():
    run("amtool", "check-config", DEPLOY / "alertmanager/alertmanager.yml")


@pytest.mark.parametrize("severity, receiver", [("page", "page"), ("ticket", "ticket")])
def test_alerts_are_routed_by_severity(severity, receiver):
    config = DEPLOY / "alertmanager/alertmanager.yml"
    labels = ["alertname=MixfeedDown", f"severity={severity}"]
    run("amtool", "config", "routes", "test", f"--config.file={config}", f"--verify.receivers={receiver}", *labels)


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_cases_say(file):
    run("promtool", "test", "rules", file)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    cases = [
        case for file in TESTS for test in yaml.safe_load(file.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    rests = {case["alertname"] for case in cases if not case["exp_alerts"]}
    known = {alert["alert"] for alert in alerts()}
    assert known and (fires, rests) == (known, known)


def test_every_alert_has_a_severity_and_a_runbook(root):
    lines = (root / "docs/operations.md").read_text().splitlines()
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert f"### {alert['alert']}" in lines


def test_every_series_that_rules_and_dashboards_read_is_exported_or_recorded():
    known = families()
    assert len(known) > 20
    queries = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()] + list(board_queries())
    for where, query in queries:
        read = names(query)
        assert read or "up{" in query, f"{where} reads nothing of ours: {query}"
        unknown = {name for name in read if family(name, known) not in known and name not in recorded()}
        assert not unknown, f"{where}: {unknown}"


def test_every_metric_is_on_a_dashboard_or_absent_for_a_reason():
    known, made = families(), {rule["record"]: names(rule["expr"]) for rule in rules() if "record" in rule}
    shown, fresh = set(), {name for _, query in board_queries() for name in names(query)}
    while fresh:
        shown |= fresh
        fresh = {inner for name in fresh for inner in made.get(name, ())} - shown
    shown = {family(name, known) for name in shown}
    assert known - shown == set(ABSENT), "metrics that nobody would see"


def test_every_recorded_series_is_read():
    read = {name for rule in rules() for name in names(rule["expr"])}
    read |= {name for _, query in board_queries() for name in names(query)}
    unread = set(recorded()) - read
    assert not unread, "recorded, but neither in a rule nor on a dashboard"


def test_dashboards_of_the_issue_are_there():
    assert set(boards()) == {"overview.json", "mixture.json", "pipeline.json", "streams.json"}

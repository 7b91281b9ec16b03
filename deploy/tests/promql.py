"""What the rules and dashboards ask Prometheus, and what the server says that it exports."""

import json
import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[1]
ROOT = DEPLOY.parent
METRICS = ROOT / "server/src/metrics.rs"

#: Metrics of the server, and series that recording rules make.
NAME = re.compile(r"\b(?:\w+:)?mixfeed_\w+(?::\w+)?")


def rule_files():
    return sorted((DEPLOY / "prometheus").glob("*.rules.yml"))


def rules():
    """Every rule, recording or alert."""
    files = (yaml.safe_load(path.read_text()) for path in rule_files())
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def recorded():
    return [rule["record"] for rule in rules() if "record" in rule]


def boards():
    """Dashboards by file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))}


def board_queries():
    """(file and panel, PromQL) of every panel, annotation and variable."""
    for file, board in boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{file}: {panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            yield f"{file}: {annotation['name']}", annotation["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                series, _ = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
                yield f"{file}: ${variable['name']}", series


def names(expression):
    """Series that an expression reads."""
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    return set(NAME.findall(without_strings))


def families():
    """Metrics that the server describes, histograms without suffix."""
    return set(re.findall(r'^const [A-Z_]+: &str = "(mixfeed_\w+)";$', METRICS.read_text(), re.M))


def family(name, known):
    """The metric that a series belongs to."""
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if name not in known and stem in known else name

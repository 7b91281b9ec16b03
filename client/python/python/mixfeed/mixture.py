"""The mixture of a job as the server has it: what is in force, and the log of its changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MixtureEntry:
    """One change of a mixture. Entries are appended to the log, never changed."""

    seq: int
    """Position in the log, from 1; `batch.segment` of the steps that it governs."""
    branch: int
    """Branch that it belongs to; one begins where training goes back."""
    from_step: int
    """First step that it governs; of a strike the first one that it takes back."""
    until_step: int
    """First step that it no longer governs; 0: until the next entry."""
    kind: str
    """`main`, `probe`, `hold` (a report was late), `feedback`, `executor` or `strike`."""
    weights: dict[str, float]
    """Share of each group, summing to 1; empty for a strike."""
    counts: dict[str, int]
    """Rows per group of a probe; empty otherwise."""
    mixture_id: int
    """`batch.mixture_id` of the steps that it governs."""
    author: str
    """Who appended it: `spec`, `operator:NAME`, `estimator:NAME`, `late` or `attempt:N`."""
    receipt: str
    """The estimator's receipt, or an operator's note."""
    due: tuple[tuple[str, str], ...]
    """Reports that are due, each as when (`before`, `after` or `each_step`) and kind (`eval`, ...)."""
    probe_group: str | None
    """Group whose probe it is."""
    round: int
    """Round of the estimator, from 0."""
    losses: dict[str, float]
    """Held-out loss of each task at `from_step`, nats; NaN where there is none, empty where no round's
    reports led to the entry."""
    shadows: dict[str, dict[str, float]]
    """Share of each group that each shadow estimator would serve from here on."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture at one moment."""

    weights: dict[str, float]
    """Share of each group that is in force, summing to 1; of a probe while one is served (`entry.kind`)."""
    mixture_id: int
    """Its number, as in `batch.mixture_id`."""
    status: str
    """`given` (nobody learns), `serving`, `waiting` (for reports) or `degraded` (rounds without evidence)."""
    losses: dict[str, float]
    """Held-out loss of each task at the last evaluation, nats; NaN where there is none, empty before the
    first."""
    shadows: dict[str, dict[str, float]]
    """Share of each group that each shadow estimator would serve now."""
    entry: MixtureEntry
    """The log's entry that is in force."""
    horizon: int
    """No server has begun a step at or after this one."""
    version: int
    """`seq` of the last entry of the log."""
    attempt: int
    """Number of the trainer's attempt, 0 before the first."""
    reports: dict[str, int]
    """Reports by outcome since the job was opened: `accepted`, `stale`, `rejected (not_finite)`, ..."""


def mixture_of(text: str) -> Mixture:
    """A mixture from the core's JSON."""
    told = json.loads(text)
    groups, tasks = told["groups"], told["tasks"]
    entry = _entry(told["entry"], groups, tasks)
    return Mixture(
        weights=dict(entry.weights),
        mixture_id=entry.mixture_id,
        status=told["status"],
        losses=_losses(tasks, told["losses"]),
        shadows=_shadows(groups, told["shadows"]),
        entry=entry,
        horizon=told["horizon"],
        version=told["version"],
        attempt=told["attempt"],
        reports=dict(told["reports"]),
    )


def log_of(text: str, groups: Sequence[str], tasks: Sequence[str]) -> list[MixtureEntry]:
    """Entries of a log from the core's JSON, of a job with these groups and tasks."""
    return [_entry(told, groups, tasks) for told in json.loads(text)]


def _entry(told: Mapping[str, Any], groups: Sequence[str], tasks: Sequence[str]) -> MixtureEntry:
    probe = told["probe_group"]
    return MixtureEntry(
        **{
            **told,
            "weights": _named(groups, told["weights"]),
            "counts": _named(groups, told["counts"]),
            "due": tuple((when, kind) for when, kind in told["due"]),
            "probe_group": None if probe is None else groups[probe],
            "losses": _losses(tasks, told["losses"]),
            "shadows": _shadows(groups, told["shadows"]),
        }
    )


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Values by name; none where the server sent none."""
    return dict(zip(names, values, strict=True)) if values else {}


def _losses(tasks: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    return _named(tasks, [math.nan if value is None else value for value in values])


def _shadows(
    groups: Sequence[str], told: Sequence[tuple[str, Sequence[float]]]
) -> dict[str, dict[str, float]]:
    return {estimator: _named(groups, shares) for estimator, shares in told}

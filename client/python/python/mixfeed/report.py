"""What a trainer tells the server: sums and counts per group, when they are due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixfeed import _mixfeed
from mixfeed.errors import Argument, Error, Fenced, Refused

Numbers = Mapping[Any, Any] | Sequence[Any] | Any
"""One number per group: by name or index, or a sequence (also a tensor) in the job's order."""

Fields = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Fields of a report by name: values, counts, more, lr, owner, held_out; several for sketches."""

VECTORS = ("values", "counts", "more")

SUMS = ("train", "excess")
"""Kinds that are summed over steps: each step is reported, the server gets the sums when they are due."""


@dataclass(frozen=True, slots=True)
class Due:
    """Reports that a batch asks for and that were not made yet, by kind: eval, train, excess, dots,
    gradient_stats,
    influence, sketch, candidates."""

    before: tuple[str, ...]
    """Before the update of its step."""
    after: tuple[str, ...]
    """After it."""

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


def floats(values: Any) -> list[float]:
    """Numbers of a sequence or a tensor, on whichever device."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(listed, list):
        return [float(listed)]
    return [float(value) for row in listed for value in (row if isinstance(row, list) else [row])]


@dataclass(slots=True)
class Names:
    """Names in order, and where each is."""

    what: str
    names: Sequence[str]
    at: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.at = {name: index for index, name in enumerate(self.names)}

    def vector(self, given: Numbers, argument: str) -> list[float]:
        """One number per name; those that a mapping leaves out are 0.

        Raises:
            Argument: a name that there is not, or another number of values.
        """
        if isinstance(given, Mapping):
            vector = [0.0] * len(self.names)
            for name, value in given.items():
                vector[self._index(name, argument)] = float(value)
            return vector
        vector = floats(given)
        if len(vector) != len(self.names):
            raise Argument(
                f"`{argument}`: has {len(vector)} numbers, want one for each of {len(self.names)} {self.what}"
            )
        return vector

    def _index(self, name: Any, argument: str) -> int:
        if isinstance(name, str) and name in self.at:
            return self.at[name]
        if not isinstance(name, str) and 0 <= int(name) < len(self.names):
            return int(name)
        raise Argument(f"`{argument}`: `{name}` is none of the {self.what} {', '.join(self.names)}")


@dataclass(frozen=True, slots=True)
class StepSums:
    """What one step saw, summed over its tokens (or samples)."""

    losses: Numbers | None
    """Training losses per group."""
    tokens: Numbers | None
    """Tokens per group."""
    excess: Numbers | None
    """max(loss - reference loss, 0) per group (DoReMi)."""
    skipped: bool
    """The update was skipped."""


class Reports:
    """Reports of one attempt of a trainer. Nothing in here waits for the server but `flush`."""

    def __init__(self, reporter: _mixfeed.Reporter, info: Mapping[str, Any], completed: int) -> None:
        """`completed`: steps that are in the trainer's weights."""
        self._reporter = reporter
        self._groups = Names("groups", [group["name"] for group in info["groups"]])
        self._tasks = Names("tasks", tasks(info))
        self._eval_digest = bytes.fromhex(info["eval_digest"])
        self._completed = completed
        self._first = reporter.first
        self._told_first_at: int | None = None
        self._done: tuple[int, set[str]] = (-1, set())
        self._refused_sums: dict[str, int] = {}
        self._fenced: Fenced | None = None

    @property
    def attempt(self) -> int:
        """Number of the attempt."""
        return self._reporter.attempt

    @property
    def evaluate_first(self) -> bool:
        """Whether held-out losses are wanted before the first batch comes."""
        return self._first is not None

    @property
    def stats(self) -> dict[str, int]:
        """Reports that counted, came too late, were refused; and bytes that wait."""
        counted, stale, refused, waiting = self._reporter.stats
        return {"counted": counted, "stale": stale, "refused": refused, "waiting_bytes": waiting}

    def due(self, batch: Any) -> Due:
        """What the batch still asks for."""
        self._reopen()
        made = self._done[1] if self._done[0] == batch.step else set()
        told = {"eval"} if self._told_first_at == batch.step else set()
        before = tuple(kind for kind in batch.due_before if kind not in told and f"before {kind}" not in made)
        after = tuple(kind for kind in batch.due_after if f"after {kind}" not in made)
        return Due(before, after)

    def first(self, losses: Numbers, tokens: Numbers) -> None:
        """Held-out losses before the first batch."""
        self._reopen()
        if self._first is None:
            self.check()
            raise Refused("no held-out losses are wanted before the first batch")
        segment, mixture_id = self._first
        self._reporter.enter(segment, mixture_id, self._completed)
        self._reporter.vector("eval", self._completed, self._eval(losses, tokens))
        self._first, self._told_first_at = None, self._completed
        self._check_earlier()

    def before(self, batch: Any, measured: Mapping[str, Fields]) -> None:
        """What is due before a step's update, of what was measured: fields by kind. It is sent again where it
        was sent before: the answer may still be on its way."""
        self._enter(batch)
        told = self._told_first_at == batch.step
        for kind in batch.due_before:
            if kind in measured and not (told and kind == "eval"):
                self._send(kind, batch.step, measured[kind])
                self._done[1].add(f"before {kind}")
        self._check_earlier()

    def after(self, batch: Any, sums: StepSums, measured: Mapping[str, Fields]) -> None:
        """A step's sums, unless they were given before, and what else is due after it."""
        self._enter(batch)
        completed = batch.step + 1
        given = {
            "train": self._pairs(sums.losses, sums.tokens, "loss_sum"),
            "excess": self._pairs(sums.excess, sums.tokens, "excess_sum"),
        }
        again = {kind: pairs for kind, pairs in given.items() if pairs and kind in self._refused_sums}
        if "step" not in self._done[1]:
            self._reporter.ready()
            self._reporter.add(given["train"], given["excess"], sums.skipped)
            self._done[1].add("step")
        elif not again and any(pairs is not None for pairs in given.values()):
            raise Refused(f"the sums of step {batch.step} were reported already")
        for kind in batch.due_after:
            if kind in again:
                self._send_again(kind, completed, again[kind])
            elif kind in SUMS and kind not in self._refused_sums and f"after {kind}" not in self._done[1]:
                self._reporter.sums(kind, completed)
            elif kind in measured:
                self._send(kind, completed, measured[kind])
            else:
                continue
            self._done[1].add(f"after {kind}")
        self._check_earlier()

    def measured(
        self, losses: Numbers | None, tokens: Numbers | None, other: Mapping[str, Fields]
    ) -> dict[str, Fields]:
        """Fields by kind, of held-out losses and of others."""
        if losses is None:
            return dict(other)
        return {**other, "eval": self._eval(losses, tokens)}

    def check(self) -> None:
        """Raises what went wrong with an earlier report."""
        try:
            self._reporter.check()
        except Fenced as fenced:
            self._fenced = fenced
            raise

    def flush(self, timeout: float) -> bool:
        """Waits until all reports were answered; whether they were in time."""
        return self._reporter.flush(timeout)

    def _check_earlier(self) -> None:
        """As `check`, once a new report is on its way."""
        try:
            self.check()
        except Error as error:
            error.queued = not isinstance(error, Fenced)
            raise

    def _reopen(self) -> None:
        """What does not count is due again."""
        for kind, begin, end in self._reporter.lost():
            step, made = self._done
            if kind == "eval" and end == self._told_first_at:
                self._first, self._told_first_at = self._reporter.first, None
            if end == step:
                made.discard(f"before {kind}")
            elif end == step + 1:
                made.discard(f"after {kind}")
                if kind in SUMS:
                    self._refused_sums[kind] = begin

    def _send_again(self, kind: str, completed: int, pairs: Sequence[tuple[float, float]]) -> None:
        """Sums in the place of those that were refused: for all steps that these were of."""
        fields = {
            "values": [total for total, _ in pairs],
            "counts": [count for _, count in pairs],
            "from_step": self._refused_sums[kind],
        }
        self._reporter.vector(kind, completed, fields)
        del self._refused_sums[kind]

    def _enter(self, batch: Any) -> None:
        if self._fenced is not None:
            self.check()
            raise Fenced(str(self._fenced))
        self._reopen()
        if batch.step != self._done[0]:
            self._done, self._refused_sums = (batch.step, set()), {}
        self._reporter.enter(batch.segment, batch.mixture_id, batch.step)

    def _eval(self, losses: Numbers, tokens: Numbers | None) -> dict[str, Any]:
        if tokens is None:
            raise Argument("`eval_tokens`: is missing, and `eval_loss_sum` says nothing without counts")
        values, counts = (
            self._tasks.vector(losses, "eval_loss_sum"),
            self._tasks.vector(tokens, "eval_tokens"),
        )
        return {"values": values, "counts": counts, "eval_digest": self._eval_digest}

    def _send(self, kind: str, completed: int, fields: Fields) -> None:
        for one in [fields] if isinstance(fields, Mapping) else fields:
            ready = {name: floats(value) if name in VECTORS else value for name, value in one.items()}
            self._reporter.vector(kind, completed, ready)

    def _pairs(
        self, sums: Numbers | None, tokens: Numbers | None, argument: str
    ) -> list[tuple[float, float]] | None:
        if sums is None:
            return None
        if tokens is None:
            raise Argument(f"`tokens`: is missing, and `{argument}` says nothing without counts")
        counts = self._groups.vector(tokens, "tokens")
        return list(zip(self._groups.vector(sums, argument), counts, strict=True))


def tasks(info: Mapping[str, Any]) -> list[str]:
    """Groups whose held-out losses a job wants, in order: its objective's, or all with a held-out set."""
    objective = ((info["spec"] or {}).get("mixture") or {}).get("objective") or []
    named = [task["group"] for task in objective]
    return named or [held_out["group"] for held_out in info["eval_sets"]]

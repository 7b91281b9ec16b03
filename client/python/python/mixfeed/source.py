"""What a loader has opened in one process: connections, the job, a stream and the reports."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixfeed import _mixfeed
from mixfeed.errors import Aborted, StateMismatch
from mixfeed.report import Reports

logger = logging.getLogger("mixfeed")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to open, as the loader was told it. Goes to other processes as it is."""

    endpoints: list[str]
    job: str
    spec: str | None
    """JSON; None attaches to an open job."""
    replica: int
    resume: str
    exclusive: bool
    feedback: bool
    attempt: int | None
    pin: bool
    device: Any
    """Of the loader, as it was given; None without."""
    options: dict[str, Any] = field(repr=False)
    """Of the client, by its names. The token is among them."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a loader is."""

    step: int
    """First step that was not handed out."""
    cursor: dict[str, Any] | None
    """The same as the server wrote it; None before the first batch."""

    @property
    def text(self) -> str | None:
        """The cursor as the client takes it."""
        return None if self.cursor is None else json.dumps(self.cursor)


@dataclass(slots=True)
class Life:
    """Whether a loader was closed: asked by every wait, also of other threads."""

    closed: bool = False


class Source:
    """Connections of one process. Of a forked child they are its parent's: `leave_behind` and open others."""

    def __init__(self, plan: Plan, rank: int, world_size: int, life: Life) -> None:
        """Connects and opens the job, or attaches to it. Waits end when `life` does."""
        self.pid = os.getpid()
        self.plan, self.rank, self.world_size = plan, rank, world_size
        # One number for all streams: a reader that a newer one pushed out must not come back as the newest.
        self._fence = time.time_ns() if plan.exclusive else 0
        self._aborted: str | None = None
        options = dict(plan.options)
        if plan.pin:
            from mixfeed.cuda import pin_functions

            options["pin"] = pin_functions(plan.device)
        self.client = _mixfeed.Client(plan.endpoints, options, life)
        self.info: dict[str, Any] = json.loads(self.client.open(plan.job, plan.spec))
        self.stream: _mixfeed.Stream | None = None
        self.core: _mixfeed.Batch | None = None
        self.reports: Reports | None = None

    @property
    def spec(self) -> Mapping[str, Any]:
        """The job's spec with all defaults."""
        return self.info["spec"] or {}

    def check(self, position: Position) -> None:
        """Refuses a position of another spec.

        Raises:
            StateMismatch: its digest is not the job's.
        """
        found = self.info["digest"]
        expected = (position.cursor or {}).get("digest", found)
        if expected != found:
            raise StateMismatch(
                f"the position is of a job `{self.plan.job}` with digest {expected}, and the server's has "
                f"{found}: its spec or its data are others"
            )

    def open_stream(self, position: Position) -> _mixfeed.Stream:
        """The stream that is open, or one that begins at the position."""
        if self.stream is not None:
            return self.stream
        self.check(position)
        plan, learns = self.plan, self._learns()
        if learns and self.reports is None:
            # Before the stream: data that were asked for earlier would be those of a branch that is struck.
            reporter = _mixfeed.Reporter(
                self.client,
                plan.job,
                rank=self.rank,
                groups=len(self.info["groups"]),
                cursor=position.text,
                step=position.step,
                resume=plan.resume,
                attempt=plan.attempt,
            )
            self.reports = Reports(reporter, self.info, position.step)
        self.stream = self.client.stream(
            plan.job,
            rank=self.rank,
            world_size=self.world_size,
            replica=plan.replica,
            step=position.step,
            # The attempt has said where the trainer is, and on which branch it goes on.
            cursor=None if learns else position.text,
            resume=plan.resume,
            fence=self._fence,
        )
        return self.stream

    def receive(self, position: Position) -> _mixfeed.Batch | None:
        """The batch at the position, again and again until it is `taken`; None at the job's end.

        Raises:
            Aborted: and from then on always: another reader has this one's place, or the job was closed.
            Refused: the batch waits for a report, and an earlier one was refused.
        """
        if self._aborted is not None:
            raise Aborted(self._aborted)
        if self.core is None:
            try:
                stream = self.open_stream(position)
                self.core = stream.next(None if self.reports is None else self.reports.check)
            except Aborted as error:
                self._aborted = str(error)
                raise
        return self.core

    def taken(self) -> None:
        """The batch was handed out."""
        self.core = None

    def drop_stream(self) -> None:
        """Ends the stream; never waits."""
        stream, self.stream, self.core = self.stream, None, None
        if stream is not None:
            stream.close()

    def close(self, timeout: float) -> None:
        """Waits for reports, at most `timeout` seconds, then ends. Raises what a report met with."""
        reports, self.reports = self.reports, None
        try:
            if reports is not None:
                if not reports.flush(timeout):
                    logger.warning("job `%s`: reports were not answered before the end", self.plan.job)
                reports.check()
        finally:
            self.drop_stream()

    def leave_behind(self) -> None:
        """In a forked child: what its parent opened belongs to threads that are not here: never touch it."""
        for inherited in (self.client, self.stream, self.core, self.reports):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))

    def _learns(self) -> bool:
        """Whether this rank reports."""
        mixture = self.spec.get("mixture")
        if not self.plan.feedback or not mixture or self.plan.replica != 0:
            return False
        return self.rank < max(1, int(mixture.get("reporters") or 0))

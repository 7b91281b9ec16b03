"""The part of a loader that says where it is, for the trainer's checkpoints, and goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixfeed.errors import Argument, StateMismatch
from mixfeed.source import Plan, Position

STATE_VERSION = 1


class Resumable:
    """A position in a job's batches."""

    _plan: Plan
    _position: Position
    _first_step: int
    """Where it began."""
    _end: dict[str, int] | None
    """How the job ended, once it has."""
    _steps_per_epoch: int | None
    _resumed = False
    """A state was loaded."""
    _begun = False
    """A batch was handed out."""

    def _leave(self) -> None:
        """Ends what belongs to a position."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch handed out: JSON-able, below 4 KB, for the trainer's checkpoint."""
        step, cursor = self._position.step, self._position.cursor
        return {"version": STATE_VERSION, "job": self._plan.job, "next_step": step, "cursor": cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a position. `set_epoch` does nothing afterwards.

        Raises:
            StateMismatch: it is of another job, of another version, or no state at all. One of another spec
                under the same name is found when the job is opened.
        """
        try:
            version, job, next_step, cursor = (
                state[key] for key in ("version", "job", "next_step", "cursor")
            )
        except (KeyError, TypeError) as error:
            raise StateMismatch(f"this is no state of a loader: {error!r}") from error
        if version != STATE_VERSION:
            raise StateMismatch(f"state has version {version}, want {STATE_VERSION}")
        if job != self._plan.job:
            raise StateMismatch(f"state is of job `{job}`, and this loader reads job `{self._plan.job}`")
        if cursor is not None and not isinstance(cursor, Mapping):
            raise StateMismatch(f"`cursor` is {type(cursor).__name__}, want a mapping")
        if not isinstance(next_step, int) or next_step < 0:
            raise StateMismatch(f"`next_step` is {next_step!r}, want a step from 0")
        self._leave()
        self._seek(next_step, None if cursor is None else dict(cursor))
        self._resumed = True

    get_state = state_dict
    set_state = load_state_dict

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch that begins. The order changes from epoch to epoch by itself, so this only matters
        to a fresh loader with `steps_per_epoch`: it begins at that epoch's first step. It does nothing after
        a state was loaded or a batch was received."""
        if self._steps_per_epoch is not None and not self._resumed and not self._begun:
            self._leave()
            self._seek(epoch * self._steps_per_epoch, None)

    def _seek(self, step: Any, cursor: dict[str, Any] | None) -> None:
        if not isinstance(step, int) or step < 0:
            raise Argument(f"`start`: is {step!r}, want a step from 0 or a cursor")
        self._position, self._first_step = Position(step, cursor), step
        self._end = None

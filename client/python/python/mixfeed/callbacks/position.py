"""The position of a trainer, which is not its loader's: frameworks take batches ahead of the one that is
trained.
"""

from __future__ import annotations

from typing import Any, Protocol


class Resumable(Protocol):
    """A loader, as far as positions go."""

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch handed out."""
        ...

    def load_state_dict(self, state: Any) -> None:
        """Goes on from a position."""
        ...


class Position:
    """Where a trainer is in a loader's job: after the last batch that it finished."""

    def __init__(self, loader: Resumable) -> None:
        self._loader = loader
        self._state: dict[str, Any] | None = None

    def trained(self, batch: Any) -> None:
        """The batch's update was made."""
        self._state = {**self._loader.state_dict(), "next_step": batch.step + 1, "cursor": batch.cursor}

    def state_dict(self) -> dict[str, Any]:
        """For the trainer's checkpoint: JSON-able, below 4 KB; `loader.load_state_dict` takes it."""
        return dict(self._loader.state_dict() if self._state is None else self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sends the loader there.

        Raises:
            mixfeed.StateMismatch: the state is of another job.
        """
        self._loader.load_state_dict(state)
        self._state = dict(state)

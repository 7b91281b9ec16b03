"""Batches on the trainer's device."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixfeed.batch import Batch

AHEAD = 4
"""Host batches that copies may still read from. More would hold memory, fewer would wait for the device."""


class Mover:
    """Copies batches to a device beside what it computes.

    A batch in host memory is kept until its copies are done.
    """

    def __init__(self, device: Any) -> None:
        """`device`: what torch takes for one."""
        import torch

        self._torch, self._device = torch, torch.device(device)
        self._busy: deque[tuple[Any, Batch]] = deque()

    def move(self, batch: Batch) -> Batch:
        """The batch on the device; work that is queued on the current stream sees it complete."""
        moved = batch.to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            event = self._torch.cuda.Event()
            event.record(self._torch.cuda.current_stream(self._device))
            self._busy.append((event, batch))
            while self._busy and (len(self._busy) > AHEAD or self._busy[0][0].query()):
                self._busy.popleft()[0].synchronize()
        return moved

    def finish(self) -> None:
        """Waits until no copy reads host memory any more."""
        while self._busy:
            self._busy.popleft()[0].synchronize()

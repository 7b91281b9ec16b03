"""Losses per group of a batch's rows, summed on the device and told to the server when they are due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mixfeed.arrays import as_torch


class Reporting(Protocol):
    """A loader, as far as reports go."""

    @property
    def groups(self) -> list[str]:
        """Names of the job's groups."""
        ...

    def report(self, batch: Any, loss_sum: Any = None, tokens: Any = None, *, skipped: bool = False) -> None:
        """Takes the sums of one step."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What reports need of a batch; holds none of its memory."""

    step: int
    segment: int
    mixture_id: int
    due_before: tuple[str, ...]
    due_after: tuple[str, ...]


class GroupLosses:
    """Sums of the training loss per group, handed to `loader.report` when the server wants them.

    Steps are summed on the losses' device; nothing waits for the device until a report is due (or `every`
    steps have come together), when the sums of all steps since the last time are copied at once. A trainer
    with several micro-batches a step calls `add` for each and `step` once. Call `step` before
    `loader.report` tells anything else of the same batch.
    """

    def __init__(self, loader: Reporting, *, split: str = "own", every: int = 64) -> None:
        """Args:
        loader: whose job it is.
        split: `own` counts a mixed row for the group of its own record, as the mixture does; `label` shares
            it between both records' groups by the weights of their labels.
        every: most steps that are kept before they are told; at least 1.

        Raises:
            ValueError: another `split`, or `every` below 1.
        """
        if split not in ("own", "label"):
            raise ValueError(f"split is `{split}`, want `own` or `label`")
        if every < 1:
            raise ValueError(f"every is {every}, want at least 1")
        self._loader, self._split, self._every = loader, split, every
        self._names: list[str] | None = None
        self._open: Tensor | None = None
        self._pending: list[tuple[Step, Tensor, bool]] = []
        self._totals: list[tuple[float, float]] = []
        self.not_finite = 0
        """Groups of a step that were told as absent because their loss was not finite."""

    @property
    def names(self) -> list[str]:
        """The job's groups in order."""
        if self._names is None:
            self._names = list(self._loader.groups)
            self._totals = [(0.0, 0.0)] * len(self._names)
        return self._names

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        """Sum of the loss and count per group over the steps that were handed over so far."""
        return dict(zip(self.names, self._totals, strict=True))

    def add(self, batch: Mapping[str, Any], losses: Tensor, mask: Tensor | None = None) -> None:
        """Adds a micro-batch of the current step; `losses` and `mask` as in `group_sums`."""
        sums = group_sums(batch, losses, len(self.names), mask=mask, split=self._split)
        self._open = sums if self._open is None else self._open + sums

    def step(
        self,
        batch: Any,
        losses: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        skipped: bool = False,
    ) -> None:
        """Ends a step, after its update; `losses` are added first. `skipped`: the update was skipped.

        Raises:
            ValueError: nothing was added.
            mixfeed.Error: what an earlier report failed with.
        """
        if losses is not None:
            self.add(batch, losses, mask)
        if self._open is None:
            raise ValueError(f"step {batch.step} has no losses: pass them, or add micro-batches")
        sums, self._open = self._open, None
        # Sums of a segment that has ended without asking for them will never be asked for.
        self._pending = [kept for kept in self._pending if kept[0].segment == batch.segment]
        told = Step(
            batch.step, batch.segment, batch.mixture_id, tuple(batch.due_before), tuple(batch.due_after)
        )
        self._pending.append((told, sums, skipped))
        if told.due_after or len(self._pending) >= self._every:
            self.hand_over()

    def hand_over(self) -> None:
        """Copies the sums of all steps since the last time to the host and reports them, step by step. A step
        that could not be reported, and those after it, are kept for the next time."""
        if not self._pending:
            return
        numbers = torch.stack([sums for _, sums, _ in self._pending]).tolist()
        earlier: Exception | None = None
        for (step, _, skipped), (losses, counts) in zip(list(self._pending), numbers, strict=True):
            absent = [group for group, loss in enumerate(losses) if not math.isfinite(loss)]
            for group in absent:
                losses[group] = counts[group] = 0.0
            try:
                self._loader.report(step, loss_sum=losses, tokens=counts, skipped=skipped)
            except Exception as error:
                # Of an earlier report: this step was taken, and those that follow may be waited for.
                if not getattr(error, "queued", False):
                    raise
                earlier = earlier or error
            self._pending.pop(0)
            self.not_finite += len(absent)
            self._totals = [
                (total[0] + loss, total[1] + count)
                for total, loss, count in zip(self._totals, losses, counts, strict=True)
            ]
        if earlier is not None:
            raise earlier

    def forget(self) -> None:
        """Drops what was not handed over: the trainer went back to a checkpoint."""
        self._open, self._pending = None, []


def group_sums(
    batch: Mapping[str, Any],
    losses: Tensor,
    groups: int,
    *,
    mask: Tensor | None = None,
    split: str = "own",
) -> Tensor:
    """Sums of losses and their counts per group, (2, groups) f64 on the losses' device (f32 where it has no
    f64).

    `losses`, without reduction:

    * (n): one per row;
    * (n, 2): one per row and label (of the row's own record and of its partner), each counted by its
      label's weight for its own record's group;
    * (n, length) per token, counted where `mask` is true; by default where the batch's loss_mask is, its
      last `length` columns (a loss of next tokens has one less);
    * (tokens) of ragged rows, (points) of scenes: each point counts for the group of the scene that it is
      from.

    `split`, for (n): see `GroupLosses`.

    Raises:
        ValueError: `losses` fits none of these.
    """
    flat, of, weight = _attributed(batch, losses.detach(), split)
    if mask is None and losses.ndim == 2 and "loss_mask" in batch:
        mask = as_torch(batch["loss_mask"])[:, -losses.shape[1] :]
    wide = torch.float32 if losses.device.type == "mps" else torch.float64
    if mask is not None:
        if mask.shape != losses.shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, losses have {tuple(losses.shape)}")
        kept = mask.to(losses.device, non_blocking=True).bool().reshape(-1)
        flat, weight = flat.masked_fill(~kept, 0.0), weight * kept
    # A term without weight adds nothing, also where its loss is none (a partner without a label).
    terms = (flat.to(wide) * weight).masked_fill(weight == 0, 0.0)
    values = torch.stack([terms, weight.to(wide).expand_as(flat)])
    index = of.long().reshape(-1)
    return torch.zeros((2, groups), dtype=wide, device=losses.device).index_add_(1, index, values)


def _attributed(batch: Mapping[str, Any], losses: Tensor, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, groups and weights, one each per term of the sums."""

    def of(name: str) -> Tensor:
        return as_torch(batch[name]).to(losses.device, non_blocking=True)

    group = of("sample.group")
    n = group.shape[0]
    own = group if group.ndim == 1 else group[:, 0]
    one = torch.ones((), device=losses.device)
    if "offset" in batch and losses.ndim == 1 and losses.shape[0] == batch["coord"].shape[0]:
        return losses, group.reshape(n, -1)[_rows(of("offset"), losses), of("scene_id").long()], one
    if "input_ids.offsets" in batch and losses.ndim == 1 and losses.shape[0] == batch["input_ids"].shape[0]:
        return losses, own[_rows(of("input_ids.offsets"), losses)], one
    if losses.shape[:1] != (n,) or losses.ndim > 2:
        raise ValueError(f"losses have shape {tuple(losses.shape)}, the batch has {n} rows: reduce nothing")
    pairs = group.ndim == 2 and "label.weight" in batch
    if losses.ndim == 2 and "input_ids" not in batch:
        if not pairs or losses.shape[1] != 2:
            raise ValueError(
                f"losses have shape {tuple(losses.shape)}, want ({n}) or, with pairs of labels, ({n}, 2)"
            )
        return losses.reshape(-1), group.reshape(-1), of("label.weight").reshape(-1)
    if losses.ndim == 2:
        return losses.reshape(-1), own.repeat_interleave(losses.shape[1]), one
    if split == "label" and pairs:
        return losses.repeat_interleave(2), group.reshape(-1), of("label.weight").reshape(-1)
    return losses, own, one


def _rows(offsets: Tensor, values: Tensor) -> Tensor:
    """Row of each value, by the offsets of rows."""
    at = torch.arange(values.shape[0], device=values.device)
    return torch.bucketize(at, offsets[1:].contiguous(), right=True)

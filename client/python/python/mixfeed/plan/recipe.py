"""The plan of a batch: who is mixed with whom and how, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, cast

import torch
from torch import Tensor

from mixfeed.arrays import as_torch
from mixfeed.plan import masks
from mixfeed.views import Labels

HEAD = 12
"""Words of a row's plan before the data of its mask."""

FILTERS = ("nearest", "bilinear", "area")
"""How a pasted rectangle is resampled, by number."""


class RecipeError(ValueError):
    """A batch that carries no plan, or one that this package can't carry out."""


class Op(IntEnum):
    """What mixing does to a row; word 0 of its plan."""

    COPY = 0
    """Nothing."""
    BLEND = 1
    """`base * lambda + partner * (1 - lambda)`."""
    PASTE = 2
    """A rectangle of the partner, resampled into a rectangle of the base."""
    CELLS = 3
    """Square cells keep the base or show the partner; cells of one pixel are any binary mask."""
    LATTICE = 4
    """Holes of a lattice show the partner."""
    BUMP = 5
    """The partner shows through `rows[y] * columns[x]`."""
    WEIGHTS = 6
    """One weight per pixel."""


@dataclass(frozen=True)
class Plan:
    """The plan of one rank's n rows, made of m clean rows; tensors lie on one device.

    m is larger than n only with granularity half, whose partners are not delivered as rows. Partners come
    from the row's own mixing block, so the plan of a micro-batch (`batch.split`) is complete.
    """

    base: Tensor
    """(n) i64: clean row that each row starts from."""
    partner: Tensor
    """(n) i64: clean row that it is mixed with; its own where it is not mixed. Without clean rows, in
    batches of mixed rows of granularity half, some are beyond n."""
    policy: Tensor
    """(n) i32: index into the job's policies, -1 for a clean row."""
    lam: Tensor
    """(n) f32: weight of the base's label, from the mask as it was used."""
    rest: Tensor
    """(n) f32: weight of the partner's label, 1 - lam without that difference's rounding."""
    sampled: Tensor
    """(n) f64: lambda as drawn; 1 for a clean row."""
    box: Tensor
    """(n, 4) i32: y0, y1, x0, x1 of a pasted box, half-open; zeros when there is none."""
    classes: Tensor | None
    """(n, 2) i32: see `labels`; None in jobs of dense labels."""
    words: Tensor | None
    """(n, words) i32: the ops, as `TensorDescriptor` in batch.proto says; None in batches of mixed rows only.
    """
    head: Tensor | None
    """The first 12 words of each row, in the host's memory."""
    first: int
    """Slot of the step that clean row 0 is from: ops name rows by slots."""
    slots: int
    """m: clean rows."""
    size: tuple[int, int]
    """Height and width of the job's raster in pixels."""
    layout: str
    """Axes of the job's pictures, `nchw` or `nhwc`."""
    smoothing: float
    """Label smoothing that is left to the trainer, 0..1."""

    @staticmethod
    def of(batch: Mapping[str, Any], device: Any = None, layout: str | None = None) -> Plan:
        """The plan that a `mixfeed.Batch` (or a micro-batch) carries, on `device` (default: where the batch
        is).

        Of a batch on an accelerator 48 bytes a row are copied to the host, which waits for them: where that
        matters, make the plan from the batch in the host's memory and name the device. `layout` is needed
        only where pictures are 3 pixels high or wide.

        Raises:
            RecipeError: the batch has no plan (points and tokens have none), or an op that this package
            doesn't know.
        """
        if "plan.partner" not in batch:
            raise RecipeError("the batch has no `plan.partner`: only jobs of pictures have plans")
        first = int(cast(Any, batch).slots.start)
        picture = batch["image.clean"] if "image.clean" in batch else batch["image"]
        of = _tensors(batch)
        found = _layout(picture.shape, layout)
        ops = of.get("plan.op")
        drawn = of["plan.lambda"]
        n = drawn.shape[0]
        base = of["plan.base"].long() - first if ops is not None else torch.arange(n, device=drawn.device)
        plan = Plan(
            base=base,
            partner=of["plan.partner"].long() - first,
            policy=of["plan.policy"],
            lam=drawn[:, 1].float(),
            rest=(1.0 - drawn[:, 1]).float(),
            sampled=drawn[:, 0].contiguous(),
            box=of["plan.box"],
            classes=of.get("label.class"),
            words=ops,
            head=None if ops is None else ops[:, :HEAD].cpu(),
            first=first,
            slots=int(picture.shape[0]),
            size=(int(picture.shape[2]), int(picture.shape[3]))
            if found == "nchw"
            else tuple(picture.shape[1:3]),
            layout=found,
            smoothing=float(getattr(batch, "smoothing", 0.0)),
        )
        plan._check()
        return plan if device is None else plan.to(device)

    def __len__(self) -> int:
        """n: rows."""
        return int(self.lam.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.lam.device

    def to(self, device: Any) -> Plan:
        """The plan on another device; itself where it is there."""
        wanted = torch.device(device)
        if self.device == wanted or (wanted.index is None and self.device.type == wanted.type):
            return self
        moved = {
            field.name: value.to(wanted, non_blocking=True)
            for field in fields(self)
            if field.name != "head" and isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def labels(self) -> Labels:
        """Classes (n, 2) i64, -1 for none, and weights (n, 2) f32 of every row: of its own label and of its
        partner's, summing to 1; as `mixfeed.losses` takes them.

        Raises:
            RecipeError: the job sends dense labels.
        """
        if self.classes is None:
            raise RecipeError(
                "the job sends dense labels: use `label.dense` of the batch, or output.labels = pair"
            )
        return Labels(self.classes.long(), torch.stack([self.lam, self.rest], 1))

    def dense(self, classes: int) -> Tensor:
        """Targets (n, classes) f32, smoothed before mixing, as the server makes `label.dense`; a row
        without label adds nothing."""
        of, weights = self.labels()
        off = self.smoothing / classes
        own = of.unsqueeze(2) == torch.arange(classes, device=self.device)
        target = torch.full(own.shape, off, device=self.device, dtype=torch.float32)
        target = target.masked_fill(own, 1.0 - self.smoothing + off).masked_fill((of < 0).unsqueeze(2), 0.0)
        return target[:, 0] * weights[:, :1] + target[:, 1] * weights[:, 1:]

    def mask(self, size: tuple[int, int] | None = None, method: str = "area") -> Tensor:
        """Weight of the base at every pixel (n, height, width) f32, or on a grid of `size` (rows, columns).

        `method` `area` takes the mean over each cell of the grid, so that the mean stays the label's weight
        wherever the grid divides the raster; `nearest` takes pixel floor(i * side / cells), as TransMix does.

        Raises:
            RecipeError: the batch carries no ops, or another method is named.
        """
        if method not in ("area", "nearest"):
            raise RecipeError(f"method is `{method}`, want `area` or `nearest`")
        words, head = self.ops()
        full = torch.ones((len(self), *self.size), device=self.device, dtype=torch.float32)
        for op, rows in self.rows():
            if op is not Op.COPY:
                full[self._on_device(rows)] = masks.weights(int(op), words, head, rows, self.size).float()
        return full if size is None or size == self.size else masks.resized(full, size, method)

    def ops(self) -> tuple[Tensor, Tensor]:
        """The words, and their heads in the host's memory.

        Raises:
            RecipeError: the batch carries none.
        """
        if self.words is None or self.head is None:
            raise RecipeError(
                "the batch has no `plan.op`: open the job with output.delivery `recipe` or `both`"
            )
        return self.words, self.head

    def rows(self) -> list[tuple[Op, Tensor]]:
        """Rows by op, (k) i64 in the host's memory; ops that no row has are left out."""
        _, head = self.ops()
        return [(op, rows) for op in Op if len(rows := (head[:, 0] == int(op)).nonzero().flatten())]

    def sources(self, rows: Tensor) -> Tensor:
        """Clean rows that `rows` (host) are mixed with by their op, on the plan's device."""
        _, head = self.ops()
        return self._on_device(head[rows, 1].long() - self.first)

    def _on_device(self, index: Tensor) -> Tensor:
        return index.to(self.device, non_blocking=True)

    def _check(self) -> None:
        if self.head is None:
            return
        known = torch.tensor([int(op) for op in Op], dtype=self.head.dtype)
        strange = self.head[~torch.isin(self.head[:, 0], known), 0]
        if len(strange):
            raise RecipeError(
                f"the plan has op {int(strange[0])}, this package knows 0..{max(Op)}: update it"
            )


def _tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The batch's tensors of plans and labels, as torch's."""
    wanted = ("plan.base", "plan.partner", "plan.policy", "plan.lambda", "plan.box", "plan.op", "label.class")
    return {name: as_torch(batch[name]) for name in wanted if name in batch}


def _layout(shape: tuple[int, ...], asked: str | None) -> str:
    """Axes of pictures of `shape`, which have three channels."""
    fits = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] == 3]
    if asked is not None and asked not in fits:
        raise RecipeError(f"layout is `{asked}`, pictures of shape {tuple(shape)} are {' or '.join(fits)}")
    if asked is None and len(fits) != 1:
        raise RecipeError(f"pictures of shape {tuple(shape)} may be nchw or nhwc: name the `layout`")
    return fits[0] if asked is None else asked

"""A batch: one rank's rows of one step, as views on the memory that it was received into."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mixfeed import arrays
from mixfeed.errors import Argument
from mixfeed.errors import Tensor as TensorError
from mixfeed.views import POINTS, TOKENS, Labels, Meta, Ragged, Tensors

if TYPE_CHECKING:
    from mixfeed import _mixfeed

CLEAN = "image.clean"
"""Rows before mixing, one for each slot."""


class Batch:
    """One rank's rows of one step, complete and checked.

    A mapping from tensor names to arrays: torch tensors (writable, the trainer's own) where torch is
    installed, else NumPy arrays (read-only), else `mixfeed.Tensor`; the loader's `arrays` chooses. No byte is
    copied: each array lies in the memory that the batch was received into, which lives as long as any array
    does and is used again afterwards.
    """

    # No Mapping by inheritance: torch's DataLoader would take it apart into a plain dict.
    __slots__ = (
        "__weakref__",
        "_arrays",
        "_block",
        "_core",
        "_half",
        "_kind",
        "_layout",
        "_meta",
        "_tensors",
    )

    def __init__(
        self,
        core: _mixfeed.Batch | None,
        kind: arrays.Kind,
        block: int,
        *,
        half: bool = False,
        meta: Meta | None = None,
        tensors: Mapping[str, _mixfeed.Tensor] | None = None,
        made: Mapping[str, Any] | None = None,
        layout: Mapping[str, str | None] | None = None,
    ) -> None:
        """Made by loaders. `block`: slots of a mixing block, 0 when not known. `half`: only the first half of
        each block's rows is here (granularity half).

        `layout`: tensors and their offsets.
        """
        if core is not None:
            tensors, meta = {name: core.tensor(name) for name in core.names}, _meta(core)
        if meta is None:
            raise Argument("`meta`: is missing, and no batch was received")
        self._core, self._kind, self._block, self._half, self._meta = core, kind, block, half, meta
        self._tensors: dict[str, _mixfeed.Tensor] = dict(tensors or {})
        self._arrays: dict[str, Any] = dict(made or {})
        self._layout: dict[str, str | None] = (
            {name: tensor.offsets for name, tensor in self._tensors.items()}
            if layout is None
            else dict(layout)
        )

    @property
    def step(self) -> int:
        """Index of the global batch, from 0."""
        return self._meta.step

    @property
    def epoch(self) -> float:
        """Epoch of the schedule at this step."""
        return self._meta.epoch

    @property
    def rank(self) -> int:
        """Rank that these rows are for."""
        return self._meta.rank

    @property
    def world_size(self) -> int:
        """Ranks that share the step."""
        return self._meta.world_size

    @property
    def slots(self) -> range:
        """Slots of the step that these rows are in; plan.partner and mixed_from count them."""
        return range(*self._meta.slots)

    @property
    def partial(self) -> bool:
        """True when there are fewer rows than slots."""
        return self._meta.partial

    @property
    def numerics(self) -> str:
        """Rules that made the bytes, `cpu-1`."""
        return self._meta.numerics

    @property
    def segment(self) -> int:
        """Entry of the mixture log in force, which reports on this step name."""
        return self._meta.segment

    @property
    def mixture_id(self) -> int:
        """Name of the mixture; changes when the weights change."""
        return self._meta.mixture_id

    @property
    def smoothing(self) -> float:
        """Label smoothing that is still to be applied to sparse labels; 0 with dense ones."""
        return self._meta.smoothing

    @property
    def due_before(self) -> tuple[str, ...]:
        """Kinds of reports that are due before this step's update.

        `loader.due` knows which of them are still open.
        """
        return self._meta.due_before

    @property
    def due_after(self) -> tuple[str, ...]:
        """Kinds of reports that are due after this step's update."""
        return self._meta.due_after

    @property
    def cursor(self) -> dict[str, Any] | None:
        """Position after this batch, JSON-able and below 4 KB; None in evaluation."""
        return None if self._meta.cursor is None else json.loads(self._meta.cursor)

    @property
    def receipt(self) -> dict[str, Any] | None:
        """What made this batch: digests in hexadecimal, bad records that were replaced."""
        return None if self._meta.receipt is None else json.loads(self._meta.receipt)

    @property
    def rows(self) -> int:
        """Rows of this batch."""
        return int(self._either("sample.flags").shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes over all tensors."""
        return sum(_nbytes(self._tensors.get(name, self._arrays.get(name))) for name in self._layout)

    @property
    def images(self) -> Any:
        """Pixels (n, channel, height, width) or (n, height, width, channel)."""
        return self["image"]

    @property
    def labels(self) -> Any:
        """Dense weights (n, classes) f32 when the job asks for them, else `Labels(classes, weights)`."""
        if "label.dense" in self:
            return self["label.dense"]
        return Labels(self["label.class"], self["label.weight"])

    @property
    def groups(self) -> Any:
        """Group of every row's own record (n), an index into the job's groups."""
        groups = self["sample.group"]
        if self._kind == "raw":
            return groups
        return groups if groups.ndim == 1 else groups[:, 0]

    @property
    def tokens(self) -> Tensors:
        """input_ids and what goes with them."""
        self._either("input_ids")
        return Tensors(self, TOKENS)

    @property
    def points(self) -> Tensors:
        """coord, feat, segment, offset and what else a batch of scenes has."""
        self._either("coord")
        return Tensors(self, POINTS)

    def tensor(self, name: str) -> _mixfeed.Tensor:
        """The tensor itself: buffer protocol, DLPack, `.numpy()` and `.torch()`.

        Raises:
            errors.Tensor: the batch lacks it, or was moved to another device or process.
        """
        found = self._tensors.get(name)
        if found is None:
            raise TensorError(f"tensor `{name}` is absent, expected one of {', '.join(self._tensors)}")
        return found

    def ragged(self, name: str) -> Ragged:
        """Values and offsets of a tensor whose rows have lengths of their own.

        Raises:
            errors.Tensor: the tensor is dense.
        """
        self._either(name)
        offsets = self._layout[name]
        if offsets is None:
            raise TensorError(f"tensor `{name}` is dense, expected offsets")
        return Ragged(self[name], self[offsets])

    def nested(self, name: str) -> Any:
        """A torch nested tensor of a ragged one."""
        return self.ragged(name).nested()

    def split(self, parts: int) -> list[Batch]:
        """Micro-batches: at most `parts` contiguous runs of whole mixing blocks, in order, on the same
        memory.

        Partners are drawn within blocks, so a part is as good a batch as the whole. Ragged offsets are made
        anew, from 0; slots and partners keep their numbers in the step. A short last batch may have fewer
        blocks and gives fewer parts.

        Raises:
            Argument: `parts` is not in 1..=blocks.
        """
        bounds = self._bounds()
        blocks = len(bounds) - 1
        if parts < 1 or (parts > blocks and not self.partial):
            raise Argument(f"`parts`: is {parts}, want 1..={blocks}: the batch has {blocks} mixing blocks")
        parts = max(1, min(parts, blocks))
        cuts = [bounds[blocks * part // parts] for part in range(parts + 1)]
        return [self._part(begin, end) for begin, end in pairwise(cuts)]

    def to(self, device: Any, non_blocking: bool = True) -> Batch:
        """The batch with torch tensors on `device`.

        Copies out of pinned memory go on beside what the trainer does: keep this batch until they are done. A
        loader with `device` sees to that itself.
        """
        moved = {name: self._torch(name).to(device, non_blocking=non_blocking) for name in self}
        return self._of(moved)

    def pin_memory(self, device: Any = None) -> Batch:
        """The batch in pinned memory, for torch's DataLoader.

        A loader with `pin_memory` has it there without a copy.
        """
        return self._of({name: self._torch(name).pin_memory() for name in self})

    def keys(self) -> list[str]:
        """Names of the tensors in the server's order."""
        return list(self._layout)

    def items(self) -> list[tuple[str, Any]]:
        """Names and arrays."""
        return [(name, self[name]) for name in self._layout]

    def values(self) -> list[Any]:
        """Arrays in the server's order."""
        return [self[name] for name in self._layout]

    def get(self, name: str, default: Any = None) -> Any:
        """The array of that name, or `default`."""
        return self[name] if name in self else default

    def __getitem__(self, name: str) -> Any:
        made = self._arrays.get(name)
        if made is None:
            made = self._arrays[name] = arrays.to(self.tensor(name), self._kind)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def __contains__(self, name: object) -> bool:
        return name in self._layout

    def __repr__(self) -> str:
        return f"<mixfeed.Batch step {self.step}, rank {self.rank} of {self.world_size}: {', '.join(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._kind == "raw":
            raise TypeError("a batch of raw tensors is bound to its memory and cannot be pickled")
        return _again, (self._kind, self._block, self._half, self._meta, dict(self.items()), self._layout)

    def _of(self, made: Mapping[str, Any]) -> Batch:
        return Batch(
            None, "torch", self._block, half=self._half, meta=self._meta, made=made, layout=self._layout
        )

    def _torch(self, name: str) -> Any:
        return arrays.as_torch(self._either(name))

    def _either(self, name: str) -> Any:
        """The tensor, or the array that took its place on another device or in another process."""
        return self._tensors[name] if name in self._tensors else self[name]

    def _offset(self, name: str, index: int) -> int:
        return int(
            memoryview(self._tensors[name])[index] if name in self._tensors else self._arrays[name][index]
        )

    def _bounds(self) -> list[tuple[int, int]]:
        """Where mixing blocks begin, and the end: slots and rows, both from this batch's first."""
        slots, rows = len(self.slots), self.rows
        block, bounds = self._block or max(slots, 1), [(0, 0)]
        while (begin := bounds[-1])[0] < slots and begin[1] < rows:
            size = min(block, slots - begin[0])
            bounds.append((begin[0] + size, begin[1] + ((size + 1) // 2 if self._half else size)))
        # Rows of a partial batch end within the last block.
        return [*bounds[:-1], (slots, rows)] if len(bounds) > 1 else [(0, 0), (slots, rows)]

    def _part(self, begin: tuple[int, int], end: tuple[int, int]) -> Batch:
        offsets = {name for name in self._layout.values() if name is not None}
        tensors: dict[str, _mixfeed.Tensor] = {}
        made: dict[str, Any] = {}
        for name, ragged in self._layout.items():
            first, last = begin[1], end[1]
            if name in offsets:
                made[name] = self._rebased(name, first, last)
                continue
            if ragged is not None:
                first, last = self._offset(ragged, first), self._offset(ragged, last)
            elif name == CLEAN:
                clean = int(self._either(CLEAN).shape[0])
                first, last = min(begin[0], clean), min(end[0], clean)
            if name in self._tensors:
                tensors[name] = self._tensors[name].slice(first, last)
            else:
                made[name] = self._arrays[name][first:last]
        slots = (self._meta.slots[0] + begin[0], self._meta.slots[0] + end[0])
        return Batch(
            None,
            self._kind,
            self._block,
            half=self._half,
            meta=replace(self._meta, slots=slots),
            tensors=tensors,
            made=made,
            layout=self._layout,
        )

    def _rebased(self, name: str, begin: int, end: int) -> Any:
        if self._kind == "raw":
            cut = memoryview(self._either(name))[begin : end + 1].tolist()
            return array("q", (offset - cut[0] for offset in cut))
        cut = self[name][begin : end + 1]
        return cut - cut[0]


def _again(
    kind: arrays.Kind,
    block: int,
    half: bool,
    meta: Meta,
    made: dict[str, Any],
    layout: dict[str, str | None],
) -> Batch:
    return Batch(None, kind, block, half=half, meta=meta, made=made, layout=layout)


def _nbytes(value: Any) -> int:
    return len(value) * value.itemsize if isinstance(value, array) else int(value.nbytes)


def _meta(core: _mixfeed.Batch) -> Meta:
    return Meta(
        step=core.step,
        epoch=core.epoch,
        rank=core.rank,
        world_size=core.world_size,
        slots=core.slots,
        partial=core.partial,
        numerics=core.numerics,
        segment=core.segment,
        mixture_id=core.mixture_id,
        smoothing=core.smoothing,
        due_before=tuple(core.due_before),
        due_after=tuple(core.due_after),
        cursor=core.cursor,
        receipt=core.receipt,
    )

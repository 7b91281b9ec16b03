"""What batches hand out beside arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mixfeed.batch import Batch


class Labels(NamedTuple):
    """Sparse labels: `classes` (n, k) i32 with their `weights` (n, k) f32.

    Mixed rows have k = 2: own and partner's.
    """

    classes: Any
    weights: Any


class Ragged(NamedTuple):
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`.

    `offsets` (n + 1) i64 from 0 to the end.
    """

    values: Any
    offsets: Any

    def row(self, index: int) -> Any:
        """Values of one row."""
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def nested(self) -> Any:
        """A torch nested tensor (layout jagged) on the same memory."""
        import torch

        return torch.nested.nested_tensor_from_jagged(self.values, self.offsets)


@dataclass(frozen=True, slots=True)
class Meta:
    """What a batch says of itself beside its tensors."""

    step: int
    epoch: float
    rank: int
    world_size: int
    slots: tuple[int, int]
    partial: bool
    numerics: str
    segment: int
    mixture_id: int
    smoothing: float
    due_before: tuple[str, ...]
    due_after: tuple[str, ...]
    cursor: str | None
    receipt: str | None


class Tensors(Mapping[str, Any]):
    """Some of a batch's tensors by name and as attributes; those that the job does not send are not there."""

    def __init__(self, batch: Batch, names: tuple[str, ...]) -> None:
        self._batch, self._names = batch, tuple(name for name in names if name in batch)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._batch[name]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_names", ()):
            return self._batch[name]
        raise AttributeError(f"the batch has no `{name}`, but {', '.join(self._names)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


TOKENS = ("input_ids", "loss_mask", "position_ids", "segment_ids", "labels", "cu_seqlens")
POINTS = (
    "coord",
    "feat",
    "segment",
    "instance",
    "scene_id",
    "grid_coord",
    "voxel.count",
    "inverse",
    "point.segment",
    "offset",
    "point.offset",
    "num_logical_samples",
    "mixed_from",
)

"""Labels of mixed rows: sparse as the server sends them, or dense."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixfeed.losses.arguments import Shapes, number, refuse


@dataclass(frozen=True)
class Sparse:
    """Checked sparse labels; an entry without a class has index 0 and weight 0."""

    index: Tensor
    """(n, k) int64."""
    weight: Tensor
    """(n, k), of the type that losses compute in."""
    present: Tensor
    """(n, k) bool: the entry has a class and a weight above 0."""
    share: Tensor
    """(n), 0 to 1: 1 less the weight of entries without a class; 0 for a row without any label."""

    @property
    def counted(self) -> Tensor:
        """(n) bool: rows that have a label."""
        return self.present.any(1)

    def spread(self, classes: int) -> Tensor:
        """(n, classes): the weights at their classes, those of equal classes added."""
        return self.weight.new_zeros(len(self.index), classes).scatter_add(1, self.index, self.weight)


def sparse(
    shapes: Shapes,
    classes: Tensor,
    weights: Tensor | None,
    count: int,
    dtype: torch.dtype,
    *,
    name: str = "classes",
) -> Sparse:
    """Checks argument `name`, (n) or (n, k) labels of `count` classes, and their `weights` (n, k).

    Labels of shape (n) have no weights.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    if isinstance(classes, Tensor) and classes.dim() == 1:
        if weights is not None:
            refuse("weights", f"want none, as {name} has shape (n)")
        found = shapes.integers(name, classes, ("n",), high=count)[:, None]
        given = torch.ones_like(found, dtype=dtype)
    else:
        found = shapes.integers(name, classes, ("n", "k"), high=count)
        if weights is None:
            refuse("weights", f"is None, want those of {name}, of shape {tuple(found.shape)}")
        given = shapes.amounts("weights", weights, ("n", "k")).to(dtype)
    labelled = found >= 0
    weight = given * labelled
    present = labelled & (weight > 0)
    share = (1.0 - (given * ~labelled).sum(1)).clamp_min(0.0) * present.any(1)
    return Sparse(found.clamp_min(0), weight, present, share)


def pair(shapes: Shapes, classes: Tensor, weights: Tensor, count: int, dtype: torch.dtype) -> Sparse:
    """As `sparse` for exactly two classes a row, (n, 2)."""
    if isinstance(classes, Tensor) and (classes.dim() != 2 or classes.shape[1] != 2):
        refuse("classes", f"has shape {tuple(classes.shape)}, want (n, 2)")
    return sparse(shapes, classes, weights, count, dtype)


def smoothed(target: Tensor, smoothing: float) -> Tensor:
    """Target (n, C) with a part `smoothing` of each row's sum spread over all classes."""
    if smoothing == 0.0:
        return target
    return (1.0 - smoothing) * target + target.sum(1, keepdim=True) * (smoothing / target.shape[1])


def dense_labels(
    classes: Tensor,
    weights: Tensor | None,
    num_classes: int,
    *,
    smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Targets (n, num_classes) of sparse labels: what the server sends as `label.dense`.

    Smoothing is applied to both one-hots before mixing, on = 1 - eps + eps / C, off = eps / C, as in timm; an
    entry without a class (-1) adds nothing, so that a row's sum shows how much of it is labelled.

    Args:
        classes: (n) or (n, k) integers, -1 to num_classes - 1; `label.class`.
        weights: (n, k) floats of at least 0; `label.weight`. None when classes are (n).
        num_classes: at least 1.
        smoothing: 0 to below 1; `batch.smoothing`.
        dtype: float32 or float64.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    if num_classes < 1:
        refuse("num_classes", f"is {num_classes}, want at least 1")
    smoothing = number("smoothing", smoothing, 0.0, 1.0, ends="[)")
    if dtype not in (torch.float32, torch.float64):
        refuse("dtype", f"is {dtype}, want torch.float32 or torch.float64")
    return smoothed(sparse(Shapes(), classes, weights, num_classes, dtype).spread(num_classes), smoothing)

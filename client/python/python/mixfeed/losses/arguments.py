"""Checks of what a caller passes in; every message begins with the argument's name.

Shapes, element types and devices are checked always. Values (class ids, weights) are checked on the CPU only:
looking at them on an accelerator would make every step wait for it. There, a class id past the last one stops
the kernel that uses it.
"""

import math
from collections.abc import Sequence
from typing import Literal, NoReturn, get_args

import torch
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def refuse(name: str, message: str) -> NoReturn:
    """Raises ValueError for argument `name`."""
    raise ValueError(f"{name}: {message}")


def one_of(name: str, value: str, literal: object) -> None:
    """Raises ValueError unless `value` is one of the choices of the Literal type `literal`."""
    choices = get_args(literal)
    if value not in choices:
        refuse(name, f"is {value!r}, want one of {', '.join(choices)}")


def number(name: str, value: float, low: float, high: float, *, ends: str = "[]") -> float:
    """`value` as a float, finite and between `low` and `high`; `ends` says as in "[)" which of the two belong
    to it.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: is {type(value).__name__}, want a number") from None
    above = found >= low if ends[0] == "[" else found > low
    below = found <= high if ends[1] == "]" else found < high
    if not (math.isfinite(found) and above and below):
        refuse(name, f"is {value}, want a number in {ends[0]}{low:g}, {high:g}{ends[1]}")
    return found


class Shapes:
    """Matches tensors against shapes of named axes, which all tensors of one call share.

    An axis is named when it is first met; from then on it has that size. All tensors must be on the first
    one's device.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.sizes: dict[str, int] = {}
        self.device: torch.device | None = None

    def _match(self, name: str, value: Tensor, axes: Sequence[str]) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: is {type(value).__name__}, want a torch.Tensor")
        known = {axis: size for axis, size in self.sizes.items() if axis in axes}
        wanted = f"({', '.join(axes)})" + "".join(f", {axis} = {size}" for axis, size in known.items())
        if value.dim() != len(axes):
            refuse(name, f"has shape {tuple(value.shape)}, want {wanted}")
        for axis, size in zip(axes, value.shape, strict=True):
            if self.sizes.setdefault(axis, size) != size:
                refuse(name, f"has shape {tuple(value.shape)}, want {wanted}")
        self.device = self.device or value.device
        if value.device != self.device:
            refuse(name, f"is on {value.device}, the others on {self.device}")

    def floats(self, name: str, value: Tensor, axes: Sequence[str]) -> Tensor:
        """A floating-point tensor of these axes, float16 and bfloat16 widened to float32."""
        self._match(name, value, axes)
        if not value.is_floating_point():
            raise TypeError(f"{name}: has elements {value.dtype}, want floating point")
        return value if value.dtype == torch.float64 else value.float()

    def amounts(self, name: str, value: Tensor, axes: Sequence[str], *, high: float = math.inf) -> Tensor:
        """As `floats`, each finite and between 0 and `high`."""
        found = self.floats(name, value, axes)
        if found.device.type == "cpu" and found.numel():
            low, top = (edge.item() for edge in found.detach().aminmax())
            if not (low >= 0.0 and top <= high and math.isfinite(top)):
                limit = "a finite number of at least 0" if math.isinf(high) else f"0 to {high:g}"
                refuse(name, f"has values from {low:g} to {top:g}, want {limit}")
        return found

    def integers(self, name: str, value: Tensor, axes: Sequence[str], *, high: int | None = None) -> Tensor:
        """An integer tensor of these axes as int64, each element -1 to `high` - 1 when `high` is given."""
        self._match(name, value, axes)
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name}: has elements {value.dtype}, want integers")
        found = value.long()
        if high is not None and found.device.type == "cpu" and found.numel():
            low, top = (int(edge) for edge in found.aminmax())
            if low < -1 or top >= high:
                refuse(name, f"has values from {low} to {top}, want -1 (none) to {high - 1}")
        return found

    def booleans(self, name: str, value: Tensor, axes: Sequence[str]) -> Tensor:
        """A bool tensor of these axes."""
        self._match(name, value, axes)
        if value.dtype != torch.bool:
            raise TypeError(f"{name}: has elements {value.dtype}, want bool")
        return value


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which autocast leaves matrix products in their operands' type."""
    return torch.autocast(device_type=like.device.type, enabled=False)


def reduce(losses: Tensor, reduction: Reduction, counted: Tensor | None = None) -> Tensor:
    """Reduces losses (n): `mean` over the rows that are `counted` (n) bool (all when None; 0 if none is),
    `sum`, `none`.
    """
    one_of("reduction", reduction, Reduction)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if counted is None:
        return losses.sum() / max(losses.numel(), 1)
    return losses.sum() / counted.sum().clamp_min(1)

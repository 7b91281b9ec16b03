"""From `mixfeed.Tensor` to arrays of other libraries, none of which have to be there."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from mixfeed.errors import Argument

if TYPE_CHECKING:
    from mixfeed._mixfeed import Tensor

Kind = Literal["torch", "numpy", "raw"]
"""What a batch hands out: torch tensors, NumPy arrays, or `mixfeed.Tensor`."""


@cache
def has(library: str) -> bool:
    """Whether a library can be imported; it is not imported to find out."""
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def kind_of(asked: str | None) -> Kind:
    """What to hand out: what is asked for, or torch's tensors where torch is there, else NumPy's, else our
    own.

    Raises:
        Argument: another word, or a library that is not installed.
    """
    if asked is None:
        return "torch" if has("torch") else "numpy" if has("numpy") else "raw"
    kinds: dict[str, Kind] = {"torch": "torch", "numpy": "numpy", "raw": "raw"}
    if asked not in kinds:
        raise Argument(f"`arrays`: is `{asked}`, want `torch`, `numpy` or `raw`")
    if asked != "raw" and not has(asked):
        raise Argument(f"`arrays`: `{asked}` is not installed")
    return kinds[asked]


def to(tensor: Tensor, kind: Kind) -> Any:
    """The tensor as `kind`, on the same memory."""
    return to_torch(tensor) if kind == "torch" else to_numpy(tensor) if kind == "numpy" else tensor


def to_numpy(tensor: Tensor) -> Any:
    """A read-only NumPy array on the tensor's memory.

    bf16 is `ml_dtypes.bfloat16` where that package is installed, else uint16 whose dtype carries
    `metadata={"mixfeed": "bf16"}`.
    """
    import numpy as np

    array = np.asarray(tensor)
    if tensor.dtype != "bf16":
        return array
    if has("ml_dtypes"):
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array.view(np.dtype(np.uint16, metadata={"mixfeed": "bf16"}))


def to_torch(tensor: Tensor) -> Any:
    """A writable torch tensor on the tensor's memory.

    u32 and u64 come as int32 and int64: torch can do little with unsigned types, and no value of the contract
    (groups, indices, flags, boxes) reaches the sign bit.
    """
    import torch

    # Not by `view`: every op of torch hands the interpreter over to other threads, and waits to get it back.
    return torch.utils.dlpack.from_dlpack(tensor.writable_capsule(signed=True))


def as_torch(value: Any) -> Any:
    """Whatever a batch hands out as a torch tensor: in the same memory where that is the trainer's own, else
    a copy. Unsigned types come signed as in `to_torch`."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "writable_capsule"):
        return to_torch(value)
    if not hasattr(value, "dtype"):
        return torch.tensor(value)
    signed = {"uint32": "int32", "uint64": "int64"}.get(value.dtype.name)
    array = value if signed is None else value.view(signed)
    return torch.as_tensor(array if array.flags.writeable else array.copy())

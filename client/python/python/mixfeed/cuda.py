"""Pinned memory: the addresses of functions of the CUDA runtime that torch has loaded."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any


def pin_functions(device: Any = None) -> tuple[int, int, int, int] | None:
    """Addresses of cudaHostRegister, cudaHostUnregister and cudaSetDevice, and the number of the device.

    `device` is what torch takes for one; where it names none of CUDA the current one of the calling thread is
    meant. None, with a warning, where there is no CUDA device.
    """
    try:
        import torch
    except ImportError:
        warnings.warn("`pin_memory` needs torch, which is not installed: memory stays pageable", stacklevel=3)
        return None
    if not torch.cuda.is_available():
        warnings.warn(
            "`pin_memory` needs a CUDA device, and torch finds none: memory stays pageable", stacklevel=3
        )
        return None
    number = _number(device)
    torch.cuda.current_stream(number)  # the runtime is loaded and has its context
    major = (torch.version.cuda or "").split(".")[0]
    for name in (f"libcudart.so.{major}", "libcudart.so"):
        try:
            runtime = ctypes.CDLL(name)
            functions = runtime.cudaHostRegister, runtime.cudaHostUnregister, runtime.cudaSetDevice
        except (OSError, AttributeError):
            continue
        _keep.append(runtime)
        register, unregister, select = (
            ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions
        )
        return register, unregister, select, number
    warnings.warn("`pin_memory`: the CUDA runtime was not found, so memory stays pageable", stacklevel=3)
    return None


def _number(device: Any) -> int:
    """The number of a CUDA device; that of the calling thread's current one where `device` names none."""
    import torch

    wanted = None if device is None else torch.device(device)
    if wanted is None or wanted.type != "cuda" or wanted.index is None:
        return int(torch.cuda.current_device())
    return int(wanted.index)


_keep: list[ctypes.CDLL] = []

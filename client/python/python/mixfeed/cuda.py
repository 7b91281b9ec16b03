"""Pinned memory: the addresses of two functions of the CUDA runtime that torch has loaded."""

from __future__ import annotations

import ctypes
import warnings


def pin_functions() -> tuple[int, int] | None:
    """Addresses of cudaHostRegister and cudaHostUnregister.

    None, with a warning, where there is no CUDA device.
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
    torch.cuda.current_stream()  # the runtime is loaded and has its context
    major = (torch.version.cuda or "").split(".")[0]
    for name in (f"libcudart.so.{major}", "libcudart.so"):
        try:
            runtime = ctypes.CDLL(name)
            functions = runtime.cudaHostRegister, runtime.cudaHostUnregister
        except (OSError, AttributeError):
            continue
        _keep.append(runtime)
        first, second = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
        return first, second
    warnings.warn("`pin_memory`: the CUDA runtime was not found, so memory stays pageable", stacklevel=3)
    return None


_keep: list[ctypes.CDLL] = []

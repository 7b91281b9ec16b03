"""Masks of ops: the base's weight at every pixel, made on the device from words.

Definitions are those of the server's executor (`Mask` in server/src/plan/mod.rs): exact, in f32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DATA = 12
"""Word at which a mask's data begin."""

BLEND, PASTE, CELLS, LATTICE, BUMP, WEIGHTS = range(1, 7)


def weights(op: int, words: Tensor, head: Tensor, rows: Tensor, size: tuple[int, int]) -> Tensor:
    """The base's weight (k, height, width) of `rows`, which all have `op`: bool for binary masks, else f32.

    `words` (n, words) i32 on the device, `head` (n, 12) i32 and `rows` (k) i64 in the host's memory.
    """
    at = rows.to(words.device, non_blocking=True)
    if op == BLEND:
        lam = floats(words[at, 2:3]).reshape(-1, 1, 1)
        return lam.expand(-1, *size)
    if op == PASTE:
        return ~inside(words[at, 6:10], size)
    if op == CELLS:
        return cells(words, head, rows, size)
    if op == LATTICE:
        return lattice(words[at, 2:DATA], size)
    height, width = size
    if op == BUMP:
        data = floats(words[at, DATA : DATA + height + width])
        return 1.0 - data[:, :height, None] * data[:, None, height:]
    return floats(words[at, DATA : DATA + height * width]).reshape(-1, height, width)


def floats(words: Tensor) -> Tensor:
    """f32 by their bits."""
    return words.contiguous().view(torch.float32)


def inside(rect: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (k, height, width) in rectangles (k, 4) of y0, y1, x0, x1."""
    (y, x), (y0, y1, x0, x1) = grid(size, rect.device), _columns(rect)
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)


def cells(words: Tensor, head: Tensor, rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (k, height, width) of cells whose bit is set."""
    height, width = size
    out = torch.empty((len(rows), height, width), dtype=torch.bool, device=words.device)
    # Sizes of cells are arguments of policies: a batch has one or two of them.
    for side, across in head[rows, 2:4].unique(dim=0).tolist():
        chosen = ((head[rows, 2] == side) & (head[rows, 3] == across)).nonzero().flatten()
        down = -(-height // side)
        data = words[rows[chosen].to(words.device, non_blocking=True), DATA : DATA - (-down * across // 32)]
        bits = (data.unsqueeze(2) >> torch.arange(32, device=words.device, dtype=torch.int32)) & 1
        keep = bits.flatten(1)[:, : down * across].reshape(-1, down, across).bool()
        if side > 1:
            ys, xs = (torch.arange(n, device=words.device) // side for n in size)
            keep = keep[:, ys][:, :, xs]
        out[chosen.to(words.device, non_blocking=True)] = keep[:, :, :width]
    return out


def lattice(words: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (k, height, width) that are in no hole; `words` (k, 10): crop, cell and hole."""
    (y, x), (y0, y1, x0, x1) = grid(size, words.device), _columns(words[:, :4])
    rows, columns, deep, wide = _columns(words[:, 4:8])
    crop = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    return ~(crop & ((y - y0) % rows < deep) & ((x - x0) % columns < wide))


def resized(mask: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Masks (k, height, width) on a grid of `size`; see `Plan.mask`."""
    if method == "area" and size[0] <= mask.shape[1] and size[1] <= mask.shape[2]:
        return F.adaptive_avg_pool2d(mask.unsqueeze(1), size).squeeze(1)
    ys, xs = (
        torch.arange(cells, device=mask.device) * side // cells
        for cells, side in zip(size, mask.shape[1:], strict=True)
    )
    return mask[:, ys][:, :, xs]


def grid(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (1, height, 1) and columns (1, 1, width) as i32."""
    y, x = (torch.arange(n, device=device, dtype=torch.int32) for n in size)
    return y.reshape(1, -1, 1), x.reshape(1, 1, -1)


def _columns(words: Tensor) -> tuple[Tensor, ...]:
    return tuple(column.reshape(-1, 1, 1) for column in words.unbind(1))

"""Rectangles of partners resampled into rectangles of rows, for all rows of a batch at once.

Tables and the order of sums are the server's (`exec/taps.rs`, `exec/compose.rs`): the vertical pass first,
taps in order, each product rounded before it is added. So results are the same bits wherever torch computes
products and sums apart, as it does outside of `torch.compile`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST, BILINEAR, AREA = range(3)


def pasted(source: Tensor, rects: Tensor, longest: tuple[int, int], kind: int) -> Tensor:
    """Values (k, channel, height, width) f32 of the rows `source` where they are pasted, anything elsewhere.

    `source` (k, channel, height, width) in f32 or wider; `rects` (k, 8) i32 on its device: the source's y0
    y1 x0 x1, the target's; `longest`: most taps per axis (rows, columns), see `most_taps`.
    """
    height, width = source.shape[2:]
    for axis, side, at, most in ((2, height, 0, longest[0]), (3, width, 2, longest[1])):
        first, weight = _table(rects[:, at : at + 2], rects[:, at + 4 : at + 6], side, kind, most)
        total: Tensor | None = None
        for k in range(most):
            index = (first + k).clamp_max(side - 1)
            shape = (-1, 1, side, 1) if axis == 2 else (-1, 1, 1, side)
            taken = source.gather(axis, index.reshape(shape).expand_as(source))
            part = taken * weight[k].to(source.dtype).reshape(shape)
            total = part if total is None else total + part
        assert total is not None  # a table has one tap at least
        source = total
    return source


def most_taps(heads: Tensor, kind: int) -> tuple[int, int]:
    """Most taps of any row per axis; `heads` (k, 8) i32 in the host's memory, as `rects` of `pasted`."""
    if kind != AREA:
        return (1, 1) if kind == NEAREST else (2, 2)
    sides = [(heads[:, at + 1] - heads[:, at]).float() for at in (0, 2, 4, 6)]
    return tuple(int((2 * (sides[a] / sides[a + 2]).clamp_min(1.0)).max()) + 2 for a in (0, 1))  # type: ignore[return-value]


def _table(source: Tensor, target: Tensor, side: int, kind: int, most: int) -> tuple[Tensor, list[Tensor]]:
    """First input position (k, side) i64 on the raster and weight of each tap (k, side) f32, for every
    output position.

    `source`, `target` (k, 2) i32: begin and end.
    """
    begin, length = source[:, :1].long(), (source[:, 1:] - source[:, :1]).long()
    there = (target[:, 1:] - target[:, :1]).long()
    # Positions outside of the target are computed with its nearest one and never used.
    i = torch.arange(side, device=source.device).unsqueeze(0) - target[:, :1].long()
    i = i.clamp_min(0).minimum(there - 1)
    if kind == NEAREST:
        return begin + i * length // there, [torch.ones_like(i, dtype=torch.float32)]
    scale = length.float() / there.float()
    centre = scale * (i.float() + 0.5)
    if kind == BILINEAR:
        at = (centre - 0.5).clamp_min(0.0)
        first = at.long().minimum(length - 1)
        upper = (at - first.float()).where(first + 1 < length, torch.zeros_like(at))
        return begin + first, [1.0 - upper, upper]
    wide = scale.clamp_min(1.0)
    first = (centre - wide + 0.5).clamp_min(0.0).long().minimum(length - 1)
    end = (centre + wide + 0.5).long().maximum(first + 1).minimum(length)
    weights = []
    for k in range(most):
        distance = (((first + k).float() - centre + 0.5) / wide).abs()
        weights.append((1.0 - distance).clamp_min(0.0).where(first + k < end, torch.zeros_like(distance)))
    total = weights[0]
    for weight in weights[1:]:
        total = total + weight
    some = total > 0
    safe = total.where(some, torch.ones_like(total))
    only = [torch.ones_like(total)] + [torch.zeros_like(total)] * (most - 1)
    return begin + first, [(w / safe).where(some, o) for w, o in zip(weights, only, strict=True)]


def sampled(source: Tensor, rects: Tensor, size: tuple[int, int]) -> Tensor:
    """Feature maps (k, channel, h, w) of partners as they lie under their pasted rectangles; bilinear, any
    grid.

    `size`: the raster that `rects` are in. Where source and target are the same rectangle this is `source`.
    """
    lines = []
    for cells, side, at in ((source.shape[2], size[0], 0), (source.shape[3], size[1], 2)):
        begin, end, to, until = (rects[:, at + i : at + i + 1].to(source.dtype) for i in (0, 1, 4, 5))
        pixel = (torch.arange(cells, device=source.device, dtype=source.dtype) + 0.5) * (side / cells)
        place = begin + (pixel.unsqueeze(0) - to) * (end - begin) / (until - to)
        lines.append(2.0 * place / side - 1.0)
    y, x = lines
    where = torch.stack(
        [x.unsqueeze(1).expand(-1, y.shape[1], -1), y.unsqueeze(2).expand(-1, -1, x.shape[1])], 3
    )
    return F.grid_sample(source, where, mode="bilinear", padding_mode="border", align_corners=False)

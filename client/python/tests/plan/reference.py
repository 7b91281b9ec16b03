"""What a plan means, row by row and pixel by pixel in NumPy, by the words of batch.proto; shares nothing
with the package.
"""

from __future__ import annotations

import numpy as np

HEAD = 12
F = np.float32


def number(word: int) -> np.float32:
    return np.array([word], "<u4").view("<f4")[0]


def words(
    kind: int, source: int, given: list[int | float], data: np.ndarray | None = None, total: int = HEAD
) -> np.ndarray:
    """A row of plan.op: floats of `given` become their bits."""
    row = np.zeros(total, "<u4")
    row[:2] = kind, source
    for i, value in enumerate(given, 2):
        row[i] = np.array([value], "<f4").view("<u4")[0] if isinstance(value, float) else value
    if data is not None:
        row[HEAD : HEAD + len(data)] = data
    return row


def packed(bits: np.ndarray) -> np.ndarray:
    """Bits as words, lowest first."""
    flat = np.asarray(bits, bool).ravel()
    octets = np.packbits(np.pad(flat, (0, -len(flat) % 32)), bitorder="little")
    return octets.view("<u4")


def mask(row: np.ndarray, height: int, width: int) -> np.ndarray:
    """The base's weight per pixel."""
    out = np.ones((height, width), F)
    kind = int(row[0])
    if kind == 5:
        factors = row[HEAD : HEAD + height + width].copy().view("<f4")
    for y in range(height):
        for x in range(width):
            if kind == 1:
                out[y, x] = number(row[2])
            elif kind == 2:
                y0, y1, x0, x1 = map(int, row[6:10])
                out[y, x] = not (y0 <= y < y1 and x0 <= x < x1)
            elif kind == 3:
                cell = y // int(row[2]) * int(row[3]) + x // int(row[2])
                out[y, x] = int(row[HEAD + cell // 32]) >> cell % 32 & 1
            elif kind == 4:
                y0, y1, x0, x1, rows, columns, deep, wide = map(int, row[2:10])
                crop = y0 <= y < y1 and x0 <= x < x1
                out[y, x] = not (crop and (y - y0) % rows < deep and (x - x0) % columns < wide)
            elif kind == 5:
                out[y, x] = F(1) - factors[y] * factors[height + x]
            elif kind == 6:
                out[y, x] = number(row[HEAD + y * width + x])
    return out


def taps(kind: int, source: int, target: int, i: int) -> tuple[int, list[np.float32]]:
    """First input position and weights of output position `i`."""
    if kind == 0:
        return i * source // target, [F(1)]
    scale = F(source) / F(target)
    centre = scale * (F(i) + F(0.5))
    if kind == 1:
        at = max(centre - F(0.5), F(0))
        first = min(int(at), source - 1)
        upper = F(at - F(first))
        return first, [F(1) - upper, upper] if first + 1 < source else [F(1)]
    wide = max(scale, F(1))
    first = min(int(max(centre - wide + F(0.5), F(0))), source - 1)
    end = min(max(int(centre + wide + F(0.5)), first + 1), source)
    weights = [max(F(1) - abs((F(j) - centre + F(0.5)) / wide), F(0)) for j in range(first, end)]
    total = F(0)
    for weight in weights:
        total += weight
    return first, [weight / total for weight in weights] if total > 0 else [F(1)] + [F(0)] * (
        len(weights) - 1
    )


def pasted(row: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The rectangle of `partner` (channel, height, width) at the size of its target, in f32."""
    y0, y1, x0, x1, ty0, ty1, tx0, tx1, kind = map(int, row[2:11])
    cut = partner[:, y0:y1, x0:x1].astype(F)
    if (y1 - y0, x1 - x0) == (ty1 - ty0, tx1 - tx0):
        return cut
    for axis, target in ((1, ty1 - ty0), (2, tx1 - tx0)):
        lines = np.moveaxis(cut, axis, 0)
        out = []
        for i in range(target):
            first, weights = taps(kind, len(lines), target, i)
            total = np.zeros_like(lines[0])
            for k, weight in enumerate(weights):
                total = total + lines[first + k] * weight
            out.append(total)
        cut = np.moveaxis(np.stack(out), 0, axis)
    return cut


def mixed(row: np.ndarray, base: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """u8 row (channel, height, width) of u8 rows."""
    kind, (_, height, width) = int(row[0]), base.shape
    if kind == 0:
        return base
    if kind == 1:
        return np.rint(base.astype(F) * number(row[2]) + partner.astype(F) * number(row[3])).astype(np.uint8)
    if kind == 2:
        out = base.copy()
        ty0, ty1, tx0, tx1 = map(int, row[6:10])
        out[:, ty0:ty1, tx0:tx1] = np.rint(pasted(row, partner)).astype(np.uint8)
        return out
    weight = mask(row, height, width)
    return np.rint(base.astype(F) * weight + partner.astype(F) * (F(1) - weight)).astype(np.uint8)

"""Labels by attention, for vision transformers: TransMix and progressive attention labelling (PAL).

These give new label weights; the loss is `cross_entropy(logits, classes, new_weights, smoothing=...)`.
Everywhere `kept` (n, L) is the share of each token that shows the base row (column 0 of labels), 0 to 1; no
gradient flows into weights.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mixfeed.losses.arguments import Shapes, number, refuse
from mixfeed.losses.labels import pair, smoothed

Rule = Literal["area", "nearest"]


def _grid(grid: tuple[int, int]) -> tuple[int, int]:
    if len(grid) != 2 or min(grid) < 1:
        refuse("grid", f"is {grid}, want two numbers of tokens, each at least 1")
    return int(grid[0]), int(grid[1])


def kept_outside_box(
    box: Tensor, size: tuple[int, int], grid: tuple[int, int], *, rule: Rule = "area"
) -> Tensor:
    """Share of each token outside a pasted box, (n, rows * columns) float32, 0 to 1: `kept` from the tensor
    `plan.box`.

    Args:
        box: (n, 4) integers y0, y1, x0, x1 in pixels, half-open, within the image; zeros when there is none.
        size: height and width of the image in pixels.
        grid: rows and columns of tokens; they need not divide the size.
        rule: `area`, the part of the token's area; `nearest`, 0 or 1 by the token's top left pixel, as
            TransMix's code.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    edges = shapes.integers("box", box, ("n", "edges"))
    if shapes.sizes["edges"] != 4:
        refuse("box", f"has shape {tuple(box.shape)}, want (n, 4)")
    if len(size) != 2 or min(size) < 1:
        refuse("size", f"is {size}, want height and width in pixels")
    inside = []
    for axis, (pixels, tokens) in enumerate(zip(size, _grid(grid), strict=True)):
        low, high = edges[:, 2 * axis, None], edges[:, 2 * axis + 1, None]
        starts = torch.arange(tokens + 1, device=edges.device) * pixels
        if rule == "nearest":
            corner = starts[:-1] // tokens
            inside.append(((low <= corner) & (corner < high)).float())
        elif rule == "area":
            # In units of 1 / tokens pixels all borders are integers.
            overlap = torch.minimum(starts[1:], high * tokens) - torch.maximum(starts[:-1], low * tokens)
            inside.append(overlap.clamp_min(0).float() / pixels)
        else:
            refuse("rule", f"is {rule!r}, want area, nearest")
    return 1.0 - (inside[0][:, :, None] * inside[1][:, None, :]).flatten(1)


def kept_of_mask(mask: Tensor, grid: tuple[int, int], *, rule: Rule = "area") -> Tensor:
    """Share of each token that a mask of pixels keeps, (n, rows * columns) float32: `kept` of any mask.

    Args:
        mask: (n, H, W), bool or floats 0 to 1, 1 where the base row shows.
        grid: rows and columns of tokens.
        rule: `area`, the mean over the token's pixels (those that it touches, where the grid doesn't divide
            the size); `nearest`, the pixel floor(row * H / rows), floor(column * W / columns).

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    found = mask.float() if isinstance(mask, Tensor) and mask.dtype == torch.bool else mask
    found = Shapes().amounts("mask", found, ("n", "H", "W"), high=1.0).float()
    rows, columns = _grid(grid)
    if rule == "area":
        return F.adaptive_avg_pool2d(found[:, None], (rows, columns)).flatten(1)
    if rule != "nearest":
        refuse("rule", f"is {rule!r}, want area, nearest")
    y = torch.arange(rows, device=found.device) * found.shape[1] // rows
    x = torch.arange(columns, device=found.device) * found.shape[2] // columns
    return found[:, y[:, None], x].flatten(1)


def class_attention(attention: Tensor, *, prefix: int = 1) -> Tensor:
    """Attention of the class token to the patches, the mean of heads, (n, L); detached.

    Args:
        attention: (n, heads, T, T) floats of at least 0, rows are queries, T = prefix + L; the last block's.
        prefix: tokens before the patches, at least 1; the first is the class token.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    found = Shapes().floats("attention", attention, ("n", "heads", "T", "T")).detach()
    if not 1 <= prefix < found.shape[-1]:
        refuse("prefix", f"is {prefix}, want 1 to below the {found.shape[-1]} tokens of attention")
    return found[:, :, 0, prefix:].mean(1)


def _relabel(shapes: Shapes, weights: Tensor, base: Tensor, relabel: Tensor | None) -> Tensor:
    """(n, 2): base and 1 - base, and `weights` where not `relabel`."""
    new = torch.stack((base, 1.0 - base), 1)
    if relabel is None:
        return new
    return torch.where(shapes.booleans("relabel", relabel, ("n",))[:, None], new, weights)


def _shares(
    shapes: Shapes, attention: Tensor, kept: Tensor, weights: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Checked weights (n, 2), and the part of attention on the base (n); its label weight where attention is
    all 0.
    """
    heads = isinstance(attention, Tensor) and attention.dim() == 3
    seen = shapes.amounts("attention", attention, ("n", "heads", "L") if heads else ("n", "L")).detach()
    seen = seen.mean(1) if heads else seen
    mask = shapes.amounts("kept", kept, ("n", "L"), high=1.0).detach()
    given = shapes.amounts("weights", weights, ("n", "k")).detach()
    if given.shape[1] != 2:
        refuse("weights", f"has shape {tuple(given.shape)}, want (n, 2)")
    given = given.to(dtype or given.dtype)
    total = seen.sum(1)
    part = (seen * mask).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
    return given, torch.where(total > 0, part.to(given.dtype), given[:, 0])


def transmix_weights(
    attention: Tensor, kept: Tensor, weights: Tensor, *, relabel: Tensor | None = None
) -> Tensor:
    """TransMix: label weights (n, 2) half by area, half by the attention that each source gets.

    w_a = (sum(A kept) / sum(A) + w_a) / 2 and w_b = 1 - w_a.

    Source: Chen et al., "TransMix: Attend to Mix for Vision Transformers", CVPR 2022 (arXiv:2111.09833).

    Args:
        attention: (n, L) or (n, heads, L) floats of at least 0: the class token's attention to the patches of
            the mixed row, see `class_attention`. Rows without any attention keep their weights.
        kept: (n, L) floats or 0 to 1, see `kept_outside_box` and `kept_of_mask`.
        weights: (n, 2) floats that sum to 1, `label.weight`: the share of the area.
        relabel: (n) bool, rows to change, CutMix's in the paper; others keep their weights. None: all.

    Returns:
        (n, 2) without gradient; float64 for float64 weights, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    given, part = _shares(shapes, attention, kept, weights, None)
    return _relabel(shapes, given, (part + given[:, 0]) / 2.0, relabel)


def pal_weights(
    logits: Tensor,
    attention: Tensor,
    kept: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    smoothing: float = 0.0,
    relabel: Tensor | None = None,
) -> Tensor:
    """PAL of MixPro: label weights (n, 2) that go from area to attention as the prediction comes near the
    target.

    w_a = f sum(A kept) / sum(A) + (1 - f) w_a and w_b = 1 - w_a, with f the cosine of softmax(logits) and the
    row's target (of the given weights, smoothed).

    Source: Zhao et al., "MixPro: Data Augmentation with MaskMix and Progressive Attention Labeling for Vision
    Transformer", ICLR 2023 (arXiv:2304.12043).

    Args:
        logits: (n, C) floats.
        attention: (n, L) or (n, heads, L) floats of at least 0, as of `transmix_weights`.
        kept: (n, L) floats 0 to 1.
        classes: (n, 2) integers, -1 (none) to C - 1; a row without any class keeps its weights.
        weights: (n, 2) floats that sum to 1.
        smoothing: 0 to below 1, of the target in f.
        relabel: (n) bool, rows to change; others keep their weights. None: all.

    Returns:
        (n, 2) without gradient; float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    z = shapes.floats("logits", logits, ("n", "C")).detach()
    found = pair(shapes, classes, weights, z.shape[1], z.dtype)
    smoothing = number("smoothing", smoothing, 0.0, 1.0, ends="[)")
    target = smoothed(found.spread(z.shape[1]).detach(), smoothing)
    given, part = _shares(shapes, attention, kept, weights, z.dtype)
    progress = F.cosine_similarity(z.softmax(1), target, dim=1).clamp(0.0, 1.0)
    return _relabel(shapes, given, progress * part + (1.0 - progress) * given[:, 0], relabel)

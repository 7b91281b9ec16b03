"""Carrying plans out: pictures as the server does, feature maps, token sequences and vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixfeed.plan import masks, resampling
from mixfeed.plan.recipe import Op, Plan, RecipeError

HALVES = (torch.float16, torch.bfloat16)


def mix(
    x: Tensor,
    plan: Plan,
    *,
    layout: str | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int = 0,
    by: str = "mask",
    dtype: torch.dtype | None = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Tensor:
    """Mixes the m clean rows of `x` as the plan says: n rows of the same shape, on `x`'s device.
    Differentiable for floats.

    * Pictures (m, 3, height, width) or (m, height, width, 3) of the job's raster. u8 gives what the server
      sends, bit for bit; with `dtype` (and `normalize` = mean and std per channel, as in ImageSpec) the
      server's f32, f16 or bf16, bit for bit. Floats are mixed as they are: normalising first or last is the
      same up to rounding.
    * Feature maps (m, channel, h, w), or `layout="nhwc"`: masks are resized to h x w by the mean over each
      cell (manifold mixup with any policy; Verma et al. 2019). A resized paste (ResizeMix) samples the
      partner's map bilinearly.
    * Sequences (m, length, channel) with `grid` = rows and columns of the tokens after the first `prefix`
      ones: the same; the prefix (class token) is blended by lambda.
    * Anything else (m, ...), also audio and embeddings, or whatever is at hand with `by="lambda"`: `lam *
      base + rest * partner`, lam being the label's weight.

    f16 and bf16 are computed in f32 and rounded once.

    Raises:
        RecipeError: `x` has another number of rows than the batch has clean ones or does not fit `layout` or
            `grid`, or the batch carries no ops and they are needed.
    """
    if x.shape[0] != plan.slots:
        raise RecipeError(f"x has {x.shape[0]} rows, the plan is for {plan.slots} clean ones")
    if by not in ("mask", "lambda"):
        raise RecipeError(f"by is `{by}`, want `mask` or `lambda`")
    plan = plan.to(x.device)
    if by == "mask" and x.ndim == 4:
        return _maps(x, plan, layout, dtype, normalize)
    if dtype is not None or normalize is not None:
        raise RecipeError("dtype and normalize are for pictures of the job's raster")
    if not x.is_floating_point():
        raise RecipeError(f"x is {x.dtype}: only pictures of the job's raster are mixed as integers")
    if by == "mask" and grid is not None:
        return _halves(x, lambda wide: _sequences(wide, plan, grid, prefix))
    return _halves(x, lambda wide: _by_lambda(wide, plan))


def _maps(
    x: Tensor,
    plan: Plan,
    layout: str | None,
    dtype: torch.dtype | None,
    normalize: tuple[Sequence[float], Sequence[float]] | None,
) -> Tensor:
    """Pictures and feature maps."""
    raster = (3, *plan.size) if plan.layout == "nchw" else (*plan.size, 3)
    picture = tuple(x.shape[1:]) == raster and layout in (None, plan.layout)
    last = (plan.layout if picture else layout or "nchw") == "nhwc"
    if layout not in (None, "nchw", "nhwc"):
        raise RecipeError(f"layout is `{layout}`, want `nchw` or `nhwc`")
    if x.dtype == torch.uint8:
        if not picture:
            raise RecipeError(f"u8 rows of shape {tuple(x.shape[1:])} are not the job's raster {raster}")
        x = x.permute(0, 3, 1, 2) if last else x
        out = _bytes(x, plan) if dtype in (None, torch.uint8) else _fractions(x, plan)
        out = out if normalize is None else _normalized(out, normalize)
        out = out if dtype is None else out.to(dtype)
    elif dtype is not None or normalize is not None or not x.is_floating_point():
        raise RecipeError(f"dtype and normalize are for u8 pictures, x is {x.dtype}")
    else:
        x = x.permute(0, 3, 1, 2) if last else x
        compose = _composed if picture else _features
        out = _halves(x, lambda wide: compose(wide, plan))
    return out.permute(0, 2, 3, 1).contiguous() if last else out


def _halves(x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """f16 and bf16 by way of f32."""
    return compute(x.float()).to(x.dtype) if x.dtype in HALVES else compute(x)


def _bytes(x: Tensor, plan: Plan) -> Tensor:
    """u8 in, u8 out: computed in f32, rounded half to even."""
    return _composed(x, plan, widen=lambda v: v.float(), narrow=lambda v: v.round().to(torch.uint8))


def _fractions(x: Tensor, plan: Plan) -> Tensor:
    """u8 in, f32 fractions of full scale out; what is resampled is resampled as bytes."""
    # By a tensor: a number would become a multiplication by its reciprocal on CUDA, which is another
    # rounding.
    full = torch.full((), 255.0, device=x.device)
    return _composed(x.float() / full, plan, resample=lambda rows, paste: paste(x[rows].float()) / full)


def _normalized(x: Tensor, normalize: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    if x.dtype == torch.uint8:
        raise RecipeError("normalize needs a float dtype")
    mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device).reshape(1, 3, 1, 1) for v in normalize)
    return (x - mean) / std


def _same(value: Tensor) -> Tensor:
    return value


def _composed(
    x: Tensor,
    plan: Plan,
    widen: Callable[[Tensor], Tensor] = _same,
    narrow: Callable[[Tensor], Tensor] = _same,
    resample: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor] | None = None,
) -> Tensor:
    """Rows (m, 3, height, width) mixed at the raster's own size.

    `widen` and `narrow` go to and from the type of the arithmetic; `resample(rows, paste)` gives pasted
    values of `rows`.
    """
    words, head = plan.ops()
    out = x.index_select(0, plan.base)
    for op, rows in plan.rows():
        if op is Op.COPY:
            continue
        at, source = rows.to(x.device, non_blocking=True), plan.sources(rows)
        a, b = out[at], x[source]
        mask = masks.weights(int(op), words, head, rows, plan.size)
        if op is Op.BLEND:
            rest = masks.floats(words[at, 3:4]).reshape(-1, 1, 1, 1)
            made = narrow(_sum(widen(a), widen(b), mask[:, None, :1, :1], rest))
        elif op is Op.PASTE:
            made = a.where(mask.unsqueeze(1), _paste(x, b, source, plan, rows, widen, narrow, resample))
        elif mask.dtype == torch.bool:
            made = a.where(mask.unsqueeze(1), b)
        else:
            weight = mask.unsqueeze(1)
            made = narrow(_sum(widen(a), widen(b), weight, 1.0 - weight))
        out = out.index_copy(0, at, made)
    return out


def _sum(a: Tensor, b: Tensor, weight: Tensor, rest: Tensor) -> Tensor:
    return a * weight.to(a.dtype) + b * rest.to(a.dtype)


def _paste(
    x: Tensor,
    b: Tensor,
    source: Tensor,
    plan: Plan,
    rows: Tensor,
    widen: Callable[[Tensor], Tensor],
    narrow: Callable[[Tensor], Tensor],
    resample: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor] | None,
) -> Tensor:
    """What the partners `b` show in the rectangles that are pasted of them."""
    words, head = plan.ops()
    heads = head[rows, 2:11]
    moved = (heads[:, 0:4] != heads[:, 4:8]).any(1).nonzero().flatten()
    if not len(moved):
        return b
    out = b
    same = (heads[:, 1] - heads[:, 0] == heads[:, 5] - heads[:, 4]) & (
        heads[:, 3] - heads[:, 2] == heads[:, 7] - heads[:, 6]
    )
    # What keeps its size is copied, whatever its filter.
    kinds = heads[:, 8].masked_fill(same, resampling.NEAREST)
    for kind in kinds[moved].unique().tolist():
        chosen = moved[kinds[moved] == kind]
        at = chosen.to(x.device, non_blocking=True)
        rects = words[rows[chosen].to(x.device, non_blocking=True), 2:10]
        longest = resampling.most_taps(heads[chosen, :8], kind)

        def paste(
            values: Tensor, rects: Tensor = rects, longest: tuple[int, int] = longest, kind: int = kind
        ) -> Tensor:
            return resampling.pasted(values, rects, longest, kind)

        made = narrow(paste(widen(b[at]))) if resample is None else resample(source[at], paste)
        out = out.index_copy(0, at, made)
    return out


def _features(x: Tensor, plan: Plan) -> Tensor:
    """Feature maps (m, channel, h, w) by masks of their size."""
    words, head = plan.ops()
    size = (int(x.shape[2]), int(x.shape[3]))
    out = x.index_select(0, plan.base)
    for op, rows in plan.rows():
        if op is Op.COPY:
            continue
        at, b = rows.to(x.device, non_blocking=True), x[plan.sources(rows)]
        if op is Op.BLEND:
            weight, rest = (masks.floats(words[at, i : i + 1]).reshape(-1, 1, 1, 1) for i in (2, 3))
        else:
            mask = masks.weights(int(op), words, head, rows, plan.size).float()
            weight = masks.resized(mask, size, "area").unsqueeze(1)
            rest = 1.0 - weight
        if op is Op.PASTE and bool((head[rows, 2:6] != head[rows, 6:10]).any()):
            b = resampling.sampled(b, words[at, 2:10], plan.size)
        out = out.index_copy(0, at, _sum(out[at], b, weight, rest))
    return out


def _sequences(x: Tensor, plan: Plan, grid: tuple[int, int], prefix: int) -> Tensor:
    """Sequences (m, prefix + rows * columns, channel)."""
    down, across = grid
    if x.ndim != 3 or x.shape[1] != prefix + down * across:
        raise RecipeError(
            f"x has shape {tuple(x.shape)}, want (rows, {prefix} + {down} * {across}, channels)"
        )
    maps = x[:, prefix:].transpose(1, 2).unflatten(2, (down, across))
    cells = _features(maps, plan).flatten(2).transpose(1, 2)
    return torch.cat([_by_lambda(x[:, :prefix], plan), cells], 1) if prefix else cells


def _by_lambda(x: Tensor, plan: Plan) -> Tensor:
    """Whole rows by the label's weight; rows that are not mixed are copied."""
    shape = (-1, *[1] * (x.ndim - 1))
    base = x.index_select(0, plan.base)
    mixed = _sum(base, x.index_select(0, plan.partner), plan.lam.reshape(shape), plan.rest.reshape(shape))
    return base.where((plan.rest == 0).reshape(shape), mixed)

"""Every op on random plans against the pixel-by-pixel reference: the same bits for u8, and laws of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch

from mixfeed.plan import Op, Plan, RecipeError, mix

HEIGHT, WIDTH, SLOTS, FIRST = 13, 18, 12, 24
KINDS = list(Op)


class Made(dict[str, Any]):
    """A batch as far as plans look at it."""

    slots = range(FIRST, FIRST + SLOTS)
    smoothing = 0.1


def rect(draw: np.random.Generator, height: int, width: int) -> list[int]:
    ends = [sorted(draw.choice(side + 1, 2, replace=False)) for side in (height, width)]
    return [int(end) for pair in ends for end in pair]


def row(
    draw: np.random.Generator, kind: int, source: int, filter_: int, total: int
) -> tuple[np.ndarray, float]:
    """Words of a random op and the weight of the base."""
    whole = reference.words(kind, source, [], total=total)
    if kind == Op.BLEND:
        lam = float(draw.random())
        whole = reference.words(
            kind, source, [float(np.float32(lam)), float(np.float32(1 - lam))], total=total
        )
    elif kind == Op.PASTE:
        target = rect(draw, HEIGHT, WIDTH)
        start = [rect(draw, HEIGHT, WIDTH), [0, HEIGHT, 0, WIDTH], target][int(draw.integers(3))]
        whole = reference.words(kind, source, [*start, *target, filter_], total=total)
    elif kind == Op.CELLS:
        side = int(draw.choice([1, 4, 5]))
        across, down = -(-WIDTH // side), -(-HEIGHT // side)
        bits = draw.random(across * down) < 0.5
        whole = reference.words(kind, source, [side, across], reference.packed(bits), total)
    elif kind == Op.LATTICE:
        cell = [int(n) for n in draw.integers(2, 7, 2)]
        hole = [int(draw.integers(1, c + 1)) for c in cell]
        whole = reference.words(kind, source, [*rect(draw, HEIGHT, WIDTH), *cell, *hole], total=total)
    elif kind == Op.BUMP:
        data = draw.random(HEIGHT + WIDTH).astype("<f4").view("<u4")
        whole = reference.words(kind, source, [], data, total)
    elif kind == Op.WEIGHTS:
        data = draw.random(HEIGHT * WIDTH).astype("<f4").view("<u4")
        whole = reference.words(kind, source, [], data, total)
    return whole, float(reference.mask(whole, HEIGHT, WIDTH).astype(np.float64).mean())


def batch(seed: int, kinds: list[int], layout: str = "nchw") -> Made:
    """A batch whose row i has op `kinds[i]`, mixed with a random clean row."""
    draw = np.random.default_rng(seed)
    total = reference.HEAD + HEIGHT * WIDTH
    clean = draw.integers(0, 256, (SLOTS, 3, HEIGHT, WIDTH), np.uint8)
    base = draw.choice(SLOTS, len(kinds), replace=False) if len(kinds) < SLOTS else np.arange(SLOTS)
    partner = draw.integers(0, SLOTS, len(kinds))
    rows = [
        row(draw, kind, FIRST + int(p), i % 3, total)
        for i, (kind, p) in enumerate(zip(kinds, partner, strict=True))
    ]
    own = np.array([weight for _, weight in rows])
    made = Made()
    made.update(
        {
            "image.clean": clean if layout == "nchw" else np.ascontiguousarray(clean.transpose(0, 2, 3, 1)),
            "plan.base": (FIRST + base).astype("<i4"),
            "plan.partner": (FIRST + partner).astype("<i4"),
            "plan.policy": np.array([-1 if kind == 0 else 0 for kind in kinds], "<i4"),
            "plan.lambda": np.stack([own, own], 1),
            "plan.box": np.zeros((len(kinds), 4), "<i4"),
            "plan.op": np.stack([words for words, _ in rows]).view("<i4"),
            "label.class": draw.integers(-1, 5, (len(kinds), 2)).astype("<i4"),
        }
    )
    return made


def wanted(made: Made) -> np.ndarray:
    clean = made["image.clean"]
    clean = clean if clean.shape[1] == 3 else clean.transpose(0, 3, 1, 2)
    pairs = zip(made["plan.op"].view("<u4"), made["plan.base"] - FIRST, strict=True)
    return np.stack([reference.mixed(words, clean[base], clean[words[1] - FIRST]) for words, base in pairs])


def clean(made: Made) -> torch.Tensor:
    return torch.from_numpy(made["image.clean"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_every_op_are_the_reference_bit_for_bit(kind: Op, layout: str, seed: int) -> None:
    made = batch(seed, [kind] * SLOTS, layout)
    out = mix(clean(made), Plan.of(made))
    out = out if layout == "nchw" else out.permute(0, 3, 1, 2)
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(out.numpy(), wanted(made))


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_all_ops_are_mixed_together_and_may_be_fewer_than_clean_rows(seed: int) -> None:
    kinds = [int(k) for k in np.random.default_rng(seed).integers(0, len(KINDS), 7)]
    made = batch(seed, kinds)
    plan = Plan.of(made)
    assert (len(plan), plan.slots) == (7, SLOTS)
    np.testing.assert_array_equal(mix(clean(made), plan).numpy(), wanted(made))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_reference_and_grids_keep_their_mean(kind: Op) -> None:
    made = batch(3, [kind] * SLOTS)
    plan = Plan.of(made)
    want = np.stack([reference.mask(words, HEIGHT, WIDTH) for words in made["plan.op"].view("<u4")])
    full = plan.mask()
    np.testing.assert_array_equal(full.numpy(), want)
    # 13 rows have no divisor but 1 and 13; 18 columns go into 6 cells of 3.
    area = plan.mask((13, 6))
    np.testing.assert_allclose(area.numpy(), want.reshape(SLOTS, 13, 6, 3).mean(3), atol=1e-6)
    np.testing.assert_allclose(area.mean((1, 2)), plan.lam, atol=1e-5)
    np.testing.assert_array_equal(plan.mask((4, 6), "nearest").numpy(), want[:, [0, 3, 6, 9]][:, :, ::3])
    np.testing.assert_array_equal(plan.mask((26, 18)).numpy(), want.repeat(2, axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_floats_are_mixed_as_they_are_and_carry_gradients(kind: Op) -> None:
    made = batch(5, [kind] * SLOTS)
    plan = Plan.of(made)
    x = clean(made).double().requires_grad_()
    out = mix(x, plan)
    # The bytes are the same rows, rounded once more.
    assert (out.detach() - torch.from_numpy(wanted(made).astype(np.float64))).abs().max() <= 0.5 + 1e-4
    out.sum().backward()
    assert x.grad is not None and x.grad.sum().item() == pytest.approx(out.numel(), rel=1e-6)
    for half in (torch.float16, torch.bfloat16):
        got = mix(x.detach().to(half), plan)
        assert got.dtype == half
        assert torch.equal(got, mix(x.detach().to(half).float(), plan).to(half)), (
            "computed in f32, rounded once"
        )


def test_a_feature_map_of_the_rasters_size_is_mixed_like_a_picture() -> None:
    """Same masks, same pastes of unmoved boxes; resized pastes are sampled bilinearly, so bilinear ones
    only agree inside.
    """
    kinds = [k for k in KINDS if k is not Op.PASTE] * 2
    made = batch(6, [int(k) for k in kinds])
    plan = Plan.of(made)
    x = clean(made).float()
    wide = mix(torch.cat([x, x], 1), plan)
    torch.testing.assert_close(wide[:, 3:], mix(x, plan), rtol=1e-6, atol=1e-4)


def test_features_are_mixed_by_the_mean_of_the_mask_over_their_cells() -> None:
    made = batch(7, [int(k) for k in (Op.CELLS, Op.LATTICE, Op.BUMP, Op.WEIGHTS, Op.BLEND, Op.COPY)] * 2)
    plan = Plan.of(made)
    h = torch.randn(SLOTS, 5, 4, 6)
    weight = plan.mask((4, 6)).unsqueeze(1)
    want = h[plan.base] * weight + h[plan.partner] * (1 - weight)
    torch.testing.assert_close(mix(h, plan), want)
    torch.testing.assert_close(mix(h.permute(0, 2, 3, 1), plan, layout="nhwc"), want.permute(0, 2, 3, 1))
    tokens = torch.cat([torch.randn(SLOTS, 1, 5), h.flatten(2).transpose(1, 2)], 1)
    got = mix(tokens, plan, grid=(4, 6), prefix=1)
    torch.testing.assert_close(got[:, 1:], want.flatten(2).transpose(1, 2))
    torch.testing.assert_close(got[:, 0], mix(tokens[:, 0], plan))


def test_vectors_are_mixed_by_the_labels_weight() -> None:
    made = batch(8, [int(k) for k in range(7)] + [1] * 5)
    plan = Plan.of(made)
    for shape in [(), (9,), (2, 3, 4, 5)]:
        z = torch.randn(SLOTS, *shape)
        lam = plan.lam.reshape(-1, *[1] * len(shape))
        torch.testing.assert_close(
            mix(z, plan, by="lambda"), lam * z[plan.base] + (1 - lam) * z[plan.partner]
        )
    assert torch.equal(mix(torch.full((SLOTS, 2), 7.0), plan)[0], torch.full((2,), 7.0)), (
        "a copied row is copied"
    )


def test_a_resized_paste_moves_features_to_their_place() -> None:
    """The whole partner goes into the upper left quarter: a map that is linear in the pixel stays linear,
    twice as steep.
    """
    made = batch(9, [int(Op.PASTE)])
    words = reference.words(2, FIRST + 1, [0, 16, 0, 16, 0, 8, 0, 8, 1], total=16)
    made.update({"plan.op": words.view("<i4")[None], "image.clean": np.zeros((SLOTS, 3, 16, 16), np.uint8)})
    ramp = torch.arange(8.0).expand(SLOTS, 1, 8, 8).contiguous()
    out = mix(ramp, Plan.of(made))[0, 0]
    torch.testing.assert_close(out[:4, :4], torch.tensor([0.5, 2.5, 4.5, 6.5]).expand(4, 4))
    assert torch.equal(out[4:], ramp[0, 0, 4:]) and torch.equal(out[:, 4:], ramp[0, 0, :, 4:])


def test_labels_are_pairs_or_smoothed_rows() -> None:
    made = batch(10, [1] * SLOTS)
    plan = Plan.of(made)
    classes, weights = plan.labels()
    assert classes.dtype == torch.int64 and weights.dtype == torch.float32
    assert torch.equal(weights.sum(1), torch.ones(SLOTS))
    dense = plan.dense(5)
    for row_, (pair, (own, rest)) in enumerate(zip(classes.tolist(), weights.tolist(), strict=True)):
        want = np.zeros(5)
        for label, weight in zip(pair, (own, rest), strict=True):
            if label >= 0:
                want += weight * (0.02 + 0.9 * (np.arange(5) == label))
        np.testing.assert_allclose(dense[row_].numpy(), want, atol=1e-6)


def test_what_does_not_fit_is_refused_by_name() -> None:
    made = batch(11, [1] * SLOTS)
    plan, x = Plan.of(made), clean(made)
    with pytest.raises(RecipeError, match="11 rows, the plan is for 12"):
        mix(x[:11], plan)
    with pytest.raises(RecipeError, match="not the job's raster"):
        mix(x[:, :, :5], plan)
    with pytest.raises(RecipeError, match=r"want \(rows, 1 \+ 2 \* 2"):
        mix(torch.zeros(SLOTS, 4, 3), plan, grid=(2, 2), prefix=1)
    with pytest.raises(RecipeError, match="by is `masks`"):
        mix(x, plan, by="masks")
    with pytest.raises(RecipeError, match="for u8 pictures"):
        mix(x.float(), plan, dtype=torch.float16)
    with pytest.raises(RecipeError, match="needs a float dtype"):
        mix(x, plan, normalize=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(RecipeError, match="only pictures"):
        mix(torch.zeros(SLOTS, 2, dtype=torch.int64), plan)
    with pytest.raises(RecipeError, match="method is `mean`"):
        plan.mask((2, 2), "mean")
    strange = made["plan.op"].copy()
    strange[3, 0] = 9
    made["plan.op"] = strange
    with pytest.raises(RecipeError, match=r"has op 9, this package knows 0\.\.6"):
        Plan.of(made)
    del made["plan.op"]
    del made["plan.base"]
    made["image"] = made["image.clean"]
    mixed = Plan.of(made)
    assert torch.equal(mixed.base, torch.arange(SLOTS))
    with pytest.raises(RecipeError, match="`recipe` or `both`"):
        mixed.mask()
    with pytest.raises(RecipeError, match="only jobs of pictures"):
        Plan.of({"input_ids": torch.zeros(1, 2)})


def test_pictures_that_may_be_either_layout_need_a_word() -> None:
    made = batch(12, [1] * SLOTS)
    made["image.clean"] = np.zeros((SLOTS, 3, 7, 3), np.uint8)
    with pytest.raises(RecipeError, match="name the `layout`"):
        Plan.of(made)
    assert Plan.of(made, layout="nhwc").size == (3, 7)
    with pytest.raises(RecipeError, match="are nchw"):
        Plan.of(batch(12, [1] * SLOTS), layout="nhwc")


def test_a_rank_without_rows_has_a_plan_without_rows() -> None:
    made = batch(13, [int(k) for k in range(7)] + [1] * 5)
    for name, values in made.items():
        made[name] = values[:0]
    plan = Plan.of(made)
    assert (len(plan), plan.slots) == (0, 0)
    assert mix(clean(made), plan).shape == (0, 3, HEIGHT, WIDTH)
    assert mix(clean(made), plan, dtype=torch.float16).dtype == torch.float16
    assert mix(torch.zeros(0, 4, 3, 3), plan).shape == (0, 4, 3, 3)
    assert plan.mask((2, 3)).shape == (0, 2, 3) and plan.dense(5).shape == (0, 5)

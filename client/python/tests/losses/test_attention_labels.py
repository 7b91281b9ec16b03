"""TransMix, PAL and TL-Align: label weights against loops."""

import math

import numpy as np
import pytest
import torch

from mixfeed.losses import (
    class_attention,
    kept_of_mask,
    kept_outside_box,
    pal_weights,
    tl_align_merge,
    tl_align_step,
    tl_align_weights,
    transmix_weights,
)


def attentions(rng, *shape):
    """Attention as a softmax gives it: rows of the last axis sum to 1."""
    raw = rng.exponential(size=shape)
    return torch.tensor(raw / raw.sum(-1, keepdims=True))


def lams(rng, n):
    own = torch.tensor(rng.uniform(size=n))
    return torch.stack((own, 1 - own), 1)


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (4, 4)), ((30, 44), (7, 5)), ((8, 6), (8, 6))])
def test_tokens_outside_a_box_by_pixels(rng, size, grid):
    (height, width), (rows, columns) = size, grid
    low = rng.integers(0, (height, width), (6, 2))
    high = rng.integers(low, (height + 1, width + 1))
    box = np.stack((low[:, 0], high[:, 0], low[:, 1], high[:, 1]), 1)
    box[0] = 0
    # Pixels cut into rows x columns parts each, so that tokens have whole numbers of them.
    fine = np.ones((6, height * rows, width * columns))
    for i, (y0, y1, x0, x1) in enumerate(box):
        fine[i, y0 * rows : y1 * rows, x0 * columns : x1 * columns] = 0
    tokens = fine.reshape(6, rows, height, columns, width).mean((2, 4)).reshape(6, -1)
    sent = torch.tensor(box.astype(np.uint32))
    got = kept_outside_box(sent, size, grid)
    assert np.allclose(got.numpy(), tokens, atol=1e-6)
    assert got[0].min() == 1.0
    assert got.mean(1).tolist() == pytest.approx(fine.mean((1, 2)).tolist(), abs=1e-6)
    near = [
        [
            fine[i, (r * height // rows) * rows, (c * width // columns) * columns]
            for r in range(rows)
            for c in range(columns)
        ]
        for i in range(6)
    ]
    assert kept_outside_box(sent, size, grid, rule="nearest").tolist() == near
    mask = torch.tensor(fine[:, ::rows, ::columns])
    assert kept_of_mask(mask, grid, rule="nearest").tolist() == near
    if height % rows == 0 and width % columns == 0:
        assert torch.allclose(kept_of_mask(mask.bool(), grid), got, atol=1e-6)


def test_class_attention_is_the_first_row_of_the_patches(rng):
    attention = attentions(rng, 2, 3, 6, 6)
    got = class_attention(attention, prefix=2)
    want = [[sum(attention[i, h, 0, 2 + t].item() for h in range(3)) / 3 for t in range(4)] for i in range(2)]
    assert np.allclose(got.numpy(), want)


def test_golden_transmix_of_the_specification():
    attention, pasted = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    got = transmix_weights(attention, 1 - pasted, torch.tensor([[0.5, 0.5]]))
    assert got.tolist() == [pytest.approx([0.5, 0.5])]
    got = transmix_weights(attention, 1 - pasted, torch.tensor([[0.8, 0.2]]))
    assert got.tolist() == [pytest.approx([0.65, 0.35])]


@pytest.mark.parametrize("n", [1, 5])
def test_transmix_by_loops(rng, n):
    attention, weights = attentions(rng, n, 3, 7), lams(rng, n)
    kept = torch.tensor(rng.uniform(size=(n, 7)))
    relabel = torch.tensor([i != 2 for i in range(n)])
    want = []
    for i in range(n):
        a = [sum(attention[i, h, t].item() for h in range(3)) for t in range(7)]
        t = sum(x * (1 - m) for x, m in zip(a, kept[i].tolist(), strict=True)) / sum(a)
        pasted = (t + weights[i, 1].item()) / 2
        want.append([1 - pasted, pasted] if i != 2 else weights[i].tolist())
    got = transmix_weights(attention, kept, weights, relabel=relabel)
    assert np.allclose(got.numpy(), want, atol=1e-12)


def test_even_attention_gives_the_area_and_no_attention_too(rng):
    kept = torch.tensor(rng.uniform(size=(3, 8)))
    area = kept.mean(1)
    weights = torch.stack((area, 1 - area), 1)
    for level in (0.125, 0.0):
        assert torch.allclose(transmix_weights(torch.full((3, 8), level), kept, weights), weights, atol=1e-7)


def test_a_row_that_is_all_base_stays_its_own(rng):
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    attention, kept = attentions(rng, 1, 4), torch.ones(1, 4)
    assert torch.allclose(transmix_weights(attention, kept, one), one)
    assert torch.allclose(
        pal_weights(torch.zeros(1, 3), attention, kept, torch.tensor([[0, 1]]), one), one.float()
    )
    assert torch.allclose(tl_align_weights(kept.double(), [attentions(rng, 1, 2, 5, 5)] * 3, one), one)


@pytest.mark.parametrize("method", ["transmix", "pal", "tl_align"])
def test_swapping_base_and_partner_swaps_weights(rng, draw_floats, method):
    weights, kept = lams(rng, 5), torch.tensor(rng.uniform(size=(5, 7)))
    attention, layers = attentions(rng, 5, 7), [attentions(rng, 5, 2, 8, 8) for _ in range(3)]
    logits, classes = draw_floats(5, 4), torch.tensor(rng.integers(0, 4, (5, 2)))

    def relabelled(m, c, w):
        if method == "transmix":
            return transmix_weights(attention, m, w)
        return pal_weights(logits, attention, m, c, w) if method == "pal" else tl_align_weights(m, layers, w)

    there, back = relabelled(kept, classes, weights), relabelled(1 - kept, classes.flip(1), weights.flip(1))
    assert torch.allclose(there, back.flip(1), atol=1e-12)
    assert torch.allclose(there.sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 5])
def test_pal_by_loops(rng, draw_labels, draw_floats, n, eps):
    logits, attention = draw_floats(n, 4), attentions(rng, n, 6)
    kept = torch.tensor(rng.integers(0, 2, (n, 6)), dtype=torch.float32)
    classes, weights = draw_labels(n, 4, unlabelled=True)
    want = []
    for i in range(n):
        target = [0.0] * 4
        for own, weight in zip(classes[i].tolist(), weights[i].tolist(), strict=True):
            for c in range(4):
                target[c] += weight * ((1 - eps) * (c == own) + eps / 4) if own >= 0 else 0.0
        exps = [math.exp(z) for z in logits[i].tolist()]
        p = [e / sum(exps) for e in exps]
        size = math.hypot(*p) * math.hypot(*target)
        f = sum(x * y for x, y in zip(p, target, strict=True)) / size if size else 0.0
        part = sum(a * m for a, m in zip(attention[i].tolist(), kept[i].tolist(), strict=True))
        lam = f * part + (1 - f) * weights[i, 0].item()
        want.append([lam, 1 - lam])
    got = pal_weights(logits, attention, kept, classes, weights, smoothing=eps)
    assert np.allclose(got.numpy(), want, atol=1e-6)


def test_pal_goes_from_area_to_attention():
    attention, kept = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[1.0, 0.0, 0.0]])
    classes, weights = torch.tensor([[0, 1]]), torch.tensor([[0.25, 0.75]])
    wrong, right = torch.tensor([[0.0, 0.0, 90.0]]), torch.tensor([[0.25, 0.75, 1e-30]]).log()
    assert pal_weights(wrong, attention, kept, classes, weights).tolist() == [pytest.approx([0.25, 0.75])]
    assert pal_weights(right, attention, kept, classes, weights).tolist() == [pytest.approx([0.7, 0.3])]


def aligned_by_loops(kept, layers, lam, prefix):
    """Labels as rows of two, propagated and normalised one token at a time."""
    tokens = [list(lam)] * prefix + [[m, 1 - m] for m in kept]
    for layer in layers:
        moved = []
        for q, own in enumerate(tokens):
            row = [
                sum(layer[q][k] * token[side] for k, token in enumerate(tokens)) + own[side]
                for side in (0, 1)
            ]
            moved.append([value / sum(row) for value in row])
        tokens = moved
    return tokens[0] if prefix else [sum(t[side] for t in tokens) / len(tokens) for side in (0, 1)]


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 3])
def test_tl_align_by_loops(rng, n, prefix):
    kept, weights = torch.tensor(rng.uniform(size=(n, 4))), lams(rng, n)
    size = 4 + prefix
    layers = [attentions(rng, n, 2, size, size), torch.tensor(rng.uniform(size=(n, size, size)))]
    got = tl_align_weights(kept, layers, weights, prefix=prefix)
    for i in range(n):
        rows = [layers[0][i].mean(0).tolist(), layers[1][i].tolist()]
        want = aligned_by_loops(kept[i].tolist(), rows, weights[i].tolist(), prefix)
        assert got[i].tolist() == pytest.approx(want, abs=1e-12)


def test_tokens_that_see_only_themselves_keep_their_labels(rng):
    kept, weights = torch.tensor(rng.uniform(size=(2, 4))), lams(rng, 2)
    share = torch.cat((weights[:, :1], kept), 1)
    itself = torch.eye(5, dtype=torch.float64).expand(2, 3, 5, 5)
    assert torch.allclose(tl_align_step(share, itself), share)
    assert torch.allclose(tl_align_weights(kept, [itself] * 4, weights), weights)


def test_merged_tokens_have_the_mean_of_their_shares(rng):
    share = torch.tensor(rng.uniform(size=(2, 24)))
    want = [
        [
            sum(share[i, (2 * r + y) * 6 + 2 * c + x].item() for y in (0, 1) for x in (0, 1)) / 4
            for r in range(2)
            for c in range(3)
        ]
        for i in range(2)
    ]
    assert np.allclose(tl_align_merge(share, (4, 6)).numpy(), want)
    assert torch.equal(tl_align_merge(share, (4, 6), factor=1), share)


def test_no_gradient_flows_into_labels(rng, draw_floats):
    attention = attentions(rng, 2, 4).requires_grad_()
    kept, weights = (
        torch.rand(2, 4, generator=torch.Generator().manual_seed(1)),
        lams(rng, 2).requires_grad_(),
    )
    logits = draw_floats(2, 3).requires_grad_()
    layers = [attentions(rng, 2, 5, 5).requires_grad_()]
    assert not transmix_weights(attention, kept, weights).requires_grad
    assert not pal_weights(logits, attention, kept, torch.tensor([[0, 1]] * 2), weights).requires_grad
    assert not tl_align_weights(kept, layers, weights).requires_grad

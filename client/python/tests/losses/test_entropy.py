"""Cross entropy, binary cross entropy and accuracy against loops over rows and classes."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mixfeed.losses import (
    binary_cross_entropy,
    cross_entropy,
    decoupled_cross_entropy,
    dense_labels,
    mixed_accuracy,
)


def softmax(row):
    top = max(row)
    exps = [math.exp(value - top) for value in row]
    return [value / sum(exps) for value in exps]


def target_of(classes, weights, count, eps):
    """One row's target: one-hots smoothed, then mixed."""
    target = [0.0] * count
    for own, weight in zip(classes, weights, strict=True):
        if own >= 0:
            for c in range(count):
                target[c] += weight * ((1.0 - eps if c == own else 0.0) + eps / count)
    return target


def entropy_of(row, target):
    return -sum(t * math.log(p) for t, p in zip(target, softmax(row), strict=True))


def binary_of(row, target, share):
    terms = []
    for z, t in zip(row, target, strict=True):
        p = 1.0 / (1.0 + math.exp(-z))
        terms.append(-(t * math.log(p) + (share - t) * math.log(1.0 - p)))
    return terms


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize(("n", "k"), [(1, 2), (2, 2), (7, 2), (7, 1), (7, 3)])
def test_cross_entropy_is_that_of_the_mixed_target(draw_labels, draw_floats, n, k, eps):
    logits = draw_floats(n, 5, scale=3.0)
    classes, weights = draw_labels(n, 5, k=k, unlabelled=True)
    targets = [target_of(c, w, 5, eps) for c, w in zip(classes.tolist(), weights.tolist(), strict=True)]
    want = [entropy_of(row, target) for row, target in zip(logits.tolist(), targets, strict=True)]
    labelled = sum(any(t > 0 for t in target) for target in targets)
    loss = {
        way: cross_entropy(logits, classes, weights, smoothing=eps, reduction=way)
        for way in ("none", "sum", "mean")
    }
    assert loss["none"].tolist() == pytest.approx(want, abs=1e-12)
    assert loss["sum"].item() == pytest.approx(sum(want), abs=1e-12)
    assert loss["mean"].item() == pytest.approx(sum(want) / labelled, abs=1e-12)
    dense = cross_entropy(logits, torch.tensor(targets, dtype=torch.float64), reduction="none")
    assert dense.tolist() == pytest.approx(want, abs=1e-12)


def test_a_dense_target_is_what_the_server_sends():
    # The rows of the server's own test: labels 2 and 0 at 3/4, then 0 alone; smoothing 0.3, three classes.
    got = dense_labels(
        torch.tensor([[2, 0], [0, 0]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]]), 3, smoothing=0.3
    )
    assert got.tolist() == [pytest.approx([0.275, 0.1, 0.625]), pytest.approx([0.8, 0.1, 0.1])]
    assert dense_labels(torch.tensor([1, -1]), None, 2).tolist() == [[0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_a_dense_target_smoothed_here_is_one_smoothed_before(draw_labels, draw_floats, eps):
    logits = draw_floats(7, 4)
    classes, weights = draw_labels(7, 4, unlabelled=True)
    plain, before = (dense_labels(classes, weights, 4, smoothing=s, dtype=torch.float64) for s in (0.0, eps))
    for loss in (cross_entropy, binary_cross_entropy):
        sparse = loss(logits, classes, weights, smoothing=eps, reduction="none")
        assert torch.allclose(loss(logits, plain, smoothing=eps, reduction="none"), sparse, atol=1e-6)
        assert torch.allclose(loss(logits, before, reduction="none"), sparse, atol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_at_lambda_1_it_is_torchs_own(draw_floats, eps):
    logits = draw_floats(6, 4)
    hard = torch.tensor([0, 3, 1, 1, 2, 0])
    pairs = torch.stack((hard, hard.roll(1)), 1).int()
    weights = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    want = F.cross_entropy(logits, hard, label_smoothing=eps)
    assert cross_entropy(logits, hard, smoothing=eps).item() == pytest.approx(want.item(), abs=1e-12)
    assert cross_entropy(logits, pairs, weights, smoothing=eps).item() == pytest.approx(
        want.item(), abs=1e-12
    )


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy, mixed_accuracy])
def test_base_and_partner_may_change_places(draw_labels, draw_floats, loss):
    logits = draw_floats(7, 4)
    classes, weights = draw_labels(7, 4, unlabelled=True)
    there = loss(logits, classes, weights, reduction="none")
    back = loss(logits, classes.flip(1), weights.flip(1), reduction="none")
    assert torch.allclose(there, back, atol=1e-12)


def test_a_shift_of_all_logits_changes_nothing(draw_labels, draw_floats):
    logits, (classes, weights) = draw_floats(5, 4), draw_labels(5, 4)
    loss = [cross_entropy(z, classes, weights, smoothing=0.1) for z in (logits, logits + 1000.0)]
    assert loss[0].item() == pytest.approx(loss[1].item(), abs=1e-9)


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_rows_without_labels_are_as_if_they_were_not_there(draw_floats, loss):
    logits = draw_floats(3, 4).requires_grad_()
    classes, weights = (
        torch.tensor([[-1, -100], [2, 1], [-1, 0]]),
        torch.tensor([[0.4, 0.6], [0.3, 0.7], [1.0, 0.0]]),
    )
    loss(logits, classes, weights, smoothing=0.1).backward()
    alone = logits.detach()[1:2].requires_grad_()
    loss(alone, classes[1:2], weights[1:2], smoothing=0.1).backward()
    assert torch.equal(logits.grad[[0, 2]], torch.zeros(2, 4, dtype=torch.float64))
    assert torch.allclose(logits.grad[1], alone.grad[0], atol=1e-15)
    none = loss(logits, torch.full((3, 2), -1), weights)
    assert none.item() == 0.0
    assert loss(logits[:0], classes[:0], weights[:0]).item() == 0.0


def test_logits_that_half_precision_can_not_sum(draw_labels):
    classes, weights = draw_labels(3, 4)
    logits = torch.tensor([[60000.0, 59000.0, -60000.0, 0.0]] * 3, dtype=torch.float16)
    got = cross_entropy(logits, classes, weights, reduction="none")
    want = cross_entropy(logits.double(), classes, weights, reduction="none")
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), want, rtol=1e-6)


@pytest.mark.parametrize("over", ["mean", "sum"])
@pytest.mark.parametrize(("eps", "threshold"), [(0.0, None), (0.1, None), (0.0, 0.4), (0.2, 0.4)])
def test_binary_cross_entropy_by_loops(draw_labels, draw_floats, over, eps, threshold):
    logits = draw_floats(7, 4, scale=2.0)
    classes, weights = draw_labels(7, 4, unlabelled=True)
    want, labelled = [], 0
    for row, c, w in zip(logits.tolist(), classes.tolist(), weights.tolist(), strict=True):
        share = sum(weight for own, weight in zip(c, w, strict=True) if own >= 0)
        target = target_of(c, w, 4, eps)
        labelled += share > 0
        if threshold is not None:
            target, share = [float(t > threshold) for t in target], float(share > 0)
        terms = binary_of(row, target, share)
        want.append(sum(terms) / (4 if over == "mean" else 1))
    options = {"smoothing": eps, "threshold": threshold, "over_classes": over}
    got = binary_cross_entropy(logits, classes, weights, reduction="none", **options)
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    assert binary_cross_entropy(logits, classes, weights, **options).item() == pytest.approx(
        sum(want) / labelled, abs=1e-6
    )


def test_binary_cross_entropy_of_dense_targets_is_torchs_own(rng, draw_floats):
    logits = draw_floats(5, 4, scale=20.0)
    mixed = torch.tensor(rng.dirichlet(np.ones(4), 5))
    want = F.binary_cross_entropy_with_logits(logits, mixed)
    assert binary_cross_entropy(logits, mixed).item() == pytest.approx(want.item(), rel=1e-12)
    several = torch.tensor(rng.integers(0, 2, (5, 4)), dtype=torch.float64)
    several[0] = 0.0
    want = F.binary_cross_entropy_with_logits(logits, several * 0.9 + 0.05)
    got = binary_cross_entropy(logits, several, smoothing=0.1, multi_label=True)
    assert got.item() == pytest.approx(want.item(), rel=1e-12)


def test_a_half_labelled_row_weighs_half(draw_floats):
    logits = draw_floats(1, 4)
    half = binary_cross_entropy(logits, torch.tensor([[2, -1]]), torch.tensor([[0.5, 0.5]]))
    assert half.item() == pytest.approx(
        0.5 * binary_cross_entropy(logits, torch.tensor([2])).item(), abs=1e-12
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_accuracy_by_loops(draw_labels, draw_floats, k):
    logits = draw_floats(9, 4).round()
    logits[8, 1] = math.nan
    classes, weights = draw_labels(9, 4, unlabelled=True)
    classes[8] = torch.tensor([1, 1])
    want, labelled = [], 0
    for row, c, w in zip(logits.tolist(), classes.tolist(), weights.tolist(), strict=True):
        ranked = sorted((i for i in range(4) if not math.isnan(row[i])), key=lambda i: (-row[i], i))[:k]
        want.append(sum(weight for own, weight in zip(c, w, strict=True) if own in ranked))
        labelled += any(own >= 0 and weight > 0 for own, weight in zip(c, w, strict=True))
    got = mixed_accuracy(logits, classes, weights, k=k, reduction="none")
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    assert mixed_accuracy(logits, classes, weights, k=k).item() == pytest.approx(
        sum(want) / labelled, abs=1e-6
    )
    dense = dense_labels(classes, weights, 4)
    assert torch.allclose(mixed_accuracy(logits, dense, k=k, reduction="none"), got, atol=1e-6)


def test_accuracy_of_hard_labels(draw_floats):
    logits, hard = draw_floats(50, 3), torch.arange(50) % 3
    want = (logits.argmax(1) == hard).double().mean()
    assert mixed_accuracy(logits, hard).item() == pytest.approx(want.item(), abs=1e-12)
    assert mixed_accuracy(logits, hard, k=3).item() == 1.0


def test_a_masked_class_does_not_reach_rows_whose_partner_has_none():
    logits = torch.tensor([[-math.inf, 1.0, 2.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[2, -1]]), torch.tensor([[0.7, 0.3]]))
    assert loss.item() == pytest.approx(0.7 * math.log(1 + math.exp(-1.0)))
    loss.backward()
    assert logits.grad.isfinite().all()
    both = decoupled_cross_entropy(logits, torch.tensor([[2, -1]]), torch.tensor([[0.7, 0.3]]))
    assert both.item() == pytest.approx(loss.item()), "no second class, no regulariser"
    logits.grad = None
    both.backward()
    assert logits.grad.isfinite().all()


def test_a_masked_class_does_not_reach_dense_targets_without_it():
    logits = torch.tensor([[1.0, 2.0, -math.inf], [0.5, -math.inf, 3.0]], requires_grad=True)
    target = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    loss = cross_entropy(logits, target)
    own = [entropy_of([1.0, 2.0], [0.25, 0.75]), entropy_of([0.5, 3.0], [1.0, 0.0])]
    torch.testing.assert_close(loss.item(), sum(own) / 2, rtol=1e-6, atol=0.0)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert cross_entropy(logits, torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])).isinf()

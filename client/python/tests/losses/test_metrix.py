"""Metrix: pairs, similarities and losses against loops over anchors and items."""

import math

import numpy as np
import pytest
import torch

from mixfeed.losses import (
    Pairs,
    ProxyAnchor,
    clean_pairs,
    metrix_contrastive,
    metrix_multi_similarity,
    metrix_pairs,
    metrix_proxy_anchor,
    metrix_similarity,
)

CLASSES = [2, 0, 0, 1, -1, 0, 1, 4]


def unit(row):
    return np.asarray(row) / np.linalg.norm(row)


def mean_of(values, counted):
    return sum(v for v, c in zip(values, counted, strict=True) if c) / max(sum(counted), 1)


def by_anchor(score, pairs):
    """Each anchor's list of (relation, score)."""
    found = [[] for _ in range(pairs.anchors)]
    for a, y, s in zip(pairs.anchor.tolist(), pairs.relation.tolist(), score.tolist(), strict=True):
        found[a].append((y, s))
    return found


@pytest.fixture
def random_pairs(rng):
    """Scores and relations, whole and mixed, of five anchors, the last without an item."""
    anchor = torch.tensor(rng.integers(0, 4, 40))
    relation = torch.tensor(
        np.where(rng.uniform(size=40) < 0.4, rng.integers(0, 2, 40), rng.uniform(size=40))
    )
    rows = torch.zeros(40, dtype=torch.long)
    return torch.tensor(rng.uniform(-1, 1, 40)), Pairs(anchor, rows, rows, relation, 5)


def contrastive(items):
    return sum(-y * s + (1 - y) * max(s - 0.5, 0.0) for y, s in items)


def contrastive_of_distances(items):
    d = [(y, math.sqrt(2 - 2 * s)) for y, s in items]
    return sum(y * x + (1 - y) * max(0.5 - x, 0.0) for y, x in d)


def multi_similarity(items):
    near = sum(y * math.exp(-18 * (s - 0.77)) for y, s in items)
    far = sum((1 - y) * math.exp(75 * (s - 0.77)) for y, s in items)
    return math.log(1 + near) / 18 + math.log(1 + far) / 75


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        (metrix_contrastive, contrastive),
        (lambda *a, **k: metrix_contrastive(*a, measure="distance", **k), contrastive_of_distances),
        (metrix_multi_similarity, multi_similarity),
    ],
)
def test_losses_by_loops(random_pairs, loss, of):
    score, pairs = random_pairs
    want = [of(items) for items in by_anchor(score, pairs)]
    assert loss(score, pairs, reduction="none").tolist() == pytest.approx(want, abs=1e-12)
    assert loss(score, pairs).item() == pytest.approx(mean_of(want, [True] * 4 + [False]), abs=1e-12)
    assert loss(score, pairs, reduction="sum").item() == pytest.approx(sum(want), abs=1e-12)


def test_proxy_anchor_by_loops(random_pairs):
    score, pairs = random_pairs
    pairs = pairs._replace(relation=torch.where(pairs.anchor == 2, 0.0, pairs.relation))
    near, far, any_near = [], [], []
    for items in by_anchor(score, pairs):
        near.append(math.log(1 + sum(y * math.exp(-32 * (s - 0.1)) for y, s in items)))
        far.append(math.log(1 + sum((1 - y) * math.exp(32 * (s + 0.1)) for y, s in items)))
        any_near.append(any(y > 0 for y, _ in items))
    assert sum(any_near) == 3
    want = mean_of(near, any_near) + sum(far) / 5
    assert metrix_proxy_anchor(score, pairs).item() == pytest.approx(want, rel=1e-12)
    each = metrix_proxy_anchor(score, pairs, reduction="none")
    assert each.tolist() == pytest.approx([a + b for a, b in zip(near, far, strict=True)], rel=1e-12)


def test_golden_contrastive_of_the_specification():
    d = torch.tensor([0.3, 0.9], dtype=torch.float64)
    row = torch.arange(2)
    pairs = Pairs(row, row, row, torch.tensor([0.6, 0.6], dtype=torch.float64), 2)
    got = metrix_contrastive(1 - d.square() / 2, pairs, measure="distance", reduction="none")
    assert got.tolist() == pytest.approx([0.26, 0.54], abs=1e-12)


def test_clean_pairs_are_all_others_of_known_classes():
    pairs = clean_pairs(torch.tensor(CLASSES))
    want = {
        (a, i, i, float(CLASSES[a] == CLASSES[i]))
        for a in range(8)
        for i in range(8)
        if a != i and min(CLASSES[a], CLASSES[i]) >= 0
    }
    got = list(zip(*(t.tolist() for t in pairs[:4]), strict=True))
    assert len(got) == len(want)
    assert set(got) == want
    assert pairs.counted.tolist() == [c >= 0 for c in CLASSES]


@pytest.mark.parametrize("hardest", [None, 1, 2, 20])
@pytest.mark.parametrize("kind", ["positive-negative", "anchor-negative"])
def test_mixed_pairs_by_loops(rng, kind, hardest):
    similarity = torch.tensor(rng.normal(size=(8, 8)))
    want = []
    for a in range(8):
        positives = [p for p in range(8) if p != a and CLASSES[p] == CLASSES[a] >= 0]
        negatives = [n for n in range(8) if CLASSES[n] >= 0 <= CLASSES[a] != CLASSES[n]]
        negatives.sort(key=lambda n: -similarity[a, n].item())
        if positives:
            firsts = positives if kind == "positive-negative" else [a]
            want += [(a, p, n, 0.3) for p in firsts for n in negatives[:hardest]]
    pairs = metrix_pairs(torch.tensor(CLASSES), 0.3, kind=kind, hardest=hardest, similarity=similarity)
    got = list(zip(*(t.tolist() for t in pairs[:4]), strict=True))
    assert len(got) == len(want)
    assert set(got) == set(want)


def test_batches_without_any_pair(draw_floats):
    for classes in ([0], [0, 1, 2], [-1, -1], []):
        pairs = metrix_pairs(torch.tensor(classes, dtype=torch.int64), 0.5)
        assert len(pairs.anchor) == 0
        score = metrix_similarity(draw_floats(len(classes), 3), pairs, 0.5)
        for loss in (metrix_contrastive, metrix_multi_similarity):
            assert loss(score, pairs).item() == 0.0


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.35, 1.0])
def test_similarity_is_that_of_the_items_formed(draw_floats, lam, renormalize):
    embeddings = draw_floats(8, 5)
    pairs = metrix_pairs(torch.tensor(CLASSES), lam)
    rows = [unit(row) for row in embeddings.numpy()]
    want = []
    for a, p, n in zip(pairs.anchor.tolist(), pairs.first.tolist(), pairs.second.tolist(), strict=True):
        item = lam * rows[p] + (1 - lam) * rows[n]
        want.append(rows[a] @ (unit(item) if renormalize else item))
    got = metrix_similarity(embeddings, pairs, lam, renormalize=renormalize)
    assert got.tolist() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("loss", [metrix_contrastive, metrix_multi_similarity, metrix_proxy_anchor])
def test_lambda_1_is_the_ordinary_positive_term_and_0_the_negative(draw_floats, loss):
    embeddings, classes = draw_floats(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    clean = clean_pairs(classes)
    score = metrix_similarity(embeddings, clean)
    for lam in (0.0, 1.0):
        # One positive each, and the single hardest negative: each anchor has one mix.
        mixes = metrix_pairs(classes, lam, hardest=1, similarity=embeddings @ embeddings.T)
        got = loss(metrix_similarity(embeddings, mixes, lam), mixes, reduction="none")
        partner = mixes.first if lam else mixes.second
        keep = clean.first == partner[clean.anchor]
        only = Pairs(clean.anchor[keep], clean.first[keep], clean.first[keep], clean.relation[keep], 6)
        assert torch.allclose(got, loss(score[keep], only, reduction="none"), atol=1e-12)


def test_opposite_rows_have_no_direction_between_them():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    pairs = metrix_pairs(torch.tensor([0, 0, 1]), 0.5)
    score = metrix_similarity(embeddings, pairs, 0.5)
    metrix_multi_similarity(score, pairs).backward()
    assert score.tolist() == [0.0, 0.0]
    assert torch.isfinite(embeddings.grad).all()


def test_large_exponents_do_not_overflow():
    row = torch.zeros(4, dtype=torch.long)
    score = torch.tensor([-1.0, 1.0, 1.0, -1.0], requires_grad=True)
    pairs = Pairs(row, row, row, torch.tensor([1.0, 0.0, 0.5, 1.0]), 1)
    loss = metrix_multi_similarity(score, pairs, beta=500.0, gamma=900.0, margin=0.0)
    loss.backward()
    # Two positives at -1 and, at +1, a whole and a half negative: the largest exponents are 500 and 900.
    assert loss.item() == pytest.approx(1 + math.log(2) / 500 + 1 + math.log(1.5) / 900, abs=1e-6)
    assert score.grad.tolist() == pytest.approx([-0.5, 2 / 3, 1 / 3, -0.5], abs=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_proxy_module_by_loops(draw_labels, draw_floats, mixed):
    module = ProxyAnchor(5, 6).double()
    embeddings = draw_floats(7, 6)
    classes, weights = draw_labels(7, 4, unlabelled=True)
    if not mixed:
        classes = classes[:, 1]
    near, far = [0.0] * 5, [0.0] * 5
    positive = set()
    for i in range(7):
        own = {}
        entries = (
            zip(classes[i].tolist(), weights[i].tolist(), strict=True)
            if mixed
            else [(classes[i].item(), 1.0)]
        )
        for c, w in entries:
            if c >= 0:
                own[c] = own.get(c, 0.0) + w
        for c in own if mixed else (range(5) if own else ()):
            s = float(unit(embeddings[i].numpy()) @ unit(module.proxies[c].detach().numpy()))
            y = own.get(c, 0.0)
            near[c] += y * math.exp(-32 * (s - 0.1))
            far[c] += (1 - y) * math.exp(32 * (s + 0.1))
            positive |= {c} if y > 0 else set()
    want = sum(math.log1p(near[c]) for c in positive) / len(positive) + sum(math.log1p(f) for f in far) / 5
    got = module(embeddings, classes, weights if mixed else None)
    assert got.item() == pytest.approx(want, rel=1e-6)


def test_proxies_are_trained(draw_labels, draw_floats):
    module = ProxyAnchor(4, 3)
    assert [name for name, _ in module.named_parameters()] == ["proxies"]
    module(draw_floats(5, 3), *draw_labels(5, 4)).backward()
    assert module.proxies.grad.abs().sum() > 0

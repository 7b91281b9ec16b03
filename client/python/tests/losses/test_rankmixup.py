"""RankMixup's two losses against loops."""

import math

import pytest
import torch

from mixfeed.losses import rankmixup_margin, rankmixup_ndcg


def confidence(row):
    top = max(row)
    return 1.0 / sum(math.exp(z - top) for z in row)


def draw(draw_labels, draw_floats, n, q, count=4):
    classes, weights = draw_labels(n * q, count, unlabelled=True)
    return (
        draw_floats(n, count, scale=2.0),
        draw_floats(n, q, count, scale=2.0),
        classes.reshape(n, q, 2),
        weights.reshape(n, q, 2),
    )


@pytest.mark.parametrize("score", ["logit", "confidence"])
@pytest.mark.parametrize(("n", "q"), [(1, 1), (7, 1), (5, 3)])
def test_mrl_by_loops(draw_labels, draw_floats, n, q, score):
    raw, mixed, classes, weights = draw(draw_labels, draw_floats, n, q)
    margin = 2.0 if score == "logit" else 0.3
    of = max if score == "logit" else confidence
    want = []
    for i in range(n):
        total = 0.0
        for j in range(q):
            (a, b), lam = classes[i, j].tolist(), weights[i, j].tolist()
            if a != b and min(a, b) >= 0 and min(lam) > 0:
                total += max(0.0, of(mixed[i, j].tolist()) - of(raw[i].tolist()) + margin)
        want.append(total / q)
    options = {"margin": margin, "score": score}
    got = rankmixup_margin(raw, mixed, classes, weights, reduction="none", **options)
    assert got.tolist() == pytest.approx(want, abs=1e-12)
    assert rankmixup_margin(raw, mixed, classes, weights, **options).item() == pytest.approx(sum(want) / n)


def test_mrl_does_not_spread_one_rows_indicator_over_others():
    raw = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    mixed = torch.tensor([[2.5, 0.0], [9.0, 0.0]])
    classes, weights = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    got = rankmixup_margin(raw, mixed, classes, weights, reduction="none")
    assert got.tolist() == pytest.approx([1.5, 0.0])


@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.0, 1.0]])
def test_mrl_of_a_mix_that_is_none(draw_floats, weights):
    got = rankmixup_margin(
        draw_floats(1, 3), draw_floats(1, 3), torch.tensor([[0, 1]]), torch.tensor([weights]), margin=50.0
    )
    assert got.item() == 0.0


def test_mrl_is_0_beyond_the_margin(draw_floats):
    raw = torch.tensor([[9.0, 0.0]])
    pair, half = torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]])
    assert rankmixup_margin(raw, torch.tensor([[6.9, 0.0]]), pair, half).item() == 0.0
    assert rankmixup_margin(raw, torch.tensor([[7.5, 0.0]]), pair, half).item() == pytest.approx(0.5)


def of_confidence(values):
    """Logits of two classes whose higher softmax is the value."""
    return torch.tensor([[math.log(v), math.log(1.0 - v)] for v in values], dtype=torch.float64)


def test_golden_ndcg_of_the_specification():
    raw, mixed = of_confidence([0.9]), of_confidence([0.6, 0.8, 0.7])[None]
    classes = torch.tensor([[[0, 1]] * 3])
    lam = torch.tensor([0.55, 0.9, 0.7], dtype=torch.float64)
    weights = torch.stack((lam, 1 - lam), 1)[None]
    assert rankmixup_ndcg(raw, mixed, classes, weights).item() == pytest.approx(1 - 0.934302, abs=1e-6)


@pytest.mark.parametrize(("n", "q"), [(1, 1), (7, 3), (2, 5)])
def test_m_ndcg_by_loops(draw_labels, draw_floats, n, q):
    raw, mixed, classes, weights = draw(draw_labels, draw_floats, n, q)
    want = []
    for i in range(n):
        mixes = []
        for j in range(q):
            (a, b), (own, other) = classes[i, j].tolist(), weights[i, j].tolist()
            gain = own + other if a == b >= 0 else max(own, other)
            mixes.append((gain, confidence(mixed[i, j].tolist())))
        mixes.sort(key=lambda mix: -mix[0])
        ranked = [(1.0, confidence(raw[i].tolist())), *mixes]
        dcg = sum(c / math.log2(j + 2) for j, (_, c) in enumerate(ranked))
        ideal = sum(g / math.log2(j + 2) for j, (g, _) in enumerate(ranked))
        want.append(1.0 - (dcg / ideal if ideal > dcg else ideal / dcg))
    got = rankmixup_ndcg(raw, mixed, classes, weights, reduction="none")
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    assert rankmixup_ndcg(raw, mixed, classes, weights).item() == pytest.approx(sum(want) / n, abs=1e-6)


def test_confidences_that_are_the_gains_cost_nothing():
    lam = torch.tensor([0.6, 0.9, 0.75], dtype=torch.float64)
    raw = torch.tensor([[800.0, 0.0]], dtype=torch.float64)
    weights = torch.stack((lam, 1 - lam), 1)[None]
    got = rankmixup_ndcg(raw, of_confidence(lam.tolist())[None], torch.tensor([[[0, 1]] * 3]), weights)
    assert got.item() == pytest.approx(0.0, abs=1e-12)


def test_order_of_mixes_and_of_a_pair_does_not_matter(draw_labels, draw_floats):
    raw, mixed, classes, weights = draw(draw_labels, draw_floats, 5, 3)
    turned = torch.tensor([2, 0, 1])
    for loss in (rankmixup_margin, rankmixup_ndcg):
        want = loss(raw, mixed, classes, weights, reduction="none")
        for other in (
            loss(raw, mixed[:, turned], classes[:, turned], weights[:, turned], reduction="none"),
            loss(raw, mixed, classes.flip(2), weights.flip(2), reduction="none"),
        ):
            assert torch.allclose(want, other, atol=1e-7)


def test_one_mix_needs_no_axis_of_mixes(draw_labels, draw_floats):
    raw, mixed, classes, weights = draw(draw_labels, draw_floats, 5, 1)
    for loss in (rankmixup_margin, rankmixup_ndcg):
        flat = loss(raw, mixed[:, 0], classes[:, 0], weights[:, 0])
        assert flat.item() == loss(raw, mixed, classes, weights).item()


def test_no_mix_at_all_is_refused(draw_floats):
    with pytest.raises(ValueError, match=r"^mixed_logits: has no mix"):
        rankmixup_ndcg(
            draw_floats(2, 3), draw_floats(2, 0, 3), torch.zeros(2, 0, 2).int(), torch.zeros(2, 0, 2)
        )

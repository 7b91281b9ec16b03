"""Decoupled mixup against its formulas, written as loops."""

import math

import pytest
import torch

from mixfeed.losses import (
    binary_cross_entropy,
    cross_entropy,
    decoupled_binary_cross_entropy,
    decoupled_cross_entropy,
    decoupled_weights,
)

Z = torch.tensor([[2.0, 1.0, 0.5, -1.0]], dtype=torch.float64)
CLASSES = torch.tensor([[0, 1]], dtype=torch.int32)
WEIGHTS = torch.tensor([[0.7, 0.3]], dtype=torch.float64)


def log_phi(row, i, j):
    return row[i] - math.log(sum(math.exp(z) for c, z in enumerate(row) if c != j))


def rho(u, xi, power):
    return 1.0 if u >= xi else (u / xi) ** power if u > 0 else 0.0


def regulariser(row, classes, weights, eta, select, xi, power):
    (a, b), (own, other) = classes, weights
    if a == b or min(classes) < 0 or min(weights) <= 1e-3:
        return 0.0
    total = 0.0
    for i, j, mine, its in ((a, b, own, other), (b, a, other, own)):
        if select == "both" or (select == "less" and mine <= its) or (select == "more" and mine >= its):
            total += (1.0 if xi is None else rho(mine, xi, power)) * log_phi(row, i, j)
    return -eta * total


def test_golden_values_of_the_paper_and_of_its_code():
    assert cross_entropy(Z, CLASSES, WEIGHTS).item() == pytest.approx(0.795182, abs=1e-6)
    assert decoupled_cross_entropy(Z, CLASSES, WEIGHTS).item() == pytest.approx(0.874809, abs=1e-6)
    assert decoupled_cross_entropy(Z, CLASSES, WEIGHTS, xi=1.0).item() == pytest.approx(0.828722, abs=1e-6)


@pytest.mark.parametrize("select", ["both", "less", "more"])
@pytest.mark.parametrize(("xi", "power"), [(None, 1.0), (1.0, 1.0), (0.8, 0.5), (0.8, 0.0)])
@pytest.mark.parametrize("n", [1, 9])
def test_dm_ce_by_loops(draw_labels, draw_floats, n, xi, power, select):
    logits = draw_floats(n, 5, scale=2.0)
    classes, weights = draw_labels(n, 5, unlabelled=True)
    if n > 5:
        classes[5], weights[5] = torch.tensor([4, 1]), torch.tensor([0.5, 0.5])
        classes[6], weights[6] = torch.tensor([3, 0]), torch.tensor([0.9, 0.1])
    plain = cross_entropy(logits, classes, weights, smoothing=0.1, reduction="none")
    want = [
        loss + regulariser(row, c, w, 0.3, select, xi, power)
        for loss, row, c, w in zip(
            plain.tolist(), logits.tolist(), classes.tolist(), weights.tolist(), strict=True
        )
    ]
    options = {"eta": 0.3, "select": select, "xi": xi, "power": power, "smoothing": 0.1}
    got = decoupled_cross_entropy(logits, classes, weights, reduction="none", **options)
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    labelled = n - (n > 4)
    mean = decoupled_cross_entropy(logits, classes, weights, **options)
    assert mean.item() == pytest.approx(sum(want) / labelled, abs=1e-6)


def test_base_and_partner_may_change_places(draw_labels, draw_floats):
    logits, (classes, weights) = draw_floats(7, 4), draw_labels(7, 4, unlabelled=True)
    for select in ("both", "less", "more"):
        there = decoupled_cross_entropy(logits, classes, weights, select=select, xi=0.8, reduction="none")
        back = decoupled_cross_entropy(
            logits, classes.flip(1), weights.flip(1), select=select, xi=0.8, reduction="none"
        )
        assert torch.allclose(there, back, atol=1e-12)


def test_clean_rows_and_rows_of_one_class_have_plain_cross_entropy(draw_floats):
    logits = draw_floats(3, 4)
    classes, weights = (
        torch.tensor([[0, 1], [2, 2], [3, 0]]),
        torch.tensor([[1.0, 0.0], [0.4, 0.6], [0.0, 1.0]]),
    )
    got = decoupled_cross_entropy(logits, classes, weights, eta=5.0, reduction="none")
    assert torch.equal(got, cross_entropy(logits, classes, weights, reduction="none"))


def test_one_class_is_told_without_looking_at_the_other():
    logits = Z.clone().requires_grad_()
    only_a = torch.tensor([[True, False]])
    loss = decoupled_cross_entropy(logits, CLASSES, WEIGHTS, eta=1.0, confident=only_a)
    (loss - cross_entropy(logits, CLASSES, WEIGHTS)).backward()
    assert logits.grad[0, 1].item() == pytest.approx(0.0, abs=1e-15)
    assert logits.grad[0, 0].item() < -0.1


@pytest.mark.parametrize("only", [0, 1])
def test_terms_that_are_not_confident_are_left_out(only):
    confident = torch.zeros(1, 2, dtype=torch.bool)
    confident[0, only] = True
    got = decoupled_cross_entropy(Z, CLASSES, WEIGHTS, confident=confident).item()
    term = log_phi(Z[0].tolist(), only, 1 - only)
    assert got == pytest.approx(cross_entropy(Z, CLASSES, WEIGHTS).item() - 0.1 * term, abs=1e-12)


def test_rows_do_not_share_their_lambda(draw_floats):
    logits = draw_floats(2, 3)
    classes, weights = torch.tensor([[0, 1], [2, 1]]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    both = decoupled_cross_entropy(logits, classes, weights, xi=1.0, select="more", reduction="none")
    each = [
        decoupled_cross_entropy(
            logits[i : i + 1], classes[i : i + 1], weights[i : i + 1], xi=1.0, select="more"
        )
        for i in range(2)
    ]
    assert torch.allclose(both, torch.stack(each), atol=1e-15)


def test_rho_of_the_specification():
    lam = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    assert decoupled_weights(lam).tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875, 1.0])
    assert decoupled_weights(1 - lam).tolist() == pytest.approx([1.0, 0.875, 0.625, 0.375, 0.125])
    assert decoupled_weights(torch.tensor([0.0, 0.2, 1.0]), power=0.0).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("base", [0.3, 2.0, 10.0])
def test_rho_of_the_exponential_rule(base):
    lam = torch.linspace(0, 1, 21, dtype=torch.float64)
    got = decoupled_weights(lam, xi=0.75, base=base)
    for u, found in zip(lam.tolist(), got.tolist(), strict=True):
        law = (base ** (2 * u - 1.5) - base**-1.5) / (1 - base**-1.5)
        assert found == pytest.approx(1.0 if u >= 0.75 else law, abs=1e-12)
    assert got[0] == 0.0
    assert (got.diff() >= 0).all()


@pytest.mark.parametrize("over", ["mean", "sum"])
@pytest.mark.parametrize("n", [1, 7])
def test_dm_bce_by_loops(draw_labels, draw_floats, n, over):
    logits = draw_floats(n, 4, scale=2.0)
    classes, weights = draw_labels(n, 4)
    want = []
    for row, c, w in zip(logits.tolist(), classes.tolist(), weights.tolist(), strict=True):
        total = 0.0
        for k, z in enumerate(row):
            target = rho(sum(weight for own, weight in zip(c, w, strict=True) if own == k), 0.8, 0.5)
            p = 1.0 / (1.0 + math.exp(-z))
            total -= target * math.log(p) + (1.0 - target) * math.log(1.0 - p)
        want.append(total / (4 if over == "mean" else 1))
    got = decoupled_binary_cross_entropy(
        logits, classes, weights, power=0.5, over_classes=over, reduction="none"
    )
    assert got.tolist() == pytest.approx(want, abs=1e-6)


def test_dm_bce_without_rescaling_is_bce(draw_labels, draw_floats):
    logits, (classes, weights) = draw_floats(7, 4), draw_labels(7, 4)
    got = decoupled_binary_cross_entropy(logits, classes, weights, xi=1.0)
    assert got.item() == pytest.approx(binary_cross_entropy(logits, classes, weights).item(), abs=1e-12)


def test_dm_bce_of_one_class_has_target_1_and_a_dense_target_is_the_same(draw_labels, draw_floats):
    logits = draw_floats(7, 4)
    same = torch.tensor([[2, 2]]).expand(7, 2)
    half = torch.full((7, 2), 0.5)
    got = decoupled_binary_cross_entropy(logits, same, half)
    assert got.item() == pytest.approx(binary_cross_entropy(logits, same[:, 0]).item(), abs=1e-12)
    classes, weights = draw_labels(7, 4)
    dense = torch.zeros(7, 4).scatter_add(1, classes.long(), weights)
    got = decoupled_binary_cross_entropy(logits, dense)
    assert got.item() == pytest.approx(
        decoupled_binary_cross_entropy(logits, classes, weights).item(), abs=1e-6
    )


def test_dm_bce_of_a_row_labelled_in_part_has_a_minimum(draw_floats):
    classes, weights = torch.tensor([[1, -1]]), torch.tensor([[0.7, 0.3]])
    losses = [
        decoupled_binary_cross_entropy(logits, classes, weights).item()
        for logits in (torch.zeros(1, 3), *(draw_floats(1, 3, scale=50.0) for _ in range(20)))
    ]
    assert min(losses) >= 0.0
    assert losses[0] > 0.1

"""MixedAE's homologous recognition against loops over patches."""

import math

import numpy as np
import pytest
import torch

from mixfeed.losses import homologous_recognition


def reference(features, source, temperature):
    """One image's loss, and whether it has a positive pair."""
    rows = [f / np.linalg.norm(f) for f in features]
    losses = []
    for i, row in enumerate(rows):
        exps = {k: math.exp(float(row @ other) / temperature) for k, other in enumerate(rows) if k != i}
        positives = [k for k in exps if source[k] == source[i] >= 0]
        if positives:
            losses.append(-sum(math.log(exps[k] / sum(exps.values())) for k in positives) / len(positives))
    return sum(losses) / max(len(losses), 1), bool(losses)


@pytest.mark.parametrize("temperature", [0.25, 0.07])
@pytest.mark.parametrize(("n", "patches"), [(1, 4), (5, 9), (2, 1)])
def test_loss_by_loops(rng, draw_floats, n, patches, temperature):
    features = draw_floats(n, patches, 3)
    source = rng.integers(-1, 4, (n, patches))
    if n == 5:
        source[1] = np.arange(9)
        source[2] = 0
    both = [reference(f, s, temperature) for f, s in zip(features.numpy(), source, strict=True)]
    want = [loss for loss, _ in both]
    sent = torch.tensor(source.astype(np.int32))
    got = homologous_recognition(features, sent, temperature=temperature, reduction="none")
    assert got.tolist() == pytest.approx(want, abs=1e-12)
    mean = homologous_recognition(features, sent, temperature=temperature)
    assert mean.item() == pytest.approx(sum(want) / max(sum(has for _, has in both), 1), abs=1e-12)


def test_names_of_sources_order_of_patches_and_length_of_features_do_not_matter(rng, draw_floats):
    features, source = draw_floats(3, 8, 4), torch.tensor(rng.integers(0, 4, (3, 8)))
    want = homologous_recognition(features, source, reduction="none")
    order = torch.tensor(rng.permutation(8))
    for other in (
        homologous_recognition(
            features, torch.tensor([7, 3, 250, 0])[source].to(torch.uint8), reduction="none"
        ),
        homologous_recognition(features[:, order], source[:, order], reduction="none"),
        homologous_recognition(
            features * torch.tensor(rng.uniform(0.5, 9, (3, 8, 1))), source, reduction="none"
        ),
    ):
        assert torch.allclose(want, other, atol=1e-12)


def test_patches_that_know_their_source_cost_little():
    # Two sources on two axes: each patch has three positives at 1 and four negatives at 0.
    features = torch.eye(2, dtype=torch.float64).repeat_interleave(4, 0)[None]
    source = torch.tensor([[0] * 4 + [1] * 4])
    got = homologous_recognition(features, source, temperature=0.1)
    assert got.item() == pytest.approx(math.log(3 + 4 * math.exp(-10)), abs=1e-9)
    mixed_up = homologous_recognition(features, torch.tensor([[0, 1] * 4]), temperature=0.1)
    assert mixed_up.item() > 5 * got.item()


def test_images_without_a_pair_have_no_loss_and_a_finite_gradient(draw_floats):
    features = draw_floats(2, 3, 4).requires_grad_()
    loss = homologous_recognition(features, torch.tensor([[0, 1, 2], [-1, -1, -1]]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert homologous_recognition(features[:0], torch.zeros(0, 3, dtype=torch.int32)).item() == 0.0

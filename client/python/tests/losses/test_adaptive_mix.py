"""AdaptiveMix against loops over features, and its classifier."""

import numpy as np
import pytest
import torch

from mixfeed.losses import OrthogonalClassifier, adaptive_mix


def reference(mixed, first, second, lam, distance):
    losses = []
    for m, a, b, own in zip(mixed, first, second, lam, strict=True):
        target = [own * x + (1 - own) * y for x, y in zip(a, b, strict=True)]
        if distance == "mse":
            losses.append(sum((x - t) ** 2 for x, t in zip(m, target, strict=True)) / len(m))
        else:
            losses.append(1 - np.dot(m, target) / np.linalg.norm(m) / np.linalg.norm(target))
    return losses


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@pytest.mark.parametrize("shape", [(1, 4), (5, 6), (3, 2, 2, 3)])
def test_loss_by_loops(rng, draw_floats, shape, distance):
    mixed, first, second = (draw_floats(*shape) for _ in range(3))
    lam = torch.tensor(rng.uniform(size=shape[0]))
    flat = (t.flatten(1).tolist() for t in (mixed, first, second))
    want = reference(*flat, lam.tolist(), distance)
    options = {"distance": distance, "noise": 0.0}
    got = adaptive_mix(mixed, first, second, lam, reduction="none", **options)
    assert got.tolist() == pytest.approx(want, abs=1e-12)
    mean = adaptive_mix(mixed, first, second, lam, **options)
    assert mean.item() == pytest.approx(sum(want) / len(want), abs=1e-12)
    swapped = adaptive_mix(mixed, second, first, 1 - lam, reduction="none", **options)
    assert torch.allclose(got, swapped, atol=1e-12)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_at_lambda_1_features_are_the_bases(draw_floats, distance):
    first, second = draw_floats(3, 5), draw_floats(3, 5)
    got = adaptive_mix(first, first, second, torch.ones(3), distance=distance, noise=0.0)
    assert got.item() == pytest.approx(0.0, abs=1e-12)


def test_noise_has_its_deviation_and_comes_from_the_generator(draw_floats):
    features = draw_floats(50, 400)
    lam = torch.ones(50)

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return adaptive_mix(features, features, features, lam, noise=0.2, generator=generator).item()

    # The mean square of 20,000 normal draws is within 5 % of the variance: five of its standard deviations.
    assert loss(1) == pytest.approx(0.04, rel=0.05)
    assert loss(1) == loss(1) != loss(2)


@pytest.mark.parametrize("detach", [True, False])
def test_gradient_flows_where_it_should(draw_floats, detach):
    mixed, first, second = (draw_floats(3, 4).requires_grad_() for _ in range(3))
    adaptive_mix(mixed, first, second, torch.full((3,), 0.5), detach=detach).backward()
    assert mixed.grad.abs().sum() > 0
    assert (first.grad is None) == detach
    assert (second.grad is None) == detach


def test_classifier_is_fixed_and_orthogonal(draw_floats):
    head = OrthogonalClassifier(6, 4, generator=torch.Generator().manual_seed(3))
    assert list(head.parameters()) == []
    assert torch.allclose(head.weight @ head.weight.T, torch.eye(4), atol=1e-6)
    again = OrthogonalClassifier(6, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(head.weight, again.weight)
    features = draw_floats(5, 6)
    want = [
        [abs(float(np.dot(w, f) / np.linalg.norm(f))) for w in head.weight.double().numpy()]
        for f in features.numpy()
    ]
    assert np.allclose(head(features).numpy(), want, atol=1e-12)
    assert torch.allclose(head(7.0 * features), head(features))
    assert torch.allclose(head.project(7.0 * features), 7.0 * head.project(features))
    assert list(head.state_dict()) == ["weight"]


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match=r"^features: is 3, want at least the 4 classes"):
        OrthogonalClassifier(3, 4)

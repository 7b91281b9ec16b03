"""AdaptiveMix: features of a mixed row are drawn to the mixture of the features."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixfeed.losses.arguments import Reduction, Shapes, full_precision, number, one_of, reduce, refuse

Distance = Literal["mse", "cosine"]


def adaptive_mix(
    mixed: Tensor,
    first: Tensor,
    second: Tensor,
    lam: Tensor,
    *,
    distance: Distance = "mse",
    noise: float = 0.05,
    detach: bool = True,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance of f(x_mix) from lam f(a) + (1 - lam) f(b) + noise.

    For a classifier the whole loss adds cross entropy of the sum of both logits, without noise: with e the
    unit features and head an `OrthogonalClassifier`,
    `cross_entropy(head.project(e_mix) + head.project(lam * e_a + (1 - lam) * e_b), classes, weights) +
    adaptive_mix(...)`.

    Source: Liu et al., "AdaptiveMix: Improving GAN Training via Feature Space Shrinkage", CVPR 2023
    (arXiv:2303.01559).

    Args:
        mixed: (n, ...) floats, features of the mixed rows.
        first: of the same shape, features of the base rows.
        second: of the same shape, features of the partners.
        lam: (n) floats 0 to 1, weight of the base: column 0 of `label.weight`.
        distance: `mse`, the mean over a row's features, or `cosine`, 1 - cosine of all of a row's features
            (GANs).
        noise: standard deviation of the normal noise, at least 0.
        detach: whether gradient flows through `mixed` only, as in the authors' code.
        generator: where the noise comes from; None is torch's own.
        reduction: `mean` over rows, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 features, else float32.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    one_of("distance", distance, Distance)
    noise = number("noise", noise, 0.0, math.inf, ends="[)")
    if not isinstance(mixed, Tensor):
        raise TypeError(f"mixed: is {type(mixed).__name__}, want a torch.Tensor")
    if mixed.dim() < 2:
        refuse("mixed", f"has shape {tuple(mixed.shape)}, want (n, ...)")
    shapes = Shapes()
    axes = ("n", *(f"axis{i}" for i in range(1, mixed.dim())))
    found = shapes.floats("mixed", mixed, axes).flatten(1)
    a = shapes.floats("first", first, axes).flatten(1)
    b = shapes.floats("second", second, axes).flatten(1)
    own = shapes.amounts("lam", lam, ("n",), high=1.0).to(found.dtype)[:, None]
    target = own * a + (1.0 - own) * b
    target = target.detach() if detach else target
    if noise:
        drawn = torch.randn(target.shape, dtype=target.dtype, device=target.device, generator=generator)
        target = target + noise * drawn
    if distance == "mse":
        return reduce((found - target).square().mean(1), reduction)
    return reduce(1.0 - F.cosine_similarity(found, target, dim=1), reduction)


class OrthogonalClassifier(nn.Module):
    """AdaptiveMix's classifier: |W f / ‖f‖| with a fixed W of orthonormal rows.

    Source: the code of Liu et al., CVPR 2023 (arXiv:2303.01559).
    """

    weight: Tensor

    def __init__(self, features: int, classes: int, *, generator: torch.Generator | None = None) -> None:
        """Draws W (classes, features), a buffer that isn't trained.

        Args:
            features: at least `classes`, as rows couldn't be orthogonal otherwise.
            classes: at least 1.
            generator: where W comes from; None is torch's own.

        Raises:
            ValueError: an argument is out of range; the message names it.
        """
        super().__init__()
        if classes < 1:
            refuse("classes", f"is {classes}, want at least 1")
        if features < classes:
            refuse("features", f"is {features}, want at least the {classes} classes")
        weight = torch.empty(classes, features)
        nn.init.orthogonal_(weight, generator=generator)
        self.register_buffer("weight", weight)

    def project(self, unit: Tensor) -> Tensor:
        """|W e| (n, classes) of features e (n, features) that are scaled already."""
        shapes = Shapes()
        shapes.floats("weight", self.weight, ("classes", "features"))
        e = shapes.floats("unit", unit, ("n", "features"))
        with full_precision(e):
            return (e @ self.weight.to(e.dtype).T).abs()

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, classes), 0 to 1, of features (n, features) floats.

        Raises:
            TypeError, ValueError: an argument doesn't fit; the message names it.
        """
        f = Shapes().floats("features", features, ("n", "d"))
        return self.project(F.normalize(f, dim=1))

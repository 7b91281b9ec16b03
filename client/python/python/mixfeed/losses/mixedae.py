"""MixedAE: patches of a mixed image recognise those of their own source."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mixfeed.losses.arguments import Reduction, Shapes, full_precision, number, reduce


def homologous_recognition(
    features: Tensor, source: Tensor, *, temperature: float = 0.25, reduction: Reduction = "mean"
) -> Tensor:
    """Homologous contrastive loss: patches of one mixed image are positives when they come from one source.

    For patch i with positives P(i), other patches of its source in its image,
    L_i = -1/|P(i)| sum_{j in P(i)} log(exp(c_ij / T) / sum_{k != i} exp(c_ik / T)), c the cosine of features;
    an image's loss is the mean over its patches that have a positive. The paper weighs it 0.1 beside the
    reconstruction.

    Source: Chen et al., "Mixed Autoencoder for Self-supervised Visual Representation Learning", CVPR 2023
    (arXiv:2303.17152). No official code exists; the mean of logs is that of Khosla et al., "Supervised
    Contrastive Learning", NeurIPS 2020.

    Args:
        features: (n, L, d) floats, the encoder's (projected) patches.
        source: (n, L) integers, which image of its group each patch is from; a patch of -1 has no source: it
            is nobody's positive, but a negative of others.
        temperature: above 0.
        reduction: `mean` over images that have a positive pair, `sum`, or `none`.

    Returns:
        A scalar, or (n) for `none`; float64 for float64 features, else float32. Memory is n L^2.

    Raises:
        TypeError, ValueError: an argument doesn't fit; the message names it.
    """
    shapes = Shapes()
    x = F.normalize(shapes.floats("features", features, ("n", "L", "d")), dim=2)
    found = shapes.integers("source", source, ("n", "L"))
    temperature = number("temperature", temperature, 0.0, math.inf, ends="()")
    with full_precision(x):
        score = torch.bmm(x, x.transpose(1, 2)) / temperature
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    positive = (found[:, :, None] == found[:, None, :]) & (found >= 0)[:, :, None] & ~itself
    counts = positive.sum(2)
    # A patch that is alone in its image has no other: its row is left whole, and isn't used.
    others = score if x.shape[1] == 1 else score.masked_fill(itself, -torch.inf)
    own = torch.where(positive, score, torch.zeros_like(score)).sum(2) / counts.clamp_min(1)
    each = torch.where(counts > 0, others.logsumexp(2) - own, torch.zeros_like(own))
    usable = (counts > 0).sum(1)
    return reduce(each.sum(1) / usable.clamp_min(1), reduction, usable > 0)

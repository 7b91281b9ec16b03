"""What doesn't fit is refused with the argument's name."""

from collections.abc import Callable

import pytest
import torch

from mixfeed import losses
from mixfeed.losses import Pairs

CLASSES = torch.tensor([[0, 1], [2, 2], [3, 0], [1, -1], [2, 3]], dtype=torch.int32)
WEIGHTS = torch.tensor([[0.7, 0.3], [0.4, 0.6], [1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
SIX = torch.arange(6)
PAIRS = Pairs(torch.tensor([0, 0, 1, 3, 3, 3]), SIX, SIX, torch.tensor([1.0, 0.3, 0.0, 0.5, 1.0, 0.0]), 4)
BOX = torch.zeros(1, 4, dtype=torch.int32)
PATCHES = torch.ones(1, 2, 3)
Z = torch.zeros(5, 4)
REFUSED: list[tuple[type[Exception], str, Callable[[], object]]] = [
    (
        TypeError,
        "logits: is list, want a torch.Tensor",
        lambda: losses.cross_entropy([[0.0]], CLASSES, WEIGHTS),
    ),
    (TypeError, "logits: has elements torch.int64", lambda: losses.cross_entropy(Z.long(), CLASSES, WEIGHTS)),
    (
        ValueError,
        r"logits: has shape \(4,\), want \(n, C\)",
        lambda: losses.cross_entropy(Z[0], CLASSES, WEIGHTS),
    ),
    (
        ValueError,
        r"labels: has shape \(4, 2\), want \(n, k\), n = 5",
        lambda: losses.cross_entropy(Z, CLASSES[1:], WEIGHTS),
    ),
    (
        ValueError,
        r"labels: has values from -1 to 3, want -1 \(none\) to 2",
        lambda: losses.cross_entropy(Z[:, :3], CLASSES, WEIGHTS),
    ),
    (ValueError, "labels: has values from -2", lambda: losses.cross_entropy(Z, torch.full((5,), -2))),
    (
        ValueError,
        r"labels: has shape \(5, 2\), want \(n, C\), n = 5, C = 4",
        lambda: losses.cross_entropy(Z, WEIGHTS),
    ),
    (ValueError, "labels: has values from -1 to", lambda: losses.cross_entropy(Z, -torch.ones(5, 4))),
    (
        ValueError,
        "labels: has values from 2 to 2, want 0 to 1",
        lambda: losses.binary_cross_entropy(Z, 2 * torch.ones(5, 4)),
    ),
    (ValueError, "weights: is None, want those of labels", lambda: losses.cross_entropy(Z, CLASSES)),
    (
        ValueError,
        "weights: want none, as labels has shape",
        lambda: losses.cross_entropy(Z, CLASSES[:, 0], WEIGHTS),
    ),
    (ValueError, "weights: want none, as labels are a dense", lambda: losses.mixed_accuracy(Z, Z, WEIGHTS)),
    (
        ValueError,
        "weights: has values from nan",
        lambda: losses.cross_entropy(Z, CLASSES, WEIGHTS * torch.nan),
    ),
    (
        ValueError,
        "weights: has values from -1",
        lambda: losses.decoupled_cross_entropy(Z, CLASSES, -torch.ones(5, 2)),
    ),
    (
        ValueError,
        r"classes: has shape \(5, 3\), want \(n, 2\)",
        lambda: losses.decoupled_cross_entropy(Z, torch.zeros(5, 3).int(), torch.ones(5, 3)),
    ),
    (
        ValueError,
        r"smoothing: is 1.0, want a number in \[0, 1\)",
        lambda: losses.cross_entropy(Z, CLASSES, WEIGHTS, smoothing=1.0),
    ),
    (
        TypeError,
        "smoothing: is str, want a number",
        lambda: losses.cross_entropy(Z, CLASSES, WEIGHTS, smoothing="much"),
    ),
    (
        ValueError,
        "threshold: is -0.1",
        lambda: losses.binary_cross_entropy(Z, CLASSES, WEIGHTS, threshold=-0.1),
    ),
    (
        ValueError,
        "multi_label: want a dense target",
        lambda: losses.binary_cross_entropy(Z, CLASSES, WEIGHTS, multi_label=True),
    ),
    (
        ValueError,
        "over_classes: is 'max'",
        lambda: losses.binary_cross_entropy(Z, CLASSES, WEIGHTS, over_classes="max"),
    ),
    (ValueError, "k: is 5, want 1 to 4", lambda: losses.mixed_accuracy(Z, CLASSES, WEIGHTS, k=5)),
    (ValueError, "num_classes: is 0", lambda: losses.dense_labels(CLASSES, WEIGHTS, 0)),
    (
        ValueError,
        "dtype: is torch.float16",
        lambda: losses.dense_labels(CLASSES, WEIGHTS, 4, dtype=torch.float16),
    ),
    (ValueError, "eta: is -1", lambda: losses.decoupled_cross_entropy(Z, CLASSES, WEIGHTS, eta=-1)),
    (
        ValueError,
        "select: is 'one'",
        lambda: losses.decoupled_cross_entropy(Z, CLASSES, WEIGHTS, select="one"),
    ),
    (
        TypeError,
        "confident: has elements torch.float32",
        lambda: losses.decoupled_cross_entropy(Z, CLASSES, WEIGHTS, confident=WEIGHTS),
    ),
    (ValueError, "xi: is 0", lambda: losses.decoupled_weights(WEIGHTS, xi=0)),
    (ValueError, "power: is inf", lambda: losses.decoupled_weights(WEIGHTS, power=float("inf"))),
    (ValueError, "base: is 1, want another", lambda: losses.decoupled_weights(WEIGHTS, base=1.0)),
    (
        ValueError,
        r"mixed_logits: has shape \(5, 3\)",
        lambda: losses.rankmixup_margin(Z, Z[:, :3], CLASSES, WEIGHTS),
    ),
    (
        ValueError,
        r"classes: has shape \(5, 1\), want \(n, 2\)",
        lambda: losses.rankmixup_margin(Z, Z, CLASSES[:, :1], WEIGHTS),
    ),
    (
        ValueError,
        "margin: is nan",
        lambda: losses.rankmixup_margin(Z, Z, CLASSES, WEIGHTS, margin=float("nan")),
    ),
    (
        ValueError,
        "score: is 'entropy'",
        lambda: losses.rankmixup_margin(Z, Z, CLASSES, WEIGHTS, score="entropy"),
    ),
    (
        ValueError,
        "attention: has values from -1",
        lambda: losses.transmix_weights(-torch.ones(5, 4), Z, WEIGHTS),
    ),
    (ValueError, "kept: has values from 2", lambda: losses.transmix_weights(Z, 2 + Z, WEIGHTS)),
    (
        ValueError,
        r"weights: has shape \(5, 1\), want \(n, 2\)",
        lambda: losses.transmix_weights(Z, Z, WEIGHTS[:, :1]),
    ),
    (
        TypeError,
        "relabel: has elements torch.float32",
        lambda: losses.transmix_weights(Z, Z, WEIGHTS, relabel=Z[:, 0]),
    ),
    (
        ValueError,
        "prefix: is 0, want 1 to below the 4",
        lambda: losses.class_attention(torch.ones(1, 1, 4, 4), prefix=0),
    ),
    (
        ValueError,
        r"box: has shape \(5, 2\), want \(n, 4\)",
        lambda: losses.kept_outside_box(CLASSES, (8, 8), (2, 2)),
    ),
    (ValueError, "size: is", lambda: losses.kept_outside_box(BOX, (0, 8), (2, 2))),
    (ValueError, "grid: is", lambda: losses.kept_outside_box(BOX, (8, 8), (2, 0))),
    (ValueError, "rule: is 'mean'", lambda: losses.kept_outside_box(BOX, (8, 8), (2, 2), rule="mean")),
    (ValueError, "rule: is 'mean'", lambda: losses.kept_of_mask(torch.zeros(1, 4, 4), (2, 2), rule="mean")),
    (
        ValueError,
        r"attention: has shape \(5, 3, 3\), want \(n, T, T\)",
        lambda: losses.tl_align_step(Z, torch.ones(5, 3, 3)),
    ),
    (ValueError, "grid: is", lambda: losses.tl_align_merge(Z, (2, 3))),
    (ValueError, "factor: is 3", lambda: losses.tl_align_merge(Z, (2, 2), factor=3)),
    (ValueError, "prefix: is -1", lambda: losses.tl_align_weights(Z, [], WEIGHTS, prefix=-1)),
    (
        ValueError,
        r"score: has shape \(6, 1\), want \(T\)",
        lambda: losses.metrix_contrastive(torch.zeros(6, 1), PAIRS),
    ),
    (
        ValueError,
        r"pairs.relation: has shape \(6,\), want \(T\), T = 5",
        lambda: losses.metrix_contrastive(torch.zeros(5), PAIRS),
    ),
    (
        ValueError,
        "pairs.anchor: has values from 0 to 3",
        lambda: losses.metrix_contrastive(torch.zeros(6), PAIRS._replace(anchors=3)),
    ),
    (ValueError, "measure: is 'l1'", lambda: losses.metrix_contrastive(torch.zeros(6), PAIRS, measure="l1")),
    (ValueError, "beta: is 0", lambda: losses.metrix_multi_similarity(torch.zeros(6), PAIRS, beta=0)),
    (ValueError, "alpha: is 0", lambda: losses.ProxyAnchor(4, 3, alpha=0)),
    (ValueError, "classes: is 0", lambda: losses.ProxyAnchor(0, 3)),
    (
        ValueError,
        r"embeddings: has shape \(5, 4\), want \(n, features\), features = 3",
        lambda: losses.ProxyAnchor(4, 3)(Z, CLASSES, WEIGHTS),
    ),
    (ValueError, "lam: is 1.5", lambda: losses.metrix_pairs(CLASSES[:, 0], 1.5)),
    (ValueError, "kind: is 'all'", lambda: losses.metrix_pairs(CLASSES[:, 0], 0.5, kind="all")),
    (ValueError, "hardest: is 0", lambda: losses.metrix_pairs(CLASSES[:, 0], 0.5, hardest=0)),
    (
        ValueError,
        "similarity: want the similarities",
        lambda: losses.metrix_pairs(CLASSES[:, 0], 0.5, hardest=1),
    ),
    (ValueError, "embeddings: has 5 rows, want the 4", lambda: losses.metrix_similarity(Z, PAIRS)),
    (ValueError, r"second: has shape \(5, 3\)", lambda: losses.adaptive_mix(Z, Z, Z[:, :3], Z[:, 0])),
    (ValueError, "lam: has values from 2", lambda: losses.adaptive_mix(Z, Z, Z, 2 + Z[:, 0])),
    (ValueError, "noise: is -1", lambda: losses.adaptive_mix(Z, Z, Z, Z[:, 0], noise=-1)),
    (
        ValueError,
        "temperature: is 0",
        lambda: losses.homologous_recognition(PATCHES, torch.zeros(1, 2).int(), temperature=0),
    ),
    (
        TypeError,
        "source: has elements torch.float32",
        lambda: losses.homologous_recognition(PATCHES, torch.zeros(1, 2)),
    ),
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_what_does_not_fit_is_refused_by_name(error, message, call):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_tensors_of_two_devices_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^labels: is on meta, the others on cpu"):
        losses.cross_entropy(Z, CLASSES.to("meta"), WEIGHTS)

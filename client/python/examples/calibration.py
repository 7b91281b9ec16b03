#!/usr/bin/env python3
"""RankMixup: mixed digits as a yardstick of confidence, and what that does to calibration.

Two jobs of one seed serve the same digits in the same slots, one as they are and one mixed, with the plan of
each mix. The trainer pulls both side by side (the rows' ids show that they match). Clean rows get cross
entropy. Mixes get no label at all: a mix must only be less sure than its clean row (MRL), or, of three mixes,
the surer the less is mixed in (M-NDCG).

The server makes one mix of each row. M-NDCG's second and third are drawn from the same plan, turned by whole
pairing blocks: a row takes the partner and the lambda that its counterpart in the next block drew, which
nothing ties to its own.

    python calibration.py [--quick] [--endpoint URL] [--seeds N]

Prints test accuracy and expected calibration error (15 bins) after the last step, mean and standard deviation
over seeds, %. The paper (Noh et al., ICCV 2023) reports lower errors than cross entropy's on larger sets and
networks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import handwriting
import torch
from serving import progress, serving, spread
from torch import Tensor

import mixfeed
from mixfeed import losses

METHODS = ("cross entropy", "mixup", "MRL", "M-NDCG")
BLOCK, MIXES = 16, 3
MIX = {"policies": [{"name": "mixup", "params": {"alpha": 2.0}}], "granularity": "elem", "pairing": "derange"}
WEIGHT, MARGIN, BINS = 0.1, 2.0, 15


def jobs(seed: int, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job of clean rows and the job of mixed ones."""
    clean = {**handwriting.SPEC, "seed": seed, "mix_block": BLOCK, "max_steps": steps}
    return clean, {**clean, "mix": MIX}


def turned(batch: mixfeed.Batch, blocks: int) -> tuple[Tensor, Tensor]:
    """Partners (n) and lambdas (n, 1) of the batch's plan, taken from so many blocks further on."""
    shift, rows = blocks * BLOCK, batch.rows
    partner = batch["plan.partner"].long() - batch.slots.start
    return (partner.roll(-shift) - shift) % rows, batch["plan.lambda"][:, 1:].roll(-shift, 0).float()


def more_mixes(
    clean: Tensor, digits: Tensor, batch: mixfeed.Batch
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The second and third mix of every clean row, mixed here: pixels, classes (n, 2), weights (n, 2)."""
    pixels, classes, weights = [], [], []
    for blocks in range(1, MIXES):
        partner, own = turned(batch, blocks)
        share = own[:, :, None, None]
        pixels.append(share * clean + (1 - share) * clean[partner])
        classes.append(torch.stack((digits, digits[partner]), 1))
        weights.append(torch.cat((own, 1 - own), 1))
    return pixels, classes, weights


def loss_of(method: str, model: torch.nn.Module, clean: mixfeed.Batch, mixed: mixfeed.Batch) -> Tensor:
    """The loss of one step."""
    rows, digits = handwriting.grey(clean.images), clean.labels.classes[:, 0].long()
    mixes, classes, weights = (
        handwriting.grey(mixed.images),
        mixed.labels.classes.long(),
        mixed.labels.weights,
    )
    if method == "cross entropy":
        return losses.cross_entropy(model(rows), digits)
    if method == "mixup":
        return losses.cross_entropy(model(mixes), classes, weights)
    if method == "MRL":
        logits = model(torch.cat((rows, mixes))).unflatten(0, (2, -1))
        ranks = losses.rankmixup_margin(logits[0], logits[1], classes, weights, margin=MARGIN)
        return losses.cross_entropy(logits[0], digits) + WEIGHT * ranks
    more = more_mixes(rows, digits, mixed)
    logits = model(torch.cat((rows, mixes, *more[0]))).unflatten(0, (1 + MIXES, -1))
    classes, weights = torch.stack((classes, *more[1]), 1), torch.stack((weights, *more[2]), 1)
    ranks = losses.rankmixup_ndcg(logits[0], logits[1:].transpose(0, 1), classes, weights)
    return losses.cross_entropy(logits[0], digits) + WEIGHT * ranks


def calibration_error(probabilities: Tensor, classes: Tensor) -> float:
    """Expected calibration error: |accuracy - mean confidence| of bins of confidence, weighted by rows."""
    confidence, guess = probabilities.max(1)
    right = (guess == classes).float()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS).index_add(0, bins, right - confidence)
    return gaps.abs().sum().item() / len(classes)


def train(endpoint: str, method: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one network; accuracy and calibration error in %, and whether both jobs served the same rows."""
    model = handwriting.network(seed)
    sgd, rate = handwriting.optimizer(model, steps)
    clean_spec, mixed_spec = jobs(seed, steps)
    clean = mixfeed.DataLoader(endpoint, f"clean-{seed}", spec=clean_spec)
    mixed = mixfeed.DataLoader(endpoint, f"mixed-{seed}", spec=mixed_spec)
    same, apart, seen = True, 0.0, []
    with clean, mixed:
        for raw, mix in zip(clean, mixed, strict=True):
            loss = loss_of(method, model, raw, mix)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            rate.step()
            same &= torch.equal(raw["sample.index"][:, 0], mix["sample.index"][:, 0])
            partner, own = turned(mix, 0)
            again = own[:, :, None, None] * raw.images + (1 - own[:, :, None, None]) * raw.images[partner]
            apart = max(apart, (again - mix.images).abs().max().item())
            seen.append(raw.step)
        probabilities, classes = handwriting.evaluate(model, clean)
    accuracy = (probabilities.argmax(1) == classes).double().mean().item()
    error, confidence = calibration_error(probabilities, classes), probabilities.amax(1).mean().item()
    found = {"accuracy": 100 * accuracy, "error": 100 * error, "confidence": 100 * confidence}
    return {**found, "same": same, "apart": apart, "steps": seen}


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything, prints the table; all runs by method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--endpoint", help="a server with a source `digits`, groups `one`; default: start one"
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: to see that it runs")
    options = parser.parse_args(argv)
    seeds, steps = (1, 50) if options.quick else (options.seeds, options.steps)
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    with (
        tempfile.TemporaryDirectory() as place,
        serving(handwriting.write(Path(place)), options.endpoint) as endpoint,
    ):
        for seed in range(1, seeds + 1):
            for method, done in runs.items():
                done.append(train(endpoint, method, seed, steps))
                progress(f"seed {seed}: {method}: {done[-1]['accuracy']:.2f}, {done[-1]['error']:.2f}")
    print(f"{steps} steps, {seeds} seeds, %")
    print(f"{'':<16} {'accuracy':<16} {'confidence':<16} calibration error")
    for method, done in runs.items():
        columns = [spread([run[column] for run in done]) for column in ("accuracy", "confidence", "error")]
        print(f"{method:<16} {columns[0]:<16} {columns[1]:<16} {columns[2]}", flush=True)
    return runs


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""RankMixup: mixed digits as a yardstick of confidence, and what that does to calibration.

One job serves every row twice, as it is and mixed (delivery `both`), with the plan of each mix. Clean rows
get cross entropy. Mixes get no label at all: a mix must only be less sure than its clean row (MRL), or, of
three mixes, the surer the less is mixed in (M-NDCG).

The server makes one mix of each row. M-NDCG's second and third are made here (`mixfeed.plan.mix`) by the same
plan, turned by whole pairing blocks: a row takes the partner and the lambda that its counterpart in the next
block drew, which nothing ties to its own.

    python calibration.py [--quick] [--endpoint URL] [--seeds N]

Prints test accuracy and expected calibration error (15 bins) after the last step, mean and standard deviation
over seeds, %. The paper (Noh et al., ICCV 2023) reports lower errors than cross entropy's on larger sets and
networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import handwriting
import torch
from serving import spread
from torch import Tensor

import mixfeed
from mixfeed import losses
from mixfeed.plan import Plan, mix

METHODS = ("cross entropy", "mixup", "MRL", "M-NDCG")
BLOCK, MIXES = 16, 3
MIX = {"policies": [{"name": "mixup", "params": {"alpha": 2.0}}], "granularity": "elem", "pairing": "derange"}
WEIGHT, MARGIN, BINS = 0.1, 2.0, 15


def spec(seed: int, steps: int) -> dict[str, Any]:
    """The job: clean rows, their mixes and the plan."""
    output = {**handwriting.SPEC["output"], "delivery": "both"}
    job = {"seed": seed, "mix_block": BLOCK, "max_steps": steps, "mix": MIX, "output": output}
    return {**handwriting.SPEC, **job}


def turned(plan: Plan, blocks: int) -> Plan:
    """The plan with partners and lambdas taken from so many blocks further on."""
    shift = blocks * BLOCK
    partner = (plan.partner.roll(-shift) - shift) % plan.slots
    own = plan.labels().classes[:, :1]
    return dataclasses.replace(
        plan,
        partner=partner,
        lam=plan.lam.roll(-shift),
        rest=plan.rest.roll(-shift),
        classes=torch.cat((own, own[partner]), 1),
    )


def mixes(batch: mixfeed.Batch, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """All mixes of every clean row, the server's first: pixels (n, k, ...), classes (n, k, 2), weights (n, k,
    2)."""
    clean = batch["image.clean"].float() / 255
    more = [turned(plan, blocks) for blocks in range(1, MIXES)]
    pixels = [batch.images, *(mix(clean, one, by="lambda") for one in more)]
    classes, weights = zip(*(one.labels() for one in (plan, *more)), strict=True)
    return torch.stack(pixels, 1), torch.stack(classes, 1), torch.stack(weights, 1)


def loss_of(method: str, model: torch.nn.Module, batch: mixfeed.Batch, plan: Plan) -> Tensor:
    """The loss of one step."""
    rows = handwriting.grey(batch["image.clean"].float() / 255)
    classes, weights = plan.labels()
    digits = classes[:, 0]
    if method == "cross entropy":
        return losses.cross_entropy(model(rows), digits)
    mixed = handwriting.grey(batch.images)
    if method == "mixup":
        return losses.cross_entropy(model(mixed), classes, weights)
    if method == "MRL":
        logits = model(torch.cat((rows, mixed))).unflatten(0, (2, -1))
        ranks = losses.rankmixup_margin(logits[0], logits[1], classes, weights, margin=MARGIN)
        return losses.cross_entropy(logits[0], digits) + WEIGHT * ranks
    pixels, classes, weights = mixes(batch, plan)
    every = torch.cat((rows, handwriting.grey(pixels.transpose(0, 1).flatten(0, 1))))
    logits = model(every).unflatten(0, (1 + MIXES, -1))
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
    """Trains one network; accuracy and calibration error in %, and how far the plan's mixes are from the
    server's."""
    model = handwriting.network(seed)
    sgd, rate = handwriting.optimizer(model, steps)
    apart, seen = 0.0, []
    with mixfeed.DataLoader(endpoint, f"digits-{seed}", spec=spec(seed, steps)) as loader:
        for batch in loader:
            plan = Plan.of(batch)
            loss = loss_of(method, model, batch, plan)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            rate.step()
            again = mix(batch["image.clean"], plan, dtype=torch.float32)
            apart = max(apart, (again - batch.images).abs().max().item())
            seen.append(batch.step)
        probabilities, classes = handwriting.evaluate(model, loader)
    accuracy = (probabilities.argmax(1) == classes).double().mean().item()
    error, confidence = calibration_error(probabilities, classes), probabilities.amax(1).mean().item()
    found = {"accuracy": 100 * accuracy, "error": 100 * error, "confidence": 100 * confidence}
    return {**found, "apart": apart, "steps": seen}


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything, prints the table; all runs by method."""
    runs, steps = handwriting.compare(__doc__, argv, 300, METHODS, train, ["accuracy", "error"])
    print(f"{steps} steps, {len(runs[METHODS[0]])} seeds, %")
    print(f"{'':<16} {'accuracy':<16} {'confidence':<16} calibration error")
    for method, done in runs.items():
        columns = [spread([run[column] for run in done]) for column in ("accuracy", "confidence", "error")]
        print(f"{method:<16} {columns[0]:<16} {columns[1]:<16} {columns[2]}", flush=True)
    return runs


if __name__ == "__main__":
    main()

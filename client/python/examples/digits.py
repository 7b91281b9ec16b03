#!/usr/bin/env python3
"""A classifier of handwritten digits, trained on mixed batches from the server against clean ones.

The server reads 1,797 small pictures from class folders, keeps half of them out of training, and mixes the
others: not at all, by Mixup, by CutMix, or each row by one of the two. The trainer sees ready batches with
soft labels.

    python digits.py [--quick] [--endpoint URL] [--seeds N]

Prints the test accuracy after the last step, mean and standard deviation over seeds, %.
"""

from __future__ import annotations

from typing import Any

import handwriting
from serving import spread

import mixfeed
from mixfeed import losses

MIXES: dict[str, dict[str, Any] | None] = {
    "clean": None,
    "mixup": {"policies": [{"name": "mixup", "params": {"alpha": 0.4}}], "granularity": "elem"},
    "cutmix": {"policies": [{"name": "cutmix"}], "granularity": "elem", "gate_prob": 0.5},
    "mixup or cutmix": {
        "policies": [{"name": "mixup", "params": {"alpha": 0.4}}, {"name": "cutmix"}],
        "granularity": "elem",
        "choose": "row",
        "gate_prob": 0.5,
    },
}


def spec(mix: dict[str, Any] | None, seed: int, steps: int) -> dict[str, Any]:
    """The job of one run."""
    job = {**handwriting.SPEC, "seed": seed, "max_steps": steps}
    return job if mix is None else {**job, "mix": mix}


def train(endpoint: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one network; its test accuracy, the steps that it saw, and the mean weight of own labels."""
    model = handwriting.network(seed)
    sgd, rate = handwriting.optimizer(model, steps)
    job, seen, own = f"digits-{name.replace(' ', '-')}-{seed}", [], 0.0
    with mixfeed.DataLoader(endpoint, job, spec=spec(MIXES[name], seed, steps)) as loader:
        for batch in loader:
            logits = model(handwriting.grey(batch.images))
            loss = losses.cross_entropy(logits, *batch.labels)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            rate.step()
            seen.append(batch.step)
            own += batch.labels.weights[:, 0].mean().item() / steps
        probabilities, classes = handwriting.evaluate(model, loader)
    accuracy = (probabilities.argmax(1) == classes).double().mean().item()
    return {"accuracy": 100 * accuracy, "steps": seen, "own": own, "tested": len(classes)}


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything, prints the table; all runs by name of the mix."""
    runs, steps = handwriting.compare(__doc__, argv, 600, tuple(MIXES), train, ["accuracy"])
    clean = runs["clean"]
    print(f"test accuracy in %, {steps} steps, {len(clean)} seeds, {clean[0]['tested']} test digits")
    for name, done in runs.items():
        print(f"{name:<16} {spread([run['accuracy'] for run in done])}", flush=True)
    return runs


if __name__ == "__main__":
    main()

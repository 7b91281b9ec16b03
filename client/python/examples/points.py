#!/usr/bin/env python3
"""Ground, plants and buildings in a laser-scanned yard, with and without Mix3D.

The server cuts a survey tile of 25,000 points into blocks of 10 x 10 feet, keeps some of them out of
training, turns, mirrors and scales the others, and unites two into one scene (Mix3D): a network that guesses
by the surroundings is then often wrong. Both jobs serve eight blocks a step, the one as eight scenes, the
other as four unions of two.

The network looks at each point's place in cells of two sizes and in its whole scene: a small PointNet at
three scales.

    python points.py [--quick] [--endpoint URL] [--seeds N]

Prints intersection over union on the held-out blocks, %, mean and standard deviation over seeds. Seven blocks
of one yard are a toy; Mix3D's gains (Nekrasov et al., 3DV 2021) are of large indoor and street sets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from serving import ROOT, progress, serving, spread
from torch import Tensor, nn
from torch.nn import functional as F

import mixfeed

TILE = ROOT / "demo-data/points/urban_25k.laz"
CLASSES = ("ground", "plants", "building")
SCENES, MOST, IGNORE = 8, 40_000, -1
# Classes as the survey stores them (ASPRS): 2 ground; 3, 4, 5 low to high plants; 6 building. Others do not
# count.
LABELS = [{"stored": stored, "class": number} for stored, number in ((2, 0), (3, 1), (4, 1), (5, 1), (6, 2))]
# Sides of cells in feet.
CELLS = (1.5, 4.0)
MIXES: dict[str, dict[str, Any] | None] = {
    "single scenes": None,
    "Mix3D": {"policies": [{"name": "mix3d"}], "granularity": "half", "pairing": "consecutive"},
}


def source(cache: Path) -> str:
    """The table that declares the blocks to a server."""
    tile = "tile = { block = 10.0, min_points = 256 }"
    path, place = json.dumps(str(TILE)), json.dumps(str(cache))
    return f'[sources.yard]\nkind = "points"\npath = {path}\n{tile}\ncache = {place}\n'


def spec(mix: dict[str, Any] | None, seed: int, steps: int) -> dict[str, Any]:
    """The job of one run."""
    points = {
        "max_points": MOST,
        "features": ["intensity"],
        "flip_x": 0.5,
        "flip_y": 0.5,
        "scale": [0.9, 1.1],
        "rotate_z": [-3.1416, 3.1416],
        "label_map": LABELS,
        "ignore_label": IGNORE,
        "voxel": {"size": 0.6, "majority": True},
    }
    job: dict[str, Any] = {
        "groups": [{"group": "yard"}],
        "seed": seed,
        "global_batch": SCENES,
        "mix_block": SCENES,
        "points": points,
        "held_out": {"fraction": 0.3},
        "max_steps": steps,
    }
    return job if mix is None else {**job, "mix": mix}


def cells(scene: Tensor, coord: Tensor, side: float) -> tuple[Tensor, int]:
    """Number of every point's cell, no cell in two scenes, and how many cells there are."""
    place = torch.cat((scene[:, None], torch.floor(coord / side).long()), 1)
    found, number = torch.unique(place, dim=0, return_inverse=True)
    return number, len(found)


class Network(nn.Module):
    """Logits (points, 3)."""

    def __init__(self, seed: int, width: int = 32) -> None:
        torch.manual_seed(seed)
        super().__init__()
        scales = len(CELLS) + 1
        self.near = nn.ModuleList(
            nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(scales)
        )
        self.head = nn.Sequential(
            nn.Linear(5 + 2 * width * scales, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))
        )

    def forward(self, points: Any) -> Tensor:
        """Logits (points, 3) of a batch's points."""
        coord, intensity = points.coord, points.feat / 65535.0
        counts = points.offset.diff()
        scene = torch.repeat_interleave(torch.arange(len(counts)), counts)
        scales = [cells(scene, coord, side) for side in CELLS] + [(scene, len(counts))]
        seen = [torch.cat((coord / 10.0, coord[:, 2:] / 20.0, intensity), 1)]
        for layer, (cell, number) in zip(self.near, scales, strict=True):
            place = cell[:, None].expand_as(coord)
            mean = torch.zeros(number, 3).scatter_reduce(0, place, coord, "mean", include_self=False)
            own = layer(torch.cat((coord - mean[cell], coord[:, 2:] / 20.0, intensity), 1))
            index = cell[:, None].expand_as(own)
            pooled = torch.zeros(number, own.shape[1]).scatter_reduce(
                0, index, own, "amax", include_self=False
            )
            seen += [own, pooled[cell]]
        return self.head(torch.cat(seen, 1))


@torch.no_grad()
def intersections(network: Network, loader: mixfeed.Loader) -> list[float]:
    """Intersection over union of each class over all held-out blocks, %."""
    both, either = torch.zeros(len(CLASSES)), torch.zeros(len(CLASSES))
    for batch in loader.eval_set("yard/all", held_out=True):
        segment, guess = batch.points.segment, network(batch.points).argmax(1)
        for number in range(len(CLASSES)):
            true, found = segment == number, (guess == number) & (segment != IGNORE)
            both[number] += (true & found).sum()
            either[number] += (true | found).sum()
    return (100 * both / either.clamp_min(1)).tolist()


def train(endpoint: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one network; its IoU by class, steps seen, scenes per row, and points per step."""
    network, seen, scenes, points = Network(seed), [], set(), 0
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    with mixfeed.DataLoader(
        endpoint, f"{name.lower().replace(' ', '-')}-{seed}", spec=spec(MIXES[name], seed, steps)
    ) as loader:
        for batch in loader:
            loss = F.cross_entropy(network(batch.points), batch.points.segment.long(), ignore_index=IGNORE)
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
            seen.append(batch.step)
            scenes.update(batch.points.num_logical_samples.tolist())
            points += len(batch.points.coord)
        by_class = intersections(network, loader)
    mean = sum(by_class) / len(by_class)
    return {
        "iou": {**dict(zip(CLASSES, by_class, strict=True)), "mean": mean},
        "steps": seen,
        "scenes": scenes,
        "points": points / steps,
    }


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything, prints the table; all runs by name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--endpoint", help="a server with a source `yard`, blocks of scenes; default: start one"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: to see that it runs")
    options = parser.parse_args(argv)
    seeds, steps = (1, 40) if options.quick else (options.seeds, options.steps)
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in MIXES}
    with tempfile.TemporaryDirectory() as place, serving(source(Path(place)), options.endpoint) as endpoint:
        for seed in range(1, seeds + 1):
            for name, done in runs.items():
                done.append(train(endpoint, name, seed, steps))
                progress(f"seed {seed}: {name}: {done[-1]['iou']['mean']:.2f}")
    print(f"intersection over union in %, {steps} steps, {seeds} seeds")
    print(f"{'':<16}" + "".join(f"{name:<16}" for name in (*CLASSES, "mean")))
    for name, done in runs.items():
        print(
            f"{name:<16}"
            + "".join(f"{spread([run['iou'][column] for run in done]):<16}" for column in done[0]["iou"]),
            flush=True,
        )
    return runs


if __name__ == "__main__":
    main()

"""The digits as a folder of pictures, and the network that `digits` and `calibration` train on them."""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from serving import progress, serving
from torch import nn

DIGITS = Path(__file__).resolve().parent / "data/digits.csv.gz"
CLASSES = 10
SIDE = 16
# Half of the pictures are held out: the server never puts them into a training batch, and serves them as an
# eval set.
SPEC: dict[str, Any] = {
    "groups": [{"group": "digits"}],
    "global_batch": 64,
    "image": {"height": SIDE, "width": SIDE},
    "output": {"dtype": "f32", "layout": "nchw"},
    "held_out": {"fraction": 0.5},
}


def write(folder: Path) -> str:
    """Writes the digits as `CLASS/NUMBER.png` below `folder`; the table that declares them to a server."""
    for number, line in enumerate(gzip.decompress(DIGITS.read_bytes()).decode().split()):
        *pixels, digit = map(int, line.split(","))
        place = folder / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.png").write_bytes(png([pixel * 255 // 16 for pixel in pixels], 8))
    return f'[sources.digits]\nkind = "folder"\npath = {json.dumps(str(folder))}\ngroups = "one"\n'


def png(grey: list[int], width: int) -> bytes:
    """A grey picture, 8 bits a pixel, rows from top to bottom."""
    rows = b"".join(b"\0" + bytes(grey[at : at + width]) for at in range(0, len(grey), width))
    head = struct.pack(">IIBBBBB", width, len(grey) // width, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def grey(images: torch.Tensor) -> torch.Tensor:
    """The digits are grey and the server sends three equal channels, 0 to 1: the first one, -1 to 1."""
    return images[:, :1] * 2 - 1


def network(seed: int) -> nn.Module:
    """Two convolutions and two linear layers, 136,000 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (SIDE // 4) ** 2, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES),
    )


def optimizer(
    model: nn.Module, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with momentum, its rate from 0.05 to 0 along a cosine."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (n, 10) and true classes (n) of every held-out digit."""
    model.eval()
    found = [
        (model(grey(batch.images)), batch.labels.classes[:, 0])
        for batch in loader.eval_set("digits", held_out=True)
    ]
    model.train()
    logits, classes = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits.softmax(1), classes.long()


def compare(
    about: str | None,
    argv: list[str] | None,
    steps: int,
    names: Sequence[str],
    train: Callable[[str, str, int, int], dict[str, Any]],
    told: Sequence[str],
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Trains every one of `names` with every seed, in turns: `train(endpoint, name, seed, steps)`.

    Returns the runs by name, and the steps of each; `told` are the results that are shown as they come.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--endpoint", help="a server with a source `digits`, groups `one`; default: start one"
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: to see that it runs")
    options = parser.parse_args(argv)
    seeds, steps = (1, 50) if options.quick else (options.seeds, options.steps)
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with (
        tempfile.TemporaryDirectory() as place,
        serving(write(Path(place)), options.endpoint) as endpoint,
    ):
        for seed in range(1, seeds + 1):
            for name, done in runs.items():
                done.append(train(endpoint, name, seed, steps))
                progress(f"seed {seed}: {name}: {', '.join(f'{done[-1][key]:.2f}' for key in told)}")
    return runs, steps

"""The jobs of benches/torch.rs by torchvision v2 or kornia: one JSON line, milliseconds of a whole batch by op.

Pictures are prepared beforehand where the job's own program finds them: clean batches and decoded pictures in this
process's memory. On a CUDA device a job copies its input up and its rows down, from and to pinned memory. Every picture has
factors, boxes and a crop of its own, as training wants it; where a library does a whole batch at once with one draw a
picture (kornia), that is what is timed.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Job = Callable[[], Tensor]


def factor(i: int) -> float:
    """0.6 to 1.4."""
    return 0.6 + i % 17 * 0.05


def box(i: int, side: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of boxes of all sizes and places."""

    def at(k: int) -> int:
        return k * 37 % side

    (a, b), (c, d) = sorted([at(i), at(i + 5)]), sorted([at(3 * i + 1), at(5 * i + 2)])
    return a, c, b + 1 - a, d + 1 - c


class Data:
    """What a block is made from: clean rows and decoded pictures of 1 to 2 times their size, u8."""

    def __init__(self, batch: int, side: int, device: torch.device) -> None:
        self.batch, self.side, self.device = batch, side, device
        pin = device.type == "cuda"

        def noise(*shape: int) -> Tensor:
            made = torch.randint(0, 256, shape, dtype=torch.uint8)
            return made.pin_memory() if pin else made

        self.clean = noise(batch, 3, side, side)
        self.pictures = [noise(3, side + i * 53 % side, side + (3 * i + 1) * 53 % side) for i in range(batch)]

    def up(self) -> Tensor:
        """Clean rows where the work is done."""
        return self.clean.to(self.device, non_blocking=True)

    def decoded(self) -> list[Tensor]:
        """Decoded pictures where the work is done."""
        return [picture.to(self.device, non_blocking=True) for picture in self.pictures]

    def each(self, change: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Clean rows, changed one by one."""
        return torch.stack([change(i, row) for i, row in enumerate(self.up())])


def torchvision(data: Data) -> dict[str, Job]:
    """The jobs as torchvision v2 does them."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    side, labels = data.side, torch.zeros(data.batch, dtype=torch.int64, device=data.device)
    mixup, cutmix = v2.MixUp(num_classes=1000), v2.CutMix(num_classes=1000)

    def floats(rows: Tensor) -> Tensor:
        return F.to_dtype(rows, torch.float32, scale=True)

    def levels(rows: Tensor) -> Tensor:
        return F.to_dtype(rows, torch.uint8, scale=True)

    def crop(i: int, picture: Tensor) -> Tensor:
        # The whole picture: what a decoder that crops has left.
        made = F.resize(picture, [side, side], antialias=True)
        return F.horizontal_flip(made) if i % 2 else made

    def crops() -> Tensor:
        return torch.stack([crop(i, picture) for i, picture in enumerate(data.decoded())])

    def jitter(i: int, row: Tensor) -> Tensor:
        row = F.adjust_contrast(F.adjust_brightness(row, factor(i)), factor(i + 5))
        return F.adjust_hue(F.adjust_saturation(row, factor(i + 11)), 0.2 * (factor(i) - 1))

    def plan() -> Tensor:
        rows = torch.stack([jitter(i, crop(i, picture)) for i, picture in enumerate(data.decoded())])
        return F.normalize(mixup(floats(rows), labels)[0], MEAN, STD)

    return {
        "mixup_u8": lambda: levels(mixup(floats(data.up()), labels)[0]),
        "mixup_f32": lambda: mixup(floats(data.up()), labels)[0],
        "cutmix_u8": lambda: cutmix(data.up(), labels)[0],
        "normalize_f32": lambda: F.normalize(floats(data.up()), MEAN, STD),
        "crop_resize_flip": crops,
        "brightness": lambda: data.each(lambda i, row: F.adjust_brightness(row, factor(i))),
        "contrast": lambda: data.each(lambda i, row: F.adjust_contrast(row, factor(i))),
        "saturation": lambda: data.each(lambda i, row: F.adjust_saturation(row, factor(i))),
        "hue": lambda: data.each(lambda i, row: F.adjust_hue(row, factor(i) - 1)),
        "erase": lambda: data.each(
            lambda i, row: F.erase(
                row, *box(i, side), torch.zeros(3, 1, 1, dtype=torch.uint8, device=row.device)
            )
        ),
        "plan_u8": lambda: levels(mixup(floats(crops()), labels)[0]),
        "plan_jitter_f32": plan,
    }


def kornia(data: Data) -> dict[str, Job]:
    """The jobs as kornia does them, on floats."""
    import kornia.augmentation as K
    from kornia import enhance

    labels = torch.zeros(data.batch, dtype=torch.int64, device=data.device)
    factors = torch.tensor([factor(i) for i in range(data.batch)], device=data.device)
    mixup, cutmix = K.RandomMixUpV2(p=1.0), K.RandomCutMixV2(p=1.0)
    mean, std = (torch.tensor(values, device=data.device) for values in (MEAN, STD))

    def floats() -> Tensor:
        return data.up().float().div_(255)

    def levels(rows: Tensor) -> Tensor:
        return rows.mul_(255).round_().to(torch.uint8)

    return {
        "mixup_u8": lambda: levels(mixup(floats(), labels)[0]),
        "mixup_f32": lambda: mixup(floats(), labels)[0],
        "cutmix_u8": lambda: levels(cutmix(floats(), labels)[0]),
        "normalize_f32": lambda: enhance.normalize(floats(), mean, std),
        "brightness": lambda: levels(enhance.adjust_brightness_accumulative(floats(), factors)),
        "contrast": lambda: levels(enhance.adjust_contrast_with_mean_subtraction(floats(), factors)),
        "saturation": lambda: levels(enhance.adjust_saturation(floats(), factors)),
        "hue": lambda: levels(enhance.adjust_hue(floats(), (factors - 1) * 6.2831853)),
    }


LIBRARIES = {"torchvision": torchvision, "kornia": kornia}


def timed(job: Job, device: torch.device, runs: int) -> float:
    """Milliseconds until the rows are in this process's memory, of the fastest run: other work only adds."""
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        rows = job()
        if device.type == "cuda":
            rows.to("cpu", non_blocking=True)
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return min(times[1:])


def measured(
    library: str, device: str, batch: int, side: int, runs: int, only: list[str]
) -> dict[str, float]:
    """Milliseconds by op.

    Raises ImportError where the library is not installed.
    """
    place = torch.device(device)
    jobs = LIBRARIES[library](Data(batch, side, place))
    with torch.inference_mode():
        return {op: round(timed(job, place, runs), 3) for op, job in jobs.items() if not only or op in only}


def main() -> None:
    """Prints one JSON line, with `skipped` where the library is not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=sorted(LIBRARIES))
    parser.add_argument("--device", default="cpu", help="as PyTorch names it")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", metavar="OP,...")
    options = parser.parse_args()
    line: dict[str, object] = {
        "library": options.library,
        "device": options.device,
        "batch": options.batch,
        "side": options.side,
    }
    try:
        only = [op for op in options.only.split(",") if op]
        line["ms"] = measured(
            options.library, options.device, options.batch, options.side, options.runs, only
        )
    except ImportError as why:
        line["skipped"] = f"{options.library} is not installed: {why}"
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

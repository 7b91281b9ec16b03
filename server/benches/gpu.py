#!/usr/bin/env python3
"""Checks and timings of the libtorch executor on a machine with a GPU: `make bench-gpu` packs them, with this, into a folder.

Such a machine needs Python with PyTorch 2.11.0, no Rust and no network:

    python3 gpu-bench/gpu.py [--device cuda:0] [--out gpu.jsonl]

First the conformance tests run on the device, then every op and whole plans are timed at a batch of 256 and sides of 224 and
512. One JSON object a line; ratios above 1 are faster than the peer.

  gpu_conformance    tests that passed; a failure ends the run
  gpu_mix_vs_copy    copying as many bytes on the device as mixing moves, over mixing; worst op
  gpu_plan_vs_pcie   copying a plan's bytes up and down, over the whole plan (up, resample, mirror, mix, down), with the next
                     block staged meanwhile as a server does it; worst side
  gpu_vs_kornia      kornia's time over ours for the same job, median over ops
  gpu_vs_torchvision the same for torchvision v2

Everything takes at most 8 minutes: what is not begun by then is told as skipped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "packages"
LIMIT_S = 480
SIDES = (224, 512)
BATCH = 256
MIXES = ("mixup_u8", "mixup_f32", "cutmix_u8")
Line = dict[str, object]


class Clock:
    """What is left of the time."""

    def __init__(self) -> None:
        self.end = time.monotonic() + LIMIT_S

    def left(self) -> float:
        """Seconds, at least 1."""
        return max(1.0, self.end - time.monotonic())


def environment() -> dict[str, str]:
    """That of programs which need libtorch: where it is, asked of this Python. The peers' packages are found, too."""
    import torch

    lib = Path(torch.__file__).parent / "lib"
    more = {"LD_LIBRARY_PATH": lib, "PYTHONPATH": PACKAGES}
    return {**os.environ, **{name: f"{path}:{os.environ.get(name, '')}" for name, path in more.items()}}


def unpack() -> None:
    """Installs the wheels that were packed, without a network; what does not fit this Python will be told as skipped."""
    for wheel in sorted(HERE.glob("wheels/*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(PACKAGES),
        ]
        subprocess.run([*command, str(wheel)], check=False, capture_output=True, stdin=subprocess.DEVNULL)


def run(command: list[str], clock: Clock, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a program until it ends or the time does; raises `subprocess.TimeoutExpired` then."""
    return subprocess.run(
        command,
        check=False,
        env={**environment(), **more},
        capture_output=True,
        text=True,
        timeout=clock.left(),
        stdin=subprocess.DEVNULL,
    )


def lines(text: str) -> list[dict]:
    """The JSON objects in what a program printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def machine(device: str) -> Line:
    """What it ran on."""
    import torch

    line: Line = {"bench": "gpu_machine", "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.startswith("cuda"):
        line["device"] = torch.cuda.get_device_name(device)
    return line


def conformance(device: str, clock: Clock) -> Line:
    """The conformance tests on the device."""
    done = run([str(HERE / "conformance"), "exec::torch"], clock, MIXFEED_TORCH_DEVICE=device)
    found = re.search(r"test result: (\w+)\. (\d+) passed; (\d+) failed", done.stdout)
    if not found or found[1] != "ok" or found[2] == "0":
        sys.exit(f"the conformance tests failed on {device}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")
    return {"bench": "gpu_conformance", "value": int(found[2]), "unit": "tests"}


def ratios(ours: list[dict], device: str) -> Iterator[Line]:
    """Ours against copies of the same bytes."""
    mixing = {
        f"{one['op']}_{one['side']}": one["copy_inside_ms"] / one["mix_ms"]
        for one in ours
        if one["op"] in MIXES
    }
    rounded = {name: round(ratio, 3) for name, ratio in mixing.items()}
    yield {"bench": "gpu_mix_vs_copy", "ratio": min(rounded.values()), "device": device, "ops": rounded}
    plans = {
        str(one["side"]): round((one["copy_up_ms"] + one["copy_down_ms"]) / one["flow_ms"], 3)
        for one in ours
        if one["op"] == "plan_u8"
    }
    yield {"bench": "gpu_plan_vs_pcie", "ratio": min(plans.values()), "device": device, "sides": plans}


def against(library: str, ours: list[dict], device: str, clock: Clock) -> Line:
    """Ours against a library's time for the same jobs."""
    bench, found = f"gpu_vs_{library}", {}
    for side in SIDES:
        if clock.left() < 20:
            break
        command = [
            sys.executable,
            str(HERE / "device_ops.py"),
            library,
            "--device",
            device.replace("torch", "cpu"),
        ]
        command += ["--batch", str(BATCH), "--side", str(side), "--runs", "3"]
        try:
            done = run(command, clock)
        except subprocess.TimeoutExpired:
            break
        if not (made := lines(done.stdout)):
            return {
                "bench": bench,
                "skipped": (done.stderr.strip().splitlines() or ["it printed nothing"])[-1],
            }
        if "skipped" in made[0]:
            return {"bench": bench, "skipped": made[0]["skipped"]}
        own = {one["op"]: one["ms"] for one in ours if one["side"] == side}
        found |= {f"{op}_{side}": round(ms / own[op], 2) for op, ms in made[0]["ms"].items() if op in own}
    if not found:
        return {"bench": bench, "skipped": "no time was left"}
    return {"bench": bench, "ratio": round(median(found.values()), 2), "device": device, "ops": found}


def measured(device: str) -> Iterator[Line]:
    """All lines, in order."""
    clock = Clock()
    unpack()
    yield machine(device)
    yield conformance(device, clock)
    ours: list[dict] = []
    for side in SIDES:
        try:
            done = run([str(HERE / "torch"), device, str(BATCH), "11", str(side)], clock)
        except subprocess.TimeoutExpired:
            sys.exit(f"the bench was not done with {side} x {side} when the time was over")
        if done.returncode != 0:
            sys.exit(f"the bench failed on {device}:\n{done.stderr[-4000:]}")
        ours += lines(done.stdout)
    yield from ({"bench": "gpu_op", **one} for one in ours)
    yield from ratios(ours, device)
    for library in ("torchvision", "kornia"):
        yield against(library, ours, device, clock)


def main() -> None:
    """Prints the lines and writes them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="cuda:0", help="`torch` is libtorch on the processor, to try the script"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    options = parser.parse_args()
    with options.out.open("w") as out:
        for line in measured(options.device):
            print(json.dumps(line), flush=True)
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

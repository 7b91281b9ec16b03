#!/usr/bin/env python3
"""Runs every bench and writes bench.jsonl: one object a line, with "ratio", "value" and "unit", or "skipped".

Ratios above 1 are faster than the peer. The image job is run as a user runs it, `mixfeed serve` and a client as two
processes on all cores, and its runs alternate with those of the peers, so that other work on the machine meets all of
them; figures are medians over the rounds.

  wire_vs_tcp, wire_vs_tonic        a batch over loopback, against plain TCP and tonic's codec (wire.rs)
  wire_gb_per_s                     the same in GB/s
  mixup_vs_memcpy, cutmix_vs_memcpy mixing against copying the bytes it moves (exec.rs)
  images_vs_PEER                    JPEG files to mixed batches of 256 x 3 x 224 x 224, samples/s (image_loaders.py)
  images_vs_decode                  the same against decoding alone, one bare decoder a core (decode.rs)
  tokens_per_s, tokens_vs_torch     rows of 1,024 tokens from one raw file, tokens/s (token_loaders.py)
  points_vs_numpy                   scenes to unions with voxels, scenes/s (point_loaders.py)
  points_elastic_vs_numpy           the same with elastic distortion
  tokenize_vs_library               text to a token cache, against the encoder alone on all cores (tokenize.rs)
  torchcpu_vs_torchvision           the libtorch executor on the processor against torchvision v2, the same jobs of 64 pictures of
                                    224 x 224 and 512 x 512: median of the ops' ratios (torch.rs, device_ops.py); GPU: gpu.py
  seek_ms                           a process just started: the position of every slot of step 10,000,000 (seek.rs)
  estimator_64_ms                   64 groups and tasks: from complete evidence to the next directive, slowest method
  estimator_tikmix_m_ms             the same for TiKMiX-M, whose search runs once per stage (estimate.rs)
  estimator_lsq_128_ms              the same for Aioli's least squares at 128 groups
  estimator_1000_ms                 1,000 groups: slowest method that solves no system
  log_cost                          reports, log and state of a job that learns, % of streaming, CPU time (log.rs)
  good_client_under_attack          a client beside 500 idle or slow attackers, against the same client alone (attack.rs)
  python_vs_rust                    large batches into torch tensors by the package, against the Rust client alone
  python_vs_grpcio                  the same against gRPC's stubs with the same reassembly (peers/package_loaders.py)
  python_gil                        a counting thread: its slowdown beside the package's loader, over that beside the Rust
                                    client in another process at the same rate
  first_batch_ms                    a server just started: from OpenJob to the first batch of 256
  first_batch_far_ms                the same at step 10,000,000
  rss_growth_mib                    resident memory of the server: growth over the later 9,000 of 10,000 batches
  rss_stalled_mib                   resident memory while a client has stopped reading
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE / "peers"))

from environment import Unavailable, python  # noqa: E402
from package import package  # noqa: E402
from served import POINTS, TOKENS, Server  # noqa: E402

PROGRAM = ROOT / "target/release/mixfeed"
DATA = ROOT / "bench-data"
FAR = 10_000_000
CORES = len(os.sched_getaffinity(0))
# Bench name -> (packages, name in image_loaders.py).
PEERS = {
    "images_vs_dali": ("dali", "dali"),
    "images_vs_torchvision": ("torchvision", "torch-jpeg"),
    "images_vs_tfdata": ("tfdata", "tfdata"),
}
PEER_SECONDS = 300
SEQ_LEN, FILE_TOKENS = 1024, 64 << 20


def pictures():
    """Folder of the photographs, made when it is not there."""
    if not (DATA / "jpegs/complete").exists():
        maker = python(ROOT, "pictures")
        subprocess.run([HERE / "peers/get_images.sh", DATA], check=True, env={**os.environ, "PYTHON": str(maker)})
    return DATA / "jpegs/train"


def cargo(bench, *arguments, copies=1, features=(), env=None):
    """Outputs of a bench program of the server crate, run as `copies` processes at once; `env` is added to the environment."""
    if not (HERE / f"{bench}.rs").exists():
        raise Unavailable(f"server/benches/{bench}.rs is not there")
    command = ["cargo", "bench", "--quiet", "-p", "mixfeed-server", "--bench", bench]
    command += [argument for feature in features for argument in ("--features", feature)]
    env = {**os.environ, **(env or {})}
    built = subprocess.run([*command, "--no-run"], cwd=ROOT, stdin=subprocess.DEVNULL, env=env)
    if built.returncode != 0:
        raise Unavailable(f"{bench} does not compile")
    command += ["--", *map(str, arguments)]
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, "env": env}
    running = [subprocess.Popen(command, cwd=ROOT, **piped) for _ in range(copies)]
    outputs = [program.communicate()[0] for program in running]
    if any(program.returncode != 0 for program in running):
        raise Unavailable(f"{bench} failed")
    return outputs


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def finished(program, *needs):
    """A group of benches whose program prints their lines itself; `needs` make its arguments."""

    def run(wanted, _):
        (text,) = cargo(program, *(need() for need in needs))
        found = {line["bench"]: line for line in json_lines(text) if "bench" in line}
        for bench in wanted:
            yield found.get(bench, {"bench": bench, "skipped": f"{program}.rs printed no such line"})

    return run


def ours(options):
    with Server(PROGRAM, pictures()) as server:
        return server.pull("images", options.batches, warmup=4)["samples_per_s"]


def loader(packages, name, options):
    """Samples a second of a peer."""
    command = [python(ROOT, packages), HERE / "peers/image_loaders.py", pictures(), "--peers", name]
    return peer([*command, "--batches", str(options.batches)])["samples_per_s"]


def peer(command):
    """What a peer prints."""
    command = [*command, "--workers", str(CORES)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PEER_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no result within {PEER_SECONDS} s") from None
    found = json_lines(done.stdout)
    if not found:
        raise Unavailable((done.stderr.strip().splitlines() or ["it printed nothing"])[-1])
    if "skipped" in found[0]:
        raise Unavailable(found[0]["skipped"])
    return found[0]


def bare_decode():
    """Random crops a second of one bare decoder on every core, all at once."""
    texts = cargo("decode", pictures(), copies=CORES)
    return sum(float(re.search(r"random crops +([0-9.]+) /s", text)[1]) for text in texts)


def images(wanted, options):
    """Rounds of the image job and of its peers, one run after the other."""
    runs = {"ours": lambda: ours(options), "images_vs_decode": bare_decode}
    for bench, (packages, name) in PEERS.items():
        runs[bench] = lambda packages=packages, name=name: loader(packages, name, options)
    rates, skipped = {name: [] for name in ("ours", *wanted)}, {}
    for number in range(options.rounds):
        for name in rates:
            if name in skipped:
                continue
            try:
                rates[name].append(runs[name]())
                print(f"round {number + 1}: {name}: {rates[name][-1]:.0f} samples/s", file=sys.stderr, flush=True)
            except Unavailable as why:
                skipped[name] = str(why)
    own = median(rates["ours"])
    for bench in wanted:
        if bench in skipped:
            yield {"bench": bench, "skipped": skipped[bench]}
            continue
        rate = median(rates[bench])
        yield {
            "bench": bench,
            "ratio": round(own / rate, 3),
            "peer": bench.removeprefix("images_vs_"),
            "samples_per_s": round(own, 1),
            "peer_samples_per_s": round(rate, 1),
            "rounds": options.rounds,
        }


def token_file():
    """A raw file of 16-bit ids, made when it is not there."""
    DATA.mkdir(exist_ok=True)
    command = [python(ROOT, "torchvision"), HERE / "peers/token_loaders.py", DATA / "tokens.bin"]
    subprocess.run([*command, "--make", str(FILE_TOKENS)], check=True)
    return DATA / "tokens.bin"


def tokens(wanted, options):
    """Rounds of the token job and of its peer, one run after the other."""
    file, own, theirs = token_file(), [], []
    batches = options.batches * 5  # the peer stops after an epoch of 128
    command = [python(ROOT, "torchvision"), HERE / "peers/token_loaders.py", file, "--batches", str(batches)]
    for number in range(options.rounds):
        with Server(PROGRAM, file, TOKENS) as server:
            own.append(server.pull("tokens", 15 * batches, warmup=16)["samples_per_s"] * SEQ_LEN)
        if "tokens_vs_torch" in wanted:
            theirs.append(peer(command)["tokens_per_s"])
        print(f"round {number + 1}: ours {own[-1]:.0f} tokens/s, torch {theirs[-1:]}", file=sys.stderr, flush=True)
    rate, more = median(own), {"rounds": options.rounds}
    lines = {"tokens_per_s": {"value": round(rate), "unit": "tokens/s", **more}}
    if theirs:
        ratio = round(rate / median(theirs), 3)
        facts = {"tokens_per_s": round(rate), "peer_tokens_per_s": round(median(theirs))}
        lines["tokens_vs_torch"] = {"ratio": ratio, "peer": "PyTorch DataLoader", **facts, **more}
    yield from ({"bench": bench, **lines[bench]} for bench in wanted)


def torch_environment():
    """What cargo and programs with the libtorch executor need to find libtorch."""
    venv = ROOT / ".venv-torch"
    libraries = sorted(venv.glob("lib/python3*/site-packages/torch/lib"))
    if not (venv / "ready").exists() or not libraries:
        raise Unavailable("there is no libtorch: run `make test-torch` first")
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "LIBTORCH_USE_PYTORCH": "1", "LD_LIBRARY_PATH": str(libraries[0])}


def torch_ops(wanted, options):
    """Rounds of every op at both sizes by libtorch on the processor and by torchvision, one after the other."""
    env, ours, theirs = torch_environment(), {}, {}
    sides, batch, runs = ([224], 16, 3) if options.quick else ([224, 512], 64, 5)
    for number in range(options.rounds):
        for side in sides:
            (text,) = cargo("torch", "torch", batch, runs, side, features=["libtorch"], env=env)
            for line in json_lines(text):
                ours.setdefault(f"{line['op']}_{side}", []).append(line["ms"])
            command = [python(ROOT, "torchvision"), HERE / "peers/device_ops.py", "torchvision", "--batch", str(batch)]
            command += ["--side", str(side), "--runs", str(runs)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            found = json_lines(done.stdout)
            if not found or "ms" not in found[0]:
                why = found[0]["skipped"] if found else (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
                raise Unavailable(why)
            for op, ms in found[0]["ms"].items():
                theirs.setdefault(f"{op}_{side}", []).append(ms)
            print(f"round {number + 1}: ops at {side} x {side}", file=sys.stderr, flush=True)
    ratios = {op: round(min(theirs[op]) / min(ms), 2) for op, ms in ours.items() if op in theirs}
    facts = {"batch": batch, "threads": CORES, "ops": ratios, "rounds": options.rounds}
    for bench in wanted:
        yield {"bench": bench, "ratio": round(median(ratios.values()), 2), "peer": "torchvision v2", **facts}


def scene_folder():
    """Scenes of about 100,000 points from real tiles, made when they are not there."""
    maker = python(ROOT, "points")
    subprocess.run([HERE / "peers/get_points.sh", DATA], check=True, env={**os.environ, "PYTHON": str(maker)})
    command = [maker, HERE / "peers/point_loaders.py", DATA / "scenes", "--make", DATA / "points"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return DATA / "scenes"


def points(wanted, options):
    """Rounds of both jobs of scenes and of their peers, one run after the other."""
    folder, rates = scene_folder(), {bench: ([], []) for bench in wanted}
    # Seconds each: in a shorter pull the first batches, for which memory is new, count for much.
    batches = scenes = 8 * options.batches
    for number in range(options.rounds):
        for bench, (own, theirs) in rates.items():
            job, flags = ("elastic", []) if bench == "points_elastic_vs_numpy" else ("plain", ["--no-elastic"])
            with Server(PROGRAM, folder, POINTS) as server:
                # A row is a union of two scenes.
                own.append(2 * server.pull(job, batches, warmup=4)["samples_per_s"])
            command = [python(ROOT, "points"), HERE / "peers/point_loaders.py", folder, *flags]
            theirs.append(peer([*command, "--scenes", str(scenes)])["scenes_per_s"])
            print(f"round {number + 1}: {bench}: {own[-1]:.1f} and {theirs[-1]:.1f} scenes/s", file=sys.stderr, flush=True)
    for bench, (own, theirs) in rates.items():
        facts = {"scenes_per_s": round(median(own), 1), "peer_scenes_per_s": round(median(theirs), 1)}
        ratio = round(median(own) / median(theirs), 2)
        yield {"bench": bench, "ratio": ratio, "peer": "NumPy and SciPy", **facts, "rounds": options.rounds}


def latency(wanted, options):
    """Each run has a server of its own."""
    steps = {"first_batch_ms": 0, "first_batch_far_ms": FAR}
    for bench in wanted:
        times = []
        for _ in range(options.rounds):
            with Server(PROGRAM, pictures()) as server:
                times.append(server.pull("images", 1, from_step=steps[bench])["first_batch_ms"])
        yield {"bench": bench, "value": round(median(times), 1), "unit": "ms", "rounds": options.rounds}


def memory(wanted, options):
    """One server; many small batches, the first tenth of them for warming up; then a client that stops reading."""
    batches = 500 if options.quick else 10_000
    with Server(PROGRAM, pictures()) as server:
        server.pull("images", 20)
        server.pull("small", batches // 10)
        early = server.memory("VmRSS")
        server.pull("small", batches - batches // 10, from_step=batches // 10)
        late, most = server.memory("VmRSS"), server.memory("VmHWM")
        facts = {"start_mib": round(early, 1), "end_mib": round(late, 1), "peak_mib": round(most, 1), "batches": batches}
        values = {"rss_growth_mib": (late - early, facts)}
        if "rss_stalled_mib" in wanted:
            values["rss_stalled_mib"] = (server.stall("images", 4), {"idle_mib": round(late, 1)})
    for bench in wanted:
        value, more = values[bench]
        yield {"bench": bench, "value": round(value, 1), "unit": "MiB", **more}


# Functions with the benches that they run.
GROUPS = [
    (finished("exec"), ["mixup_vs_memcpy", "cutmix_vs_memcpy"]),
    (finished("wire"), ["wire_vs_tcp", "wire_vs_tonic", "wire_gb_per_s"]),
    (images, ["images_vs_torchvision", "images_vs_dali", "images_vs_tfdata", "images_vs_decode"]),
    (tokens, ["tokens_per_s", "tokens_vs_torch"]),
    (points, ["points_vs_numpy", "points_elastic_vs_numpy"]),
    (finished("tokenize"), ["tokenize_vs_library"]),
    (torch_ops, ["torchcpu_vs_torchvision"]),
    (finished("seek", pictures), ["seek_ms"]),
    (finished("estimate"), ["estimator_64_ms", "estimator_tikmix_m_ms", "estimator_lsq_128_ms", "estimator_1000_ms"]),
    (finished("log"), ["log_cost"]),
    (finished("attack"), ["good_client_under_attack"]),
    (package, ["python_vs_rust", "python_vs_grpcio", "python_gil"]),
    (latency, ["first_batch_ms", "first_batch_far_ms"]),
    (memory, ["rss_growth_mib", "rss_stalled_mib"]),
]
NAMES = [name for _, names in GROUPS for name in names]


def measured(only, options):
    for run, names in GROUPS:
        wanted = [name for name in names if name in only]
        if not wanted:
            continue
        try:
            yield from run(wanted, options)
        except Unavailable as why:
            yield from ({"bench": name, "skipped": str(why)} for name in wanted)


def shown(line):
    if "skipped" in line:
        return f"{line['bench']:<22} skipped: {line['skipped']}"
    what = f"{line['ratio']:.2f} x" if "ratio" in line else f"{line['value']:.1f} {line['unit']}"
    rest = "  ".join(f"{k}={v}" for k, v in line.items() if k not in ("bench", "ratio", "value", "unit", "peer"))
    return f"{line['bench']:<22} {what:>12}   {rest}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES), metavar="NAME,...", help="run these benches only")
    parser.add_argument("--quick", action="store_true", help="one short round; for checking, not for quoting")
    parser.add_argument("--out", type=Path, default=ROOT / "bench.jsonl")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = sorted(set(options.only) - set(NAMES))
    if unknown:
        parser.error(f"no bench `{unknown[0]}`, want some of {', '.join(NAMES)}")
    options.rounds, options.batches = (1, 8) if options.quick else (3, 24)
    return options


def main():
    options = arguments()
    if not PROGRAM.exists():
        sys.exit("target/release/mixfeed is not there: run `make build` first")
    with options.out.open("w") as out:
        for line in measured(options.only, options):
            print(shown(line), flush=True)
            out.write(json.dumps(line) + "\n")
            out.flush()


if __name__ == "__main__":
    main()

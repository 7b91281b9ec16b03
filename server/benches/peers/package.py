"""Benches of the Python package: its loader, the Rust client alone and gRPC's stubs on one server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from environment import Unavailable, python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LOADERS = HERE / "package_loaders.py"
JOB = "wire"


def built(*arguments):
    """The program that cargo makes."""
    command = ["cargo", *arguments, "--message-format=json"]
    made = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    programs = [
        json.loads(line).get("executable") for line in made.stdout.splitlines() if line.startswith("{")
    ]
    programs = [program for program in programs if program]
    if made.returncode != 0 or not programs:
        raise Unavailable(f"cargo {' '.join(arguments)} failed")
    return programs[-1]


def interpreter():
    """Python with torch, tools for stubs and this package; MIXFEED_BENCH_PYTHON names one that has them."""
    found = python(ROOT, "package")
    if found.is_relative_to(ROOT / ".venv-bench"):
        # pip does not look for maturin in a place of its own, and cargo finds what is built already.
        command = [
            found,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-build-isolation",
        ]
        environment = {**os.environ, "PATH": f"{found.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            [*command, ROOT / "client/python"], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Unavailable((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return found


class Program:
    """A process that is told things line by line and answers so."""

    def __init__(self, *command):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.name, self.process = str(command[0]), subprocess.Popen(list(map(str, command)), **pipes)

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            raise Unavailable(f"`{self.name}` ended with {self.process.wait()}")
        return json.loads(text)

    def ask(self, text):
        print(text, file=self.process.stdin, flush=True)
        return self.line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def package(wanted, options, server=None, drain=None):
    """Yields the lines of `wanted`; `server` and `drain` are programs that are built already."""
    found = interpreter()
    server = server or built("bench", "-p", "mixfeed-server", "--bench", "wire", "--no-run")
    drain = drain or built("build", "--release", "-p", "mixfeed-client", "--example", "drain")
    with Program(server, "--serve", "ours") as serving:
        endpoint = f"http://127.0.0.1:{serving.line()}"
        readers = {"rust": [drain, endpoint, JOB, 0]}
        if {"python_vs_rust", "python_vs_grpcio"} & set(wanted):
            readers["package"] = [found, LOADERS, "mixfeed", endpoint, JOB]
            if "python_vs_grpcio" in wanted:
                readers["grpcio"] = [found, LOADERS, "grpcio", endpoint, JOB]
            yield from _speed(wanted, readers, options)
        if "python_gil" in wanted:
            windows = ["--windows", 3 if options.quick else 16]
            with Program(found, LOADERS, "count", endpoint, JOB, "--drain", drain, *windows) as counting:
                yield _gil(counting.line())


def _speed(wanted, readers, options):
    """Readers take turns on one server; ratios are medians of those within a round."""
    rounds, batches = (2, 10) if options.quick else (9, 30)
    programs = {name: Program(*command) for name, command in readers.items()}
    read = {name: [] for name in readers}
    try:
        for program in programs.values():
            program.ask(2)  # connects, imports
        for number in range(rounds):
            # There and back: it is not always the same one that comes after the stubs, which receive on.
            for name in list(programs)[:: -1 if number % 2 else 1]:
                read[name].append(programs[name].ask(batches))
                rate = batches / read[name][-1]["seconds"]
                print(f"round {number + 1}: {name}: {rate:.1f} batches/s", file=sys.stderr, flush=True)
    finally:
        for program in programs.values():
            program.__exit__()
    rates = {name: [one["batches"] / one["seconds"] for one in done] for name, done in read.items()}
    costs = {
        name: median(1e9 * one["cpu_seconds"] / one["bytes"] for one in done) for name, done in read.items()
    }
    for bench, peer in (("python_vs_rust", "rust"), ("python_vs_grpcio", "grpcio")):
        if bench not in wanted:
            continue
        ratio = median(own / other for own, other in zip(rates["package"], rates[peer], strict=True))
        yield {
            "bench": bench,
            "ratio": round(ratio, 3),
            "peer": {"rust": "the Rust client alone", "grpcio": "grpcio with stubs"}[peer],
            "batches_per_s": round(median(rates["package"]), 2),
            "peer_batches_per_s": round(median(rates[peer]), 2),
            "cpu_s_per_gb": round(costs["package"], 3),
            "peer_cpu_s_per_gb": round(costs[peer], 3),
            "rounds": rounds,
        }


def _gil(counted):
    """How much more a thread is slowed by the package beside it than by the Rust client elsewhere."""
    counts = counted["counts_per_s"]
    ratio = median(rust / own for rust, own in zip(counts["rust"], counts["package"], strict=True))
    slow = {
        name: median(a / b for a, b in zip(counts["alone"], counts[name], strict=True))
        for name in ("package", "rust")
    }
    return {
        "bench": "python_gil",
        "value": round(ratio, 3),
        "unit": "slowdown / slowdown",
        "slowdown": round(slow["package"], 3),
        "peer_slowdown": round(slow["rust"], 3),
        "batches_per_s": round(counted["batches"] / median(counted["seconds"]["package"]), 2),
        "peer_batches_per_s": round(counted["batches"] / median(counted["seconds"]["rust"]), 2),
        "windows": len(counts["rust"]),
    }

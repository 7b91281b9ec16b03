#!/usr/bin/env python3
"""Readers of one stream of large batches into torch tensors: the Python package, or what a user of gRPC would
write with stubs; and a counting thread beside the package or beside the Rust client in another process.

usage: package_loaders.py mixfeed|grpcio ENDPOINT JOB
  Every line on stdin is a number of batches to read as fast as they come, after those that lie ready. The
  answer is a line of JSON: batches, bytes, seconds, cpu_seconds. client/examples/drain.rs does the same.
usage: package_loaders.py count ENDPOINT JOB --drain PROGRAM [--windows 8] [--seconds 2] [--per-second 10]
  Prints one JSON line: counts a second alone, beside the Rust client and beside the package, by window.

The stubs' reader puts chunks into torch tensors as they come, copying each byte once, and does not check the
batches' checksums, which the package and the Rust client do.
"""

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
READY = 4


def package(endpoint, job):
    """Batches as dicts of torch tensors, by the package."""
    import mixfeed

    loader = mixfeed.Loader(endpoint, job, arrays="torch")
    for batch in loader:
        yield {name: batch[name] for name in batch}


def stubs():
    """Modules that grpc_tools makes of proto/."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="mixfeed-stubs-")
    files = sorted(
        str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/mixfeed/v1").glob("*.proto")
    )
    arguments = [f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *arguments, *files]) != 0:
        sys.exit("protoc refused proto/")
    # The package has the name that the stubs' folder has; without this file it would be found instead.
    Path(out, "mixfeed/__init__.py").touch()
    sys.path.insert(0, out)
    from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, job_pb2

    return feed_service_pb2, feed_service_pb2_grpc, job_pb2


def grpcio(endpoint, job):
    """Batches as dicts of torch tensors, by stubs."""
    import grpc
    import torch

    messages, service, jobs = stubs()
    dtypes = {
        jobs.DTYPE_U8: torch.uint8,
        jobs.DTYPE_F32: torch.float32,
        jobs.DTYPE_F64: torch.float64,
        jobs.DTYPE_I32: torch.int32,
        jobs.DTYPE_I64: torch.int64,
        jobs.DTYPE_U32: torch.int32,
        jobs.DTYPE_U64: torch.int64,
    }
    channel = grpc.insecure_channel(
        endpoint.removeprefix("http://"), [("grpc.max_receive_message_length", -1)]
    )
    stub = service.FeedServiceStub(channel)
    stub.OpenJob(messages.OpenJobRequest(job=job))
    tensors, bytes_of = {}, []
    for part in stub.StreamBatches(messages.StreamBatchesRequest(job=job, world_size=1)):
        kind = part.WhichOneof("part")
        if kind == "chunk":
            chunk = part.chunk
            bytes_of[chunk.tensor][chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        elif kind == "header":
            tensors = {
                t.name: torch.empty(tuple(t.shape), dtype=dtypes[t.dtype]) for t in part.header.tensors
            }
            bytes_of = [memoryview(tensor.numpy()).cast("B") for tensor in tensors.values()]
        elif kind == "end":
            yield tensors


def read(batches, count, per_second=0.0):
    """Reads `count` batches, the k-th not before k / `per_second` seconds; their bytes."""
    begun, size = time.perf_counter(), 0
    for number in range(count):
        if per_second:
            time.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
        size += sum(tensor.nbytes for tensor in next(batches).values())
    return size


def serve_reads(batches):
    for line in sys.stdin:
        count = int(line)
        read(batches, READY)
        begun, cpu = time.perf_counter(), time.process_time()
        size = read(batches, count)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        print(
            json.dumps({"batches": count, "bytes": size, "seconds": seconds, "cpu_seconds": cpu}), flush=True
        )


class Beside:
    """The package's loader in a thread of this process."""

    def __init__(self, args):
        self.asked, self.done = queue.Queue(), queue.Queue()
        self.batches, self.per_second = package(args.endpoint, args.job), args.per_second
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            count = self.asked.get()
            begun = time.perf_counter()
            read(self.batches, count, self.per_second)
            self.done.put(time.perf_counter() - begun)

    def begin(self, count):
        self.asked.put(count)

    def end(self):
        return self.done.get()


class Apart:
    """The Rust client in a process of its own."""

    def __init__(self, args):
        command = [args.drain, args.endpoint, args.job, str(args.per_second)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, count):
        print(count, file=self.process.stdin, flush=True)

    def end(self):
        return json.loads(self.process.stdout.readline())["seconds"]


class Alone:
    """Nothing."""

    def begin(self, count):
        pass

    def end(self):
        return 0.0


def counted(seconds):
    """Additions a second of a loop of Python."""
    begun, number = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(1000):
            number += 1
    return number / (time.perf_counter() - begun)


def count(args):
    sides = {"package": Beside(args), "alone": Alone(), "rust": Apart(args)}
    batches = round(args.seconds * args.per_second)
    found = {name: [] for name in sides}
    took = {name: [] for name in sides}
    for window in range(-1, args.windows):  # one to warm up
        order = list(sides) if window % 2 else list(reversed(sides))
        for name in order:
            sides[name].begin(batches)
            rate = counted(args.seconds)
            seconds = sides[name].end()
            if window >= 0:
                found[name].append(rate)
                took[name].append(seconds)
    sides["rust"].process.stdin.close()
    sides["rust"].process.wait()
    print(json.dumps({"counts_per_s": found, "seconds": took, "batches": batches}), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reader", choices=["mixfeed", "grpcio", "count"])
    parser.add_argument("endpoint")
    parser.add_argument("job")
    parser.add_argument("--drain")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--per-second", type=float, default=10.0)
    args = parser.parse_args()
    if args.reader == "count":
        count(args)
    else:
        serve_reads((package if args.reader == "mixfeed" else grpcio)(args.endpoint, args.job))


if __name__ == "__main__":
    main()

"""Makes docs/status.png anew: the status page on a phone and on a desk, of a server with trainers of three kinds.

    MIXFEED=target/debug/mixfeed .venv-deploy/bin/python deploy/tests/page_picture.py [FILE]
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import conftest

conftest.pytest_configure()

import grpc  # noqa: E402, the stubs are made first
from browser import Mirror, screenshot  # noqa: E402
from load import CONFIG, Learner  # noqa: E402
from mixfeed.v1 import (  # noqa: E402
    feed_service_pb2,
    feed_service_pb2_grpc,
    mixture_service_pb2,
    mixture_service_pb2_grpc,
)
from watched import get, until  # noqa: E402

#: Seconds that trainers run before the picture is taken.
RUN = 100
PHONE, DESK, HEIGHT, SCALE = 360, 1100, 1500, 0.7
#: Ranks of the job of pictures, and seconds that one of their steps takes.
RANKS, STEP = 1, 0.8


class Paced:
    """A sign to stop that takes its time: every part of a batch that a trainer looks at costs a little."""

    def __init__(self, seconds):
        self.stop, self.seconds = threading.Event(), seconds

    def is_set(self):
        return self.stop.wait(self.seconds)


def train(channel, job, rank, stop):
    """Takes a batch, works, and says now and then how it spent its time."""
    feed = feed_service_pb2_grpc.FeedServiceStub(channel)
    mixture = mixture_service_pb2_grpc.MixtureServiceStub(channel)
    request = feed_service_pb2.StreamBatchesRequest(job=job, rank=rank, world_size=RANKS)
    waited, told, steps = 0.0, time.monotonic(), 0
    since = time.monotonic()
    for part in feed.StreamBatches(request):
        if part.WhichOneof("part") != "end":
            continue
        waited += time.monotonic() - since
        steps += 1
        if stop.wait(STEP):
            return
        if steps % 5 == 0:
            now = time.monotonic()
            stats = mixture_service_pb2.ReportStatsRequest(
                job=job,
                rank=rank,
                world_size=RANKS,
                wait_seconds=waited,
                active_seconds=max(0.0, now - told - waited),
                steps=5,
                next_step=steps,
            )
            mixture.ReportStats(stats)
            waited, told = 0.0, now
        since = time.monotonic()


def steer(channel):
    """An operator who changes the weights of the pictures twice while trainers run."""
    mixture = mixture_service_pb2_grpc.MixtureServiceStub(channel)
    for weights in ([3, 1, 2, 2, 1, 1], [1, 3, 1, 1, 2, 4]):
        time.sleep(RUN / 3)
        request = mixture_service_pb2.SetWeightsRequest(job="pictures", weights=weights, operator="eve")
        mixture.SetWeights(request)
    time.sleep(RUN / 3)


def serve(program, folder):
    """A server on the data of the demo; its process and addresses."""
    demo, ready = conftest.ROOT / "demo-data", folder / "ready.json"
    shutil.copytree(demo / "photos", folder / "photos")
    config = CONFIG.format(demo=demo).replace('name = "mixup"', 'name = "cutmix" }, { name = "mixup"')
    (folder / "mixfeed.toml").write_text(config)
    process = subprocess.Popen(
        [program, "serve", "--config", "mixfeed.toml", "--ready-file", ready], cwd=folder, stderr=subprocess.DEVNULL
    )
    until("the server does not start", ready.exists)
    return process, json.loads(ready.read_text())


def main(file):
    program = conftest.find_program()
    with tempfile.TemporaryDirectory(prefix="mixfeed-page-") as folder:
        process, addresses = serve(program, Path(folder))
        channel = grpc.insecure_channel(addresses["grpc"][0].removeprefix("http://"))
        stop, paced = threading.Event(), Paced(0.01)
        threads = [threading.Thread(target=train, args=(channel, "pictures", rank, stop)) for rank in range(RANKS)]
        threads.append(threading.Thread(target=lambda: Learner(channel).run(paced)))
        [thread.start() for thread in threads]
        try:
            steer(channel)
            until("no rows were shown", lambda: 'class="thumbs"' in get(f"{addresses['http']}/jobs/pictures"))
            with Mirror(addresses["http"]) as mirror:
                frames = ("/?still", PHONE, HEIGHT), ("/jobs/pictures?still", DESK, HEIGHT)
                address = mirror.frame("both", *frames)
                screenshot(address, file, PHONE + DESK + 16, HEIGHT, scale=SCALE)
        finally:
            stop.set()
            paced.stop.set()
            [thread.join() for thread in threads]
            process.terminate()
            process.wait()
    print(f"wrote {file}, {Path(file).stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else conftest.ROOT / "docs/status.png")

"""The real program on free ports, started and stopped as an operator would."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("MIXFEED") or ROOT / "target/debug/mixfeed")
CONFIG = """
[server]
listen = ["{listen}"]
http = "127.0.0.1:0"
max_jobs = 500
{server}

[sources.photos]
kind = "folder"
path = {photos}

[sources.texts]
kind = "text"
path = {texts}
tokenizer = "bytes"
documents = "paragraph"
groups = "shard"

[sources.tiles]
kind = "points"
path = {tiles}
tile = {{ block = 60.0, stride = 30.0, min_points = 1000 }}
"""
SECONDS_TO_START = 120
SECONDS_TO_STOP = 60


def wait_until(condition, seconds=60, what="the condition"):
    """Polls until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.01)
    return value


class Server:
    """A running `mixfeed serve`. `listen` of port 0 takes a free one, and the same one when it is started again."""

    def __init__(self, folder, server="", listen="127.0.0.1:0"):
        self.folder, self.server, self.listen = Path(folder), server, listen
        self.process = None

    def start(self):
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        of = {"photos": "photos", "texts": "text", "tiles": "points"}
        data = {name: json.dumps(str(ROOT / "demo-data" / folder)) for name, folder in of.items()}
        config = self.folder / "mixfeed.toml"
        config.write_text(CONFIG.format(listen=self.listen, server=self.server, **data))
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--config", config, "--ready-file", ready],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready.exists():
            try:
                code = self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, self.log()
            else:
                raise AssertionError(f"exit code {code}: {self.log()}")
        self.endpoint = json.loads(ready.read_text())["grpc"][0]
        self.listen = self.endpoint.split("//")[1]
        return self

    def log(self):
        return (self.folder / "stderr").read_text()

    def terminate(self):
        """Asks it to stop, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.terminate()
        assert self.process.wait(SECONDS_TO_STOP) == 0, self.log()

    def kill(self):
        self.process.kill()
        self.process.wait(SECONDS_TO_STOP)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process.poll() is not None:
            return
        try:
            self.stop()
        finally:
            self.process.kill()

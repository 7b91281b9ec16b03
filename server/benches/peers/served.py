"""`mixfeed serve` and `mixfeed pull` as two processes on the same cores."""

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http = ""

[sources.photos]
kind = "folder"
path = {folder}

[jobs.images]
seed = 1
global_batch = 256
groups = [{{ group = "photos" }}]
image = {{ height = 224, width = 224, random_resized_crop = {{}}, horizontal_flip = 0.5 }}
mix = {{ policies = [{{ name = "mixup" }}, {{ name = "cutmix" }}] }}
output = {{ dtype = "u8", layout = "nchw" }}

[jobs.small]
seed = 1
global_batch = 16
mix_block = 16
groups = [{{ group = "photos" }}]
image = {{ height = 48, width = 64, random_resized_crop = {{}} }}
mix = {{ policies = [{{ name = "mixup" }}, {{ name = "fmix" }}] }}
"""
# Rows of 1,024 tokens from one raw file of 16-bit ids, whose documents end with 50256.
TOKENS = """
[server]
listen = ["127.0.0.1:0"]
http = ""

[sources.tokens]
kind = "tokens"
path = {folder}
eod = 50256

[jobs.tokens]
seed = 1
global_batch = 512
groups = [{{ group = "tokens" }}]
tokens = {{ seq_len = 1024, packing = "concat" }}
"""
# The peer's steps on the peer's scenes: unions of neighbours of 8 scenes a batch.
POINTS = """
[server]
listen = ["127.0.0.1:0"]
http = ""
memory = "3GiB"
prefetch = "512MiB"

[sources.scenes]
kind = "points"
path = {folder}

[jobs.plain]
seed = 1
global_batch = 8
mix_block = 8
groups = [{{ group = "scenes" }}]
mix = {{ policies = [{{ name = "mix3d" }}], granularity = "half", pairing = "consecutive" }}

[jobs.plain.points]
max_points = 1000000
features = ["color"]
shift = true
flip_x = 0.5
flip_y = 0.5
scale = [0.9, 1.1]
rotate_z = [-3.141592653589793, 3.141592653589793]
tilt = [-0.1308996938995747, 0.1308996938995747]
color = {{ brightness = 0.2, contrast = 0.2, shift = 20.0 }}
voxel = {{ size = 0.05 }}
"""
ELASTIC = "elastic = [{{ granularity = 0.2, magnitude = 0.4 }}, {{ granularity = 0.8, magnitude = 1.6 }}]"
POINTS += POINTS[POINTS.index("[jobs.plain]") :].replace("plain", "elastic") + ELASTIC + "\n"
SECONDS_TO_START = 60


class Server:
    """A server that was just started; `pull` is a client of it."""

    def __init__(self, program, folder, config=CONFIG):
        self.program = program
        self.place = tempfile.TemporaryDirectory(prefix="mixfeed-bench-")
        file, ready = Path(self.place.name, "mixfeed.toml"), Path(self.place.name, "ready.json")
        file.write_text(config.format(folder=json.dumps(str(folder))))
        self.log = open(Path(self.place.name, "log"), "w+")
        command = [program, "serve", "--config", file, "--ready-file", ready]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.log.seek(0)
                raise RuntimeError(f"the server did not start: {self.log.read()}")
            time.sleep(0.02)
        self.endpoint = json.loads(ready.read_text())["grpc"][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.log.close()
            self.place.cleanup()

    def _command(self, job, batches, *more):
        return [self.program, "pull", "--endpoint", self.endpoint, "--job", job, "--batches", str(batches), *more]

    def pull(self, job, batches, warmup=0, from_step=0):
        """What a client measured: the object of `pull --json`."""
        more = ["--json", "--warmup", str(warmup), "--from-step", str(from_step)]
        done = subprocess.run(self._command(job, batches, *more), stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)

    def stall(self, job, seconds):
        """Resident memory in MiB while a client has stopped reading in the middle of a stream."""
        command = self._command(job, 1 << 40)
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(seconds)
            assert client.poll() is None, f"the client ended with {client.returncode}"
            os.kill(client.pid, signal.SIGSTOP)
            time.sleep(seconds)
            return self.memory("VmRSS")
        finally:
            client.kill()
            client.wait()

    def memory(self, field):
        """VmRSS (now) or VmHWM (most so far) in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {field} in /proc/{self.process.pid}/status")

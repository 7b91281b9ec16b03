"""Starts the real program on free ports and stops it as an operator would."""

import json
import signal
import subprocess
import time

import grpc

CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
reflection = true
{server}

[sources.photos]
kind = "folder"
path = {path}

[sources.prose]
kind = "text"
path = {prose}
tokenizer = "bytes"
documents = "paragraph"

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


class Server:
    """A running `mixfeed serve`; leaving the block stops it and checks that it went well."""

    def __init__(self, root, folder, server="", credentials=None, text=None):
        self.credentials = credentials
        config, self.ready, self.log = folder / "mixfeed.toml", folder / "ready.json", folder / "stderr"
        photos, prose = json.dumps(str(root / "demo-data/photos")), json.dumps(str(root / "LICENSE"))
        texts = json.dumps(str(root / "demo-data/text"))
        tiles = json.dumps(str(root / "demo-data/points"))
        config.write_text(
            text or CONFIG.format(server=server, path=photos, prose=prose, texts=texts, tiles=tiles)
        )
        program = [root / "target/debug/mixfeed", "serve", "--config", config, "--ready-file", self.ready]
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(program, cwd=folder, stdin=subprocess.DEVNULL, stderr=stderr)

    def __enter__(self):
        try:
            self.addresses = self._wait()
        except BaseException:
            self.process.kill()
            raise
        self.target = self.addresses["grpc"][0].split("//")[1]
        # No option: the default limit of 4 MiB a message stays.
        if self.credentials:
            self.channel = grpc.secure_channel(self.target, self.credentials)
        else:
            self.channel = grpc.insecure_channel(self.target)
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(SECONDS_TO_STOP)
        finally:
            self.process.kill()
        assert code == 0, f"exit code {code}: {self.log.read_text()}"

    def _wait(self):
        """Addresses, once the server serves; fails as soon as it dies."""
        deadline = time.monotonic() + SECONDS_TO_START
        while not self.ready.exists():
            try:
                code = self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"not ready: {self.log.read_text()}"
            else:
                raise AssertionError(f"exit code {code}: {self.log.read_text()}")
        return json.loads(self.ready.read_text())

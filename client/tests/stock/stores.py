"""Stores for tests: SeaweedFS, a real S3 server, and a plain web server that serves ranges of a folder."""

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY, SECRET = "AKIDTEST", "a-secret-of-the-test"
SECONDS_TO_START = 90
#: Every port that it listens on; each of the four has one for gRPC beside it.
ROLES = ["master", "volume", "filer", "s3"]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Seaweed:
    """A `weed server` with S3 in `folder`; it can be killed and started again."""

    def __init__(self, folder):
        self.folder, ports = folder, iter(free_ports(2 * len(ROLES)))
        self.ports = {role: (next(ports), next(ports)) for role in ROLES}
        self.endpoint = f"http://127.0.0.1:{self.ports['s3'][0]}"
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "mixfeed",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Read", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        (folder / "keys").write_text(keys)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        ports = [
            flag
            for role, (http_port, grpc_port) in self.ports.items()
            for flag in (f"-{role}.port={http_port}", f"-{role}.port.grpc={grpc_port}")
        ]
        command = [weed, "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=8"]
        command += ["-filer", "-s3", f"-s3.config={self.folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)

    def _answers(self):
        try:
            urllib.request.urlopen(self.endpoint, timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 403  # it wants keys
        except (OSError, http.client.HTTPException):
            return False
        return True

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def put(self, bucket, key, data):
        """Through the filer, which asks for no signature."""
        url = f"http://127.0.0.1:{self.ports['filer'][0]}/buckets/{bucket}/{key}"
        deadline = time.monotonic() + SECONDS_TO_START
        while True:  # volumes appear a moment after the ports
            request = urllib.request.Request(url, data=data, method="PUT")
            request.add_header("content-type", "application/octet-stream")
            try:
                return urllib.request.urlopen(request, timeout=30).read()
            except OSError:
                assert time.monotonic() < deadline, self.log()

    def table(self, name, kind, path):
        """`[sources.NAME]` of what is at `path` in it."""
        return f"""
[sources.{name}]
kind = "{kind}"
path = "s3://{path}"
[sources.{name}.store]
endpoint = "{self.endpoint}"
region = "us-east-1"
credentials_file = "{self.folder / 'keys'}"
retry_timeout = 60
"""


class Ranges(http.server.BaseHTTPRequestHandler):
    """Files of a folder with ETags, and ranges of them."""

    protocol_version = "HTTP/1.1"
    root = None

    def do_GET(self):
        path = self.root / self.path.split("?")[0].lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        first, last = (int(asked[1]), min(int(asked[2]), len(data) - 1)) if asked else (0, len(data) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("etag", f'"{path.stat().st_mtime_ns:x}-{len(data):x}"')
        self.send_header("content-length", str(last + 1 - first))
        if asked:
            self.send_header("content-range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web(folder):
    """URL of a web server of `folder`."""
    handler = type("Handler", (Ranges,), {"root": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

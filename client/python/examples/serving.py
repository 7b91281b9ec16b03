"""What every example needs before it trains: a server of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS_TO_START = 120
SECONDS_TO_STOP = 60


def program() -> str:
    """The server's program: $MIXFEED, else `mixfeed` of PATH, else the one that was built in target/."""
    built = (ROOT / "target" / profile / "mixfeed" for profile in ("release", "debug"))
    found = (
        os.environ.get("MIXFEED")
        or shutil.which("mixfeed")
        or next((str(p) for p in built if p.exists()), None)
    )
    if found is None:
        raise SystemExit(
            "found no mixfeed: set MIXFEED to the program, put it into PATH, or run `make build`"
        )
    return found


@contextlib.contextmanager
def serving(sources: str, endpoint: str | None = None) -> Iterator[str]:
    """Endpoint of a server with these `[sources.NAME]` tables, which ends with the block.

    `endpoint`: a server that runs already and has the sources; then nothing is started.
    """
    if endpoint is not None:
        yield endpoint
        return
    with tempfile.TemporaryDirectory(prefix="mixfeed-example-") as place:
        config, ready, log = Path(place, "mixfeed.toml"), Path(place, "ready.json"), Path(place, "log")
        server = f'[server]\nlisten = ["127.0.0.1:0"]\nhttp = ""\nstate = {json.dumps(f"{place}/state")}\n'
        config.write_text(f"{server}\n{sources}")
        command = [program(), "serve", "--config", str(config), "--ready-file", str(ready)]
        with log.open("w") as stderr:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, cwd=place)
        try:
            _wait(process, ready, log)
            yield json.loads(ready.read_text())["grpc"][0]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS_TO_STOP)
            finally:
                process.kill()


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not ready.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(0.02)
            raise SystemExit(f"the server ended with {code}: {log.read_text()}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the server did not start within {SECONDS_TO_START} s: {log.read_text()}")


def progress(text: str) -> None:
    """Tells on stderr how far a run of minutes is."""
    print(text, file=sys.stderr, flush=True)


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over seeds, in the unit of the values."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"

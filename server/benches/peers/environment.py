"""Python with the peers' packages, in .venv-bench at the repository's root."""

import os
import subprocess
import sys
from pathlib import Path

NUMPY = "numpy==2.4.6"
# Installed one after the other, so that one that is not to be had leaves the others.
PACKAGES = {
    "pictures": [NUMPY, "pillow==13.0.0"],
    "torchvision": [NUMPY, "torch==2.11.0", "torchvision==0.26.0"],
    "points": [NUMPY, "scipy==1.17.1", "laspy==2.7.0", "lazrs==0.8.2", "torch==2.11.0"],
    "package": [NUMPY, "torch==2.11.0", "grpcio==1.85.1", "grpcio-tools==1.85.1", "protobuf==7.36.2", "maturin==1.16.0"],
    "dali": [NUMPY, "nvidia-dali-cuda120==2.4.0"],
    "tfdata": [NUMPY, "tensorflow-cpu==2.21.0"],
}


class Unavailable(Exception):
    """A peer that cannot run here; the text says why."""


def python(root, name):
    """Interpreter that has the packages of `name`.

    MIXFEED_BENCH_PYTHON names one that has them already, MIXFEED_BENCH_TF_PYTHON another one for tf.data.
    """
    given = os.environ.get("MIXFEED_BENCH_PYTHON")
    if name == "tfdata":
        given = os.environ.get("MIXFEED_BENCH_TF_PYTHON", given)
    return Path(given) if given else _own(root / ".venv-bench", name)


def _own(venv, name):
    ready = venv / f"ready-{name}"
    interpreter = venv / "bin/python"
    if ready.exists():
        return interpreter
    if not interpreter.exists():
        _run([sys.executable, "-m", "venv", venv])
    print(f"installing {' '.join(PACKAGES[name])}", file=sys.stderr, flush=True)
    _run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[name]])
    ready.touch()
    return interpreter


def _run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable((done.stderr.strip().splitlines() or ["no reason given"])[-1])

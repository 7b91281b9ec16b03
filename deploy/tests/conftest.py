"""Stubs are made from proto/ for each run; a watched server under load serves all live tests."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
GENERATED = tempfile.TemporaryDirectory(prefix="mixfeed-stubs-")


def pytest_configure():
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/mixfeed/v1").glob("*.proto"))
    out = GENERATED.name
    if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) != 0:
        pytest.exit("protoc refused proto/", returncode=1)
    sys.path.insert(0, out)


def pytest_unconfigure():
    GENERATED.cleanup()


@pytest.fixture(scope="session")
def root():
    """Root of the repository."""
    return ROOT


def find_program():
    """The program `mixfeed`: $MIXFEED, or the build that is there."""
    built = [Path(os.environ["MIXFEED"])] if os.environ.get("MIXFEED") else []
    built += [ROOT / "target" / profile / "mixfeed" for profile in ("debug", "release")]
    found = next((path for path in built if path.exists()), None)
    assert found, f"build mixfeed first: none of {', '.join(map(str, built))} is there"
    return found


@pytest.fixture(scope="session")
def program():
    """The program `mixfeed`."""
    return find_program()


@pytest.fixture(scope="session")
def watched(program, tmp_path_factory):
    """A server under load, scraped by Prometheus whose alerts go to Alertmanager."""
    from watched import Watched

    with Watched(ROOT, program, tmp_path_factory.mktemp("watched")) as running:
        yield running

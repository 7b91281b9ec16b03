"""Stubs are made from proto/ for each run; one server on the demo photographs serves all tests."""

import sys
import tempfile
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[3]
GENERATED = tempfile.TemporaryDirectory(prefix="mixfeed-stubs-")


def pytest_configure():
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/mixfeed/v1").glob("*.proto"))
    out = GENERATED.name
    arguments = [f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}"]
    arguments += [f"--descriptor_set_out={out}/descriptors.bin", "--include_source_info"]
    if protoc.main(["protoc", *arguments, *files]) != 0:
        pytest.exit("protoc refused proto/", returncode=1)
    sys.path.insert(0, out)


def pytest_unconfigure():
    GENERATED.cleanup()


@pytest.fixture(scope="session")
def descriptors():
    """Descriptor set of proto/, with comments."""
    from google.protobuf import descriptor_pb2

    return descriptor_pb2.FileDescriptorSet.FromString(Path(GENERATED.name, "descriptors.bin").read_bytes())


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that most tests share."""
    from server import Server

    with Server(ROOT, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def fresh(tmp_path):
    """Starts a second server of its own."""
    from server import Server

    with Server(ROOT, tmp_path) as running:
        yield running

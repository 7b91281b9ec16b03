"""The package beside stubs that were generated from the service's proto files, which are `mixfeed.v1`."""

import subprocess
import sys
from pathlib import Path

import pytest

import mixfeed

BOTH = """
import sys
sys.path[:0] = sys.argv[1:]
import mixfeed, mixfeed.v1.batch_pb2, mixfeed.errors
assert mixfeed.v1.batch_pb2.HEADER == "of the stubs"
assert mixfeed.Loader.__module__ == "mixfeed.loader"
print(mixfeed.__file__, mixfeed.errors.__file__)
"""


@pytest.mark.parametrize("first", ["stubs", "package"])
def test_generated_stubs_may_lie_elsewhere(tmp_path, first):
    folder = tmp_path / "mixfeed/v1"
    folder.mkdir(parents=True)
    (folder / "batch_pb2.py").write_text('HEADER = "of the stubs"\n')
    # A module of ours under another roof is not taken.
    (tmp_path / "mixfeed/errors.py").write_text("raise AssertionError('not ours')\n")
    package = Path(mixfeed.__file__).parents[1]
    path = [tmp_path, package] if first == "stubs" else [package, tmp_path]
    done = subprocess.run([sys.executable, "-c", BOTH, *map(str, path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [mixfeed.__file__, mixfeed.errors.__file__]

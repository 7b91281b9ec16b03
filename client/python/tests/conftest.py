"""One server on the demo data serves most tests; each has jobs of its own."""

import os
import re

os.environ.pop("MIXFEED_TOKEN", None)
for name in ("RANK", "WORLD_SIZE"):
    os.environ.pop(name, None)

import pytest  # noqa: E402
import specs  # noqa: E402
from server import Server  # noqa: E402

import mixfeed  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that most tests share."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own(tmp_path):
    """A server of the test's own, to be killed."""
    with Server(tmp_path) as running:
        yield running


@pytest.fixture
def load(server, request):
    """Makes loaders of the test's own job, which are closed at the end; `spec` is one of photographs."""
    made = []

    def loader(spec=None, job=None, kind=mixfeed.DataLoader, **options):
        name = job or re.sub("[^A-Za-z0-9]+", "-", request.node.name).strip("-")
        options = {"patience": 30, **options}
        made.append(kind(server.endpoint, name, spec=spec or specs.photos(), **options))
        return made[-1]

    yield loader
    for one in made:
        one.close()

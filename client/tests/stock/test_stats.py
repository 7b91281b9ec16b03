"""What a trainer says of its waits, with a stock client."""

import math
import urllib.request

import grpc
import pytest
from batches import open_job
from mixfeed.v1 import feed_service_pb2, mixture_service_pb2, mixture_service_pb2_grpc
from test_calls import refused

JOB = "waits"


@pytest.fixture(scope="module")
def said(server):
    """Says something; fields other than the true ones by name."""
    open_job(server, JOB)
    stub = mixture_service_pb2_grpc.MixtureServiceStub(server.channel)
    true = {"job": JOB, "rank": 1, "world_size": 2, "wait_seconds": 0.25, "active_seconds": 1, "steps": 3, "next_step": 7}

    def say(**other):
        return stub.ReportStats(mixture_service_pb2.ReportStatsRequest(**true | other), timeout=60)

    return say


def series(server):
    """Series of the job by name and rank."""
    with urllib.request.urlopen(f"{server.addresses['http']}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    ours = [line.rsplit(" ", 1) for line in lines if f'job="{JOB}"' in line]
    return {name: float(value) for name, value in ours}


def test_it_is_counted_per_rank(server, said):
    said()
    said(next_step=8)
    seen = series(server)
    labels = f'{{job="{JOB}",rank="1"}}'
    want = {"wait_seconds_total": 0.5, "active_seconds_total": 2, "steps_total": 6, "step": 8}
    assert {name: seen[f"mixfeed_client_{name}{labels}"] for name in want} == want


@pytest.mark.parametrize(
    "field, value",
    [
        ("wait_seconds", math.nan),
        ("wait_seconds", -0.5),
        ("active_seconds", math.inf),
        ("rank", 2),
        ("world_size", 0),
        ("steps", 1 << 40),
        ("next_step", 1 << 50),
    ],
)
def test_a_wrong_field_is_named_and_changes_nothing(server, said, field, value):
    said()
    before = series(server)
    code, text = refused(lambda: said(**{field: value}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and field in text
    counted = {name: value for name, value in series(server).items() if "client" in name}
    assert counted == {name: value for name, value in before.items() if "client" in name}


def test_an_unknown_job_is_not_found(said):
    assert refused(lambda: said(job="nowhere"))[0] == grpc.StatusCode.NOT_FOUND


def test_a_closed_job_leaves_no_series(server, said):
    said()
    stub, _ = open_job(server, JOB)
    stub.CloseJob(feed_service_pb2.CloseJobRequest(job=JOB), timeout=60)
    assert not series(server)

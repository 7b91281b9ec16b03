"""Errors, health and reflection as a stock client sees them."""

import urllib.request

import grpc
import pytest
from batches import open_job, spec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc

SERVICE = "mixfeed.v1.FeedService"


@pytest.fixture(scope="module")
def stub(server):
    return open_job(server, "calls")[0]


def refused(call):
    """Code and text of the error that `call` raises."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def stream(stub, **fields):
    request = feed_service_pb2.StreamBatchesRequest(**fields)
    return lambda: next(stub.StreamBatches(request, timeout=60))


def test_a_wrong_world_size_lists_the_legal_ones(stub):
    code, text = refused(stream(stub, job="calls", world_size=3))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "world_size" in text and "1, 2, 4" in text


def test_a_rank_beyond_the_world_is_refused(stub):
    code, text = refused(stream(stub, job="calls", rank=2, world_size=2))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "rank" in text


def test_an_unknown_job_is_not_found(stub):
    code, text = refused(stream(stub, job="nowhere", world_size=1))
    assert code == grpc.StatusCode.NOT_FOUND and "nowhere" in text
    code, text = refused(lambda: stub.DescribeJob(feed_service_pb2.DescribeJobRequest(job="nowhere"), timeout=60))
    assert code == grpc.StatusCode.NOT_FOUND and "nowhere" in text


def test_another_spec_under_a_name_is_refused(stub, server):
    code, text = refused(lambda: open_job(server, "calls", seed=5))
    assert code == grpc.StatusCode.ALREADY_EXISTS and "calls" in text
    assert not open_job(server, "calls")[1].created, "the same spec attaches"


def test_a_wrong_field_is_named(stub):
    wrong = spec()
    wrong.image.horizontal_flip = 1.5
    request = feed_service_pb2.OpenJobRequest(job="wrong", spec=wrong)
    code, text = refused(lambda: stub.OpenJob(request, timeout=60))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "horizontal_flip" in text


def test_a_closed_job_is_gone(server):
    stub, _ = open_job(server, "closing")
    stub.CloseJob(feed_service_pb2.CloseJobRequest(job="closing"), timeout=60)
    assert refused(stream(stub, job="closing", world_size=1))[0] == grpc.StatusCode.NOT_FOUND


def test_policies_and_sources_are_listed(stub):
    policies = {p.name for p in stub.ListPolicies(feed_service_pb2.ListPoliciesRequest(), timeout=60).policies}
    assert {"mixup", "cutmix"} <= policies
    photos, prose, texts, tiles = stub.ListSources(feed_service_pb2.ListSourcesRequest(), timeout=60).sources
    assert (photos.source, photos.kind, photos.records) == ("photos", "folder", 72)
    assert (prose.source, prose.kind) == ("prose", "text") and prose.records > 10
    assert (texts.source, texts.kind, len(texts.groups)) == ("texts", "text", 3)
    assert (tiles.source, tiles.kind) == ("tiles", "points") and tiles.records > 10


def test_health_says_serving(server):
    health = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


def test_http_answers(server):
    with urllib.request.urlopen(f"{server.addresses['http']}/healthz", timeout=60) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{server.addresses['http']}/metrics", timeout=60) as answer:
        assert "\nmixfeed_" in "\n" + answer.read().decode()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(server, version):
    # Both versions have the same messages; the stock package has stubs of the older one.
    ask = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]), timeout=60)
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "mixfeed.v1.MixtureService", "grpc.health.v1.Health"} <= names

"""TLS and tokens as a stock client uses them."""

import subprocess

import grpc
import pytest
from batches import open_job, pull
from conftest import ROOT
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc

GUARDS = 'tokens = "tokens.toml"\ntls = { cert = "cert.pem", key = "key.pem" }'


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server with a certificate of its own and the trust in it; its channel carries a token for `vit-*`."""
    from server import Server

    folder = tmp_path_factory.mktemp("secured")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=mixfeed", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    make += ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(make, check=True, capture_output=True)
    token = [ROOT / "target/debug/mixfeed", "token", "vit", "--verbs", "pull", "--jobs", "vit-*"]
    made = subprocess.run([*token, "--append", folder / "tokens.toml"], check=True, capture_output=True, text=True)
    tls = grpc.ssl_channel_credentials((folder / "cert.pem").read_bytes())
    secret = grpc.access_token_call_credentials(made.stdout.splitlines()[0])
    with Server(ROOT, folder, GUARDS, grpc.composite_channel_credentials(tls, secret)) as running:
        yield running, tls


def code(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code()


def test_batches_come_to_a_token_over_tls(secured):
    stub, _ = open_job(secured[0], "vit-1")
    assert len(pull(stub, "vit-1", 2)) == 2


def test_verbs_and_jobs_are_looked_at(secured):
    stub, _ = open_job(secured[0], "vit-1")
    close = feed_service_pb2.CloseJobRequest(job="vit-1")
    assert code(lambda: stub.CloseJob(close, timeout=60)) == grpc.StatusCode.PERMISSION_DENIED
    assert code(lambda: open_job(secured[0], "bert")) == grpc.StatusCode.PERMISSION_DENIED


def test_without_a_token_only_health_answers(secured):
    server, tls = secured
    with grpc.secure_channel(server.target, tls) as channel:
        stub = feed_service_pb2_grpc.FeedServiceStub(channel)
        jobs = feed_service_pb2.ListJobsRequest()
        assert code(lambda: stub.ListJobs(jobs, timeout=60)) == grpc.StatusCode.UNAUTHENTICATED
        stream = feed_service_pb2.StreamBatchesRequest(job="vit-1", world_size=1)
        assert code(lambda: next(stub.StreamBatches(stream, timeout=60))) == grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_plaintext_gets_no_answer(secured):
    with grpc.insecure_channel(secured[0].target) as channel:
        stub = feed_service_pb2_grpc.FeedServiceStub(channel)
        jobs = feed_service_pb2.ListJobsRequest()
        assert code(lambda: stub.ListJobs(jobs, timeout=60)) == grpc.StatusCode.UNAVAILABLE

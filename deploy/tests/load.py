"""Trainers of every kind, as the live tests need them: pictures with bad records, points, tokens, and a mixture that learns."""

import contextlib
import itertools
import math
import subprocess
import threading

import grpc
from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, mixture_service_pb2, mixture_service_pb2_grpc

CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
memory = "1GiB"

[sources.photos]
kind = "folder"
path = "photos"
[sources.prose]
kind = "text"
path = "{demo}/text"
tokenizer = "bytes"
documents = "paragraph"
groups = "shard"
[sources.survey]
kind = "points"
path = "{demo}/points"
tile = {{ block = 100.0, min_points = 500 }}

[jobs.pictures]
global_batch = 32
groups = [{{ group = "photos" }}]
image = {{ height = 64, width = 64, random_resized_crop = {{}} }}
mix = {{ policies = [{{ name = "mixup" }}], pairing = "different_class" }}
max_bad_fraction = 1.0

# Ends after a few steps, so that it begins again and again.
[jobs.scenes]
global_batch = 8
mix_block = 8
max_steps = 4
groups = [{{ group = "survey" }}]
mix = {{ policies = [{{ name = "mix3d" }}] }}
[jobs.scenes.points]
max_points = 120000

[jobs.lm]
global_batch = 32
groups = [{{ group = "prose" }}]
tokens = {{ seq_len = 64 }}
held_out = {{ fraction = 0.1 }}
[jobs.lm.mixture]
estimator = {{ name = "aioli", params = {{ round_steps = 10, probe_steps = 2, sweeps = 1, eta = 1 }} }}
shadows = [{{ name = "aioli", params = {{ round_steps = 10, probe_steps = 2, sweeps = 1, eta = 0.2 }} }}]
"""
#: Seconds that a call may take: the machine is busy.
PATIENCE = 120
#: Seconds after which trainers tell their waits: windows are short here.
TELL = "0.5"
#: More batches than are pulled.
FOR_EVER = 1_000_000_000


class Learner:
    """A trainer of job `lm` whose held-out losses fall, read with a stock client."""

    def __init__(self, channel):
        self.feed = feed_service_pb2_grpc.FeedServiceStub(channel)
        self.mixture = mixture_service_pb2_grpc.MixtureServiceStub(channel)
        self.job = self.feed.DescribeJob(feed_service_pb2.DescribeJobRequest(job="lm"), timeout=PATIENCE).job
        self.tasks = len(self.job.eval_sets)
        self.seq = {}

    def report(self, segment, mixture_id, step, losses=None):
        """Tells held-out losses at `step`; returns the outcome."""
        losses = losses or [1 + (i + 1) * math.exp(-step / 100) for i in range(self.tasks)]
        number = self.seq.get(segment, 0)
        request = mixture_service_pb2.ReportRequest(
            job="lm",
            attempt=self.attempt.attempt,
            segment=segment,
            kind=mixture_service_pb2.REPORT_KIND_EVAL,
            seq=number,
            mixture_id=mixture_id,
            values=[loss * 100 for loss in losses],
            counts=[100] * self.tasks,
            from_step=step,
            to_step=step,
            eval_digest=self.job.eval_digest,
        )
        answer = self.mixture.Report(request, timeout=PATIENCE)
        if answer.outcome == mixture_service_pb2.REPORT_OUTCOME_ACCEPTED:
            self.seq[segment] = number + 1
        return answer

    def run(self, stop):
        """Trains until `stop`, with every report that is due, and now and then one that must be refused."""
        opening = mixture_service_pb2.OpenAttemptRequest(job="lm")
        self.attempt = self.mixture.OpenAttempt(opening, timeout=PATIENCE)
        if self.attempt.evaluate_first:
            self.accepted(self.attempt.segment, self.attempt.mixture_id, 0)
        stream = self.feed.StreamBatches(feed_service_pb2.StreamBatchesRequest(job="lm", world_size=1))
        eval_kind = mixture_service_pb2.REPORT_KIND_EVAL
        for part in stream:
            if stop.is_set():
                break
            kind = part.WhichOneof("part")
            if kind == "header":
                header = part.header
                told = header.step == 0 and self.attempt.evaluate_first
                if eval_kind in header.due_before and not told:
                    self.accepted(header.mixture_seq, header.mixture_id, header.step)
                if header.step % 5 == 0:
                    wrong = self.report(header.mixture_seq, header.mixture_id, header.step, [math.nan] * self.tasks)
                    assert wrong.outcome == mixture_service_pb2.REPORT_OUTCOME_REJECTED, wrong
            elif kind == "end" and eval_kind in header.due_after:
                self.accepted(header.mixture_seq, header.mixture_id, header.step + 1)
        stream.cancel()

    def accepted(self, *report):
        answer = self.report(*report)
        assert answer.outcome == mixture_service_pb2.REPORT_OUTCOME_ACCEPTED, answer


class Load:
    """Everything at once, until the block is left; fails then if any of it failed before."""

    def __init__(self, program, endpoint, channel):
        self.program, self.endpoint, self.channel = program, endpoint, channel
        self.stop, self.errors = threading.Event(), []
        works = (self.pictures, self.scenes, self.learn, self.steer)
        self.threads = [threading.Thread(target=self.kept, args=(work,)) for work in works]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.end()
        assert not self.errors, self.errors

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a trainer does not end"

    def kept(self, work):
        try:
            work()
        except Exception as error:  # told by the block's end, in the thread that looks
            if not self.stop.is_set():
                self.errors.append(f"{work.__name__}: {error}")

    def puller(self, job, batches):
        command = [self.program, "pull", "--endpoint", self.endpoint, "--job", job, "--batches", str(batches)]
        return subprocess.Popen(
            [*command, "--warmup", "0", "--tell-waits", TELL], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    @contextlib.contextmanager
    def pulling(self, job):
        """One more trainer, which may fail."""
        process = self.puller(job, FOR_EVER)
        try:
            yield
        finally:
            process.kill()
            process.communicate()

    def pull(self, job, batches):
        process = self.puller(job, batches)
        while process.poll() is None:
            if self.stop.wait(0.1):
                process.kill()
                process.communicate()
                return
        assert process.returncode == 0, process.communicate()[1]

    def pictures(self):
        self.pull("pictures", FOR_EVER)

    def scenes(self):
        while not self.stop.is_set():
            self.pull("scenes", 100)

    def learn(self):
        Learner(self.channel).run(self.stop)

    def steer(self):
        """An operator who changes the pictures' weights, and asks for a job that does not exist."""
        feed = feed_service_pb2_grpc.FeedServiceStub(self.channel)
        mixture = mixture_service_pb2_grpc.MixtureServiceStub(self.channel)
        job = feed.DescribeJob(feed_service_pb2.DescribeJobRequest(job="pictures"), timeout=PATIENCE).job
        for turn in itertools.count():
            weights = [1 + (turn + i) % 2 for i in range(len(job.groups))]
            request = mixture_service_pb2.SetWeightsRequest(job="pictures", weights=weights, operator="eve")
            mixture.SetWeights(request, timeout=PATIENCE)
            try:
                feed.DescribeJob(feed_service_pb2.DescribeJobRequest(job="nowhere"), timeout=PATIENCE)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND
            if self.stop.wait(1):
                return

"""The real server under load, seen through the real Prometheus. The load ends before the last tests,
which break things: a trainer, a source, the server."""

import itertools
import re

from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc, mixture_service_pb2, mixture_service_pb2_grpc
from promql import alerts, board_queries, families, family, names, recorded, rules
from watched import WINDOW, until


def concrete(query):
    """A dashboard's query as Grafana would send it with everything chosen, over short windows."""
    query = re.sub(r"\$(instance|job|group|stage)\b", ".*", query.replace("$__rate_interval", WINDOW))
    return re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", query)


def test_every_series_that_promql_reads_is_in_a_real_scrape(watched):
    read = {name for rule in rules() for name in names(rule["expr"])}
    read |= {name for _, query in board_queries() for name in names(query)}
    read -= set(recorded())
    assert len(read) > 20
    until(lambda: f"never scraped: {read - watched.scrape()[0]}", lambda: read <= watched.scrape()[0])


def test_every_described_metric_is_in_a_real_scrape_and_no_other(watched):
    known = families()

    def scraped():
        return {family(name, known) for name in watched.scrape()[0] if name.startswith("mixfeed_")}

    until(lambda: f"never scraped: {known - scraped()}", lambda: known <= scraped())
    assert scraped() == known


def test_every_metric_is_described_to_prometheus(watched):
    helped = set(re.findall(r"^# HELP (\w+) \S", watched.scrape()[1], re.M))
    assert families() <= helped


def test_job_is_the_training_job(watched):
    jobs = {"pictures", "scenes", "lm"}
    query = "mixfeed_batches_delivered_total"
    until("batches of every job", lambda: {s["metric"]["job"] for s in watched.query(query)} == jobs)
    assert {s["metric"]["job"] for s in watched.query("mixfeed_streams")} == {"mixfeed"}


def test_every_recording_rule_has_data(watched):
    def empty():
        return [name for name in recorded() if not watched.query(name)]

    until(lambda: f"no data: {empty()}", lambda: not empty())


def test_every_query_of_the_dashboards_has_data(watched):
    """Each at some moment: a rate may be without data for one."""
    left = {query: where for where, query in board_queries()}
    assert len(left) > 30

    def ask():
        for query in list(left):
            if watched.query(concrete(query)):
                del left[query]
        return not left

    until(lambda: f"no data: {left}", ask)


def test_shares_add_up(watched):
    def sums():
        for series in ("wanted", "served"):
            jobs = watched.query(f"sum by (job) (instance_job_group:mixfeed_{series}_share:avg1h)")
            if len(jobs) < 3 or any(abs(float(sample["value"][1]) - 1) > 1e-9 for sample in jobs):
                return False
        return True

    until("shares of groups that add up to 1", sums)


def test_a_trainer_faster_than_its_server_is_starved_and_the_alert_says_by_what(watched):
    """`mixfeed pull` does nothing but wait."""

    def starved(name):
        return [a for a in watched.firing(name) if a["labels"]["job"] == "pictures"]

    (alert,) = until("MixfeedTrainerStarvedBadly never fires", lambda: starved("MixfeedTrainerStarvedBadly"))
    assert alert["labels"]["severity"] == "page"
    assert re.search(r"wait most in: (making|sending)\.", alert["annotations"]["description"]), alert
    until("MixfeedTrainerStarved never fires", lambda: starved("MixfeedTrainerStarved"))

    def ranks():
        found = watched.query('job_rank:mixfeed_stall:ratio5m{job="pictures"}')
        return [r["metric"]["rank"] for r in found if float(r["value"][1]) > 0.3] == ["0"]

    until("no rank, or another one, is said to wait", ranks)

    def muted():
        muted = {a["labels"]["alertname"] for a in watched.alertmanager_alerts() if a["status"]["inhibitedBy"]}
        return "MixfeedTrainerStarved" in muted

    until("the page does not mute the ticket", muted)


def test_waits_of_streams_add_up_to_their_number(watched):
    """Every open stream waits for exactly one thing at any time."""

    def both():
        (waits,) = watched.query('sum(job_state:mixfeed_stream_waits:rate5m{job="pictures"})') or [None]
        return waits and 0.7 < float(waits["value"][1]) < 1.3

    until("one stream of pictures that waits one second a second", both)


def test_bad_records_raise_an_alert_that_reaches_alertmanager(watched):
    (alert,) = until("MixfeedBadRecords never fires", lambda: watched.firing("MixfeedBadRecords"))
    assert alert["labels"]["severity"] == "ticket" and watched.http in alert["annotations"]["summary"]
    (received,) = until("Alertmanager knows nothing", lambda: watched.received("MixfeedBadRecords"))
    assert received["receivers"] == [{"name": "ticket"}]
    assert received["annotations"]["runbook"] == "docs/operations.md#mixfeedbadrecords"


def test_refused_reports_raise_an_alert(watched):
    (alert,) = until("MixfeedReportsRefused never fires", lambda: watched.firing("MixfeedReportsRefused"))
    assert alert["labels"]["job"] == "lm"


def test_what_has_no_cause_does_not_fire(watched):
    """However short the waits are. The other alerts depend on how busy this machine is, with such waits: a scrape that takes
    longer than a second is a server that is down."""
    calm = {"MixfeedAbsent", "MixfeedNumericsDiffer", "MixfeedReadErrors", "MixfeedReadRetries"}
    calm |= {
        "MixfeedStreamErrors",
        "MixfeedRefused",
        "MixfeedRequestErrors",
        "MixfeedReportsLate",
        "MixfeedMemoryNearLimit",
    }
    assert calm < {alert["alert"] for alert in alerts()}
    assert not {name for name in calm if watched.firing(name)}


def test_a_trainer_that_stops_reading_is_seen(watched):
    watched.load.end()
    feed = feed_service_pb2_grpc.FeedServiceStub(watched.channel)
    stream = feed.StreamBatches(feed_service_pb2.StreamBatchesRequest(job="pictures", world_size=1))
    next(stream)
    (alert,) = until("MixfeedStreamsStalled never fires", lambda: watched.firing("MixfeedStreamsStalled"))
    assert alert["labels"]["instance"] == watched.http

    def why():
        top = watched.query('topk(1, job_state:mixfeed_stream_waits:rate5m{job="pictures"} > 0)')
        return [sample["metric"]["state"] for sample in top] == ["sending"]

    until("the reader is not said to be the cause", why)
    stream.cancel()
    until("MixfeedStreamsStalled never ends", lambda: not watched.firing("MixfeedStreamsStalled"))


def test_ranks_that_drift_apart_are_seen_and_a_closed_job_is_forgotten(watched):
    """Two trainers that went on from different checkpoints, as they would say it."""
    feed = feed_service_pb2_grpc.FeedServiceStub(watched.channel)
    spec = feed.DescribeJob(feed_service_pb2.DescribeJobRequest(job="pictures")).job.spec
    spec.global_batch, spec.mix_block = 32, 16
    feed.OpenJob(feed_service_pb2.OpenJobRequest(job="pair", spec=spec))
    mixture = mixture_service_pb2_grpc.MixtureServiceStub(watched.channel)
    steps = itertools.count(1_000_000, 50)

    def tell():
        step = next(steps)
        for rank, (more, at) in enumerate([(50, step), (0, 3)]):
            said = {"job": "pair", "rank": rank, "world_size": 2, "wait_seconds": 0.01, "active_seconds": 0.2}
            mixture.ReportStats(mixture_service_pb2.ReportStatsRequest(**said, steps=more, next_step=at))
        return watched.firing("MixfeedRankSkew")

    (alert,) = until("MixfeedRankSkew never fires", tell)
    assert alert["labels"]["job"] == "pair"
    assert any('job="pair"' in line for line in watched.scrape()[1].splitlines())
    feed.CloseJob(feed_service_pb2.CloseJobRequest(job="pair"))
    assert 'job="pair"' not in watched.scrape()[1]
    until("MixfeedRankSkew never ends", lambda: not watched.firing("MixfeedRankSkew"))


def test_a_source_that_is_gone_is_seen(watched):
    watched.photos.rename(watched.folder / "elsewhere")
    with watched.load.pulling("pictures"):
        until("MixfeedReadErrors never fires", lambda: watched.firing("MixfeedReadErrors"))
        until("MixfeedReadRetries never fires", lambda: watched.firing("MixfeedReadRetries"))
        until("MixfeedStreamErrors never fires", lambda: watched.firing("MixfeedStreamErrors"))

    def muted():
        return {a["labels"]["alertname"] for a in watched.alertmanager_alerts() if a["status"]["inhibitedBy"]}

    until("the cause mutes nothing", lambda: muted() & {"MixfeedReadRetries", "MixfeedStreamErrors"})


def test_a_server_that_stops_is_down(watched):
    until("MixfeedDown does not end", lambda: not watched.firing("MixfeedDown"))
    watched.stop_server()
    (alert,) = until("MixfeedDown never fires", lambda: watched.firing("MixfeedDown"))
    assert alert["labels"]["instance"] == watched.http
    (received,) = until("Alertmanager knows nothing", lambda: watched.received("MixfeedDown"))
    assert received["receivers"] == [{"name": "page"}]

"""The real server under load, seen through the real Prometheus. The load ends before the last tests,
which break things: a trainer, a source, the server."""

import re

from mixfeed.v1 import feed_service_pb2, feed_service_pb2_grpc
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
            (sample,) = watched.query(f"sum(instance_group:mixfeed_{series}_share:avg1h)") or [None]
            if sample is None or abs(float(sample["value"][1]) - 1) > 1e-9:
                return False
        return True

    until("shares of groups that add up to 1", sums)


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
    """However short the waits are. The other alerts depend on how busy this machine is, with such waits."""
    calm = {"MixfeedDown", "MixfeedAbsent", "MixfeedNumericsDiffer", "MixfeedReadErrors", "MixfeedReadRetries"}
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
    stream.cancel()
    until("MixfeedStreamsStalled never ends", lambda: not watched.firing("MixfeedStreamsStalled"))


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
    assert not watched.firing("MixfeedDown")
    watched.stop_server()
    (alert,) = until("MixfeedDown never fires", lambda: watched.firing("MixfeedDown"))
    assert alert["labels"]["instance"] == watched.http
    (received,) = until("Alertmanager knows nothing", lambda: watched.received("MixfeedDown"))
    assert received["receivers"] == [{"name": "page"}]

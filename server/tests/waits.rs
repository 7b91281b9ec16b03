//! What streams wait for: told by the server of each stream, and counted by job.
#![allow(clippy::unwrap_used)]

mod stand;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use mixfeed_client::{Client, ClientOptions, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::config::Size;
use mixfeed_server::live::{View, Wait};
use mixfeed_server::source::{Index, Memory, Source, SourceError, TokenMemory};
use mixfeed_server::{Sources, metrics};
use stand::{Server, Watched, named, pictures, sources, spec};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The scrape of this process.
fn scrape() -> String {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    metrics::render(RECORDER.get_or_init(|| metrics::install("cpu-1").unwrap()))
}

/// What the scrape says that a job's streams waited for.
fn counted(job: &str, wait: Wait) -> Option<f64> {
    let series = format!("mixfeed_stream_seconds_total{{job=\"{job}\",state=\"{}\"}} ", wait.name());
    let text = scrape();
    let line = text.lines().find_map(|line| line.strip_prefix(&series))?;
    Some(line.parse().unwrap())
}

/// Looks now and then: what is looked at needs the processor.
async fn until(mut done: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !done() {
        assert!(Instant::now() < late, "it never happened");
        ticks.tick().await;
    }
}

fn only(server: &Server) -> View {
    let [view] = &server.running.shared.live.streams()[..] else { panic!("want one stream") };
    view.clone()
}

/// Waits until a job's only stream has waited for `wait` for a second by its own account and by the metric, and looks
/// that the metric never ran ahead.
async fn waits_for(server: &Server, job: &str, wait: Wait) -> View {
    until(|| !server.running.shared.live.streams().is_empty()).await;
    until(|| only(server).wait.0 == wait && only(server).seconds[wait as usize] > 1.0).await;
    until(|| counted(job, wait).unwrap() > 1.0).await;
    let counted = Wait::ALL.map(|wait| counted(job, wait).unwrap());
    let view = only(server);
    for (counted, seen) in counted.iter().zip(view.seconds) {
        assert!(*counted <= seen + 1e-6, "{counted} of {seen} seconds");
    }
    view
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_is_sent_to() {
    let server = Server::with(sources(), |s| s.prefetch = Some(Size(8 << 20))).await;
    let options = ClientOptions::default().window_bytes(64 << 10);
    let client = Client::connect_with([server.endpoint()], options).await.unwrap();
    let mut large = spec();
    let image = large.image.as_mut().unwrap();
    (image.height, image.width) = (200, 250);
    client.open_job("stalled", &large).await.unwrap();
    let options = StreamOptions { replica: 7, ..Default::default() };
    let mut stream = client.stream("stalled", options).await.unwrap();
    stream.next_batch().await.unwrap();
    let view = waits_for(&server, "stalled", Wait::Sending).await;
    assert_eq!(
        (view.who.job.as_str(), view.who.call, view.who.replica.as_str()),
        ("stalled", "StreamBatches", "7")
    );
    assert!(view.batches >= 1 && view.step == view.batches && view.bytes >= 12 * 150_000, "{view:?}");
    drop(stream);
    until(|| server.running.shared.live.streams().is_empty()).await;
    // The last of its seconds are counted, and its series end with the job.
    until(|| counted("stalled", Wait::Sending).unwrap() >= view.seconds[Wait::Sending as usize]).await;
    client.close_job("stalled").await.unwrap();
    assert_eq!(counted("stalled", Wait::Sending), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_budget_that_is_full_of_sent_bytes_is_no_work_of_the_server() {
    // Two blocks are the whole budget; they fit into the connection's buffers, so the sender itself is never held up.
    let server = Server::with(sources(), |s| s.prefetch = Some(Size(1))).await;
    let client = server.client().await;
    client.open_job("small", &spec()).await.unwrap();
    let mut stream = client.stream("small", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    waits_for(&server, "small", Wait::Sending).await;
}

/// Reads stand still until it is opened.
#[derive(Debug)]
struct Gate {
    inner: Memory,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Source for Gate {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn index(&self) -> &Index {
        self.inner.index()
    }
    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let (open, opened) = &*self.open;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        self.inner.read(number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_is_making() {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Gate { inner: Memory::new(pictures()).unwrap(), open: open.clone() };
    let server = Server::start(named(gate)).await;
    let client = server.client().await;
    client.open_job("slow", &spec()).await.unwrap();
    let mut stream = client.stream("slow", StreamOptions::default()).await.unwrap();
    let view = waits_for(&server, "slow", Wait::Making).await;
    assert_eq!((view.batches, view.seconds[Wait::Sending as usize]), (0, 0.0));
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    assert_eq!(stream.next_batch().await.unwrap().unwrap().step(), 0);
}

/// Groups "a" and "b" of 60 documents with 16 tokens each.
fn texts() -> Sources {
    let group = |(g, name): (u32, &str)| {
        (name.to_owned(), (0..60).map(|d| (0..16).map(|at| g * 10_000 + d * 16 + at).collect()).collect())
    };
    let groups = [(0, "a"), (1, "b")].map(group).to_vec();
    Sources::from([("t".into(), Arc::new(TokenMemory::new(groups).unwrap()) as Arc<dyn Source>)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixture_that_waits_for_reports_is_a_barrier() {
    let numbers = [("round_steps", 16.0), ("sweeps", 1.0), ("probe_steps", 2.0)];
    let estimator = v1::EstimatorSpec {
        name: "aioli".into(),
        params: numbers.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Default::default()
    };
    let learns = v1::JobSpec {
        groups: ["t/a", "t/b"].map(|g| v1::GroupSpec { group: g.into(), ..Default::default() }).to_vec(),
        global_batch: 12,
        mix_block: 3,
        tokens: Some(v1::TokenSpec { seq_len: 16, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: 0 }),
        mixture: Some(v1::MixtureSpec { estimator: Some(estimator), ..Default::default() }),
        ..Default::default()
    };
    let server = Server::start(texts()).await;
    let client = server.client().await;
    client.open_job("learns", &learns).await.unwrap();
    let mut stream = client.stream("learns", StreamOptions::default()).await.unwrap();
    // Whatever comes before the first report that is due; then nothing comes any more.
    let view = loop {
        tokio::select! {
            batch = stream.next_batch() => assert!(batch.unwrap().is_some()),
            view = waits_for(&server, "learns", Wait::Barrier) => break view,
        }
    };
    assert!(view.step <= 16, "{view:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_is_a_problem_that_people_can_read() {
    let watched = Watched { fail_from: 20, ..Watched::new() };
    let server = Server::start(named(watched)).await;
    let client = server.client().await;
    client.open_job("broken", &spec()).await.unwrap();
    let mut stream = client.stream("broken", StreamOptions::default()).await.unwrap();
    while stream.next_batch().await.is_ok() {}
    let live = &server.running.shared.live;
    until(|| !live.problems().is_empty()).await;
    let problem = &live.problems()[0];
    assert_eq!(problem.subject, "broken");
    assert!(
        problem.text.contains("StreamBatches, rank 0: stream failed")
            && problem.text.contains("the disk is gone"),
        "{problem:?}"
    );
}

//! Back-pressure, cancellation, draining, failover: what happens around the bytes.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::{Client, ClientOptions, Error, Health, StreamOptions};
use mixfeed_proto::{WatchMixtureRequest, mixture_service_client::MixtureServiceClient};
use mixfeed_server::config::Size;
use stand::{Server, Watched, bytes, named, pull, sources, spec, until};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use std::time::Duration;

/// Rows large enough that socket buffers hold only a few of them.
fn large() -> mixfeed_proto::JobSpec {
    let mut spec = spec();
    let image = spec.image.as_mut().unwrap();
    (image.height, image.width) = (400, 500);
    spec
}

const BUDGET: usize = 8 << 20;
/// Reads that the budget allows beyond what left for the client: a row takes 600 kB twice while it is made.
const READS_IN_BUDGET: usize = BUDGET / 600_000 + 3;

#[tokio::test]
async fn a_client_that_stops_reading_costs_its_budget_and_can_still_call() {
    let watched = Watched::new();
    let reads = watched.reads.clone();
    let server = Server::with(named(watched), |s| s.prefetch = Some(Size(BUDGET))).await;
    let client = server.open(&large()).await;
    let mut stalled = client.stream("job", StreamOptions::default()).await.unwrap();
    stalled.next_batch().await.unwrap();
    // Whatever is read from now on is not asked for by anyone. The client's window holds 16 MiB, h2 1 MiB.
    let window = (16 + 2 * 2) << 20;
    // One batch was taken, one waits in the client, one is being received there.
    let most = 3 * 12 + window / 600_000 + READS_IN_BUDGET;
    until(|| reads.load(SeqCst) > 12).await; // the budget is used
    let (mut seen, mut still) = (0, 0);
    while still < 100 {
        assert_eq!(client.health().await.unwrap(), Health::Serving);
        client.describe_job("job").await.unwrap();
        let now = reads.load(SeqCst);
        assert!(now <= most, "{now} reads, at most {most} fit");
        still = if now == seen { still + 1 } else { 0 };
        seen = now;
    }
    // Another trainer is not held up by it.
    pull(&client, 1, 2, 0, 3).await;
    // And the stalled one goes on where it was.
    assert_eq!(stalled.next_batch().await.unwrap().unwrap().step(), 1);
}

#[tokio::test]
async fn dropping_a_stream_frees_its_memory_and_its_work() {
    let server = Server::start(sources()).await;
    let client = server.open(&large()).await;
    let memory = server.running.shared.memory.clone();
    for _ in 0..3 {
        let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
        stream.next_batch().await.unwrap();
        assert!(memory.promised() > 0);
        drop(stream);
        until(|| memory.promised() == 0).await;
    }
}

#[tokio::test]
async fn closing_a_job_aborts_its_streams() {
    let server = Server::start(sources()).await;
    let client = server.open(&large()).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    client.close_job("job").await.unwrap();
    let error = loop {
        match stream.next_batch().await {
            Ok(batch) => assert!(batch.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Aborted { .. }), "{error}");
}

#[tokio::test]
async fn a_draining_server_hands_its_trainers_over_at_a_batch_boundary() {
    let (first, second) = (Server::start(sources()).await, Server::start(sources()).await);
    let options = ClientOptions::default().patience(Duration::from_secs(60));
    let client = Client::connect_with([first.endpoint(), second.endpoint()], options).await.unwrap();
    client.open_job("job", &spec()).await.unwrap();
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    let mut seen = vec![stream.next_batch().await.unwrap().unwrap()];
    first.stop.send_replace(true);
    while stream.stats().reconnects == 0 || seen.len() < 40 {
        seen.push(stream.next_batch().await.unwrap().unwrap());
    }
    assert!(seen.iter().enumerate().all(|(i, b)| b.step() == i as u64), "every step once, in order");
    first.running.wait().await; // ends by itself: nobody is left
    let reference = pull(&second.open(&spec()).await, 0, 1, 0, seen.len()).await;
    for (a, b) in seen.iter().zip(&reference) {
        assert_eq!(bytes(a), bytes(b), "step {}", a.step());
    }
}

#[test]
fn a_killed_server_costs_a_reconnect_and_no_step() {
    // The server has a runtime of its own: dropping it cuts every connection in the middle of whatever it was sending.
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mine, theirs) = (runtime(), runtime());
    // On an address of its own: nobody else is given its port while it is away.
    let server = theirs.block_on(Server::with(sources(), |s| s.listen = vec!["127.0.0.3:0".into()]));
    let address = server.endpoint().trim_start_matches("http://").to_owned();
    let mut stream = mine.block_on(async {
        let options = ClientOptions::default().patience(Duration::from_secs(60));
        let client = Client::connect_with([server.endpoint()], options).await.unwrap();
        client.open_job("job", &large()).await.unwrap();
        client.stream("job", StreamOptions::default()).await.unwrap()
    });
    let mut seen = vec![mine.block_on(stream.next_batch()).unwrap().unwrap()];
    theirs.shutdown_background();
    drop(server);
    // The same port again, a process that has never heard of the job.
    let again = runtime();
    let restarted = again.block_on(async {
        loop {
            let settings = mixfeed_server::config::Server {
                listen: vec![address.clone()],
                http: String::new(),
                ..Default::default()
            };
            let (stop, stopped) = tokio::sync::watch::channel(false);
            match mixfeed_server::start(&settings, sources(), Default::default(), None, stopped).await {
                Ok(running) => break Server { running, stop },
                Err(_) => tokio::task::yield_now().await, // the old listener is still closing
            }
        }
    });
    mine.block_on(async {
        while stream.stats().reconnects == 0 || seen.len() < 8 {
            seen.push(stream.next_batch().await.unwrap().unwrap());
        }
    });
    let reference = mine.block_on(async { pull(&restarted.open(&large()).await, 0, 1, 0, seen.len()).await });
    for (i, (a, b)) in seen.iter().zip(&reference).enumerate() {
        assert_eq!(a.step(), i as u64);
        assert_eq!(bytes(a), bytes(b), "step {i}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let server = Server::start(sources()).await;
    let taken = server.endpoint().trim_start_matches("http://").to_owned();
    let settings = mixfeed_server::config::Server { listen: vec![taken.clone()], ..Default::default() };
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let error =
        mixfeed_server::start(&settings, sources(), Default::default(), None, stopped).await.unwrap_err();
    assert!(error.to_string().contains(&taken), "{error}");
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_holds_nothing_of_a_server_that_stops() {
    let server = Server::with(sources(), |s| s.drain_timeout = 600).await;
    let _client = server.open(&spec()).await;
    let job = server.running.shared.jobs.get("job").unwrap();
    let before = Arc::strong_count(&job);
    let endpoint = tonic::transport::Endpoint::new(server.endpoint().to_owned()).unwrap();
    // The first entry does not fit, so nobody asks for what comes after it.
    let channel = endpoint.initial_stream_window_size(1).connect().await.unwrap();
    let mut calls = MixtureServiceClient::new(channel);
    let watched = calls.watch_mixture(WatchMixtureRequest { job: "job".into(), from_seq: 1 }).await.unwrap();
    until(|| Arc::strong_count(&job) > before).await;
    server.stop.send_replace(true);
    until(|| Arc::strong_count(&job) <= before).await;
    drop(watched);
}

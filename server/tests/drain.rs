//! What a stopped or killed server leaves behind: nothing lost, nothing twice, and no process.
#![allow(clippy::unwrap_used)]

#[path = "hostile/frames.rs"]
#[allow(dead_code)] // most of them are for attacks
mod frames;
mod serving;

use mixfeed_client::{Batch, BatchStream, Client, ClientOptions, Error, Start, StreamOptions};
use mixfeed_proto::batch_part::Part;
use mixfeed_proto::{BatchPart, StreamBatchesRequest, feed_service_client::FeedServiceClient};
use serving::Serving;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use std::{fs, net::TcpStream};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Jobs of every load: pictures, larger ones, tokens, and one that learns, whose first barrier comes after 8 steps of
/// probes.
fn config(drain: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data").canonicalize().unwrap();
    let text = format!(
        "[sources.photos]\nkind = \"folder\"\npath = {photos:?}\n\n\
         [sources.text]\nkind = \"text\"\npath = {texts:?}\ntokenizer = \"bytes\"\ndocuments = \"paragraph\"\n\
         groups = \"shard\"\n\n\
         [server]\ndrain_timeout = {drain}\n\n\
         [jobs.pictures]\nglobal_batch = 16\nmix_block = 8\nseed = 3\ngroups = [{{ group = \"photos\" }}]\n\
         image = {{ height = 48, width = 64, random_resized_crop = {{}} }}\n\
         mix = {{ policies = [{{ name = \"cutmix\" }}] }}\n\n\
         [jobs.large]\nglobal_batch = 16\nmix_block = 8\nseed = 3\ngroups = [{{ group = \"photos\" }}]\n\
         image = {{ height = {SIDE}, width = {SIDE} }}\n\n\
         [jobs.tokens]\nglobal_batch = 16\nseed = 3\ngroups = [{{ group = \"text\" }}]\ntokens = {{ seq_len = 64 }}\n\n\
         [jobs.lm]\nseed = 3\nglobal_batch = 16\nmax_steps = 60\ngroups = [{{ group = \"text\" }}]\n\
         tokens = {{ seq_len = 64 }}\nheld_out = {{ fraction = 0.1, max_records = 20 }}\n\n[jobs.lm.mixture]\n\
         estimator = {{ name = \"aioli\", params = {{ eta = 1.0, round_steps = 20, sweeps = 1, probe_steps = 2 }}, \
         options = {{ variant = \"paper_eg\" }} }}\n",
        photos = demo.join("photos").display().to_string(),
        texts = demo.join("text").display().to_string(),
    );
    fs::write(folder.path().join("mixfeed.toml"), text).unwrap();
    folder
}

fn start(folder: &tempfile::TempDir, listen: &str) -> Serving {
    Serving::at(&folder.path().join("mixfeed.toml").display().to_string(), listen)
}

fn patient() -> ClientOptions {
    ClientOptions::default().patience(Duration::from_secs(120))
}

/// Gives up at once.
fn impatient() -> ClientOptions {
    ClientOptions::default().patience(Duration::ZERO)
}

/// Sides of the pictures of job "large", whose batches hold 6.75 MiB.
const SIDE: u32 = 384;
/// What a stalled reader lets come.
const WINDOW: u32 = 64 << 10;
/// Most that a server hands to the connection beside that: a chunk that is being written, and two that are ready.
const READY: u64 = 3 << 20;

/// A reader that has the header of a batch and takes no more of it than fits into its window: its server stands in the
/// middle of that batch.
async fn stalled(server: &Serving) -> tonic::Streaming<BatchPart> {
    let endpoint = tonic::transport::Endpoint::new(server.endpoint.clone()).unwrap();
    let channel = endpoint.initial_stream_window_size(WINDOW).connect().await.unwrap();
    // Little is made ahead: nobody takes it.
    let ask =
        StreamBatchesRequest { job: "large".into(), world_size: 1, prefetch_bytes: 1, ..Default::default() };
    let mut parts = FeedServiceClient::new(channel).stream_batches(ask).await.unwrap().into_inner();
    let Some(Part::Header(header)) = parts.message().await.unwrap().unwrap().part else {
        panic!("a batch begins with its header")
    };
    let bytes: u64 = header.tensors.iter().map(|tensor| tensor.bytes).sum();
    assert!(bytes > 2 * (u64::from(WINDOW) + READY), "{bytes} bytes");
    parts
}

async fn client<const N: usize>(servers: [&Serving; N], options: ClientOptions) -> Client {
    Client::connect_with(servers.map(|s| s.endpoint.clone()), options).await.unwrap()
}

async fn stream(client: &Client, job: &str, (rank, world_size): (u32, u32), from: u64) -> BatchStream {
    let options = StreamOptions { rank, world_size, start: Start::Step(from), ..Default::default() };
    client.stream(job, options).await.unwrap()
}

/// A batch's step and the checksums of its tensors.
type Seen = (u64, Vec<u32>);

fn seen(batch: &Batch) -> Seen {
    (batch.step(), batch.tensors().map(|t| crc32c::crc32c(t.bytes)).collect())
}

async fn pull(stream: &mut BatchStream, steps: usize) -> Vec<Seen> {
    let mut out = Vec::new();
    while out.len() < steps {
        out.push(seen(&stream.next_batch().await.unwrap().expect("the job goes on")));
    }
    out
}

/// Pulls until the stream has lost its server once and `steps` more came.
async fn pull_past_the_end(mut stream: BatchStream, steps: usize) -> Vec<Seen> {
    let mut out = Vec::new();
    let mut after = 0;
    while after < steps {
        out.push(seen(&stream.next_batch().await.unwrap().expect("the job goes on")));
        after += usize::from(stream.stats().reconnects > 0);
    }
    out
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// How the process ended, by itself.
async fn ended(server: &mut Serving) -> ExitStatus {
    let limit = late();
    loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < limit, "the process does not end");
        tokio::task::yield_now().await;
    }
}

const RANKS: [(&str, (u32, u32)); 3] = [("pictures", (0, 2)), ("pictures", (1, 2)), ("tokens", (0, 1))];

/// What each of [`RANKS`] saw is what a server that nobody disturbed serves.
async fn same(server: &Serving, all: Vec<Vec<Seen>>) {
    let client = client([server], patient()).await;
    for ((job, rank), all) in RANKS.into_iter().zip(all) {
        let steps: Vec<u64> = all.iter().map(|(step, _)| *step).collect();
        assert_eq!(
            steps,
            (0..all.len() as u64).collect::<Vec<_>>(),
            "{job} {rank:?}: every step once, in order"
        );
        assert_eq!(pull(&mut stream(&client, job, rank, 0).await, all.len()).await, all, "{job} {rank:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_under_load_ends_at_batch_boundaries_and_by_itself() {
    let (folder, other) = (config(5), config(5));
    let (mut first, second) = (start(&folder, "127.0.0.1:0"), start(&other, "127.0.0.1:0"));
    // One reader stops reading; one waits at a barrier, because nobody reports.
    let stalled = stalled(&first).await;
    let impatient = client([&first], impatient()).await;
    let mut learning = stream(&impatient, "lm", (0, 1), 0).await;
    let before = pull(&mut learning, 1).await;
    let waiting = tokio::spawn(async move {
        let mut steps = before.len();
        loop {
            match learning.next_batch().await {
                Ok(batch) => steps += usize::from(batch.is_some()),
                Err(error) => return (steps, error),
            }
        }
    });
    let mut readers = Vec::new();
    for (job, rank) in RANKS {
        // All begin at the first server: rank 1 would begin at the second of the list.
        let servers = if rank.0 == 0 { [&first, &second] } else { [&second, &first] };
        let client = client(servers, patient()).await;
        let mut stream = stream(&client, job, rank, 0).await;
        let begun = seen(&stream.next_batch().await.unwrap().unwrap());
        readers.push(tokio::spawn(async move {
            let rest = pull_past_the_end(stream, 5).await;
            [vec![begun], rest].concat()
        }));
    }
    first.tell("-TERM");
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    let (steps, error) = waiting.await.unwrap();
    assert!(steps > 1 && steps < 60, "it came to the barrier: {steps}");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(ended(&mut first).await.success(), "a drained server ends with 0");
    drop(stalled);
    same(&second, all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_waits_neither_for_watchers_of_the_health_nor_for_the_silent() {
    let folder = config(600);
    let file = folder.path().join("mixfeed.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "\n[server.limits]\nfirst_request = 600\n").unwrap();
    let mut server = start(&folder, "127.0.0.1:0");
    let silent = TcpStream::connect(server.endpoint.trim_start_matches("http://")).unwrap();
    let endpoint = tonic::transport::Endpoint::new(server.endpoint.clone()).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let asked = HealthCheckRequest { service: String::new() };
    let mut watched = health.watch(asked).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    server.tell("-TERM");
    assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    assert_eq!(watched.message().await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(ended(&mut server).await.success());
    drop(silent);
}

/// The next frame: kind, flags, payload; `None` when the connection is over.
fn frame(socket: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((kind, flags, payload))
}

#[test]
fn a_term_does_not_wait_for_a_client_that_has_called_and_does_not_go() {
    const GOAWAY: u8 = 7;
    let mut server = start(&config(600), "127.0.0.1:0");
    let mut socket = TcpStream::connect(server.endpoint.trim_start_matches("http://")).unwrap();
    let call = frames::post(1, "/mixfeed.v1.FeedService/ListPolicies", &frames::message(&[]));
    socket.write_all(&[frames::hello(), call].concat()).unwrap();
    let answered =
        |(kind, flags, _): &(u8, u8, Vec<u8>)| *kind == frames::HEADERS && flags & frames::END_STREAM != 0;
    while !answered(&frame(&mut socket).expect("an answer")) {}
    server.tell("-TERM");
    // It is alive, so its pings are answered; but not the one that asks whether it has seen the GoAway.
    let (mut told, mut pings) = (false, 0);
    while let Some((kind, flags, payload)) = frame(&mut socket) {
        told |= kind == GOAWAY;
        if kind == frames::PING && flags & 1 == 0 {
            pings += usize::from(told);
            if pings != 1 {
                // It may be over by now.
                let _ = socket.write_all(&frames::frame(frames::PING, 1, 0, &payload));
            }
        }
    }
    assert!(told, "it was asked to go");
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    let folder = config(600);
    let mut server = start(&folder, "127.0.0.1:0");
    let stalled = stalled(&server).await;
    server.tell("-TERM");
    let limit = late();
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < limit, "it still listens");
    }
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for the reader that reads no more");
    server.tell("-INT");
    assert_eq!(ended(&mut server).await.code(), Some(130));
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_its_streams_is_resumed_byte_for_byte() {
    let folder = config(5);
    // An address of its own: nobody else is given its port while it is away.
    let mut server = start(&folder, "127.0.0.3:0");
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let mut readers = Vec::new();
    for (job, rank) in RANKS {
        let client = client([&server], patient()).await;
        let mut stream = stream(&client, job, rank, 0).await;
        let begun = seen(&stream.next_batch().await.unwrap().unwrap());
        readers.push(tokio::spawn(async move {
            let rest = pull_past_the_end(stream, 5).await;
            [vec![begun], rest].concat()
        }));
    }
    server.signal("-9");
    let server = start(&folder, &address);
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    same(&server, all).await;
}

//! Hostile clients beside good ones: the good ones get every batch, the others get nothing that lasts.
#![allow(clippy::unwrap_used)]

mod attack;
mod frames;
#[path = "../serving/mod.rs"]
mod serving;

use attack::{Attack, Kind, connect};
use mixfeed_client::{Client, ClientOptions, Health, StreamOptions};
use serving::Serving;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use std::{fs, io};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;
const MEMORY: usize = 64 * MIB;
const REQUEST_MEMORY: usize = 16 * MIB;
const HOSTILE: usize = 500;
/// Most that h2 and the socket keep of one connection, beside what is budgeted.
const CONNECTION: usize = 256 << 10;
/// A job that is neither short nor large.
const STEPS: u64 = 40;

/// A server on the demo's photographs.
struct House {
    serving: Serving,
    _folder: tempfile::TempDir,
}

impl House {
    fn start(limits: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let photos =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").canonicalize().unwrap();
        let text = format!(
            "[sources.photos]\nkind = \"folder\"\npath = {photos:?}\n\n\
             [server]\nmemory = {MEMORY}\nprefetch = {MIB}\nmax_prefetch = {}\nstate = \"\"\n\n\
             [server.limits]\nrequest_memory = {REQUEST_MEMORY}\n{limits}\n\n\
             [jobs.good]\nglobal_batch = 16\nmix_block = 8\nseed = 3\nmax_steps = {STEPS}\n\
             groups = [{{ group = \"photos\" }}]\nimage = {{ height = 48, width = 64, random_resized_crop = {{}} }}\n\
             mix = {{ policies = [{{ name = \"cutmix\" }}] }}\n",
            2 * MIB
        );
        let file = folder.path().join("mixfeed.toml");
        fs::write(&file, text).unwrap();
        House { serving: Serving::start(&file.display().to_string()), _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.serving.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    async fn client(&self, patience: Duration) -> Client {
        let options = ClientOptions::default().patience(patience);
        Client::connect_with([self.serving.endpoint.clone()], options).await.unwrap()
    }

    fn proc(&self, file: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.serving.child.id().to_string()).join(file)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Most memory that it ever had in RAM, bytes.
    fn peak(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// A series of /metrics, 0 when it is not there.
    async fn metric(&self, series: &str) -> f64 {
        let text = self.scrape().await.unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn scrape(&self) -> io::Result<String> {
        let address = self.serving.http.trim_start_matches("http://").split('/').next().unwrap();
        let mut socket = tokio::net::TcpStream::connect(address).await?;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        Ok(text)
    }

    async fn refused(&self, reason: &str) -> f64 {
        self.metric(&format!("mixfeed_connections_refused_total{{reason=\"{reason}\"}}")).await
    }
}

/// The whole job by a client of its own: (step, checksums of its tensors).
async fn job(house: &House) -> Vec<(u64, Vec<u32>)> {
    let client = house.client(Duration::from_secs(120)).await;
    // A probe is not tried again by the client, and this one may be looked at late.
    let limit = late();
    while client.health().await != Ok(Health::Serving) {
        assert!(Instant::now() < limit, "it does not say that it serves");
    }
    let mut stream = client.stream("good", StreamOptions::default()).await.unwrap();
    let mut out = Vec::new();
    while let Some(batch) = stream.next_batch().await.unwrap() {
        out.push((batch.step(), batch.tensors().map(|t| crc(t.bytes)).collect()));
    }
    out
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_hostile_clients_do_not_change_what_a_good_one_gets() {
    let house = House::start(
        "first_request = 5\nrequest_timeout = 3\nidle_timeout = 3\nstall_timeout = 4\ncontrol_frames = 50",
    );
    let alone = job(&house).await;
    assert_eq!(alone.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
    let limit = late();
    while house.metric("mixfeed_connections").await > 0.0 {
        assert!(Instant::now() < limit, "idle connections are closed");
    }
    let (files, before) = (house.files(), house.peak());

    let mut attack = Attack::start(house.address(), "good", HOSTILE, &[1, 2, 3, 4, 5]);
    let limit = late();
    let mut jobs = 0;
    // The first job begins while they come, the last one ends when they are gone.
    while jobs < 2 || attack.cut.load(SeqCst) < HOSTILE {
        assert_eq!(job(&house).await, alone, "job {jobs} beside them");
        let promised = house.metric("mixfeed_memory_bytes{pool=\"streams\"}").await;
        assert!(promised <= MEMORY as f64, "{promised} bytes are promised");
        let (began, cut) = (attack.began.load(SeqCst), attack.cut.load(SeqCst));
        assert!(Instant::now() < limit, "{cut} of {began} were cut");
        jobs += 1;
    }
    attack.over().await;
    for reason in ["slow", "idle", "stalled", "flood", "protocol"] {
        assert!(house.refused(reason).await > 0.0, "nobody was cut as `{reason}`");
    }
    let most = before + MEMORY + REQUEST_MEMORY + HOSTILE * CONNECTION;
    assert!(house.peak() <= most, "{} MiB at most, {} MiB wanted", house.peak() / MIB, most / MIB);
    let limit = late();
    while house.files() > files || house.metric("mixfeed_connections").await > 0.0 {
        assert!(Instant::now() < limit, "{} files are open, {files} were", house.files());
    }
    // Streams learn of it from their connections.
    for held in ["mixfeed_memory_bytes{pool=\"streams\"}", "mixfeed_streams"] {
        while house.metric(held).await > 0.0 {
            assert!(Instant::now() < limit, "{held} is not given back");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_has_room_for_a_new_address_and_for_who_asks_for_something() {
    let house = House::start(
        "connections = 40\nconnections_per_peer = 30\nfirst_request = 600\nrequest_timeout = 600\nidle_timeout = 600",
    );
    // One address holds all that it may, with calls that never end; another one takes the rest.
    let mut held = Vec::new();
    for (from, count) in [(2, 30), (3, 10)] {
        for _ in 0..count {
            let mut socket = connect(house.address(), from).await;
            socket
                .write_all(&[frames::hello(), frames::open(1, "/mixfeed.v1.FeedService/OpenJob")].concat())
                .await
                .unwrap();
            // The answer to our settings: it has been let in.
            socket.read_exact(&mut [0; 9]).await.unwrap();
            held.push(socket);
        }
    }
    assert_eq!(house.metric("mixfeed_connections").await, 40.0);
    assert!(job(&house).await.len() as u64 == STEPS, "a new address gets in");
    assert!(house.refused("evicted").await >= 2.0);

    // Its own address has all the connections that it may have, but they are silent: they make room.
    let own = tokio::spawn({
        let address = house.address();
        async move {
            let mut held = Vec::new();
            for _ in 0..30 {
                held.push(connect(address, 1).await);
            }
            held
        }
    });
    let own = own.await.unwrap();
    assert!(job(&house).await.len() as u64 == STEPS, "silence gives way to a call");
    drop((own, held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_closed_for_idleness_calls_again_without_an_error() {
    let house = House::start("idle_timeout = 1");
    let client = house.client(Duration::ZERO).await;
    for _ in 0..2 {
        client.describe_job("good").await.unwrap();
        let limit = late();
        while house.metric("mixfeed_connections").await > 0.0 {
            assert!(Instant::now() < limit, "the connection is closed");
        }
    }
    assert!(house.refused("idle").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_attack_is_cut() {
    let house = House::start(
        "first_request = 1\nrequest_timeout = 1\nidle_timeout = 1\nstall_timeout = 1\ncontrol_frames = 100",
    );
    let mut attacks = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        let address = house.address();
        attacks.spawn(async move {
            let run = attack::run(kind, connect(address, 2).await, "good");
            let cut = tokio::time::timeout(Duration::from_secs(100), run).await;
            assert!(cut.is_ok(), "{kind:?} goes on");
        });
    }
    while let Some(done) = attacks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_one_byte_hides_no_answer() {
    let house = House::start("idle_timeout = 600\nstall_timeout = 1");
    attack::run(Kind::WindowOfOneByte, connect(house.address(), 2).await, "good").await;
    assert_eq!(house.refused("stalled").await, 1.0);
}

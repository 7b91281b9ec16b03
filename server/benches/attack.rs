//! A good client beside five hundred idle or slow attackers, against the same client alone: server, client and attackers
//! are processes of their own, and rounds with and without attackers alternate. Prints a JSON line with the median over
//! rounds of the ratio within a round.
#![allow(clippy::unwrap_used, missing_docs)] // a bench may stop at the first surprise

#[allow(dead_code)]
#[path = "../tests/hostile/attack.rs"]
mod attack;
#[allow(dead_code)]
#[path = "../tests/hostile/frames.rs"]
mod frames;

use attack::Kind;
use bytes::Bytes;
use mixfeed_client::{Client, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::source::{Memory, Source};
use mixfeed_server::{Sources, config};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 7;
const BATCHES: usize = 20;
const WARMUP: usize = 4;
const ROWS: usize = 128;
const ATTACKERS: usize = 500;
const SLOW: [Kind; 7] = [
    Kind::Silent,
    Kind::HelloOnly,
    Kind::PrefaceByteByByte,
    Kind::MetadataByPieces,
    Kind::HeadersOnly,
    Kind::BodyByteByByte,
    Kind::UnknownPath,
];

fn main() {
    let mut args = std::env::args().skip_while(|a| a != "--serve" && a != "--attack");
    let what = args.next();
    match (what.as_deref(), args.next()) {
        (Some("--serve"), _) => runtime().block_on(serve()),
        (Some("--attack"), Some(port)) => runtime().block_on(harass(port.parse().unwrap())),
        _ => runtime().block_on(measure()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A process of this bench, and the line that it printed.
struct Process(Child, String);

impl Process {
    fn start(args: &[&str]) -> Process {
        let mut child =
            Command::new(std::env::current_exe().unwrap()).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Process(child, line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure() {
    let server = Process::start(&["--serve"]);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let alone = rate(&server.1).await;
        let attackers = Process::start(&["--attack", &server.1]);
        let beside = rate(&server.1).await;
        drop(attackers);
        eprintln!("round {round}: {alone:.0} rows/s alone, {beside:.0} beside {ATTACKERS} attackers");
        ratios.push(beside / alone);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    println!(
        r#"{{"bench": "good_client_under_attack", "ratio": {ratio:.3}, "peer": "the same client alone"}}"#
    );
}

async fn rate(port: &str) -> f64 {
    let client = Client::connect([format!("http://127.0.0.1:{port}")]).await.unwrap();
    let mut stream = client.stream("good", StreamOptions::default()).await.unwrap();
    for _ in 0..WARMUP {
        stream.next_batch().await.unwrap().unwrap();
    }
    let start = Instant::now();
    for _ in 0..BATCHES {
        stream.next_batch().await.unwrap().unwrap();
    }
    (BATCHES * ROWS) as f64 / start.elapsed().as_secs_f64()
}

/// A server with its usual limits: photographs, crops and CutMix.
async fn serve() {
    let photo = Bytes::from_static(include_bytes!("../../demo-data/photos/cat/cat_00.jpg"));
    let records = (0..64).map(|i| (format!("cat/{i}.jpg"), photo.clone(), "cat".to_owned())).collect();
    let source: Arc<dyn Source> = Arc::new(Memory::new(records).unwrap());
    let spec = v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "s".into(), ..Default::default() }],
        global_batch: ROWS as u32,
        image: Some(v1::ImageSpec {
            height: 224,
            width: 224,
            random_resized_crop: Some(v1::RandomResizedCrop::default()),
            ..Default::default()
        }),
        mix: Some(v1::MixSpec {
            policies: vec![v1::PolicySpec { name: "cutmix".into(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let settings =
        config::Server { listen: vec!["127.0.0.1:0".into()], http: String::new(), ..Default::default() };
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let jobs = BTreeMap::from([("good".to_owned(), spec)]);
    let sources = Sources::from([("s".to_owned(), source)]);
    let running = mixfeed_server::start(&settings, sources, jobs, None, stopped).await.unwrap();
    println!("{}", running.endpoints[0].rsplit(':').next().unwrap());
    running.wait().await;
}

/// All of them at once, each back as soon as it was cut; says so once all have a connection.
async fn harass(port: u16) {
    let server = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let (connected, mut all) = tokio::sync::mpsc::channel(ATTACKERS);
    for i in 0..ATTACKERS {
        let (kind, connected) = (SLOW[i % SLOW.len()], connected.clone());
        tokio::spawn(async move {
            loop {
                let socket = attack::connect(server, 2 + (i % 4) as u8).await;
                let _ = connected.try_send(()); // nobody listens any more after the first time
                attack::run(kind, socket, "good").await;
            }
        });
    }
    for _ in 0..ATTACKERS {
        all.recv().await;
    }
    println!("ready");
    std::future::pending::<()>().await;
}

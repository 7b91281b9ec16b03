//! What a scrape of a real server holds: series of jobs come and go with them, labels are capped, and what trainers say of
//! their waits is counted. One test after the other: the series of a process are one.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::{Client, EvalOptions, StreamOptions};
use mixfeed_proto::{self as v1, mixture_service_client::MixtureServiceClient};
use mixfeed_server::source::Memory;
use mixfeed_server::{config, metrics};
use stand::{Server, encoded, named, picture, pull};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::{Code, transport::Channel};

/// More groups than have series of their own.
const GROUPS: usize = 70;
/// More jobs than have series of their own.
const JOBS: usize = 23;

/// One row of each group a step.
fn spec() -> v1::JobSpec {
    let group = |g| v1::GroupSpec { group: format!("pics/g{g:02}"), weight: Some(1.0), ..Default::default() };
    v1::JobSpec {
        groups: (0..GROUPS).map(group).collect(),
        global_batch: GROUPS as u32,
        mix_block: 35,
        image: Some(v1::ImageSpec { height: 8, width: 8, ..Default::default() }),
        ..Default::default()
    }
}

async fn start() -> Server {
    let record = |g: usize| {
        let name = format!("g{g:02}/a.png");
        let bytes = encoded(&name, &picture(g, 9, 9));
        (name, bytes, format!("g{g:02}"))
    };
    let sources = named(Memory::new((0..GROUPS).map(record).collect()).unwrap());
    let settings = config::Server {
        listen: vec!["127.0.0.1:0".into()],
        http: "127.0.0.1:0".into(),
        max_jobs: JOBS,
        ..Default::default()
    };
    let (stop, stopped) = watch::channel(false);
    let recorder = metrics::install("cpu-1").unwrap();
    let running =
        mixfeed_server::start(&settings, sources, BTreeMap::new(), Some(recorder), stopped).await.unwrap();
    Server { running, stop }
}

/// Lines of the scrape that are series.
async fn scrape(server: &Server) -> Vec<String> {
    let address = server.running.http.as_ref().unwrap().trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
    lines.retain(|line| line.contains("} ") || line.starts_with("process_") || line.starts_with("mixfeed_"));
    lines
}

fn number(lines: &[String], series: &str) -> Option<f64> {
    let line = lines.iter().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_jobs() {
    let server = start().await;
    let client = server.client().await;
    groups_are_capped(&server, &client).await;
    jobs_are_capped(&server, &client).await;
    what_trainers_say_is_counted_and_checked(&server, &client).await;
    a_closed_job_leaves_no_series(&server, &client).await;
}

async fn groups_are_capped(server: &Server, client: &Client) {
    client.open_job("job", &spec()).await.unwrap();
    pull(client, 0, 1, 0, 2).await;
    let lines = scrape(server).await;
    // Two steps, and what was made ahead of others; shares hold exactly.
    for (family, own, others) in [
        ("mixfeed_group_samples_delivered_total", 2.0..f64::MAX, 12.0..f64::MAX),
        ("mixfeed_mixture_weight_ratio", 0.0142..0.0143, 0.0857..0.0858),
    ] {
        let of: Vec<&String> = lines.iter().filter(|line| line.starts_with(family)).collect();
        assert_eq!(of.len(), 64 + 1, "{of:?}");
        let of = |group: &str| number(&lines, &format!("{family}{{job=\"job\",group=\"{group}\"}}"));
        assert!(own.contains(&of("pics/g63").unwrap()) && others.contains(&of("other").unwrap()), "{family}");
        assert_eq!(of("pics/g64"), None);
    }
    // Rows of an eval set are no part of what a mixture is about.
    let options = EvalOptions {
        group: "pics/g00".into(),
        batch: 1,
        rank: 0,
        world_size: 1,
        last_batch: v1::LastBatch::Partial,
        from_step: 0,
        held_out: false,
    };
    client.open_job("set", &spec()).await.unwrap();
    let mut set = client.eval("set", options).await.unwrap();
    assert!(set.next_batch().await.unwrap().is_some() && set.next_batch().await.unwrap().is_none());
    let lines = scrape(server).await;
    assert_eq!(number(&lines, "mixfeed_samples_delivered_total{job=\"set\"}"), Some(1.0));
    let groups = "mixfeed_group_samples_delivered_total{job=\"set\"";
    assert!(!lines.iter().any(|line| line.starts_with(groups)));
    client.close_job("set").await.unwrap();
}

async fn jobs_are_capped(server: &Server, client: &Client) {
    for job in 1..JOBS {
        client.open_job(&format!("job{job:02}"), &spec()).await.unwrap();
    }
    for job in ["job19", "job20", "job21"] {
        let mut stream = client.stream(job, StreamOptions::default()).await.unwrap();
        stream.next_batch().await.unwrap();
    }
    let lines = scrape(server).await;
    let jobs = |family: &str| lines.iter().filter(|line| line.starts_with(&format!("{family}{{"))).count();
    assert_eq!(jobs("mixfeed_batches_delivered_total"), 20 + 1);
    assert!(number(&lines, "mixfeed_batches_delivered_total{job=\"job19\"}").unwrap() >= 1.0);
    assert!(number(&lines, "mixfeed_batches_delivered_total{job=\"other\"}").unwrap() >= 2.0);
    assert_eq!(jobs("mixfeed_mixture_weight_ratio"), 20 * 65);
    assert_eq!(number(&lines, "mixfeed_jobs"), Some(JOBS as f64));
    for process in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(number(&lines, process).is_some(), "{process}");
    }
}

async fn what_trainers_say_is_counted_and_checked(server: &Server, client: &Client) {
    let channel = Channel::from_shared(server.endpoint().to_owned()).unwrap().connect().await.unwrap();
    let mut calls = MixtureServiceClient::new(channel);
    let good = v1::ReportStatsRequest {
        job: "job".into(),
        rank: 1,
        world_size: 2,
        replica: 0,
        wait_seconds: 1.5,
        active_seconds: 8.5,
        steps: 4,
        next_step: 9,
    };
    calls.report_stats(good.clone()).await.unwrap();
    calls.report_stats(v1::ReportStatsRequest { next_step: 12, ..good.clone() }).await.unwrap();
    let lines = scrape(server).await;
    for (family, want) in [
        ("mixfeed_client_wait_seconds_total", 3.0),
        ("mixfeed_client_active_seconds_total", 17.0),
        ("mixfeed_client_steps_total", 8.0),
        ("mixfeed_client_step", 12.0),
    ] {
        assert_eq!(number(&lines, &format!("{family}{{job=\"job\",rank=\"1\"}}")), Some(want), "{family}");
    }
    let reported = server.running.shared.live.reported("job");
    // Rank 0 is our own client, which tells by itself.
    assert_eq!(reported.iter().find(|(rank, _)| *rank == 1).map(|(_, said)| said.steps), Some(8));
    type Change = fn(&mut v1::ReportStatsRequest);
    let wrong: [(&str, Change); 9] = [
        ("wait_seconds", |r| r.wait_seconds = f64::NAN),
        ("wait_seconds", |r| r.wait_seconds = -1.0),
        ("active_seconds", |r| r.active_seconds = f64::INFINITY),
        ("active_seconds", |r| r.active_seconds = 1e8),
        ("rank", |r| r.rank = 2),
        ("world_size", |r| r.world_size = 3),
        ("world_size", |r| r.world_size = 0),
        ("steps", |r| r.steps = u64::MAX),
        ("next_step", |r| r.next_step = u64::MAX),
    ];
    for (field, change) in wrong {
        let mut request = good.clone();
        change(&mut request);
        let status = calls.report_stats(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        assert!(status.message().contains(field), "{field}: {status}");
    }
    let status =
        calls.report_stats(v1::ReportStatsRequest { job: "nowhere".into(), ..good }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let after = scrape(server).await;
    assert_eq!(
        number(&after, "mixfeed_client_steps_total{job=\"job\",rank=\"1\"}"),
        Some(8.0),
        "nothing changed"
    );
    drop(client.describe_job("job").await.unwrap());
}

async fn a_closed_job_leaves_no_series(server: &Server, client: &Client) {
    assert!(scrape(server).await.iter().any(|line| line.contains("job=\"job\"")));
    client.close_job("job").await.unwrap();
    for job in 1..JOBS {
        client.close_job(&format!("job{job:02}")).await.unwrap();
    }
    assert!(server.running.shared.live.reported("job").is_empty());
    let lines = scrape(server).await;
    assert!(!lines.iter().any(|line| line.contains("job=\"")), "{lines:#?}");
    assert_eq!(number(&lines, "mixfeed_jobs"), Some(0.0));
}

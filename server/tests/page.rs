//! The status page of a real server, over HTTP.
#![allow(clippy::unwrap_used)]

mod stand;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use mixfeed_client::StreamOptions;
use mixfeed_proto as v1;
use mixfeed_server::config::{self, Size};
use mixfeed_server::http::{Access, Sight};
use mixfeed_server::live::Reported;
use mixfeed_server::source::{Fetching, Index, Memory, Source, SourceError, TokenMemory};
use mixfeed_server::{Running, Sources, http, metrics};
use stand::{CLASSES, named, pictures, sources, spec, until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| metrics::install("cpu-1").unwrap()).clone()
}

/// A server with its page.
struct Site {
    server: stand::Server,
    http: String,
}

impl Site {
    async fn start(sources: Sources) -> Site {
        Site::with(sources, |_| {}).await
    }

    async fn with(sources: Sources, change: impl FnOnce(&mut config::Server)) -> Site {
        let free = || "127.0.0.1:0".to_owned();
        let mut settings = config::Server { listen: vec![free()], http: free(), ..Default::default() };
        change(&mut settings);
        let (stop, stopped) = watch::channel(false);
        let handle = Some(recorder());
        let running: Running =
            mixfeed_server::start(&settings, sources, BTreeMap::new(), handle, stopped).await.unwrap();
        let http = running.http.clone().unwrap().replace("http://", "");
        Site { server: stand::Server { running, stop }, http }
    }

    async fn get(&self, path: &str) -> Answer {
        get(&self.http, path).await
    }

    /// Asks for a page until it says `what`.
    async fn says(&self, path: &str, what: &str) -> Answer {
        let late = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let answer = self.get(path).await;
            if answer.text().contains(what) {
                return answer;
            }
            assert!(std::time::Instant::now() < late, "`{what}` in {}", answer.text());
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(of).map(|line| &line[name.len() + 2..])
    }
}

async fn get(http: &str, path: &str) -> Answer {
    send(http, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

async fn send(http: &str, request: &str) -> Answer {
    let mut socket = TcpStream::connect(http).await.unwrap();
    // An answer may come, and the connection go, before all of a request is read.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut all = Vec::new();
    let _ = socket.read_to_end(&mut all).await;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(all.len());
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head, body: all[(end + 4).min(all.len())..].to_vec() }
}

/// The step and the grid of the pictures on a job's page: (step, columns, width of a picture, captions).
fn thumbs(page: &str) -> (u64, usize, usize, usize) {
    let after = |text: &str| page.split(text).nth(1).unwrap().to_owned();
    let step = after("batch.png?step=").split('"').next().unwrap().parse().unwrap();
    let list = after("<ul class=\"thumbs\">").split("</ul>").next().unwrap().to_owned();
    let number = |name: &str| {
        let of = list.split("<image href").nth(1).unwrap();
        of.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse::<usize>().unwrap()
    };
    let first = list.split("viewBox=\"").nth(1).unwrap().split('"').next().unwrap();
    let width: usize = first.split(' ').nth(2).unwrap().parse().unwrap();
    (step, number("width") / width, width, list.matches("<li>").count())
}

#[tokio::test]
async fn requests_get_the_answers_of_http() {
    let site = Site::start(sources()).await;
    let page = site.get("/").await;
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text().contains("No job is open"));
    let head = send(&site.http, "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 1_000);
    for method in ["POST", "PUT", "DELETE", "TRACE", "BREW"] {
        let request =
            format!("{method} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab");
        let answer = send(&site.http, &request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    for (path, status) in [
        ("/jobs/none", 404),
        ("/jobs/none/batch.png", 404),
        ("/jobs/%3Cscript%3E", 404),
        ("/jobs/../../etc/passwd", 404),
        ("/nothing", 404),
        ("/page.css?1", 200),
        ("/icon.svg", 200),
        ("/healthz", 200),
        ("/metrics", 200),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
    assert!(!site.get("/jobs/%3Cscript%3E").await.text().contains("script"));
    assert_eq!(site.get("/healthz").await.text(), "ok\n");
    assert!(site.get("/metrics").await.text().contains("mixfeed_jobs"));
    assert_eq!(site.get(&format!("/jobs/{}", "a".repeat(4_000))).await.status, 414);
    let long = site.get(&format!("/{}", "a".repeat(100_000))).await.status;
    assert!([0, 414, 431].contains(&long), "{long}: more than a head may have");
    assert_eq!(site.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_who_reads_and_what_was_sent() {
    let site = Site::start(sources()).await;
    let client = site.server.open(&spec()).await;
    let mut stream = client.stream("job", StreamOptions { replica: 7, ..Default::default() }).await.unwrap();
    let mut batches = vec![stream.next_batch().await.unwrap().unwrap()];
    let overview = site.says("/", "aria-label=\"batches per second").await.text();
    assert!(
        overview.contains("<a href=\"/jobs/job\">job</a> rank 0/1<small>replica <bdi>7</bdi>"),
        "{overview}"
    );
    assert!(overview.contains("pictures 33 × 45 · batch 12 · 3 groups"), "{overview}");
    let page = site.says("/jobs/job", "<ul class=\"thumbs\">").await.text();
    let (step, columns, width, rows) = thumbs(&page);
    assert_eq!((columns, width, rows), (3, 90, 3), "a pairing block of 3 rows of 45 columns, twice as large");
    let png = site.get(&format!("/jobs/job/batch.png?step={step}")).await;
    assert_eq!((png.status, png.header("content-type")), (200, Some("image/png")));
    while batches.last().unwrap().step() < step {
        batches.push(stream.next_batch().await.unwrap().unwrap());
    }
    let sent = batches.iter().find(|batch| batch.step() == step).unwrap();
    let grid = image::load_from_memory(&png.body).unwrap().to_rgb8();
    let rows = sent.tensors().find(|t| t.name == "image").unwrap().bytes.to_vec();
    let (height, width) = (33, 45);
    for row in 0..3 {
        for (y, x, channel) in [(0, 0, 0), (13, 20, 1), (32, 44, 2), (7, 31, 2)] {
            // Planes after each other, or channels.
            let shown = grid.get_pixel((row * width + x) as u32 * 2, y as u32 * 2).0[channel];
            let at = match rows.len() / 12 {
                n if n == 3 * height * width => row * n + channel * height * width + y * width + x,
                other => panic!("a row of {other} bytes"),
            };
            assert_eq!(shown, rows[at], "row {row}, ({y}, {x}), channel {channel}");
        }
    }
    let plot = site.get("/jobs/job/mixture.svg").await;
    assert!(plot.text().starts_with("<svg") && plot.header("content-type").unwrap().starts_with("image/svg"));
    assert!(page.contains(CLASSES[0].0) && page.contains("http-equiv=\"refresh\""));
    assert!(!site.get("/jobs/job?still").await.text().contains("http-equiv=\"refresh\""));
    client.close_job("job").await.unwrap();
    assert_eq!(site.get("/jobs/job").await.status, 404);
    assert_eq!(site.get(&format!("/jobs/job/batch.png?step={step}")).await.status, 404);
    assert!(site.get("/").await.text().contains("No job is open"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_problems_are_shown_as_text() {
    let site = Site::start(sources()).await;
    let _client = site.server.open(&spec()).await;
    let live = &site.server.running.shared.live;
    live.problem("job", "<script>alert(1)</script>");
    live.report("job", 3, Reported { wait_seconds: 1.0, active_seconds: 3.0, steps: 1_234 });
    let page = site.says("/jobs/job", "1,234").await.text();
    assert!(page.contains("25 %") && page.contains("<th scope=\"row\">3</th>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"), "{page}");
    assert!(page.contains("Nothing was sent yet."), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_tokens_are_shown_as_ids() {
    let documents: Vec<Vec<u32>> = (0..40u32).map(|i| (0..50).map(|t| i * 50 + t).collect()).collect();
    let tokens = TokenMemory::new(vec![("prose".to_owned(), documents)]).unwrap();
    let site = Site::start(named(tokens)).await;
    let spec = v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "pics".into(), ..Default::default() }],
        global_batch: 8,
        tokens: Some(v1::TokenSpec { seq_len: 16, ..Default::default() }),
        ..Default::default()
    };
    let client = site.server.open(&spec).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    let page = site.says("/jobs/job", "<ol class=\"texts\">").await.text();
    assert_eq!(page.split("<ol class=\"texts\">").nth(1).unwrap().matches("<li>").count(), 8, "{page}");
    assert!(page.contains("pics/prose, 16 tokens"), "{page}");
    assert_eq!(site.get("/jobs/job/batch.png").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_counts_nothing_and_tells_what_is_bad() {
    let broken =
        pictures().into_iter().map(|(name, bytes, class)| (name, bytes.slice(..bytes.len() / 3), class));
    let site = Site::start(named(Memory::new(broken.collect()).unwrap())).await;
    let mut spec = spec();
    spec.max_bad_fraction = Some(0.5);
    let client = site.server.open(&spec).await;
    // Moves the horizon: the stream itself fails.
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.expect_err("no picture is whole");
    let job = site.server.running.shared.jobs.get("job").unwrap();
    let counted = || job.feed.image().unwrap().tally.add(0, 0, 0.0);
    let before = counted();
    let page = site.says("/jobs/job", "The last batch is not shown: it cannot be made: record").await.text();
    assert!(page.contains("tried in its place"), "{page}");
    assert_eq!(counted(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_shown_where_they_may_not_or_cannot_be() {
    let off = Site::with(sources(), |settings| settings.page_pictures = false).await;
    let client = off.server.open(&spec()).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    assert!(off.get("/jobs/job").await.text().contains("`page_pictures` is false"));
    assert_eq!(off.get("/jobs/job/batch.png").await.status, 404);

    let full = Site::with(sources(), |settings| settings.memory = Size(4 << 20)).await;
    let client = full.server.open(&spec()).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    let memory = &full.server.running.shared.memory;
    let left = memory.limit() - memory.promised();
    let _all = memory.reserve(left, left).unwrap();
    full.says("/jobs/job", "memory is promised to streams").await;
}

/// Pictures that nobody can read while the door is shut.
#[derive(Debug)]
struct Shut {
    inner: Memory,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Source for Shut {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn index(&self) -> &Index {
        self.inner.index()
    }
    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let (open, changed) = &*self.open;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        self.inner.read(number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs_does_not_hang_the_page() {
    let open = Arc::new((Mutex::new(true), Condvar::new()));
    let site = Site::start(named(Shut { inner: Memory::new(pictures()).unwrap(), open: open.clone() })).await;
    let client = site.server.open(&spec()).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    *open.0.lock().unwrap() = false;
    let page = site.get("/jobs/job").await.text();
    assert!(page.contains("takes longer than a few seconds"), "{page}");
    assert!(site.get("/").await.text().contains("rank 0/1"), "others are answered");
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    site.says("/jobs/job", "<ul class=\"thumbs\">").await;
}

/// Pictures of a store that may fall silent.
#[derive(Debug)]
struct Silent {
    inner: Memory,
    silent: Arc<AtomicBool>,
}

impl Source for Silent {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn index(&self) -> &Index {
        self.inner.index()
    }
    fn read(&self, _: u32) -> Result<Bytes, SourceError> {
        Err(SourceError::Changed { file: "pics".into(), what: "a thread waits for it".into() })
    }
    fn fetch(&self, numbers: &[u32]) -> Option<Fetching> {
        let all = numbers.iter().map(|number| self.inner.read(*number)).collect();
        let silent = self.silent.load(SeqCst);
        Some(Box::pin(async move { if silent { std::future::pending().await } else { all } }))
    }
    fn far(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_silent_store_is_given_up() {
    let silent = Arc::new(AtomicBool::default());
    let site =
        Site::start(named(Silent { inner: Memory::new(pictures()).unwrap(), silent: silent.clone() })).await;
    let client = site.server.open(&spec()).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    stream.next_batch().await.unwrap();
    silent.store(true, SeqCst);
    site.says("/jobs/job", "in a store that does not give them").await;
    silent.store(false, SeqCst);
    site.says("/jobs/job", "<ul class=\"thumbs\">").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_need_leave_and_metrics_do_not() {
    let site = Site::start(sources()).await;
    let _client = site.server.open(&spec()).await;
    let shared = &site.server.running.shared;
    let sight = Sight {
        jobs: shared.jobs.clone(),
        live: shared.live.clone(),
        memory: shared.memory.clone(),
        assembler: shared.assembler.clone(),
        draining: shared.draining.clone(),
        pictures: true,
        access: Access::new(|given| given == Some("Basic bWU6c2VjcmV0")),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(http::serve(listener, recorder(), sight, stopped));
    for path in ["/", "/jobs/job", "/jobs/none", "/jobs/job/batch.png", "/jobs/job/mixture.svg", "/nothing"] {
        let answer = get(&address, path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"mixfeed\""));
        assert!(!answer.text().contains("job"), "{path}: {}", answer.text());
    }
    for path in ["/metrics", "/healthz"] {
        assert_eq!(get(&address, path).await.status, 200, "{path}");
    }
    let with = |value: &str| {
        format!("GET /jobs/job HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {value}\r\n\r\n")
    };
    assert_eq!(send(&address, &with("Basic bWU6c2VjcmV0")).await.status, 200);
    assert_eq!(send(&address, &with("Basic bWU6b3RoZXI=")).await.status, 401);
    assert_eq!(send(&address, &with("\u{fc}")).await.status, 401);
    stop.send_replace(true);
    until(|| serving.is_finished()).await;
}

//! The wire alone: one ready 38.5 MB batch (256 rows of 3 x 224 x 224 u8) sent over and over on loopback, server and
//! client as two processes. Ours (checksums on) against a plain TCP loop and against tonic's own codec with the same
//! windows and frames. Prints a JSON line per ratio: the median over rounds of the ratio within a round.
#![allow(clippy::unwrap_used, missing_docs)] // a bench may stop at the first surprise

use bytes::Bytes;
use mixfeed_client::{Client, ClientOptions, StreamOptions};
use mixfeed_proto::{self as v1, MAX_PAYLOAD_BYTES, batch_part::Part};
use mixfeed_server::assemble::{Assembler, Block, BlockAt, Extent};
use mixfeed_server::job::{self, Job};
use mixfeed_server::keeper::Mark;
use mixfeed_server::live::{Live, Who};
use mixfeed_server::source::{Memory, Source};
use mixfeed_server::stream::{self, Ask, Coming, Next, Positions};
use mixfeed_server::{Sources, service, store};
use std::io::{BufRead, BufReader, Read, Write};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tonic::{Request, Response, Status};

const ROUNDS: usize = 7;
const BATCHES: usize = 30;
const WARMUP: usize = 4;
const WINDOW: u32 = 16 << 20;
const FRAME: u32 = 256 << 10;
const BATCH_BYTES: usize = 256 * 3 * 224 * 224;

fn main() {
    match std::env::args().skip_while(|a| a != "--serve").nth(1).as_deref() {
        Some("tcp") => serve_tcp(),
        Some(kind) => runtime().block_on(serve_grpc(kind == "ours")),
        None => measure(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn measure() {
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let (tcp, ours, tonic) = (tcp(), runtime().block_on(ours()), runtime().block_on(tonic()));
        eprintln!("round {round}: tcp {tcp:.2} GB/s, mixfeed {ours:.2} GB/s, tonic {tonic:.2} GB/s");
        rates.push((tcp, ours, tonic));
    }
    let median = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
        let mut all: Vec<f64> = rates.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let [gb, tcp, tonic] = [median(&|r| r.1), median(&|r| r.1 / r.0), median(&|r| r.1 / r.2)];
    println!(r#"{{"bench": "wire_vs_tcp", "ratio": {tcp:.3}, "peer": "plain TCP loop"}}"#);
    println!(r#"{{"bench": "wire_vs_tonic", "ratio": {tonic:.3}, "peer": "tonic codec, tuned"}}"#);
    println!(r#"{{"bench": "wire_gb_per_s", "value": {gb:.3}, "unit": "GB/s"}}"#);
}

/// A server process of this bench and the port that it printed.
struct Server(Child, u16);

impl Server {
    fn start(kind: &str) -> Server {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--serve", kind])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Server(child, line.trim().parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rate(batches: usize, start: Instant) -> f64 {
    (batches * BATCH_BYTES) as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn tcp() -> f64 {
    let server = Server::start("tcp");
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", server.1)).unwrap();
    let mut buffer = vec![0u8; BATCH_BYTES];
    let mut read = |n: usize| (0..n).for_each(|_| socket.read_exact(&mut buffer).unwrap());
    read(WARMUP);
    let start = Instant::now();
    read(BATCHES);
    rate(BATCHES, start)
}

fn serve_tcp() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (mut socket, _) = listener.accept().unwrap();
    let buffer = vec![7u8; BATCH_BYTES];
    while socket.write_all(&buffer).is_ok() {}
}

async fn ours() -> f64 {
    let server = Server::start("ours");
    let options = ClientOptions::default();
    // `WIRE_FRAME=65536 cargo bench --bench wire` tries another frame size.
    let options = match std::env::var("WIRE_FRAME") {
        Ok(bytes) => options.frame_bytes(bytes.parse().unwrap()),
        Err(_) => options,
    };
    let client = Client::connect_with([format!("http://127.0.0.1:{}", server.1)], options).await.unwrap();
    let mut stream = client.stream("wire", StreamOptions::default()).await.unwrap();
    for _ in 0..WARMUP {
        stream.next_batch().await.unwrap().unwrap();
    }
    let start = Instant::now();
    for _ in 0..BATCHES {
        let batch = stream.next_batch().await.unwrap().unwrap();
        assert_eq!(batch.images().unwrap().bytes.len(), BATCH_BYTES);
    }
    rate(BATCHES, start)
}

/// Tonic's client with the same windows, its payloads put together in one reused buffer; no checksum.
async fn tonic() -> f64 {
    let server = Server::start("tonic");
    let endpoint = tonic::transport::Endpoint::new(format!("http://127.0.0.1:{}", server.1)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(2 * WINDOW);
    let channel = endpoint.max_frame_size(FRAME).connect().await.unwrap();
    let mut client = v1::feed_service_client::FeedServiceClient::new(channel);
    let mut parts = client.stream_batches(v1::StreamBatchesRequest::default()).await.unwrap().into_inner();
    let mut buffer = vec![0u8; BATCH_BYTES];
    let (mut batches, mut start) = (0, Instant::now());
    while let Some(part) = parts.message().await.unwrap() {
        match part.part.unwrap() {
            Part::Chunk(chunk) => {
                buffer[chunk.offset as usize..][..chunk.data.len()].copy_from_slice(&chunk.data)
            }
            Part::End(_) => {
                batches += 1;
                if batches == WARMUP {
                    start = Instant::now();
                }
                if batches == WARMUP + BATCHES {
                    break;
                }
            }
            Part::Header(_) | Part::GoAway(_) | Part::EndOfJob(_) => {}
        }
    }
    rate(BATCHES, start)
}

/// One step of 256 rows, made once.
#[derive(Clone)]
struct Ready {
    job: Arc<Job>,
    blocks: Arc<Vec<(u64, Block)>>,
}

async fn ready() -> Ready {
    let photo = Bytes::from_static(include_bytes!("../../demo-data/photos/cat/cat_00.jpg"));
    let source: Arc<dyn Source> =
        Arc::new(Memory::new(vec![("cat/a.jpg".into(), photo, "cat".into())]).unwrap());
    let spec = v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "s".into(), ..Default::default() }],
        global_batch: 256,
        image: Some(v1::ImageSpec { height: 224, width: 224, ..Default::default() }),
        ..Default::default()
    };
    let job = Arc::new(
        job::resolve("wire", spec, &Sources::from([("s".to_owned(), source)]))
            .unwrap()
            .open(&store::memory())
            .unwrap(),
    );
    let assembler = Assembler::new(2, 2, 0).unwrap();
    let mut blocks = Vec::new();
    for (i, places) in job.feed.order.step(0).chunks(job.feed.mix_block as usize).enumerate() {
        let slot = i as u64 * job.feed.mix_block;
        let at = BlockAt { step: 0, slot, places: places.to_vec() };
        blocks.push((slot, assembler.block(job.feed.clone(), at, None, &assembler.turns()).await.unwrap()));
    }
    Ready { job, blocks: Arc::new(blocks) }
}

async fn serve_grpc(ours: bool) {
    let ready = ready().await;
    let server = v1::feed_service_server::FeedServiceServer::new(Feed(ready.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    if !ours {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let mut tuned = tonic::transport::Server::builder().max_frame_size(FRAME).tcp_nodelay(true);
        return tuned.add_service(server).serve_with_incoming(incoming).await.unwrap();
    }
    let routes = tonic::service::Routes::new(server);
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (ready, routes) = (ready.clone(), routes.clone());
        let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (ready, routes) = (ready.clone(), routes.clone());
            async move {
                if request.uri().path().ends_with("/StreamBatches") {
                    let body = tonic::body::Body::new(again(ready));
                    return Ok(http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(body)
                        .unwrap());
                }
                tower::ServiceExt::oneshot(routes, request).await
            }
        });
        tokio::spawn(service::http2().serve_connection(hyper_util::rt::TokioIo::new(socket), answer));
    }
}

/// The ready step as steps 0, 1, 2, ... through the server's own sender.
fn again(ready: Ready) -> stream::Body {
    let (next, coming) = tokio::sync::mpsc::channel(16);
    let blocks = ready.blocks.clone();
    let (running, draining) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let _running = running;
        for step in 0.. {
            let extent = Extent { rows: 256, ..Default::default() };
            let mark = Mark::default();
            if next.send(Next::Step { step, extent: Some(extent), blocks: blocks.len(), mark }).await.is_err()
            {
                return;
            }
            for (slot, block) in blocks.iter() {
                let (slot, block) = (*slot, block.clone());
                let block = Coming::spawn(async move { Ok(block) });
                if next.send(Next::Block { slot, block }).await.is_err() {
                    return;
                }
            }
        }
    });
    let ask = Ask {
        feed: ready.job.feed.clone(),
        job: ready.job,
        rank: 0,
        world_size: 1,
        from: 0,
        steps: None,
        training: true,
        expected: None,
        positions: Positions::Follow,
        asked: Instant::now(),
    };
    let budget = stream::Memory::new(1 << 20).reserve(1 << 20, 0).unwrap();
    let who =
        Who { job: "job".into(), call: "StreamBatches", rank: 0, world_size: 1, replica: String::new() };
    let live = Arc::new(Live::default()).open(who, 0);
    stream::send(ask, coming, live, budget, draining, service::status::of_assemble)
}

/// The control call that our client makes, and the batches as tonic's codec sends them.
struct Feed(Ready);

type Parts = Pin<Box<dyn futures_util::Stream<Item = Result<v1::BatchPart, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this bench"))
}

#[tonic::async_trait]
impl v1::feed_service_server::FeedService for Feed {
    async fn open_job(&self, _: Request<v1::OpenJobRequest>) -> Answer<v1::OpenJobResponse> {
        let job = Some(mixfeed_server::wire::job_info(&self.0.job));
        Ok(Response::new(v1::OpenJobResponse { job, created: false }))
    }

    type StreamBatchesStream = Parts;
    async fn stream_batches(&self, _: Request<v1::StreamBatchesRequest>) -> Answer<Parts> {
        let image: Vec<u8> = self.0.blocks.iter().flat_map(|(_, b)| b.tensors[0].bytes.to_vec()).collect();
        let image = Bytes::from(image);
        let chunks = BATCH_BYTES.div_ceil(MAX_PAYLOAD_BYTES);
        let part = move |i: usize| {
            let offset = i % (chunks + 1) * MAX_PAYLOAD_BYTES;
            let part = match offset < BATCH_BYTES {
                true => {
                    let data = image.slice(offset..BATCH_BYTES.min(offset + MAX_PAYLOAD_BYTES));
                    Part::Chunk(v1::TensorChunk { tensor: 0, offset: offset as u64, data })
                }
                false => Part::End(v1::BatchEnd::default()),
            };
            Ok(v1::BatchPart { part: Some(part) })
        };
        Ok(Response::new(Box::pin(futures_util::stream::iter((0..).map(part)))))
    }

    type StreamEvalSetStream = Parts;
    async fn stream_eval_set(&self, _: Request<v1::StreamEvalSetRequest>) -> Answer<Parts> {
        not_here()
    }
    type ReplayBatchStream = Parts;
    async fn replay_batch(&self, _: Request<v1::ReplayBatchRequest>) -> Answer<Parts> {
        not_here()
    }
    type MixPairsStream = Parts;
    async fn mix_pairs(&self, _: Request<v1::MixPairsRequest>) -> Answer<Parts> {
        not_here()
    }
    async fn describe_job(&self, _: Request<v1::DescribeJobRequest>) -> Answer<v1::DescribeJobResponse> {
        not_here()
    }
    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        not_here()
    }
    async fn close_job(&self, _: Request<v1::CloseJobRequest>) -> Answer<v1::CloseJobResponse> {
        not_here()
    }
    async fn list_policies(&self, _: Request<v1::ListPoliciesRequest>) -> Answer<v1::ListPoliciesResponse> {
        not_here()
    }
    async fn list_sources(&self, _: Request<v1::ListSourcesRequest>) -> Answer<v1::ListSourcesResponse> {
        not_here()
    }
}

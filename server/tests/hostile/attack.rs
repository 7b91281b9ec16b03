//! Clients that mean harm, each in its own way, until the server has had enough of them.

use crate::frames::*;
use mixfeed_proto as v1;
use prost::Message;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const STREAM: &str = "/mixfeed.v1.FeedService/StreamBatches";
const POLICIES: &str = "/mixfeed.v1.FeedService/ListPolicies";
const OPEN_JOB: &str = "/mixfeed.v1.FeedService/OpenJob";
const REPORT: &str = "/mixfeed.v1.MixtureService/Report";
/// Pause of those who are slow on purpose.
const SLOW: Duration = Duration::from_millis(100);

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Silent,
    PrefaceByteByByte,
    Garbage,
    TlsHello,
    Http1,
    HalfClosed,
    HelloOnly,
    SettingsFlood,
    PingFlood,
    RapidReset,
    WindowUpdateFlood,
    WindowOverflow,
    ContinuationFlood,
    HugeMetadata,
    MetadataByPieces,
    ThousandsOfStreams,
    HeadersOnly,
    BodyByteByByte,
    EmptyDataFlood,
    NeverReads,
    NeverReadsAnswers,
    WindowOfOneByte,
    WrongContentType,
    UnknownPath,
    Compressed,
    HugeLength,
    BadProtobuf,
    OversizedMessage,
    FrameTooLarge,
    DataOnNoStream,
    PriorityFlood,
}

impl Kind {
    pub const ALL: [Kind; 31] = [
        Kind::Silent,
        Kind::PrefaceByteByByte,
        Kind::Garbage,
        Kind::TlsHello,
        Kind::Http1,
        Kind::HalfClosed,
        Kind::HelloOnly,
        Kind::SettingsFlood,
        Kind::PingFlood,
        Kind::RapidReset,
        Kind::WindowUpdateFlood,
        Kind::WindowOverflow,
        Kind::ContinuationFlood,
        Kind::HugeMetadata,
        Kind::MetadataByPieces,
        Kind::ThousandsOfStreams,
        Kind::HeadersOnly,
        Kind::BodyByteByByte,
        Kind::EmptyDataFlood,
        Kind::NeverReads,
        Kind::NeverReadsAnswers,
        Kind::WindowOfOneByte,
        Kind::WrongContentType,
        Kind::UnknownPath,
        Kind::Compressed,
        Kind::HugeLength,
        Kind::BadProtobuf,
        Kind::OversizedMessage,
        Kind::FrameTooLarge,
        Kind::DataOnNoStream,
        Kind::PriorityFlood,
    ];

    /// Bytes that it begins with.
    fn opening(self, job: &str) -> Vec<u8> {
        let hello = |more: Vec<u8>| [hello(), more].concat();
        let ids = |n: u32| (0..n).map(|i| 2 * i + 1);
        match self {
            Kind::Silent | Kind::PrefaceByteByByte => Vec::new(),
            Kind::Garbage => (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            Kind::TlsHello => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat(),
            Kind::Http1 => b"POST / HTTP/1.1\r\nhost: mixfeed\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            Kind::HalfClosed | Kind::HelloOnly => hello(Vec::new()),
            Kind::SettingsFlood
            | Kind::PingFlood
            | Kind::RapidReset
            | Kind::WindowUpdateFlood
            | Kind::PriorityFlood => hello(Vec::new()),
            Kind::WindowOverflow => {
                let most = 0x7fff_ffff_u32.to_be_bytes();
                hello([open(1, STREAM), frame(WINDOW_UPDATE, 0, 1, &most).repeat(2)].concat())
            }
            Kind::ContinuationFlood => hello(frame(HEADERS, 0, 1, &call(STREAM, "application/grpc"))),
            Kind::HugeMetadata => {
                let large = call(STREAM, "application/grpc");
                let large = [large, header("x-large", &"x".repeat(2 << 20))].concat();
                let mut pieces = large.chunks(16 << 10);
                let first = frame(HEADERS, 0, 1, pieces.next().unwrap());
                hello(pieces.fold(first, |all, piece| [all, frame(CONTINUATION, 0, 1, piece)].concat()))
            }
            Kind::MetadataByPieces => hello(frame(HEADERS, 0, 1, &call(STREAM, "application/grpc")[..10])),
            Kind::ThousandsOfStreams => hello(ids(5000).flat_map(|id| open(id, STREAM)).collect()),
            Kind::HeadersOnly => hello(ids(100).flat_map(|id| open(id, OPEN_JOB)).collect()),
            Kind::BodyByteByByte | Kind::EmptyDataFlood => hello(open(1, REPORT)),
            Kind::NeverReads => {
                let ask = v1::StreamBatchesRequest { job: job.into(), world_size: 1, ..Default::default() };
                let ask = message(&ask.encode_to_vec());
                hello(ids(4).flat_map(|id| post(id, STREAM, &ask)).collect())
            }
            Kind::NeverReadsAnswers => {
                hello(ids(200).flat_map(|id| post(id, POLICIES, &message(&[]))).collect())
            }
            Kind::WindowOfOneByte => {
                let asks = ids(200).flat_map(|id| post(id, POLICIES, &message(&[])));
                [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]), asks.collect()].concat()
            }
            Kind::WrongContentType => {
                let wrong = |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &call(POLICIES, "text/html"));
                hello(ids(3).flat_map(wrong).collect())
            }
            Kind::UnknownPath => hello(post(1, "/etc/passwd", &message(b"x"))),
            Kind::Compressed => {
                let body = [&[1], &message(b"x")[1..]].concat();
                hello([post(1, STREAM, &body), post(3, OPEN_JOB, &body)].concat())
            }
            Kind::HugeLength => {
                let body = [0, 0xff, 0xff, 0xff, 0xff, 1];
                hello([post(1, STREAM, &body), post(3, OPEN_JOB, &body), post(5, REPORT, &body)].concat())
            }
            Kind::BadProtobuf => {
                let body = message(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x92, 0x01, 0x80]);
                let paths = [STREAM, OPEN_JOB, REPORT, "/mixfeed.v1.FeedService/ReplayBatch"];
                hello((0..).zip(paths).flat_map(|(i, path)| post(2 * i + 1, path, &body)).collect())
            }
            Kind::OversizedMessage => {
                let length = [&[0][..], &(3u32 << 20).to_be_bytes()].concat();
                let part = frame(DATA, 0, 1, &[7; 16 << 10]);
                // As much as the window lets it: the server has to refuse before it has all.
                hello([open(1, OPEN_JOB), frame(DATA, 0, 1, &length), part.repeat(63)].concat())
            }
            Kind::FrameTooLarge => hello(frame(SETTINGS, 0, 0, &vec![0; 60 << 10])),
            Kind::DataOnNoStream => hello(frame(DATA, 0, 99, &[7; 100])),
        }
    }

    /// Bytes that it goes on with, and the pause between them.
    fn more(self) -> Option<(Vec<u8>, Duration)> {
        let flood = |frames: Vec<u8>| Some((frames, Duration::ZERO));
        match self {
            Kind::PrefaceByteByByte => Some((b"P".to_vec(), SLOW)),
            Kind::SettingsFlood => flood(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(500)),
            Kind::PingFlood => flood(frame(PING, 0, 0, &[1; 8]).repeat(500)),
            Kind::WindowUpdateFlood => flood(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(500)),
            Kind::PriorityFlood => flood(frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 7]).repeat(500)),
            Kind::ContinuationFlood => flood(frame(CONTINUATION, 0, 1, &[]).repeat(500)),
            Kind::MetadataByPieces => Some((frame(CONTINUATION, 0, 1, &[]), SLOW)),
            Kind::BodyByteByByte => Some((frame(DATA, 0, 1, &[0]), SLOW)),
            Kind::EmptyDataFlood => flood(frame(DATA, 0, 1, &[]).repeat(500)),
            // They are alive: they would answer any question except "did you take it?".
            Kind::NeverReads | Kind::NeverReadsAnswers | Kind::WindowOfOneByte => {
                Some((frame(PING, 0, 0, &[2; 8]), SLOW))
            }
            Kind::Silent
            | Kind::Garbage
            | Kind::TlsHello
            | Kind::Http1
            | Kind::HalfClosed
            | Kind::HelloOnly
            | Kind::RapidReset
            | Kind::WindowOverflow
            | Kind::HugeMetadata
            | Kind::ThousandsOfStreams
            | Kind::HeadersOnly
            | Kind::WrongContentType
            | Kind::UnknownPath
            | Kind::Compressed
            | Kind::HugeLength
            | Kind::BadProtobuf
            | Kind::OversizedMessage
            | Kind::FrameTooLarge
            | Kind::DataOnNoStream => None,
        }
    }

    fn reads(self) -> bool {
        !matches!(self, Kind::NeverReads | Kind::NeverReadsAnswers | Kind::WindowOfOneByte)
    }
}

/// Many of them, on a thread of their own: good clients do not wait behind them on this side.
pub struct Attack {
    tasks: JoinSet<()>,
    runtime: Option<Runtime>,
    /// Those who got a connection, and those who lost it.
    pub began: Arc<AtomicUsize>,
    pub cut: Arc<AtomicUsize>,
}

impl Attack {
    /// `count` clients, the kinds and the last bytes of their `addresses` taken in turn.
    pub fn start(server: SocketAddr, job: &str, count: usize, addresses: &[u8]) -> Attack {
        let (began, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut tasks = JoinSet::new();
        for i in 0..count {
            let kind = Kind::ALL[i % Kind::ALL.len()];
            let from = addresses[i % addresses.len()];
            let (job, began, cut) = (job.to_owned(), began.clone(), cut.clone());
            let attacker = async move {
                let socket = connect(server, from).await;
                began.fetch_add(1, SeqCst);
                run(kind, socket, &job).await;
                cut.fetch_add(1, SeqCst);
            };
            tasks.spawn_on(attacker, runtime.handle());
        }
        Attack { tasks, runtime: Some(runtime), began, cut }
    }

    /// Waits until all of them were cut.
    pub async fn over(&mut self) {
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a runtime must not be waited for inside another one
        }
    }
}

/// A connection from 127.0.0.`from`.
pub async fn connect(server: SocketAddr, from: u8) -> TcpStream {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0)).unwrap();
        match socket.connect(server).await {
            Ok(socket) => return socket,
            Err(_) => tokio::task::yield_now().await, // the queue of the listener is full
        }
    }
}

/// Attacks until the server ends the connection.
pub async fn run(kind: Kind, socket: TcpStream, job: &str) {
    let (mut from, mut to) = socket.into_split();
    let write = async {
        to.write_all(&kind.opening(job)).await?;
        if matches!(kind, Kind::HalfClosed) {
            to.shutdown().await?;
        }
        if matches!(kind, Kind::RapidReset) {
            for id in (1..).step_by(2) {
                let reset = frame(RST_STREAM, 0, id, &8u32.to_be_bytes());
                to.write_all(&[open(id, STREAM), reset].concat()).await?;
            }
        }
        if matches!(kind, Kind::PrefaceByteByByte) {
            for byte in PREFACE {
                to.write_all(&[*byte]).await?;
                tokio::time::sleep(SLOW).await;
            }
        }
        if let Some((bytes, pause)) = kind.more() {
            loop {
                to.write_all(&bytes).await?;
                tokio::time::sleep(pause).await;
            }
        }
        std::io::Result::Ok(())
    };
    if kind.reads() {
        // An error of writing means that it was cut as well; the other half says so too.
        tokio::join!(write, drain(&mut from)).0.err();
    } else {
        write.await.expect_err("it goes on until it is cut");
    }
}

/// Takes whatever comes, until nothing will.
async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; 64 << 10];
    while from.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

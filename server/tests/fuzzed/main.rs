//! Requests of every call, bent and made up: each is answered by a code that says whose fault it is, soon, and for little
//! memory; and the server goes on.
#![allow(clippy::unwrap_used)]

mod requests;
#[path = "../stand/mod.rs"]
mod stand;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use mixfeed_proto as v1;
use mixfeed_server::config::Size;
use proptest::prelude::*;
use prost::Message;
use requests::{Bend, PATHS, bends, body, valid};
use stand::{Server, sources, spec};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::Channel;
use tower::ServiceExt;

/// A call that is not answered by then hangs.
const DEADLINE: Duration = Duration::from_secs(100);
/// Parts of an answer that are looked at.
const PARTS: usize = 40;
const MIB: usize = 1 << 20;
/// What the process may take beside what it takes for good requests.
const MEMORY: usize = 400 * MIB;

struct Stand {
    runtime: Runtime,
    _server: Server,
    channel: Channel,
    digest: Bytes,
    /// Memory after a good batch, bytes.
    before: usize,
}

static STAND: LazyLock<Stand> = LazyLock::new(stand);

fn stand() -> Stand {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, channel, digest) = runtime.block_on(async {
        let server = Server::with(sources(), |s| {
            s.memory = Size(64 * MIB);
            s.max_jobs = 1000;
            s.reflection = true;
            // Nothing waits here; what lasts longer is a hang.
            s.limits.request_timeout = 5;
        })
        .await;
        let client = server.open(&spec()).await;
        stand::pull(&client, 0, 1, 0, 2).await;
        let digest = client.describe_job("job").await.unwrap().digest;
        let endpoint = tonic::transport::Endpoint::new(server.endpoint().to_owned()).unwrap();
        (server, endpoint.connect().await.unwrap(), digest)
    });
    let before = peak();
    Stand { runtime, _server: server, channel, digest: Bytes::copy_from_slice(digest.as_ref()), before }
}

/// Most memory that this process ever had in RAM, bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// The answer's code; `None` when the first parts of a stream came well.
fn ask(stand: &Stand, path: &str, body: Vec<u8>) -> Option<Code> {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
        .unwrap();
    let code = |headers: &http::HeaderMap| {
        let code = headers.get("grpc-status")?;
        Some(Code::from(code.to_str().unwrap().parse::<i32>().unwrap()))
    };
    stand.runtime.block_on(async {
        let answered = async {
            let response = stand.channel.clone().oneshot(request).await.unwrap();
            if let Some(code) = code(response.headers()) {
                return Some(code);
            }
            if path.ends_with("/WatchMixture") {
                return None; // it waits for what comes next
            }
            let mut body = response.into_body();
            for _ in 0..PARTS {
                let frame = body.frame().await.expect("trailers come at the end").unwrap();
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    return Some(code);
                }
            }
            None
        };
        tokio::time::timeout(DEADLINE, answered).await.unwrap_or_else(|_| panic!("`{path}` hangs"))
    })
}

/// Codes that are never the answer to a request, however wrong: they are our defects.
fn is_defect(code: Option<Code>) -> bool {
    matches!(code, Some(Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable))
}

fn sound(path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let code = ask(&STAND, path, body);
    // Reflection is not ours, and off unless an operator wants it: it calls what it cannot read INTERNAL.
    prop_assert!(path.starts_with("/grpc.reflection") || !is_defect(code), "`{}` answers {:?}", path, code);
    let most = STAND.before + MEMORY;
    prop_assert!(peak() <= most, "`{}` took {} MiB", path, (peak() - STAND.before) / MIB);
    Ok(())
}

/// A message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bent_messages_are_answered(which in 0..PATHS.len(), bend in bends()) {
        let message = bend.apply(valid(PATHS[which], &STAND.digest));
        sound(PATHS[which], framed(&message))?;
    }

    #[test]
    fn noise_is_answered(
        which in 0..PATHS.len(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        with_prefix: bool,
    ) {
        sound(PATHS[which], if with_prefix { framed(&noise) } else { noise })?;
    }

    #[test]
    fn bent_frames_are_answered(which in 0..PATHS.len(), bend in bends()) {
        let whole = framed(&valid(PATHS[which], &STAND.digest));
        let mut bent = bend.apply(whole.clone());
        // The prefix gets its share.
        bent.truncate(bent.len().max(5));
        sound(PATHS[which], bent)?;
    }

    #[test]
    fn messages_of_another_call_are_answered(which in 0..PATHS.len(), other in 0..PATHS.len()) {
        sound(PATHS[which], framed(&valid(PATHS[other], &STAND.digest)))?;
    }

    #[test]
    fn specs_with_extreme_numbers_are_answered(edits in requests::edits()) {
        let mut spec = spec();
        edits.iter().for_each(|edit| edit.apply(&mut spec));
        let request = v1::OpenJobRequest { job: "extreme".into(), spec: Some(spec), ..Default::default() };
        sound("/mixfeed.v1.FeedService/OpenJob", body(&request))?;
        let stream = v1::StreamBatchesRequest { job: "extreme".into(), world_size: 1, ..Default::default() };
        sound("/mixfeed.v1.FeedService/StreamBatches", body(&stream))?;
        let forget = v1::CloseJobRequest { job: "extreme".into(), forget: true };
        sound("/mixfeed.v1.FeedService/CloseJob", body(&forget))?;
    }

    #[test]
    fn cursors_whose_checksum_fits_are_answered(numbers in [requests::number(), requests::number(), requests::number()]) {
        let [branch, next_step, mixture_seq] = numbers;
        let mut cursor = v1::Cursor {
            job: "job".into(), digest: STAND.digest.clone(), branch, next_step, mixture_seq, crc: 0,
        };
        cursor.crc = crc32c::crc32c(&cursor.encode_to_vec());
        let start = Some(v1::stream_batches_request::Start::Cursor(cursor));
        let ask = v1::StreamBatchesRequest { job: "job".into(), world_size: 1, start, ..Default::default() };
        sound("/mixfeed.v1.FeedService/StreamBatches", body(&ask))?;
    }

    #[test]
    fn receipts_with_any_numbers_are_answered(
        numbers in [requests::number(), requests::number(), requests::number()],
        (rank, world_size) in (0u32..3, 0u32..5),
        plan_digest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let [branch, step, mixture_seq] = numbers;
        let receipt = v1::Receipt {
            digest: STAND.digest.clone(), branch, step, mixture_seq, numerics: "cpu-1".into(),
            plan_digest: plan_digest.into(), rank, world_size, replaced: Vec::new(),
        };
        let what = Some(v1::replay_batch_request::What::Receipt(receipt));
        let ask_for = v1::ReplayBatchRequest { job: "job".into(), what, ..Default::default() };
        // A receipt whose digest is another one's is told as DATA_LOSS: that is its code.
        let code = ask(&STAND, "/mixfeed.v1.FeedService/ReplayBatch", body(&ask_for));
        prop_assert!(!is_defect(code) || code == Some(Code::DataLoss), "{:?}", code);
    }
}

#[test]
fn valid_requests_are_taken() {
    // A server of its own: elsewhere others close the job, and open it again as something else.
    let stand = stand();
    for path in PATHS {
        let code = ask(&stand, path, framed(&valid(path, &stand.digest)));
        let fine = matches!(code, None | Some(Code::Ok | Code::NotFound | Code::FailedPrecondition))
            || (path.ends_with("MixPairs") && code == Some(Code::Unimplemented));
        assert!(fine, "`{path}` answers {code:?}");
    }
    assert!(!Bend::default().apply(vec![1]).is_empty());
}

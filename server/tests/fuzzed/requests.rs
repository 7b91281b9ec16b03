//! A valid request of every call, and what may be wrong with it.

use crate::stand::spec;
use bytes::Bytes;
use mixfeed_proto as v1;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

const FEED: &str = "/mixfeed.v1.FeedService/";
const MIXTURE: &str = "/mixfeed.v1.MixtureService/";

/// Every call but CloseJob of the job that the others need.
pub const PATHS: [&str; 24] = [
    "/mixfeed.v1.FeedService/OpenJob",
    "/mixfeed.v1.FeedService/StreamBatches",
    "/mixfeed.v1.FeedService/StreamEvalSet",
    "/mixfeed.v1.FeedService/ReplayBatch",
    "/mixfeed.v1.FeedService/MixPairs",
    "/mixfeed.v1.FeedService/DescribeJob",
    "/mixfeed.v1.FeedService/ListJobs",
    "/mixfeed.v1.FeedService/CloseJob",
    "/mixfeed.v1.FeedService/ListPolicies",
    "/mixfeed.v1.FeedService/ListSources",
    "/mixfeed.v1.MixtureService/OpenAttempt",
    "/mixfeed.v1.MixtureService/Report",
    "/mixfeed.v1.MixtureService/ReportStats",
    "/mixfeed.v1.MixtureService/GetPlan",
    "/mixfeed.v1.MixtureService/WatchMixture",
    "/mixfeed.v1.MixtureService/SetWeights",
    "/mixfeed.v1.MixtureService/GetMixture",
    "/mixfeed.v1.MixtureService/GetMixtureLog",
    "/mixfeed.v1.MixtureService/GetAccounting",
    "/mixfeed.v1.MixtureService/GetCandidates",
    "/mixfeed.v1.MixtureService/ListEstimators",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// A message with its prefix.
pub fn body(message: &impl Message) -> Vec<u8> {
    super::framed(&message.encode_to_vec())
}

/// A request that the call takes.
pub fn valid(path: &str, digest: &Bytes) -> Vec<u8> {
    let job = || "job".to_owned();
    let call = path.strip_prefix(FEED).or_else(|| path.strip_prefix(MIXTURE)).unwrap_or(path);
    match call {
        "OpenJob" => v1::OpenJobRequest { job: job(), spec: Some(spec()), expected_digest: Bytes::new() }
            .encode_to_vec(),
        "StreamBatches" => {
            let mut cursor =
                v1::Cursor { job: job(), digest: digest.clone(), next_step: 3, ..Default::default() };
            cursor.crc = crc32c::crc32c(&cursor.encode_to_vec());
            let start = Some(v1::stream_batches_request::Start::Cursor(cursor));
            v1::StreamBatchesRequest { job: job(), rank: 1, world_size: 2, start, ..Default::default() }
                .encode_to_vec()
        }
        "StreamEvalSet" => {
            let group = "pics/ant".into();
            v1::StreamEvalSetRequest { job: job(), group, batch: 4, world_size: 1, ..Default::default() }
                .encode_to_vec()
        }
        "ReplayBatch" => {
            let what = Some(v1::replay_batch_request::What::Step(2));
            v1::ReplayBatchRequest { job: job(), what, world_size: 1, ..Default::default() }.encode_to_vec()
        }
        "CloseJob" => v1::CloseJobRequest { job: "another".into(), forget: false }.encode_to_vec(),
        "ListJobs" => v1::ListJobsRequest { page_size: 5, page_token: "a".into() }.encode_to_vec(),
        "ListSources" => v1::ListSourcesRequest { page_size: 5, page_token: "a".into() }.encode_to_vec(),
        "OpenAttempt" => {
            v1::OpenAttemptRequest { job: job(), completed_steps: 2, ..Default::default() }.encode_to_vec()
        }
        "Report" => {
            let values = vec![1.0, f64::NAN, f64::INFINITY];
            v1::ReportRequest {
                job: job(),
                attempt: 1,
                segment: 1,
                counts: values.clone(),
                values,
                to_step: 4,
                ..Default::default()
            }
            .encode_to_vec()
        }
        "ReportStats" => v1::ReportStatsRequest {
            job: job(),
            world_size: 1,
            wait_seconds: 0.5,
            active_seconds: 2.0,
            steps: 3,
            ..Default::default()
        }
        .encode_to_vec(),
        "SetWeights" => {
            let weights = vec![1.0; 3];
            v1::SetWeightsRequest { job: job(), weights, operator: "eve".into(), ..Default::default() }
                .encode_to_vec()
        }
        "GetMixtureLog" => v1::GetMixtureLogRequest { job: job(), from_seq: 1, page_size: 3 }.encode_to_vec(),
        "GetAccounting" => v1::GetAccountingRequest { job: job(), until_step: 5 }.encode_to_vec(),
        // Field 1 is the job, and nothing else is needed.
        "DescribeJob" | "GetPlan" | "WatchMixture" | "GetMixture" | "GetCandidates" => {
            v1::DescribeJobRequest { job: job() }.encode_to_vec()
        }
        // list_services
        _ if path.starts_with("/grpc.reflection.") => vec![0x3a, 1, b'*'],
        _ => Vec::new(),
    }
}

/// What is done to bytes.
#[derive(Clone, Debug, Default)]
pub struct Bend {
    flips: Vec<(Index, u8)>,
    insert: Option<(Index, Vec<u8>)>,
    cut: Option<Index>,
}

impl Bend {
    pub fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (at, byte) in self.flips.iter().filter(|_| !bytes.is_empty()).cloned().collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((at, more)) = &self.insert {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more.iter().copied());
        }
        if let Some(cut) = &self.cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    }
}

pub fn bends() -> impl Strategy<Value = Bend> {
    let flips = prop::collection::vec((any::<Index>(), any::<u8>()), 0..5);
    let insert = prop::option::of((any::<Index>(), prop::collection::vec(any::<u8>(), 1..12)));
    let cut = prop::option::weighted(0.2, any::<Index>());
    (flips, insert, cut).prop_map(|(flips, insert, cut)| Bend { flips, insert, cut })
}

/// Numbers at the borders of what a field can hold, and ordinary ones.
pub fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63, 1 << 40, (1 << 40) + 1, 1 << 32, u32::MAX.into()];
    prop_oneof![3 => prop::sample::select(edges.to_vec()), 1 => any::<u64>(), 1 => 0u64..50]
}

fn real() -> impl Strategy<Value = f64> {
    let edges = [0.0, -0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE, 1e-320];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<f64>()]
}

/// One field of a spec that gets an extreme value.
#[derive(Clone, Debug)]
pub enum Edit {
    GlobalBatch(u32),
    MixBlock(u32),
    Sides(u32, u32),
    MaxSteps(u64),
    Weights(Vec<f64>),
    Flip(f64),
    Jitter(f64, f64),
    Erase(f64),
    Groups(usize),
}

pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let small = || number().prop_map(|n| n as u32);
    let one = prop_oneof![
        small().prop_map(Edit::GlobalBatch),
        small().prop_map(Edit::MixBlock),
        (small(), small()).prop_map(|(h, w)| Edit::Sides(h, w)),
        number().prop_map(Edit::MaxSteps),
        prop::collection::vec(real(), 0..4).prop_map(Edit::Weights),
        real().prop_map(Edit::Flip),
        (real(), real()).prop_map(|(b, h)| Edit::Jitter(b, h)),
        real().prop_map(Edit::Erase),
        (0usize..2000).prop_map(Edit::Groups),
    ];
    prop::collection::vec(one, 1..4)
}

impl Edit {
    pub fn apply(&self, spec: &mut v1::JobSpec) {
        let image = spec.image.get_or_insert_default();
        match self {
            Edit::GlobalBatch(n) => spec.global_batch = *n,
            Edit::MixBlock(n) => spec.mix_block = *n,
            Edit::Sides(height, width) => (image.height, image.width) = (*height, *width),
            Edit::MaxSteps(n) => spec.max_steps = *n,
            Edit::Weights(weights) => {
                spec.groups.iter_mut().zip(weights).for_each(|(group, weight)| group.weight = Some(*weight));
            }
            Edit::Flip(p) => image.horizontal_flip = *p as _,
            Edit::Jitter(b, h) => {
                let jitter = image.color_jitter.get_or_insert_default();
                (jitter.brightness, jitter.hue) = (*b as _, *h as _);
            }
            Edit::Erase(p) => image.random_erasing.get_or_insert_default().p = Some(*p as _),
            Edit::Groups(n) => {
                let group = spec.groups.first().cloned().unwrap_or_default();
                spec.groups.resize(*n, group);
            }
        }
    }
}

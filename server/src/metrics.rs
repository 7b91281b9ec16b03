//! Every metric: name, unit, meaning and buckets, in one place. Labels come from closed sets.

mod of_job;
mod series;

pub use of_job::*;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use series::{Family, Kind};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};
use std::time::Instant;

const BUILD_INFO: &str = "mixfeed_build_info";
const STAGE_SECONDS: &str = "mixfeed_stage_duration_seconds";
const BATCHES: &str = "mixfeed_batches_delivered_total";
const SAMPLES: &str = "mixfeed_samples_delivered_total";
const BYTES: &str = "mixfeed_delivered_bytes_total";
const GROUP_SAMPLES: &str = "mixfeed_group_samples_delivered_total";
const GROUP_WEIGHT: &str = "mixfeed_mixture_weight_ratio";
const REPLACED: &str = "mixfeed_samples_replaced_total";
const DROPPED: &str = "mixfeed_samples_dropped_total";
const PADDED: &str = "mixfeed_samples_padded_total";
const THINNED: &str = "mixfeed_points_thinned_total";
const UNPAIRED: &str = "mixfeed_samples_unpaired_total";
const READ_BYTES: &str = "mixfeed_source_read_bytes_total";
const READS: &str = "mixfeed_source_requests_total";
const RETRIES: &str = "mixfeed_source_retries_total";
const CACHE_REQUESTS: &str = "mixfeed_source_cache_requests_total";
const CACHE_BYTES: &str = "mixfeed_source_cache_bytes";
const CACHE_LIMIT: &str = "mixfeed_source_cache_limit_bytes";
const RANGES: &str = "mixfeed_source_ranges_total";
const STREAMS: &str = "mixfeed_streams";
const STREAMS_ENDED: &str = "mixfeed_streams_ended_total";
const JOBS: &str = "mixfeed_jobs";
const MEMORY: &str = "mixfeed_memory_bytes";
const MEMORY_LIMIT: &str = "mixfeed_memory_limit_bytes";
const FIRST_BATCH: &str = "mixfeed_time_to_first_batch_seconds";
const REQUESTS: &str = "mixfeed_requests_total";
const REPORTS: &str = "mixfeed_mixture_reports_total";
const ENTRIES: &str = "mixfeed_mixture_entries_total";
const SHADOW_WEIGHT: &str = "mixfeed_mixture_shadow_weight_ratio";
const FALLBACKS: &str = "mixfeed_device_fallbacks_total";
const CONNECTIONS: &str = "mixfeed_connections";
const CONNECTIONS_REFUSED: &str = "mixfeed_connections_refused_total";
const LOSS: &str = "mixfeed_mixture_loss_nats";
const STREAM_SECONDS: &str = "mixfeed_stream_seconds_total";
const CLIENT_WAIT: &str = "mixfeed_client_wait_seconds_total";
const CLIENT_ACTIVE: &str = "mixfeed_client_active_seconds_total";
const CLIENT_STEPS: &str = "mixfeed_client_steps_total";
const CLIENT_STEP: &str = "mixfeed_client_step";
const VERSION: &str = "mixfeed_mixture_version";
const HORIZON: &str = "mixfeed_mixture_horizon_step";
const STATUS: &str = "mixfeed_mixture_status";
const POOL_THREADS: &str = "mixfeed_pool_threads";
const POOL_BUSY: &str = "mixfeed_pool_busy_threads";
const POOL_WAITING: &str = "mixfeed_pool_waiting_tasks";
const TASKS: &str = "mixfeed_runtime_tasks";
const QUEUE: &str = "mixfeed_runtime_queue_tasks";

/// Series of jobs: they end when their job is closed.
const OF_JOBS: [Family; 22] = {
    use Kind::{Counter, Gauge};
    [
        (BATCHES, Counter, "batches sent to the end, one per rank and step"),
        (SAMPLES, Counter, "rows in those batches"),
        (BYTES, Counter, "tensor bytes in those batches"),
        (GROUP_SAMPLES, Counter, "training rows assembled per group"),
        (GROUP_WEIGHT, Gauge, "share of the group that the mixture asks for, 0 to 1"),
        (REPLACED, Counter, "bad records replaced by another one of their group"),
        (DROPPED, Counter, "rows not served because they did not fill a last batch"),
        (PADDED, Counter, "rows repeated to fill a last batch"),
        (THINNED, Counter, "points left out to keep steps within max_points"),
        (UNPAIRED, Counter, "rows copied because a class-restricted pairing found no partner"),
        (REPORTS, Counter, "reports by outcome and reason"),
        (ENTRIES, Counter, "entries appended to the mixture log, by kind of author"),
        (SHADOW_WEIGHT, Gauge, "share of the group that a shadow estimator would ask for, 0 to 1"),
        (LOSS, Gauge, "held-out loss of the group as last reported, nats per token"),
        (STREAM_SECONDS, Counter, "seconds that batch streams waited, by what for"),
        (CLIENT_WAIT, Counter, "seconds that trainers waited for batches, as they say"),
        (CLIENT_ACTIVE, Counter, "seconds that trainers did something else, as they say"),
        (CLIENT_STEPS, Counter, "batches that trainers took, as they say"),
        (CLIENT_STEP, Gauge, "step that the trainer takes next, as it last said"),
        (VERSION, Gauge, "entries of the mixture log"),
        (HORIZON, Gauge, "first step that no stream has begun"),
        (STATUS, Gauge, "1 for the state of the job's mixture, 0 for the others"),
    ]
};
const CERTIFICATE: &str = "mixfeed_tls_certificate_expiry_timestamp_seconds";
const RELOADS: &str = "mixfeed_config_reloads_total";

/// 100 us to 60 s in steps of about 2.5.
const SECONDS: [f64; 15] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// Installs the process-wide recorder; call once. `numerics` names the rules of this build.
///
/// # Errors
/// When a recorder is installed already.
pub fn install(numerics: &'static str) -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("seconds".into()), &SECONDS)?
        .install_recorder()?;
    describe();
    process().describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "numerics" => numerics).set(1.0);
    Ok(handle)
}

/// Everything as Prometheus reads it.
pub fn render(handle: &PrometheusHandle) -> String {
    process().collect();
    let mut text = handle.render();
    // Written outside of the lock that streams count under.
    let of_jobs = series::all().copy(&OF_JOBS);
    series::write(&of_jobs, &mut text);
    text
}

/// Numbers of the process, by the names that they have everywhere.
fn process() -> &'static metrics_process::Collector {
    static PROCESS: OnceLock<metrics_process::Collector> = OnceLock::new();
    PROCESS.get_or_init(metrics_process::Collector::default)
}

fn describe() {
    describe_gauge!(BUILD_INFO, "1; the labels say what runs");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "time of one pairing block in a stage");
    describe_counter!(READ_BYTES, Unit::Bytes, "bytes of records read");
    describe_counter!(READS, "records read, by result");
    describe_counter!(RETRIES, "reads tried again after an I/O error");
    describe_counter!(RANGES, "requests for bytes of objects in stores, tries that failed included");
    describe_counter!(CACHE_REQUESTS, "records looked for in caches on disk, by result");
    describe_gauge!(CACHE_BYTES, Unit::Bytes, "disk that caches of records take");
    describe_gauge!(CACHE_LIMIT, Unit::Bytes, "most disk that caches of records may take");
    describe_gauge!(STREAMS, "open batch streams");
    describe_counter!(STREAMS_ENDED, "batch streams that ended, by reason");
    describe_gauge!(JOBS, "open jobs");
    describe_gauge!(MEMORY, Unit::Bytes, "memory promised to streams");
    describe_gauge!(MEMORY_LIMIT, Unit::Bytes, "most memory that may be promised to streams");
    describe_histogram!(FIRST_BATCH, Unit::Seconds, "from the request to the last byte of the first batch");
    describe_counter!(
        FALLBACKS,
        "blocks of tolerant jobs that the CPU mixed because the device failed, by reason"
    );
    describe_gauge!(POOL_THREADS, "threads of the pool");
    describe_gauge!(POOL_BUSY, "threads of the pool that are at work");
    describe_gauge!(
        POOL_WAITING,
        "blocks (cpu) or runs of records (read) that wait for a thread of the pool"
    );
    describe_gauge!(TASKS, "tasks of the runtime that are alive");
    describe_gauge!(QUEUE, "tasks that wait in the runtime's global queue");
    describe_counter!(REQUESTS, "calls by method and gRPC code");
    describe_gauge!(CONNECTIONS, "open gRPC connections");
    describe_counter!(CONNECTIONS_REFUSED, "connections not taken, or ended by the server, by reason");
    describe_gauge!(
        CERTIFICATE,
        Unit::Seconds,
        "when the certificate expires, seconds since 1970; NaN without TLS"
    );
    describe_counter!(RELOADS, "reloads of config, tokens or certificates, by result");
    gauge!(CERTIFICATE).set(f64::NAN);
    for result in ["ok", "refused"] {
        counter!(RELOADS, "result" => result).absolute(0);
    }
    for end in StreamEnd::ALL {
        counter!(STREAMS_ENDED, "reason" => end.name()).absolute(0);
    }
    for result in ["ok", "error"] {
        counter!(READS, "result" => result).absolute(0);
    }
    for reason in ["memory", "lost", "failed"] {
        counter!(FALLBACKS, "reason" => reason).absolute(0);
    }
    counter!(RETRIES).absolute(0);
    counter!(RANGES).absolute(0);
    for result in CacheResult::ALL {
        counter!(CACHE_REQUESTS, "result" => result.name()).absolute(0);
    }
    gauge!(CACHE_BYTES).increment(0.0);
    gauge!(CACHE_LIMIT).increment(0.0);
    gauge!(STREAMS).set(0.0);
    gauge!(JOBS).set(0.0);
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stage {
    Read,
    Decode,
    Execute,
    Checksum,
    Send,
}

/// Nanoseconds that blocks spent in each stage.
static BUSY: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// Seconds that blocks spent in each stage since the process began, by its name.
pub fn busy() -> Vec<(&'static str, f64)> {
    let all = [Stage::Read, Stage::Decode, Stage::Execute, Stage::Checksum, Stage::Send];
    all.map(|stage| (stage.name(), BUSY[stage as usize].load(Ordering::Relaxed) as f64 / 1e9)).into()
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Decode => "decode",
            Stage::Execute => "execute",
            Stage::Checksum => "checksum",
            Stage::Send => "send",
        }
    }

    /// Counts the time since `start` and returns now.
    pub fn done(self, start: Instant) -> Instant {
        let now = Instant::now();
        BUSY[self as usize].fetch_add((now - start).as_nanos() as u64, Ordering::Relaxed);
        histogram!(STAGE_SECONDS, "stage" => self.name()).record((now - start).as_secs_f64());
        now
    }
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StreamEnd {
    Complete,
    Client,
    Drain,
    Closed,
    Revoked,
    Fenced,
    Error,
}

impl StreamEnd {
    const ALL: [StreamEnd; 7] = [
        StreamEnd::Complete,
        StreamEnd::Client,
        StreamEnd::Drain,
        StreamEnd::Closed,
        StreamEnd::Revoked,
        StreamEnd::Fenced,
        StreamEnd::Error,
    ];

    fn name(self) -> &'static str {
        match self {
            StreamEnd::Complete => "complete",
            StreamEnd::Client => "client",
            StreamEnd::Drain => "drain",
            StreamEnd::Closed => "closed",
            StreamEnd::Revoked => "revoked",
            StreamEnd::Fenced => "fenced",
            StreamEnd::Error => "error",
        }
    }
}

/// Counts an open stream until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    /// Why it ended, as far as known.
    pub end: StreamEnd,
}

impl Default for OpenStream {
    fn default() -> Self {
        gauge!(STREAMS).increment(1.0);
        OpenStream { end: StreamEnd::Client }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
        counter!(STREAMS_ENDED, "reason" => self.end.name()).increment(1);
    }
}

/// The first batch of a stream was handed to the connection.
pub fn first_batch(since: Instant) {
    histogram!(FIRST_BATCH).record(since.elapsed().as_secs_f64());
}

/// Records were read.
pub fn reads(records: u64, bytes: u64, ok: bool) {
    counter!(READS, "result" => if ok { "ok" } else { "error" }).increment(records);
    counter!(READ_BYTES).increment(bytes);
}

/// A read is tried again.
pub fn retry() {
    counter!(RETRIES).increment(1);
}

/// What a cache on disk had of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CacheResult {
    Hit,
    Miss,
    Corrupt,
}

impl CacheResult {
    const ALL: [CacheResult; 3] = [CacheResult::Hit, CacheResult::Miss, CacheResult::Corrupt];

    fn name(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::Corrupt => "corrupt",
        }
    }
}

/// A record was looked for in a cache on disk.
pub fn cached(result: CacheResult) {
    counter!(CACHE_REQUESTS, "result" => result.name()).increment(1);
}

/// A cache on disk grew by `bytes`, or shrank.
pub fn cache_bytes(bytes: f64) {
    gauge!(CACHE_BYTES).increment(bytes);
}

/// A cache on disk of at most `limit` bytes was opened; when it is closed, the same with a minus.
pub fn cache_limit(limit: f64) {
    gauge!(CACHE_LIMIT).increment(limit);
}

/// A range of an object is asked for.
pub fn range() {
    counter!(RANGES).increment(1);
}

/// Open jobs.
pub fn jobs(open: usize) {
    gauge!(JOBS).set(open as f64);
}

/// Threads of a pool, those at work, and tasks that wait for one.
pub fn pool(pool: &'static str, threads: usize, busy: usize, waiting: usize) {
    gauge!(POOL_THREADS, "pool" => pool).set(threads as f64);
    gauge!(POOL_BUSY, "pool" => pool).set(busy as f64);
    gauge!(POOL_WAITING, "pool" => pool).set(waiting as f64);
}

/// Tasks of the runtime, and those in its global queue.
pub fn runtime(alive: usize, queued: usize) {
    gauge!(TASKS).set(alive as f64);
    gauge!(QUEUE).set(queued as f64);
}

/// Memory promised to streams, and its limit, in bytes.
pub fn memory(promised: u64, limit: u64) {
    gauge!(MEMORY, "pool" => "streams").set(promised as f64);
    gauge!(MEMORY_LIMIT, "pool" => "streams").set(limit as f64);
}

/// A block was mixed by the CPU because the device failed; `reason` comes from a closed set.
pub fn fallback(reason: &'static str) {
    counter!(FALLBACKS, "reason" => reason).increment(1);
}

/// Open connections.
pub fn connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

/// A connection was not taken, or ended by the server. `reason` comes from a closed set.
pub fn connection_refused(reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
}

/// All reasons, from 0.
pub fn refusals(reasons: &[&'static str]) {
    for reason in reasons {
        counter!(CONNECTIONS_REFUSED, "reason" => *reason).increment(0);
    }
}

/// A call was answered. `method` comes from the closed set of our paths.
pub fn request(method: &'static str, code: &'static str) {
    counter!(REQUESTS, "method" => method, "code" => code).increment(1);
}

/// When the certificate in use expires, in seconds since 1970.
pub fn certificate(expires: i64) {
    gauge!(CERTIFICATE).set(expires as f64);
}

/// Config, tokens or certificates were read again; `ok` when they are in force.
pub fn reload(ok: bool) {
    counter!(RELOADS, "result" => if ok { "ok" } else { "refused" }).increment(1);
}

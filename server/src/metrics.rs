//! Every metric: name, unit, meaning and buckets, in one place. Labels come from closed sets.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
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
const LOSS: &str = "mixfeed_mixture_loss_nats";

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
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "numerics" => numerics).set(1.0);
    Ok(handle)
}

fn describe() {
    describe_gauge!(BUILD_INFO, "1; the labels say what runs");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "time of one pairing block in a stage");
    describe_counter!(BATCHES, "batches sent to the end, one per rank and step");
    describe_counter!(SAMPLES, "rows in those batches");
    describe_counter!(BYTES, Unit::Bytes, "tensor bytes in those batches");
    describe_counter!(GROUP_SAMPLES, "rows assembled per group");
    describe_gauge!(GROUP_WEIGHT, "share of the group that the mixture asks for, 0 to 1");
    describe_counter!(REPLACED, "bad records replaced by another one of their group");
    describe_counter!(DROPPED, "rows not served because they did not fill a last batch");
    describe_counter!(PADDED, "rows repeated to fill a last batch");
    describe_counter!(THINNED, "points left out to keep steps within max_points");
    describe_counter!(UNPAIRED, "rows copied because a class-restricted pairing found no partner");
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
    describe_counter!(REPORTS, "reports by outcome and reason");
    describe_counter!(ENTRIES, "entries appended to the mixture log, by kind of author");
    describe_gauge!(SHADOW_WEIGHT, "share of the group that a shadow estimator would ask for, 0 to 1");
    describe_gauge!(LOSS, "held-out loss of the group as last reported, nats per token");
    describe_counter!(REQUESTS, "calls by method and gRPC code");
    for end in StreamEnd::ALL {
        counter!(STREAMS_ENDED, "reason" => end.name()).absolute(0);
    }
    for result in ["ok", "error"] {
        counter!(READS, "result" => result).absolute(0);
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
    Error,
}

impl StreamEnd {
    const ALL: [StreamEnd; 5] =
        [StreamEnd::Complete, StreamEnd::Client, StreamEnd::Drain, StreamEnd::Closed, StreamEnd::Error];

    fn name(self) -> &'static str {
        match self {
            StreamEnd::Complete => "complete",
            StreamEnd::Client => "client",
            StreamEnd::Drain => "drain",
            StreamEnd::Closed => "closed",
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

/// Job names that get series of their own in a process's life; clients choose names, so there must be an end.
const MAX_JOBS: usize = 100;

/// The label of a job: its name, or "other" when too many names were seen before it.
fn job_label(job: &str) -> String {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.contains(job) {
        if seen.len() >= MAX_JOBS {
            return "other".into();
        }
        seen.insert(job.into());
    }
    job.into()
}

/// A batch was handed to the connection.
pub fn delivered(job: &str, rows: u64, bytes: u64) {
    let job = job_label(job);
    counter!(BATCHES, "job" => job.clone()).increment(1);
    counter!(SAMPLES, "job" => job.clone()).increment(rows);
    counter!(BYTES, "job" => job).increment(bytes);
}

/// The first batch of a stream was handed to the connection.
pub fn first_batch(since: Instant) {
    histogram!(FIRST_BATCH).record(since.elapsed().as_secs_f64());
}

/// Rows of a job's groups were assembled; groups beyond the first 64 count as "other".
pub fn group_rows<'a>(rows: impl Iterator<Item = (&'a str, u64)>) {
    for (i, (group, rows)) in rows.enumerate().filter(|(_, (_, rows))| *rows > 0) {
        let group = if i < MAX_GROUPS { group } else { "other" };
        counter!(GROUP_SAMPLES, "group" => group.to_owned()).increment(rows);
    }
}

/// Shares of a job's groups, out of 2^32.
pub fn weights<'a>(job: &str, shares: impl Iterator<Item = (&'a str, u64)>) {
    for (group, share) in shares.take(MAX_GROUPS) {
        let labels = [("job", job_label(job)), ("group", group.to_owned())];
        gauge!(GROUP_WEIGHT, &labels).set(share as f64 / (1u64 << 32) as f64);
    }
}

/// A report was answered; `outcome` and `reason` come from the contract.
pub fn report(job: &str, outcome: &'static str, reason: &'static str) {
    let outcome = outcome.trim_start_matches("REPORT_OUTCOME_").to_ascii_lowercase();
    let reason = reason.trim_start_matches("REPORT_REASON_").to_ascii_lowercase();
    counter!(REPORTS, "job" => job_label(job), "outcome" => outcome, "reason" => reason).increment(1);
}

/// An entry was appended to a job's log by `author` ("spec", "estimator:aioli", "operator:eve").
pub fn entry(job: &str, author: &str) {
    let author = author.split(':').next().unwrap_or(author).to_owned();
    counter!(ENTRIES, "job" => job_label(job), "author" => author).increment(1);
}

/// What a shadow estimator would ask for.
pub fn shadow<'a>(job: &str, estimator: &str, shares: impl Iterator<Item = (&'a str, f64)>) {
    for (group, share) in shares.take(MAX_GROUPS) {
        let estimator = estimator.to_owned();
        let labels = [("job", job_label(job)), ("estimator", estimator), ("group", group.to_owned())];
        gauge!(SHADOW_WEIGHT, &labels).set(share);
    }
}

/// Held-out losses as they were last reported; NaN for none.
pub fn losses<'a>(job: &str, losses: impl Iterator<Item = (&'a str, f64)>) {
    for (group, loss) in losses.take(MAX_GROUPS) {
        gauge!(LOSS, "job" => job_label(job), "group" => group.to_owned()).set(loss);
    }
}

/// Groups of one job that get a series of their own.
const MAX_GROUPS: usize = 64;

/// Bad records were replaced.
pub fn replaced(rows: u64) {
    counter!(REPLACED).increment(rows);
}

/// Rows were copied because no partner was found.
pub fn unpaired(rows: u64) {
    counter!(UNPAIRED).increment(rows);
}

/// Points were left out to keep steps within their budget.
pub fn thinned(points: u64) {
    counter!(THINNED).increment(points);
}

/// A job ended with rows left over or repeated.
pub fn leftovers(dropped: u64, padded: u64) {
    counter!(DROPPED, "reason" => "last_batch").increment(dropped);
    counter!(PADDED).increment(padded);
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

/// A cache on disk of at most `limit` bytes was opened.
pub fn cache_limit(limit: u64) {
    gauge!(CACHE_LIMIT).increment(limit as f64);
}

/// A range of an object is asked for.
pub fn range() {
    counter!(RANGES).increment(1);
}

/// Open jobs.
pub fn jobs(open: usize) {
    gauge!(JOBS).set(open as f64);
}

/// Memory promised to streams, and its limit, in bytes.
pub fn memory(promised: u64, limit: u64) {
    gauge!(MEMORY, "pool" => "streams").set(promised as f64);
    gauge!(MEMORY_LIMIT, "pool" => "streams").set(limit as f64);
}

/// A call was answered. `method` comes from the closed set of our paths.
pub fn request(method: &'static str, code: &'static str) {
    counter!(REQUESTS, "method" => method, "code" => code).increment(1);
}

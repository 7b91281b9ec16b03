//! `mixfeed pull`.

use super::dial::Secure;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use mixfeed_client::{Client, ClientOptions, Start, StreamOptions};
use mixfeed_proto::JobSpec;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Servers, "https://HOST:PORT", "http://HOST:PORT" or "unix:PATH"; may be given several times.
    #[arg(long, env = "MIXFEED_ENDPOINT", value_delimiter = ',', default_value = "http://127.0.0.1:7443")]
    endpoint: Vec<String>,
    /// Name of the job.
    #[arg(long)]
    job: String,
    /// TOML file with the job's spec; without it the job must be open.
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Batches to measure.
    #[arg(long, default_value_t = 20)]
    batches: u64,
    /// Batches to pull before.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// This trainer's rank.
    #[arg(long, default_value_t = 0)]
    rank: u32,
    /// Ranks that share each step.
    #[arg(long, default_value_t = 1)]
    world_size: u32,
    /// First step, at most 1,024 past the first one that no stream has begun.
    #[arg(long, default_value_t = 0)]
    from_step: u64,
    /// Bytes that the server may make ahead; 0 means the server's default.
    #[arg(long, default_value_t = 0)]
    prefetch_bytes: u64,
    /// Seconds after which the server hears how long this trainer waited, again and again; 0 turns it off.
    #[arg(long, default_value = "10", value_parser = seconds)]
    tell_waits: Duration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secure: Secure,
}

#[derive(Debug, Serialize)]
struct Pulled {
    batches: u64,
    samples: u64,
    bytes: u64,
    seconds: f64,
    samples_per_s: f64,
    gb_per_s: f64,
    first_batch_ms: f64,
    wait_seconds: f64,
    next_step: Option<u64>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}` is no number of seconds, want 0 or more"))
}

/// Pulls and measures.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let spec = args.spec.as_deref().map(read).transpose()?;
    let options = ClientOptions::default().prefetch_bytes(args.prefetch_bytes).tell_waits(args.tell_waits);
    let client = Client::connect_with(args.endpoint, args.secure.over(options)?).await?;
    let connected = Instant::now();
    match &spec {
        Some(spec) => client.open_job(&args.job, spec).await?,
        None => client.attach(&args.job).await?,
    };
    let (rank, world_size) = (args.rank, args.world_size);
    let options =
        StreamOptions { rank, world_size, start: Start::Step(args.from_step), ..Default::default() };
    let mut stream = client.stream(&args.job, options).await?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} batches, {per_sec}")?;
    let bar = ProgressBar::new(args.warmup.saturating_add(args.batches)).with_style(style);
    let (mut first_batch_ms, mut samples, mut bytes) = (0.0, 0, 0);
    let (mut start, mut waited) = (connected, Duration::ZERO);
    let mut batches = 0;
    for i in 0..args.warmup.saturating_add(args.batches) {
        if i == args.warmup {
            (start, waited) = (Instant::now(), stream.stats().waited);
        }
        let Some(batch) = stream.next_batch().await? else { break };
        if i == 0 {
            first_batch_ms = connected.elapsed().as_secs_f64() * 1e3;
        }
        if i >= args.warmup {
            batches += 1;
            samples += batch.rows()? as u64;
            bytes += batch.bytes() as u64;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    print(
        args.json,
        &Pulled {
            batches,
            samples,
            bytes,
            seconds,
            samples_per_s: samples as f64 / seconds,
            gb_per_s: bytes as f64 / seconds / 1e9,
            first_batch_ms,
            wait_seconds: (stream.stats().waited - waited).as_secs_f64(),
            next_step: stream.cursor().map(|c| c.next_step()),
        },
    )?;
    if let Some(end) = stream.end() {
        tracing::info!("the job ended: {end:?}");
    }
    Ok(())
}

fn print(json: bool, pulled: &Pulled) -> anyhow::Result<()> {
    if json {
        say!("{}", serde_json::to_string(pulled)?);
        return Ok(());
    }
    let Pulled { batches, samples, seconds, samples_per_s, gb_per_s, first_batch_ms, wait_seconds, .. } =
        pulled;
    say!("{batches} batches, {samples} samples in {seconds:.2} s");
    say!("{samples_per_s:.0} samples/s, {gb_per_s:.3} GB/s");
    say!("first batch after {first_batch_ms:.0} ms, {wait_seconds:.2} s spent waiting for batches");
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<JobSpec> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read spec `{}`", file.display()))?;
    toml::from_str(&text).with_context(|| format!("spec `{}` is wrong", file.display()))
}

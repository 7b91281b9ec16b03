//! Reads a job's batches and lets go of them: what the client alone can do. `server/benches/peers/package_loaders.py`
//! compares the Python package with it.
//!
//! ```text
//! cargo run --release -p mixfeed-client --example drain -- ENDPOINT JOB PER_SECOND
//! ```
//!
//! Every line on stdin is a number of batches to read: PER_SECOND of them a second, or for 0 as fast as they come, after
//! those that lie ready. The answer is a line of JSON: batches, bytes, seconds, and seconds of CPU time of this process.

use mixfeed_client::{BlockingBatches, Client, StreamOptions};
use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

/// Batches that may lie ready, read but not measured.
const READY: u32 = 4;
/// Linux counts CPU time in hundredths of a second for programs of every kind.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of this process in seconds, of all its threads.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15; the second one is a name in brackets that may hold spaces.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Reads `count` batches, the k-th not before k / `per_second` seconds; their bytes.
fn read(batches: &mut BlockingBatches, count: u32, per_second: f64) -> Result<usize, Box<dyn Error>> {
    let (start, mut bytes) = (Instant::now(), 0);
    for number in 0..count {
        if per_second > 0.0 {
            let due = Duration::from_secs_f64(f64::from(number) / per_second);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        bytes += batches.next().ok_or("the job has ended")??.bytes();
    }
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(endpoint), Some(job), Some(per_second)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: drain ENDPOINT JOB PER_SECOND".into());
    };
    let per_second: f64 = per_second.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stream = runtime.block_on(async {
        Client::connect([endpoint]).await?.stream(&job, StreamOptions::default()).await
    })?;
    let mut batches = stream.blocking();
    for line in std::io::stdin().lines() {
        let count = line?.trim().parse()?;
        if per_second == 0.0 {
            read(&mut batches, READY, 0.0)?;
        }
        let (start, before) = (Instant::now(), cpu_seconds()?);
        let bytes = read(&mut batches, count, per_second)?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - before);
        println!(r#"{{"batches": {count}, "bytes": {bytes}, "seconds": {seconds}, "cpu_seconds": {cpu}}}"#);
        std::io::stdout().flush()?;
    }
    Ok(())
}

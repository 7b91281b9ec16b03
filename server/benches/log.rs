//! What learning costs the server: reports, log and state on disk, as a share of streaming. `cargo bench --bench log`.
//!
//! Everything is CPU time of the server's process, so that other work on the machine does not show. The price of learning
//! is measured where it stands out: the same steps with rows of 8 tokens, with a job that learns (state on disk, state
//! in memory) and with a static one. What is left after subtraction, per step, is set against a step of the static job with
//! rows of 1,024 tokens. The trainer answers at once and is another process.
//!
//! ```text
//! log_cost    (learning, on disk - static, in memory) / static, in memory, of 512 rows of 1,024 tokens; %
//! ```
#![allow(clippy::unwrap_used, missing_docs)] // a bench may stop at the first surprise

use mixfeed_client::driver::{Driver, DriverOptions, EvalTask, LossSum, StepReport, Trainer, TrainerError};
use mixfeed_client::{Batch, Client};
use mixfeed_proto as v1;
use mixfeed_server::source::{Source, TokenMemory};
use mixfeed_server::{Sources, config, store};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const GROUPS: usize = 8;
const DOCUMENTS: usize = 64;
const DOCUMENT: usize = 16_384;
/// Runs of each kind; the median counts.
const ROUNDS: usize = 3;
/// Rows of a step, tokens of a row, steps of a run.
const LARGE: (u32, u32, u64) = (512, 1024, 1_600);
const SMALL: (u32, u32, u64) = (64, 8, 32_000);
/// Unit of CPU times in /proc, for every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    match std::env::args().skip_while(|a| a != "--serve").nth(1) {
        Some(state) => runtime().block_on(serve(&state)),
        None => measure(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Serves until its standard input ends.
async fn serve(state: &str) {
    let document =
        |g: usize, d: usize| (0..DOCUMENT).map(|at| ((g + d) * 31 + at * 7) as u32 % 50_000).collect();
    let group = |g| (format!("{g}"), (0..DOCUMENTS).map(|d| document(g, d)).collect());
    let source: Arc<dyn Source> = Arc::new(TokenMemory::new((0..GROUPS).map(group).collect()).unwrap());
    let settings = config::Server {
        listen: vec!["127.0.0.1:0".into()],
        http: String::new(),
        state: Some(state.into()),
        ..Default::default()
    };
    let (_on, off) = tokio::sync::watch::channel(false);
    let sources = Sources::from([("t".into(), source)]);
    let running = mixfeed_server::start(&settings, sources, BTreeMap::new(), None, off).await.unwrap();
    println!("{}", running.endpoints[0]);
    let wait = || std::io::stdin().lines().for_each(drop);
    tokio::task::spawn_blocking(wait).await.unwrap();
}

fn spec((rows, seq_len, _): (u32, u32, u64), learns: bool) -> v1::JobSpec {
    let aioli = v1::EstimatorSpec { name: "aioli".into(), ..Default::default() };
    let group = |g| v1::GroupSpec { group: format!("t/{g}"), weight: Some(1.0), ..Default::default() };
    v1::JobSpec {
        groups: (0..GROUPS).map(group).collect(),
        seed: 1,
        global_batch: rows,
        tokens: Some(v1::TokenSpec { seq_len, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: 1 }),
        mixture: learns.then(|| v1::MixtureSpec { estimator: Some(aioli), ..Default::default() }),
        ..Default::default()
    }
}

/// Losses that fall, for nothing.
struct Formula {
    steps: u64,
}

impl Trainer for Formula {
    fn train(&mut self, _: &Batch) -> Result<StepReport, TrainerError> {
        self.steps += 1;
        Ok(StepReport::default())
    }
    fn evaluate(&mut self, task: &EvalTask, _: &Batch) -> Result<LossSum, TrainerError> {
        let rate = (task.index + 1) as f64 * 1e-4;
        Ok(LossSum { sum: 6.0 / (1.0 + rate * self.steps as f64), count: 1.0 })
    }
}

/// A server in a process of its own.
struct Process(Child);

impl Process {
    /// Seconds of CPU so far, user and system.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait(); // it has nothing left to say
    }
}

/// Seconds of CPU that a server spends on a run.
fn run(size: (u32, u32, u64), learns: bool, state: &Path) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--serve").arg(state).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Process(command.spawn().unwrap());
    let mut endpoint = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    runtime().block_on(async {
        let client = Client::connect([endpoint.trim()]).await.unwrap();
        client.open_job("job", &spec(size, learns)).await.unwrap();
        let begin = server.cpu();
        let options = DriverOptions { eval_batch: 4096, ..Default::default() };
        let mut driver = Driver::open(client, "job", Formula { steps: 0 }, options).await.unwrap();
        driver.run(size.2).await.unwrap();
        assert_eq!(driver.stats().counted > 0, learns, "reports are for jobs that learn");
        server.cpu() - begin
    })
}

/// Records of the log in `state`, and their bytes.
fn log(state: &Path) -> (usize, usize) {
    let store = store::open(state).unwrap();
    let keys = store.keys().unwrap();
    let records: Vec<Vec<u8>> = keys.iter().flat_map(|key| store.read(key, 0, usize::MAX).unwrap()).collect();
    (records.len(), records.iter().map(Vec::len).sum())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure() {
    let memory = Path::new("");
    let mut times: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
    let mut records = (0, 0);
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let now = [
            run(LARGE, false, memory),
            run(SMALL, false, memory),
            run(SMALL, true, memory),
            run(SMALL, true, folder.path()),
        ];
        eprintln!(
            "round {round}: static {:.2} s; small: {:.2}, learning {:.2}, on disk {:.2} s",
            now[0], now[1], now[2], now[3]
        );
        times.iter_mut().zip(now).for_each(|(all, now)| all.push(now));
        records = log(folder.path());
    }
    let [large, plain, learning, disk] = times.map(median);
    let steps = SMALL.2 as f64;
    let (step, cost) = (large / LARGE.2 as f64, (disk - plain) / steps);
    let (appends, bytes) = (records.0 as f64, records.1 as f64);
    println!(
        r#"{{"bench": "log_cost", "value": {:.3}, "unit": "%", "static_us_per_step": {:.1}, "learning_us_per_step": {:.2}, "of_it_disk_us": {:.2}, "steps_per_append": {:.1}, "bytes_per_append": {:.0}, "us_per_append": {:.0}, "rounds": {ROUNDS}}}"#,
        100.0 * cost / step,
        step * 1e6,
        cost * 1e6,
        (disk - learning) / steps * 1e6,
        steps / appends,
        bytes / appends,
        (disk - learning) / appends * 1e6,
    );
}

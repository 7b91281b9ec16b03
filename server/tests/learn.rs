//! Learning through the service: barriers, reports, restarts, operators, ranks. The trainer here is a formula, so that
//! every number is known.
#![allow(clippy::unwrap_used)]

#[path = "learn/operator.rs"]
mod operator;
mod stand;

use mixfeed_client::driver::{Driver, DriverOptions, EvalTask, LossSum, StepReport, Trainer, TrainerError};
use mixfeed_client::learn::{MixtureEntry, ReportKind, ReportRequest, ResumeAttempt};
use mixfeed_client::{Batch, Client, Cursor, Error, Outcome, Replay, SetWeights, Start, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::source::{Source, TokenMemory};
use mixfeed_server::{Sources, config};
use stand::{Server, bytes, until};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Groups "a", "b", "c" of 60 documents with 16 tokens each.
fn texts() -> Sources {
    let group = |(g, name): (u32, &str)| {
        let document = |d: u32| (0..16).map(|at| g * 10_000 + d * 16 + at).collect();
        (name.to_owned(), (0..60).map(document).collect())
    };
    let groups = [(0, "a"), (1, "b"), (2, "c")].map(group).to_vec();
    Sources::from([("t".into(), Arc::new(TokenMemory::new(groups).unwrap()) as Arc<dyn Source>)])
}

fn aioli(eta: f64) -> v1::EstimatorSpec {
    let numbers = [("eta", eta), ("round_steps", 16.0), ("sweeps", 1.0), ("probe_steps", 2.0)];
    v1::EstimatorSpec {
        name: "aioli".into(),
        params: numbers.map(|(name, value)| (name.to_owned(), value)).into(),
        options: BTreeMap::from([("variant".into(), "paper_eg".into())]),
        ..Default::default()
    }
}

/// 12 rows in blocks of 3; rounds of 16 steps: three probes of 2 steps, 10 of the learnt mixture.
fn spec(change: impl FnOnce(&mut v1::MixtureSpec)) -> v1::JobSpec {
    let mut mixture = v1::MixtureSpec { estimator: Some(aioli(1.0)), ..Default::default() };
    change(&mut mixture);
    let group =
        |name: &str| v1::GroupSpec { group: format!("t/{name}"), weight: Some(1.0), ..Default::default() };
    v1::JobSpec {
        groups: ["a", "b", "c"].map(group).to_vec(),
        seed: 5,
        global_batch: 12,
        mix_block: 3,
        tokens: Some(v1::TokenSpec { seq_len: 16, ..Default::default() }),
        held_out: Some(v1::HeldOutSpec { fraction: 0.1, max_records: 0 }),
        mixture: Some(mixture),
        ..Default::default()
    }
}

/// Losses fall with every row: group a's fastest, and each group's rows help the others a little.
#[derive(Clone, Debug, Default)]
struct Formula {
    rows: [u64; 3],
    batches: Vec<Vec<(String, Vec<u8>)>>,
}

impl Formula {
    fn loss(&self, task: usize) -> f64 {
        let rate = [4e-3, 1e-3, 2e-3];
        let own = self.rows[task] as f64 * rate[task];
        let all: u64 = self.rows.iter().sum();
        6.0 / (1.0 + own + all as f64 * 1e-4)
    }
}

impl Trainer for Formula {
    fn train(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        batch.groups()?.own().for_each(|g| self.rows[g as usize] += 1);
        self.batches.push(bytes(batch));
        Ok(StepReport::default())
    }
    fn evaluate(&mut self, task: &EvalTask, batch: &Batch) -> Result<LossSum, TrainerError> {
        let tokens = batch.tokens()?.input_ids().len() as f64;
        Ok(LossSum { sum: self.loss(task.index) * tokens, count: tokens })
    }
}

async fn drive(client: &Client, trainer: Formula, options: DriverOptions) -> Driver<Formula> {
    Driver::open(client.clone(), "job", trainer, options).await.unwrap()
}

/// A run of `steps` without interruption: what was trained on, and the log.
async fn whole(spec: &v1::JobSpec, steps: u64) -> (Formula, Vec<MixtureEntry>) {
    let server = Server::start(texts()).await;
    let client = server.open(spec).await;
    let mut driver = drive(&client, Formula::default(), DriverOptions::default()).await;
    driver.run(steps).await.unwrap();
    let log = begun(&client, steps).await;
    (driver.into_trainer().await.unwrap(), log)
}

/// Entries of the first `steps` steps: how far ahead of its reader a stream has planned is a matter of luck.
async fn begun(client: &Client, steps: u64) -> Vec<MixtureEntry> {
    let log = client.mixture_log("job", 1).await.unwrap();
    log.into_iter().filter(|entry| entry.from_step < steps).collect()
}

fn main_entries(log: &[MixtureEntry]) -> Vec<&MixtureEntry> {
    log.iter().filter(|e| e.kind == v1::MixtureKind::Main as i32).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_teaches_the_server_what_to_serve() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let mut driver = drive(&client, Formula::default(), DriverOptions::default()).await;
    driver.run(64).await.unwrap();
    let log = client.mixture_log("job", 1).await.unwrap();
    let learnt = main_entries(&log);
    assert_eq!(learnt.len(), 4, "four rounds");
    let shares: Vec<f64> = learnt[3].weights.iter().map(|w| *w as f64 / 4294967296.0).collect();
    assert!(
        shares[0] > 0.36 && shares[0] > shares[1] && shares[0] > shares[2],
        "a learns fastest: {shares:?}"
    );
    assert!(learnt.iter().all(|e| e.author == "estimator:aioli"));
    let mixture = client.mixture("job").await.unwrap();
    assert_eq!((mixture.attempt, mixture.losses.len()), (1, 3));
    let reports: u64 = mixture.reports.iter().map(|r| r.reports).sum();
    let accepted = mixture.reports.iter().find(|r| r.outcome == v1::ReportOutcome::Accepted as i32).unwrap();
    assert_eq!(accepted.reports, reports, "nothing was refused: {:?}", mixture.reports);
    let accounting = client.accounting("job", 64).await.unwrap();
    let trainer = driver.into_trainer().await.unwrap();
    let rows: Vec<u64> = accounting.groups.iter().map(|g| g.rows).collect();
    assert_eq!(rows, trainer.rows, "what was accounted for is what came");
    for group in &accounting.groups {
        assert_eq!(group.tokens, group.rows * 16);
        assert!((group.share_wanted - group.share_served).abs() < 0.01, "{group:?}");
    }
    assert_eq!(accounting.mixtures.iter().map(|m| m.steps).sum::<u64>(), 64);
}

/// Batches of a rank, raw.
async fn stream(client: &Client, rank: u32, world_size: u32, start: Start) -> mixfeed_client::BatchStream {
    client.stream("job", StreamOptions { rank, world_size, start, ..Default::default() }).await.unwrap()
}

/// The losses that the formula gives after `batches`, as a report about the last one's segment.
fn report(
    formula: &Formula,
    client_job: &v1::JobInfo,
    attempt: u64,
    batch: &Batch,
    before: bool,
) -> ReportRequest {
    let step = if before { batch.step() } else { batch.step() + 1 };
    ReportRequest {
        job: "job".into(),
        attempt,
        segment: batch.segment(),
        kind: ReportKind::Eval.into(),
        seq: u64::from(!before),
        mixture_id: batch.mixture_id(),
        values: (0..3).map(|t| formula.loss(t) * 10.0).collect(),
        counts: vec![10.0; 3],
        from_step: step,
        to_step: step,
        eval_digest: client_job.eval_digest.clone(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_at_the_barrier_and_nothing_else_does() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let job = client.attach("job").await.unwrap();
    let attempt = client.open_attempt("job", 0, 0, ResumeAttempt::Unspecified).await.unwrap();
    assert!(attempt.evaluate_first);
    let mut batches = stream(&client, 0, 1, Start::Step(0)).await;
    let mut formula = Formula::default();
    let mut reports = Vec::new();
    for step in 0..6 {
        let batch = batches.next_batch().await.unwrap().unwrap();
        let due =
            (batch.due_before().contains(&ReportKind::Eval), batch.due_after().contains(&ReportKind::Eval));
        assert_eq!(due, (step == 0, step % 2 == 1), "step {step}");
        if due.0 {
            reports.push(report(&formula, &job, attempt.attempt, &batch, true));
        }
        formula.train(&batch).unwrap();
        if due.1 {
            reports.push(report(&formula, &job, attempt.attempt, &batch, false));
        }
    }
    let next = tokio::spawn(async move { batches.next_batch().await });
    until(|| server.running.shared.jobs.get("job").unwrap().keeper.view().barrier == Some(6)).await;
    assert_eq!(client.mixture("job").await.unwrap().status, v1::MixtureStatus::Waiting as i32);
    let late = stream(&client, 0, 1, Start::Step(0)).await.next_batch().await.unwrap().unwrap();
    assert_eq!(late.step(), 0, "another stream is served up to the barrier");
    let last = reports.pop().unwrap();
    // Ids go up to 20959: a loss that no guess over them makes says that something else was reported.
    let wild = ReportRequest { values: vec![10.0 * (20_960f64.ln() + 5.1); 3], ..reports[0].clone() };
    let answer = client.report(&wild).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Rejected(v1::ReportReason::Range)), "{answer:?}");
    assert!(format!("{answer:?}").contains("want at most 14.95 (a uniform guess and 5)"), "{answer:?}");
    for report in &reports {
        assert!(matches!(client.report(report).await.unwrap().outcome, Outcome::Accepted));
    }
    assert!(!next.is_finished());
    let answer = client.report(&last).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Accepted), "{answer:?}");
    assert!(matches!(client.report(&last).await.unwrap().outcome, Outcome::Stale | Outcome::Duplicate));
    let batch = next.await.unwrap().unwrap().unwrap();
    assert_eq!((batch.step(), batch.segment()), (6, 4));
    let refused = ReportRequest { attempt: 7, ..last.clone() };
    assert!(matches!(client.report(&refused).await, Err(Error::FailedPrecondition { .. })));
    client.open_attempt("job", 6, 0, ResumeAttempt::Unspecified).await.unwrap();
    assert!(matches!(client.report(&last).await, Err(Error::Aborted { .. })), "an older life is fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_trainer_is_left_behind_and_told() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|m| m.late_after_seconds = 0.05)).await;
    let mut batches = stream(&client, 0, 1, Start::Step(0)).await;
    for step in 0..20 {
        assert_eq!(batches.next_batch().await.unwrap().unwrap().step(), step);
    }
    let log = client.mixture_log("job", 1).await.unwrap();
    let held: Vec<&MixtureEntry> = log.iter().filter(|e| e.kind == v1::MixtureKind::Hold as i32).collect();
    assert_eq!((&*held[0].author, held[0].from_step), ("late", 6));
    assert_eq!(held[0].weights[0].abs_diff(held[0].weights[2]), 1, "the last weights: {:?}", held[0].weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_and_shadows_change_nothing() {
    let (one, log) = whole(&spec(|_| {}), 40).await;
    let (shadowed, other) = whole(&spec(|m| m.shadows = vec![aioli(0.2), aioli(0.1)]), 40).await;
    assert_eq!(one.batches, shadowed.batches);
    let weights = |log: &[MixtureEntry]| log.iter().map(|e| e.weights.clone()).collect::<Vec<_>>();
    assert_eq!(weights(&log), weights(&other));
    let shadows: Vec<&str> = other.last().unwrap().shadows.iter().map(|s| s.estimator.as_str()).collect();
    assert_eq!(shadows, ["aioli", "aioli#2"]);
    assert_ne!(other.last().unwrap().shadows[0].shares, other.last().unwrap().shadows[1].shares);

    // Two ranks read the same job; one of them reports.
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let mut leader = drive(&client, Formula::default(), DriverOptions::default()).await;
    leader.run(40).await.unwrap();
    let mut ranks =
        [stream(&client, 0, 2, Start::Step(0)).await, stream(&client, 1, 2, Start::Step(0)).await];
    for whole in &one.batches {
        let mut parts = Vec::new();
        for rank in &mut ranks {
            parts.push(rank.next_batch().await.unwrap().unwrap());
        }
        assert_eq!(stand::joined(&parts), *whole);
    }
}

/// Settings with state in a folder.
fn durable(folder: &tempfile::TempDir) -> impl Fn(&mut config::Server) + use<> {
    let path = folder.path().display().to_string();
    move |settings| settings.state = Some(path.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_goes_on_exactly() {
    let spec = spec(|m| m.shadows = vec![aioli(0.2)]);
    let (one, log) = whole(&spec, 40).await;
    for stops in [vec![1], vec![5, 6, 7], vec![3, 16, 22, 38]] {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = Formula::default();
        let (mut cursor, mut done): (Option<Cursor>, u64) = (None, 0);
        for stop in stops.iter().copied().chain([40]) {
            let server = Server::with(texts(), durable(&folder)).await;
            let client = server.open(&spec).await;
            let options = DriverOptions { start: cursor.clone(), ..Default::default() };
            let mut driver = drive(&client, trainer, options).await;
            driver.run(stop - done).await.unwrap();
            cursor = driver.cursor().cloned();
            done = stop;
            trainer = driver.into_trainer().await.unwrap();
            if stop == 40 {
                assert_eq!(begun(&client, 40).await, log, "stopped at {stops:?}");
            }
            drop(client);
            server.stop.send_replace(true);
            server.running.wait().await;
            // The last of its tasks may still hold the file.
            until(|| mixfeed_server::store::open(folder.path()).is_ok()).await;
        }
        assert!(trainer.batches == one.batches, "stopped at {stops:?}: other batches");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_asked_about_and_replay_serves_what_was() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let mut driver = drive(&client, Formula::default(), DriverOptions::default()).await;
    driver.run(9).await.unwrap();
    let (checkpoint, saved) = (driver.cursor().cloned(), driver.trainer().unwrap().clone());
    driver.run(31).await.unwrap();
    let first = driver.into_trainer().await.unwrap();
    let back = |resume| DriverOptions { start: checkpoint.clone(), resume, ..Default::default() };
    let asked = Driver::open(client.clone(), "job", saved.clone(), back(ResumeAttempt::Unspecified)).await;
    assert!(asked.unwrap_err().to_string().contains("rewind"), "it says what can be done");

    let options = DriverOptions { lenient: true, ..back(ResumeAttempt::Replay) };
    let mut replay = drive(&client, saved.clone(), options).await;
    replay.run(31).await.unwrap();
    assert!(replay.into_trainer().await.unwrap().batches == first.batches, "the log is law");

    // Training is deterministic here, so what is learnt anew is what was learnt before.
    let mut rewound = drive(&client, saved, back(ResumeAttempt::Rewind)).await;
    assert_eq!(rewound.attempt().branch, 1);
    rewound.run(31).await.unwrap();
    assert!(rewound.into_trainer().await.unwrap().batches == first.batches);
    let log = client.mixture_log("job", 1).await.unwrap();
    assert!(log.iter().any(|e| e.kind == v1::MixtureKind::Strike as i32 && e.from_step == 9));
    let old = stand_still(&client, checkpoint.unwrap()).await;
    assert_eq!(old, 9, "a cursor from before the strike still fits");
}

/// First step that a cursor leads to.
async fn stand_still(client: &Client, cursor: Cursor) -> u64 {
    stream(client, 0, 1, Start::Cursor(cursor)).await.next_batch().await.unwrap().unwrap().step()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_of_the_pen_skips_no_rounds() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let slip = StreamOptions { start: Start::Step(1 << 40), ..Default::default() };
    let error = match client.stream("job", slip).await {
        Err(error) => error,
        Ok(mut stream) => stream.next_batch().await.unwrap_err(),
    };
    assert!(matches!(&error, Error::FailedPrecondition { .. }), "{error}");
    assert!(client.mixture("job").await.unwrap().horizon < 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_cannot_learn_is_refused_with_every_misfit() {
    let server = Server::start(texts()).await;
    let client = server.client().await;
    let wrong = spec(|m| {
        m.estimator = Some(v1::EstimatorSpec { name: "alchemy".into(), ..Default::default() });
        m.objective = vec![v1::TaskSpec { group: "t/z".into(), weight: None }];
        m.lag_steps = 3;
        m.floor = Some(0.9);
        m.max_epochs = 2.0;
        m.reporters = 5000;
        m.bounds = vec![v1::BoundSpec { group: "t/a".into(), low: 0.9, high: Some(0.1) }];
    });
    let error = client.open_job("job", &wrong).await.unwrap_err().to_string();
    for field in
        ["estimator.name", "objective[0]", "lag_steps", "floor", "max_epochs", "reporters", "bounds[0]"]
    {
        assert!(error.contains(&format!("mixture.{field}")), "{field}: {error}");
    }
    let past = client.open_job("job", &spec(|_| {})).await.unwrap();
    assert_eq!(past.eval_sets.len(), 3);
    let far = StreamOptions { start: Start::Step(50), ..Default::default() };
    let error = match client.stream("job", far).await {
        Err(error) => error,
        Ok(mut stream) => stream.next_batch().await.unwrap_err(),
    };
    assert!(error.to_string().contains("not planned"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_stream_ends_with_the_server() {
    let server = Server::start(texts()).await;
    let client = server.open(&spec(|_| {})).await;
    let mut batches = stream(&client, 0, 1, Start::Step(0)).await;
    for _ in 0..6 {
        batches.next_batch().await.unwrap().unwrap();
    }
    let next = tokio::spawn(async move { batches.next_batch().await });
    until(|| server.running.shared.jobs.get("job").unwrap().keeper.view().barrier == Some(6)).await;
    server.stop.send_replace(true);
    let late = tokio::time::timeout(Duration::from_secs(60), server.running.wait()).await;
    assert!(late.is_ok(), "a barrier holds up the drain");
    assert!(next.await.unwrap().is_err());
}

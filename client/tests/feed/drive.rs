use crate::{
    fake::{Fake, JOB, Turn, digest, quick, spec},
    keeper::{Keeper, entry},
};
use mixfeed_client::{
    Batch, Client, ClientOptions, Error, Outcome,
    driver::{Dots, DriveError, Driver, DriverOptions, EvalTask, LossSum, Moment, StepReport, Trainer},
    driver::{Progress, TrainerError},
    learn::{DueWhen, MixtureSpec, ReportKind, ReportReason, ReportRequest, ResumeAttempt, TaskSpec},
};
use mixfeed_proto::{self as v1, stream_batches_request::Start};
use std::{
    pin::pin,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::Status;

const ROWS: usize = 3;
/// Batches of a held-out set.
const STEPS: u64 = 8;

/// A trainer that writes down what it is asked to do.
struct Tally {
    keeper: Arc<Keeper>,
    /// Step that fails.
    bad: u64,
    dots: bool,
    /// Each step waits for a message.
    gate: Option<(UnboundedSender<u64>, mpsc::Receiver<()>)>,
}

impl Trainer for Tally {
    fn train(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        if let Some((entered, gate)) = &self.gate {
            entered.send(batch.step())?;
            gate.recv()?;
        }
        if batch.step() == self.bad {
            return Err("loss is NaN".into());
        }
        self.keeper.note(format!("train {}", batch.step()));
        let mut losses = vec![LossSum::default(); 2];
        for group in batch.groups()?.own() {
            losses[group as usize].add(LossSum { sum: 0.1 * f64::from(group + 1), count: 1.0 });
        }
        Ok(StepReport { losses, lr: 0.5, skipped: batch.step() == 3, ..Default::default() })
    }

    fn evaluate(&mut self, task: &EvalTask, batch: &Batch) -> Result<LossSum, TrainerError> {
        if batch.step() == 0 {
            self.keeper.note(format!("evaluate {}", task.group));
        }
        let pixel = f64::from(batch.images()?.as_u8()?[7]) / 255.0;
        Ok(LossSum { sum: 1.0 + pixel + task.index as f64, count: batch.groups()?.rows() as f64 })
    }

    fn dots(&mut self, at: &Moment<'_>) -> Result<Option<Dots>, TrainerError> {
        let dots = vec![at.completed as f64, at.groups.len() as f64];
        Ok(self.dots.then_some(Dots { dots, mean_norm: 2.0, lr: 0.5 }))
    }
}

/// A fake with a job of two groups whose objective is the second, then the first.
fn learning() -> Fake {
    let (fake, _) = Fake::new(STEPS, ROWS);
    let task = |group: &str| TaskSpec { group: group.into(), weight: None };
    let mixture = MixtureSpec { objective: vec![task("s/b"), task("s/a")], ..Default::default() };
    let group = |name: &str| v1::GroupInfo { name: name.into(), ..Default::default() };
    let rows = STEPS * ROWS as u64;
    let set = |name: &str| v1::EvalSetInfo { group: name.into(), rows, digest: vec![1; 32].into() };
    let job = v1::JobInfo {
        job: JOB.into(),
        digest: digest(&spec(7)),
        spec: Some(v1::JobSpec { global_batch: 5, mixture: Some(mixture), ..spec(7) }),
        groups: vec![group("s/a"), group("s/b")],
        eval_sets: vec![set("s/a"), set("s/b")],
        eval_digest: vec![9; 32].into(),
        ..Default::default()
    };
    fake.log().jobs.insert(JOB.into(), job);
    fake
}

fn tally(fake: &Fake) -> Tally {
    Tally { keeper: Arc::clone(&fake.keeper), bad: u64::MAX, dots: true, gate: None }
}

async fn client(fake: &Fake, options: ClientOptions) -> Client {
    Client::connect_with([fake.tcp().await], options).await.expect("connects")
}

async fn drive(fake: &Fake, trainer: Tally, options: DriverOptions) -> Result<Driver<Tally>, DriveError> {
    Driver::open(client(fake, quick()).await, JOB, trainer, options).await
}

/// Two segments with reports of every time.
fn two_segments(fake: &Fake) {
    use DueWhen::{After, Before, EachStep};
    use ReportKind::{Dots, Eval, Train};
    fake.keeper.append(entry(1, 0..2, &[(Before, Eval), (EachStep, Train), (After, Eval)]));
    fake.keeper.append(entry(2, 2..5, &[(After, Train), (After, Dots)]));
}

#[tokio::test]
async fn a_run_reports_exactly_what_is_due_when_it_is_due() {
    let fake = learning();
    two_segments(&fake);
    let mut driver = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    assert_eq!(driver.run(5).await.expect("good"), Progress { completed: 5, end: None });
    let wanted = [
        "evaluate s/b",
        "evaluate s/a",
        "eval 1#0 at 0",
        "train 0",
        "train 1#0 at 1",
        "train 1",
        "evaluate s/b",
        "evaluate s/a",
        "train 1#1 at 2",
        "eval 1#1 at 2",
        "train 2",
        "train 3",
        "train 4",
        "train 2#0 at 5",
        "dots 2#0 at 5",
    ];
    assert_eq!(fake.keeper.state().events, wanted);
    let reports = fake.keeper.state().reports.clone();
    let eval = &reports[0];
    assert_eq!((eval.mixture_id, &eval.eval_digest[..], eval.from_step), (10, &[9; 32][..], 0));
    assert_eq!(eval.counts, [24.0, 24.0]);
    assert!(eval.values[1] == eval.values[0] + 8.0, "task 1 is one above task 0 in each of 8 batches");
    // Groups by turns: steps 2, 3, 4 have 2 + 1 + 2 rows of group 0.
    let sum = |n: u32, loss: f64| (0..n).fold(0.0, |sum, _| sum + loss);
    let train = &reports[4];
    assert_eq!((train.from_step, train.to_step, train.skipped_steps), (2, 5, 1));
    assert_eq!(train.counts, [5.0, 4.0]);
    assert_eq!(train.values, [sum(2, 0.1) + 0.1 + sum(2, 0.1), 0.2 + sum(2, 0.2) + 0.2]);
    assert_eq!((&*reports[5].values, &*reports[5].more, reports[5].lr), (&[5.0, 2.0][..], &[2.0][..], 0.5));
    // The sets were read once, as wholes, held out.
    let evals = fake.log().evals.clone();
    let groups: Vec<_> = evals.iter().map(|eval| (&*eval.group, eval.held_out, eval.batch)).collect();
    assert_eq!(groups, [("s/b", true, 5), ("s/a", true, 5)]);
    assert_eq!(driver.cursor().map(|cursor| cursor.next_step()), Some(5));
    assert_eq!((driver.stats().counted, driver.stats().evaluations), (6, 2));
    // The rest asks for nothing, and the job ends.
    let progress = driver.run(u64::MAX).await.expect("good");
    assert_eq!((progress.completed, progress.end.map(|end| end.steps)), (8, Some(8)));
}

#[tokio::test]
async fn sets_beyond_the_memory_are_streamed_again_with_the_same_sums() {
    let set = STEPS * (ROWS * (3 * 33 * 47 + 24)) as u64;
    let mut sums = Vec::new();
    for (eval_memory, streams) in [(2 * set, 2), (2 * set - 1, 4), (0, 4)] {
        let fake = learning();
        two_segments(&fake);
        let options = DriverOptions { eval_memory, ..Default::default() };
        let mut driver = drive(&fake, tally(&fake), options).await.expect("opens");
        driver.run(2).await.expect("good");
        // Of the second case: one set is kept, the other one begun in vain, then streamed twice.
        assert_eq!(fake.log().evals.len(), streams, "{eval_memory} bytes");
        sums.push(fake.keeper.state().reports.clone());
    }
    assert!(sums[0] == sums[1] && sums[1] == sums[2]);
}

#[tokio::test]
async fn a_set_with_missing_rows_is_not_reported() {
    let fake = learning();
    two_segments(&fake);
    fake.log().jobs.get_mut(JOB).expect("open").eval_sets[1].rows += 1;
    let mut driver = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    let error = driver.run(1).await.expect_err("one row is missing");
    assert!(
        matches!(&error, DriveError::EvalSet { group, found: 24, expected: 25 } if group == "s/b"),
        "{error}"
    );
    assert!(fake.keeper.state().reports.is_empty());
}

#[tokio::test]
async fn a_resumed_trainer_opens_its_attempt_before_its_stream_and_continues() {
    let fake = learning();
    two_segments(&fake);
    let mut driver = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    driver.run(3).await.expect("good");
    let start = driver.cursor().cloned();
    driver.run(2).await.expect("good");
    drop(driver);
    let ask = DriverOptions { start: start.clone(), ..Default::default() };
    let asked = drive(&fake, tally(&fake), ask).await.expect_err("later steps were reported on");
    assert!(matches!(asked, DriveError::Client(Error::FailedPrecondition { .. })), "{asked}");
    fake.keeper.state().evaluate_first = true;
    fake.keeper.state().events.clear();
    let options = DriverOptions { start, resume: ResumeAttempt::Rewind, ..Default::default() };
    let mut driver = drive(&fake, tally(&fake), options).await.expect("told what to do");
    driver.run(2).await.expect("good");
    assert_eq!(fake.keeper.state().attempts.last().map(|a| a.completed_steps), Some(3));
    let last = fake.log().streams.last().cloned().expect("one");
    assert_eq!(last.start, Some(Start::FromStep(3)));
    // The server wanted losses before the first step, in the middle of a segment; the sums begin there too.
    let wanted = [
        "evaluate s/b",
        "evaluate s/a",
        "eval 2#0 at 3",
        "train 3",
        "train 4",
        "train 2#0 at 5",
        "dots 2#0 at 5",
    ];
    assert_eq!(fake.keeper.state().events, wanted);
    let train = fake.keeper.state().reports.iter().rfind(|r| r.kind() == ReportKind::Train).cloned();
    assert_eq!(train.map(|t| (t.attempt, t.from_step, t.to_step)), Some((2, 3, 5)));
    let mut other = driver.cursor().cloned().map(|cursor| serde_json::to_value(cursor).expect("plain"));
    other.as_mut().expect("after a step")["digest"] = "ab".repeat(32).into();
    let start = serde_json::from_value(other.expect("after a step")).expect("a cursor");
    let options = DriverOptions { start: Some(start), ..Default::default() };
    let error = drive(&fake, tally(&fake), options).await.expect_err("of another spec");
    assert!(matches!(error, DriveError::Client(Error::OtherDigest { .. })), "{error}");
}

#[tokio::test]
async fn a_fenced_attempt_ends_with_a_typed_error() {
    let fake = learning();
    two_segments(&fake);
    let mut old = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    old.run(1).await.expect("in force");
    let options = DriverOptions { resume: ResumeAttempt::Replay, ..Default::default() };
    let new = drive(&fake, tally(&fake), options).await.expect("opens");
    let error = old.run(1).await.expect_err("superseded");
    assert!(matches!(error, DriveError::Fenced { attempt: 1, .. }), "{error}");
    assert!(matches!(old.run(1).await, Err(DriveError::Interrupted)));
    assert_eq!(new.attempt().attempt, 2);
    // A rank that is told the attempt opens none.
    let options =
        DriverOptions { attempt: Some(new.attempt()), rank: 1, world_size: 2, ..Default::default() };
    let mut second = drive(&fake, tally(&fake), options).await.expect("opens");
    let before = fake.keeper.state().reports.len();
    assert_eq!(second.run(1).await.expect("trains").completed, 1);
    let state = fake.keeper.state();
    assert_eq!((state.attempts.len(), state.reports.len()), (2, before));
}

#[tokio::test]
async fn a_stream_that_is_cut_by_a_newer_attempt_is_fenced_too() {
    for (newer, wanted) in [(true, "attempt 1 was superseded: gone"), (false, "aborted: gone")] {
        let fake = learning();
        fake.script([Turn::new(0, vec![Err(Status::aborted("gone"))])]);
        let mut old = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
        if newer {
            client(&fake, quick())
                .await
                .open_attempt(JOB, 0, 0, ResumeAttempt::Replay)
                .await
                .expect("the second");
        }
        // Without a newer attempt the job was closed.
        assert_eq!(old.run(1).await.expect_err("cut").to_string(), wanted);
    }
}

#[tokio::test]
async fn a_refused_report_surfaces_with_its_reason() {
    let fake = learning();
    fake.keeper.append(entry(1, 0..1, &[(DueWhen::After, ReportKind::Train)]));
    let answer = v1::ReportResponse {
        outcome: v1::ReportOutcome::Rejected.into(),
        reason: ReportReason::NotFinite.into(),
        message: "group `s/b` is NaN".into(),
        ..Default::default()
    };
    fake.keeper.state().refuse = Some((ReportKind::Train, answer));
    let mut driver = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    let error = driver.run(1).await.expect_err("refused");
    let wanted = Outcome::Rejected(ReportReason::NotFinite);
    assert!(
        matches!(&error, DriveError::Refused { kind: ReportKind::Train, segment: 1, outcome, .. } if *outcome == wanted),
        "{error}"
    );
    let text = "report REPORT_KIND_TRAIN on segment 1 is rejected (not_finite): group `s/b` is NaN";
    assert_eq!(error.to_string(), text);
    let options = DriverOptions { lenient: true, resume: ResumeAttempt::Replay, ..Default::default() };
    let mut driver = drive(&fake, tally(&fake), options).await.expect("opens");
    assert_eq!(driver.run(1).await.expect("goes on").completed, 1);
    assert_eq!(driver.stats().refused, 1);
}

#[tokio::test]
async fn a_report_that_fails_on_its_way_is_sent_by_the_next_run() {
    let fake = learning();
    two_segments(&fake);
    let client = client(&fake, quick().patience(Duration::ZERO)).await;
    let mut driver = Driver::open(client, JOB, tally(&fake), DriverOptions::default()).await.expect("opens");
    let mut failures = 0;
    fake.keeper.state().lost = 3;
    while driver.completed() < 3 {
        match driver.run(3 - driver.completed()).await {
            Ok(progress) => assert_eq!(progress.completed, 3),
            Err(DriveError::Client(error)) => {
                assert!(error.is_transient(), "{error}");
                failures += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The answers to the first report, then to its duplicates, got lost; each run took it up where it was.
    assert_eq!((failures, driver.stats().duplicates, driver.stats().counted), (3, 1, 4));
    let trained: Vec<_> = fake
        .keeper
        .state()
        .events
        .iter()
        .filter(|e| e.starts_with("train ") && !e.contains('#'))
        .cloned()
        .collect();
    assert_eq!(trained, ["train 0", "train 1", "train 2"]);
}

#[tokio::test]
async fn what_the_trainer_cannot_do_is_typed() {
    let fake = learning();
    two_segments(&fake);
    let trainer = Tally { dots: false, ..tally(&fake) };
    let mut driver = drive(&fake, trainer, DriverOptions::default()).await.expect("opens");
    let error = driver.run(9).await.expect_err("no dots");
    assert!(matches!(error, DriveError::Unsupported { kind: ReportKind::Dots, step: 5 }), "{error}");
    // Taught meanwhile, it goes on: nothing of the first try was sent.
    driver.trainer_mut().expect("at rest").dots = true;
    assert_eq!(driver.run(0).await.expect("good").completed, 5);
    let last: Vec<ReportRequest> = fake.keeper.state().reports.iter().rev().take(2).cloned().collect();
    assert_eq!(
        last.iter().map(|r| (r.kind(), r.seq)).collect::<Vec<_>>(),
        [(ReportKind::Dots, 0), (ReportKind::Train, 0)]
    );

    let fake = learning();
    let trainer = Tally { bad: 1, ..tally(&fake) };
    let mut driver = drive(&fake, trainer, DriverOptions::default()).await.expect("opens");
    let error = driver.run(9).await.expect_err("step 1 fails");
    assert_eq!(error.to_string(), "trainer cannot take step 1: loss is NaN");
    assert_eq!(driver.completed(), 1);
    assert!(matches!(driver.run(1).await, Err(DriveError::Interrupted)));
}

#[tokio::test]
async fn candidates_are_asked_for_and_answered_in_order() {
    let fake = learning();
    fake.keeper.append(entry(4, 0..1, &[(DueWhen::Before, ReportKind::Candidates)]));
    let mut driver = drive(&fake, tally(&fake), DriverOptions::default()).await.expect("opens");
    let error = driver.run(1).await.expect_err("for no segment");
    assert!(error.to_string().contains("candidates are for segment 0"), "{error}");
    fake.keeper.state().candidates =
        v1::GetCandidatesResponse { segment: 4, candidates: vec![v1::Vector { values: vec![0.5, 0.5] }] };
    let error = driver.run(1).await.expect_err("the trainer measures none");
    assert!(matches!(error, DriveError::Unsupported { kind: ReportKind::Candidates, step: 0 }), "{error}");
}

/// A trainer whose steps wait for a message, and news of those that wait.
fn gated(fake: &Fake) -> (Tally, mpsc::Sender<()>, UnboundedReceiver<u64>) {
    let (open, gate) = mpsc::channel();
    let (entered, waiting) = unbounded_channel();
    (Tally { gate: Some((entered, gate)), ..tally(fake) }, open, waiting)
}

/// The test's runtime has one thread: a driver that trained on it would wait for ever.
#[tokio::test]
async fn a_blocking_trainer_does_not_hold_up_the_runtime() {
    let fake = learning();
    let (trainer, open, mut waiting) = gated(&fake);
    let mut driver = drive(&fake, trainer, DriverOptions::default()).await.expect("opens");
    let mut run = pin!(driver.run(3));
    let mut steps = Vec::new();
    let progress = loop {
        tokio::select! {
            progress = &mut run => break progress.expect("good"),
            step = waiting.recv() => {
                steps.push(step.expect("the trainer lives"));
                open.send(()).expect("the trainer waits");
            }
        }
    };
    assert_eq!((progress.completed, steps), (3, vec![0, 1, 2]));
}

#[tokio::test]
async fn a_trainer_survives_a_run_that_is_dropped_while_it_works() {
    let fake = learning();
    let (trainer, open, mut waiting) = gated(&fake);
    let mut driver = drive(&fake, trainer, DriverOptions::default()).await.expect("opens");
    {
        let mut run = pin!(driver.run(1));
        tokio::select! {
            progress = &mut run => panic!("step 0 was not let through: {progress:?}"),
            step = waiting.recv() => assert_eq!(step, Some(0)),
        }
    }
    assert!(driver.trainer().is_none());
    assert!(matches!(driver.run(1).await, Err(DriveError::Interrupted)));
    open.send(()).expect("the trainer waits");
    driver.into_trainer().await.expect("its step ends");
    assert_eq!(fake.keeper.state().events, ["train 0"]);
}

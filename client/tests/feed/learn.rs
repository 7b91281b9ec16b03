use crate::{
    fake::{Fake, JOB, open, quick, row_groups},
    keeper::entry,
};
use futures_util::StreamExt;
use mixfeed_client::{
    Error, Outcome, SetWeights, StreamOptions,
    learn::{DueWhen, ReportKind, ReportReason, ReportRequest, ResumeAttempt},
};
use mixfeed_proto as v1;
use std::{future::poll_fn, pin::pin, task::Poll};

fn report(attempt: u64, segment: u64, to_step: u64) -> ReportRequest {
    ReportRequest {
        job: JOB.into(),
        attempt,
        segment,
        kind: ReportKind::Eval.into(),
        to_step,
        values: vec![12.5, 3.0],
        counts: vec![4.0, 1.0],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_report_whose_answer_is_lost_counts_once() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let opened = client.open_attempt(JOB, 0, 0, ResumeAttempt::Unspecified).await.expect("the first");
    fake.keeper.state().lost = 2;
    let answer = client.report(&report(opened.attempt, 1, 0)).await.expect("third time");
    assert_eq!((answer.outcome, answer.counted()), (Outcome::Duplicate, true));
    assert_eq!(fake.keeper.state().reports, [report(1, 1, 0)]);
    let other = ReportRequest { values: vec![1.0, 2.0], ..report(1, 1, 0) };
    let answer = client.report(&other).await.expect("an answer");
    assert_eq!((answer.outcome, answer.counted()), (Outcome::Conflict, false));
}

#[tokio::test]
async fn outcomes_are_typed_and_unknown_ones_are_errors() {
    use v1::ReportOutcome::{Rejected, Stale};
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    client.open_attempt(JOB, 0, 0, ResumeAttempt::Unspecified).await.expect("the first");
    let cases = [
        (Rejected as i32, ReportReason::EvalDigest as i32, Some(Outcome::Rejected(ReportReason::EvalDigest))),
        (Stale as i32, 0, Some(Outcome::Stale)),
        (77, 0, None),
        (0, 0, None),
        (Rejected as i32, 77, None),
    ];
    for (outcome, reason, wanted) in cases {
        let answer = v1::ReportResponse { outcome, reason, message: "why".into(), ..Default::default() };
        fake.keeper.state().refuse = Some((ReportKind::Eval, answer));
        match (client.report(&report(1, 1, 0)).await, wanted) {
            (Ok(answer), Some(wanted)) => assert_eq!((answer.outcome, &*answer.message), (wanted, "why")),
            (Err(Error::Protocol(text)), None) => assert!(text.contains("does not know"), "{text}"),
            (found, wanted) => panic!("{found:?} for {wanted:?}"),
        }
    }
    assert_eq!(Outcome::Rejected(ReportReason::EvalDigest).to_string(), "rejected (eval_digest)");
}

#[tokio::test]
async fn a_newer_attempt_fences_the_older_one() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let first = client.open_attempt(JOB, 0, 0, ResumeAttempt::Unspecified).await.expect("the first").attempt;
    client.report(&report(first, 1, 3)).await.expect("in force");
    let asked = client.open_attempt(JOB, 2, 0, ResumeAttempt::Unspecified).await;
    assert!(matches!(asked, Err(Error::FailedPrecondition { .. })), "{asked:?}");
    let second =
        client.open_attempt(JOB, 2, 0, ResumeAttempt::Rewind).await.expect("told what to do").attempt;
    assert_eq!((first, second), (1, 2));
    let fenced = client.report(&report(first, 1, 4)).await;
    assert!(matches!(&fenced, Err(Error::Aborted { message }) if message.contains("by 2")), "{fenced:?}");
}

#[tokio::test]
async fn a_watch_goes_on_over_cuts_without_gap_or_repeat() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    for seq in 1..=6 {
        fake.keeper.append(entry(seq, seq..seq + 1, &[]));
    }
    fake.keeper.state().cuts.extend([2, 0, 1]);
    let mut watch = client.watch(JOB, 2);
    for seq in 2..=6 {
        assert_eq!(watch.next_entry().await.expect("good").seq, seq);
    }
    // Silence, then news.
    {
        let mut next = pin!(watch.next_entry());
        let pending = poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await;
        assert!(pending);
        fake.keeper.append(entry(7, 7..8, &[]));
        assert_eq!(next.await.expect("good").seq, 7);
    }
    assert_eq!((watch.next_seq(), fake.keeper.state().watches.clone()), (8, vec![2, 4, 4, 5]));
    // The same as a stream; the server forgot the job meanwhile and is told.
    fake.log().jobs.clear();
    let mut entries = pin!(client.watch(JOB, 7).entries());
    assert_eq!(entries.next().await.expect("endless").expect("good").seq, 7);
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_other_calls_answer() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    for seq in 1..=7 {
        fake.keeper.append(entry(seq, seq..seq + 1, &[]));
    }
    let seqs = |entries: Vec<v1::MixtureEntry>| entries.into_iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(client.mixture_log(JOB, 0).await.expect("three pages")), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(seqs(client.mixture_log(JOB, 6).await.expect("one page")), [6, 7]);
    assert_eq!(seqs(client.plan(JOB, 5).await.expect("planned").segments), [5, 6, 7]);
    assert_eq!(client.mixture(JOB).await.expect("in force").version, 7);
    assert_eq!(client.accounting(JOB, 12).await.expect("counted").until_step, 12);
    assert_eq!(client.candidates(JOB).await.expect("none").segment, 0);
    assert_eq!(client.estimators().await.expect("one")[0].name, "aioli");
}

#[tokio::test]
async fn weights_are_set_against_a_version_and_never_twice() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    fake.keeper.append(entry(1, 0..0, &[]));
    let set = |expected_version| SetWeights {
        expected_version,
        weights: vec![0.25, 0.75],
        operator: "ann".into(),
        ..Default::default()
    };
    let entry = client.set_weights(JOB, set(1)).await.expect("as seen").entry.expect("appended");
    assert_eq!((&*entry.author, entry.weights[0]), ("operator:ann", 1 << 30));
    let late = client.set_weights(JOB, set(1)).await;
    assert!(matches!(late, Err(Error::Aborted { .. })), "{late:?}");
    fake.keeper.state().lost = 1;
    let lost = client.set_weights(JOB, set(2)).await;
    assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
    assert_eq!(fake.keeper.state().entries.len(), 3);
}

#[tokio::test]
async fn headers_name_segments_and_no_batch_passes_a_barrier() {
    use DueWhen::{After, Before};
    let (fake, _) = Fake::new(4, 3);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    fake.keeper.append(entry(1, 0..2, &[(Before, ReportKind::Train), (After, ReportKind::Eval)]));
    fake.keeper.append(entry(2, 2..4, &[]));
    let attempt =
        client.open_attempt(JOB, 0, 0, ResumeAttempt::Unspecified).await.expect("the first").attempt;
    let train = ReportRequest { kind: ReportKind::Train.into(), ..report(attempt, 1, 0) };
    client.report(&train).await.expect("counted");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    let mut seen = Vec::new();
    for step in 0..2 {
        let batch = stream.next_batch().await.expect("good").expect("not over");
        let groups = batch.groups().expect("in every batch");
        assert_eq!((groups.rows(), groups.values), (3, &*row_groups(step, 3)));
        assert_eq!(groups.own().collect::<Vec<_>>(), [step as u32 % 2, 1 - step as u32 % 2, step as u32 % 2]);
        seen.push((
            batch.segment(),
            batch.mixture_id(),
            batch.due_before().to_vec(),
            batch.due_after().to_vec(),
        ));
    }
    let before = (1, 10, vec![ReportKind::Train], vec![]);
    assert_eq!(seen, [before, (1, 10, vec![], vec![ReportKind::Eval])]);
    let mut blocked = fake.keeper.blocked.subscribe();
    blocked.wait_for(|step| *step == Some(2)).await.expect("the keeper lives");
    {
        let mut next = pin!(stream.next_batch());
        assert!(poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await);
    }
    client.report(&report(attempt, 1, 2)).await.expect("counted");
    let batch = stream.next_batch().await.expect("good").expect("not over");
    assert_eq!((batch.step(), batch.segment(), batch.mixture_id()), (2, 2, 20));
}

//! A keeper around its course: durable, fenced, restarted.

use super::*;
use crate::store::flaky::Flaky;

#[tokio::test]
async fn a_restart_goes_on_exactly_wherever_it_comes() {
    let reports = |keeper: &Keeper, attempt: u64| {
        let losses = [(0, [3.0, 3.0]), (2, [2.7, 3.0]), (4, [2.7, 2.9])];
        losses.map(|(step, l)| keeper.with(|c| eval(c, attempt, step, l)).unwrap())
    };
    let whole = {
        let keeper = keeper(&store::memory(), |_| {}).unwrap();
        keeper.reach(3).await.unwrap();
        keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
        for report in reports(&keeper, 1) {
            keeper.report(report).await.unwrap();
        }
        keeper.reach(9).await.unwrap();
        keeper.with(|c| c.entries().to_vec()).unwrap()
    };
    for killed_after in 0..=3 {
        let store = store::memory();
        let mut running = keeper(&store, |_| {}).unwrap();
        running.reach(0).await.unwrap();
        running.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
        for (i, report) in reports(&running, 1).into_iter().enumerate() {
            if i == killed_after {
                drop(running);
                running = keeper(&store, |_| {}).unwrap();
            }
            running.reach(3).await.unwrap();
            assert_eq!(running.report(report).await.unwrap().0, Answer::accepted());
        }
        drop(running);
        let running = keeper(&store, |_| {}).unwrap();
        assert!(running.horizon() >= 1, "what was begun stays begun");
        running.reach(9).await.unwrap();
        assert_eq!(
            running.with(|c| c.entries().to_vec()).unwrap(),
            whole,
            "killed after {killed_after} reports"
        );
    }
}

#[tokio::test]
async fn a_task_that_nobody_told_survives_a_restart() {
    let store = store::memory();
    let running = keeper(&store, |_| {}).unwrap();
    running.reach(3).await.unwrap();
    running.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    for (step, loss) in [(0, 3.0), (2, 2.7), (4, 2.6)] {
        let mut report = running.with(|c| eval(c, 1, step, [loss, 1.0])).unwrap();
        (report.values[1], report.counts[1]) = (0.0, 0.0);
        assert_eq!(running.report(report).await.unwrap().0, Answer::accepted());
    }
    let entries = running.with(|c| c.entries().to_vec()).unwrap();
    assert!(entries[2].losses[1].is_nan(), "{:?}", entries[2].losses);
    drop(running);
    let again = keeper(&store, |_| {}).unwrap();
    assert_eq!(format!("{:?}", again.with(|c| c.entries().to_vec()).unwrap()), format!("{entries:?}"));
}

#[tokio::test]
async fn what_was_not_served_cannot_be_reported_on() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    let report = keeper.with(|c| eval(c, 1, 2, [2.0, 3.0])).unwrap();
    assert_eq!(keeper.report(report.clone()).await.unwrap().0.reason, Reason::Steps);
    keeper.reach(1).await.unwrap();
    assert_eq!(keeper.report(report).await.unwrap().0, Answer::accepted());
}

#[tokio::test]
async fn a_log_that_another_build_wrote_is_refused() {
    let store = store::memory();
    keeper(&store, |_| {}).unwrap();
    let error = keeper(&store, |r| r.initial = Weights::normalise(&[1.0, 2.0]).unwrap());
    assert!(error.is_ok(), "the weights of the spec are in the digest, not in this log");
    let record = Record { event: Some(Event::Plan(3)), entries: vec![v1::MixtureEntry::default()] };
    store.append("job/ab", 1, &[record.encode_to_vec()]).unwrap();
    assert!(matches!(keeper(&store, |_| {}), Err(KeeperError::Foreign { record: 1, .. })));
}

#[tokio::test]
async fn older_lives_of_a_trainer_are_fenced() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    let report = keeper.with(|c| eval(c, 1, 2, [2.0, 3.0])).unwrap();
    assert!(matches!(
        keeper.report(report.clone()).await,
        Err(KeeperError::NoAttempt { given: 1, current: 0 })
    ));
    for _ in 0..2 {
        keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    }
    assert!(matches!(keeper.report(report).await, Err(KeeperError::Superseded { given: 1, current: 2 })));
    assert_eq!(keeper.outcomes().iter().map(|o| o.reports).sum::<u64>(), 2);
}

#[tokio::test]
async fn weights_are_set_only_on_the_log_that_was_seen() {
    let keeper = keeper(&store::memory(), |r| r.learner = None).unwrap();
    keeper.reach(41).await.unwrap();
    let weights = Weights::normalise(&[1.0, 3.0]).unwrap();
    let set =
        |expected| keeper.set_weights(weights.clone(), 0, expected, "operator:eve".into(), String::new());
    let entry = set(1).await.unwrap().expect("no probe is in the way");
    assert_eq!((entry.from_step, entry.seq), (42, 2), "steps that were begun never change");
    assert!(matches!(set(1).await, Err(KeeperError::Version { given: 1, current: 2 })));
}

#[tokio::test]
async fn a_job_that_learns_is_entered_only_a_little_ahead() {
    let learning = keeper(&store::memory(), |_| {}).unwrap();
    learning.admit(AHEAD).unwrap();
    let far = learning.admit(1 << 40);
    assert!(matches!(far, Err(KeeperError::Skips { step, horizon: 0 }) if step == 1 << 40), "{far:?}");
    learning.reach(2).await.unwrap();
    learning.admit(3 + AHEAD).unwrap();
    assert!(learning.admit(4 + AHEAD).is_err());
    keeper(&store::memory(), |r| r.learner = None).unwrap().admit(1 << 40).expect("nothing is skipped there");
}

#[tokio::test(start_paused = true)]
async fn a_barrier_lets_go_after_its_time() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    let Reached::Step(_, mark) = keeper.reach(4).await.unwrap() else { panic!("the job has no end") };
    assert_eq!(mark.seq, 3);
    assert_eq!(keeper.with(|c| c.entries()[2].author.clone()).unwrap(), "late");
}

#[tokio::test]
async fn a_keeper_goes_on_by_itself_when_its_store_works_again() {
    let whole = told_by(|_| {}).await;
    // Full disks, answers that get lost, and both with a store that cannot be read for a while.
    let troubles: [fn(&Flaky); 4] = [
        |s| s.refuse(3),
        |s| s.unsay(1),
        |s| {
            s.refuse(1);
            s.blind(2);
        },
        |s| {
            s.unsay(1);
            s.blind(1);
        },
    ];
    for (i, trouble) in troubles.into_iter().enumerate() {
        assert_eq!(told_by(trouble).await, whole, "trouble {i}");
    }
}

/// The log of two rounds and an operator in which `trouble` strikes before each call, that is then asked again.
async fn told_by(trouble: fn(&Flaky)) -> Vec<v1::MixtureEntry> {
    let store = Arc::new(Flaky::new(store::memory()));
    let shared: store::Shared = store.clone();
    let keeper = keeper(&shared, |_| {}).unwrap();
    keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    keeper.reach(3).await.unwrap();
    for (step, losses) in [(0, [3.0, 3.0]), (2, [2.7, 3.0]), (4, [2.7, 2.9])] {
        let report = keeper.with(|c| eval(c, 1, step, losses)).unwrap();
        trouble(&store);
        let (mut failed, told) = (0, keeper.view().version);
        let answer = loop {
            match keeper.report(report.clone()).await {
                Ok((answer, ..)) => break answer,
                Err(KeeperError::Store(_)) => failed += 1,
                Err(other) => panic!("{other}"),
            }
            assert_eq!(keeper.view().version, told, "nothing is told that is not durable");
        };
        // A report whose answer got lost was counted; when it was the round's last one, the round is over.
        let again = [Outcome::Accepted, Outcome::Duplicate, Outcome::Stale];
        assert!(again[..if failed > 0 { 3 } else { 1 }].contains(&answer.outcome), "{answer:?}");
    }
    trouble(&store);
    let weights = Weights::normalise(&[1.0, 3.0]).unwrap();
    while keeper.set_weights(weights.clone(), 6, 3, "operator:eve".into(), String::new()).await.is_err() {
        if keeper.with(|c| c.entries().len()).is_ok_and(|n| n == 4) {
            break; // it got there although its answer was an error
        }
    }
    trouble(&store);
    while keeper.reach(9).await.is_err() {}
    keeper.with(|c| c.entries().to_vec()).unwrap()
}

#[tokio::test]
async fn a_rewind_whose_answer_got_lost_takes_the_horizon_back() {
    let store = Arc::new(Flaky::new(store::memory()));
    let shared: store::Shared = store.clone();
    let keeper = keeper(&shared, |_| {}).unwrap();
    keeper.open_attempt(0, 0, v1::ResumeAttempt::Unspecified).await.unwrap();
    keeper.reach(3).await.unwrap();
    let report = keeper.with(|c| eval(c, 1, 2, [2.7, 3.0])).unwrap();
    keeper.report(report).await.unwrap();
    store.unsay(1);
    assert!(keeper.open_attempt(1, 0, v1::ResumeAttempt::Rewind).await.is_err());
    assert_eq!((keeper.view().branch, keeper.horizon()), (0, 4));
    assert_eq!(keeper.with(Course::attempt).unwrap(), 2);
    assert_eq!((keeper.view().branch, keeper.horizon()), (1, 1));
}

#[tokio::test]
async fn a_closed_keeper_refuses_whatever_comes_after() {
    let keeper = keeper(&store::memory(), |_| {}).unwrap();
    keeper.close();
    assert!(matches!(keeper.reach(0).await, Err(KeeperError::Closed)));
    assert!(matches!(keeper.with(Course::attempt), Err(KeeperError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn many_that_wait_at_a_barrier_leave_one_record() {
    let store = store::memory();
    let keeper = keeper(&store, |_| {}).unwrap();
    let wait = || {
        let keeper = keeper.clone();
        tokio::spawn(async move { keeper.reach(4).await.map(drop) })
    };
    for waiter in [(); 8].map(|()| wait()) {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(store.len("job/ab").unwrap(), 2, "the first entries, and that it was late");
}

//! What trainers wait, as the server hears it.

use crate::fake::{Fake, JOB, Turn, open, quick};
use mixfeed_client::{EvalOptions, StreamOptions, spec::LastBatch};
use mixfeed_proto::ReportStatsRequest;
use std::time::{Duration, Instant};
use tonic::Status;

async fn until(mut done: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < late, "it never happened");
        tokio::task::yield_now().await;
    }
}

/// Waited, worked, steps in all that a server was told.
fn sums(fake: &Fake) -> (f64, f64, u64) {
    let stats = fake.keeper.state().stats.clone();
    let add = |(waited, worked, steps): (f64, f64, u64), s: &ReportStatsRequest| {
        (waited + s.wait_seconds, worked + s.active_seconds, steps + s.steps)
    };
    stats.iter().fold((0.0, 0.0, 0), add)
}

#[tokio::test]
async fn the_end_of_a_stream_tells_all_of_it_to_the_server() {
    let (fake, _) = Fake::new(5, 2);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let options = StreamOptions { rank: 1, world_size: 3, replica: 2, ..Default::default() };
    let began = Instant::now();
    let mut stream = client.stream(JOB, options).await.expect("known job");
    while stream.next_batch().await.expect("good").is_some() {}
    let waited = stream.stats().waited.as_secs_f64();
    let whole = began.elapsed().as_secs_f64();
    until(|| sums(&fake).2 == 5).await;
    let stats = fake.keeper.state().stats.clone();
    let said = &stats[0];
    assert_eq!((said.job.as_str(), said.rank, said.world_size, said.replica), (JOB, 1, 3, 2));
    assert_eq!((stats.len(), said.next_step), (1, 5));
    assert!((said.wait_seconds - waited).abs() < 1e-3, "{said:?}, {waited} by its own account");
    assert!(
        said.active_seconds > 0.0 && said.wait_seconds + said.active_seconds <= whole,
        "{said:?}, {whole}"
    );
}

#[tokio::test]
async fn a_trainer_that_waits_is_heard_while_it_waits_and_one_that_works_while_it_works() {
    let (fake, _) = Fake::new(5, 2);
    fake.script([Turn { hang: true, ..Turn::new(1, vec![]) }]);
    let options = quick().tell_waits(Duration::from_millis(5));
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    stream.next_batch().await.expect("good").expect("not over");
    until(|| sums(&fake).1 > 0.05).await;
    let waited = sums(&fake).0;
    tokio::select! {
        batch = stream.next_batch() => panic!("{batch:?} comes from a server that hangs"),
        () = until(|| sums(&fake).0 > waited + 0.05) => {}
    }
    assert_eq!(sums(&fake).2, 1);
    let lasts = fake.keeper.state().stats.clone();
    assert!(lasts.iter().all(|said| said.next_step <= 1));
}

#[tokio::test]
async fn a_server_that_does_not_know_the_call_is_not_asked_again() {
    for refusal in [Status::unimplemented("ReportStats"), Status::permission_denied("pull only")] {
        let (fake, _) = Fake::new(5, 2);
        fake.keeper.state().stats_refusal = Some(refusal);
        let client =
            open(&[fake.tcp().await], quick().tell_waits(Duration::from_millis(1))).await.expect("opens");
        let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
        stream.next_batch().await.expect("good");
        until(|| !fake.keeper.state().stats.is_empty()).await;
        // Longer than many of its turns; the batches are as ever.
        for _ in 0..100 {
            client.health().await.expect("serves");
        }
        let mut batches = 1;
        while stream.next_batch().await.expect("good").is_some() {
            batches += 1;
        }
        assert_eq!((batches, fake.keeper.state().stats.len()), (5, 1));
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_again_and_an_option_turns_it_off() {
    let (fake, _) = Fake::new(5, 2);
    fake.keeper.state().stats_refusal = Some(Status::unavailable("busy"));
    let client =
        open(&[fake.tcp().await], quick().tell_waits(Duration::from_millis(1))).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    stream.next_batch().await.expect("good");
    until(|| fake.keeper.state().stats.len() > 1).await;
    fake.keeper.state().stats_refusal = None;
    let refused = fake.keeper.state().stats.len();
    until(|| fake.keeper.state().stats.len() > refused).await;
    let told = fake.keeper.state().stats[refused..].iter().map(|said| said.steps).sum::<u64>();
    assert_eq!(told, 1, "what was refused is told again, once");
    // Nothing is told of eval sets, nor when nobody wants it.
    let (silent, _) = Fake::new(3, 2);
    let client = open(&[silent.tcp().await], quick().tell_waits(Duration::ZERO)).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    while stream.next_batch().await.expect("good").is_some() {}
    let options = EvalOptions {
        group: "g".into(),
        batch: 2,
        rank: 0,
        world_size: 1,
        last_batch: LastBatch::Partial,
        from_step: 0,
        held_out: false,
    };
    let mut set = client.eval(JOB, options).await.expect("known job");
    while set.next_batch().await.expect("good").is_some() {}
    drop((stream, set));
    for _ in 0..100 {
        client.health().await.expect("serves");
    }
    assert!(silent.keeper.state().stats.is_empty());
}

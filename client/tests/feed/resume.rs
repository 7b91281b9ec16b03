use crate::{
    fake::{Fake, JOB, Turn, digest, open, part, quick, spec},
    proxy,
    streams::check,
};
use mixfeed_client::{BatchStream, Error, StreamOptions};
use mixfeed_proto::{self as v1, BatchPart, batch_part::Part};
use std::time::Duration;
use tonic::Status;

const ROWS: usize = 33;

/// Reads the job to its end; every step must come once, in order, with the right bytes.
async fn read_all(stream: &mut BatchStream, from: u64, to: u64) {
    for step in from..to {
        let batch = stream.next_batch().await.expect("good").expect("not over");
        check(&batch, step, 0, ROWS);
    }
    assert!(stream.next_batch().await.expect("good").is_none());
}

#[tokio::test]
async fn a_connection_cut_anywhere_is_made_good() {
    // The first connection is the control one; then cuts in the handshake, in a header, and inside of batches.
    let budgets = [u64::MAX, 0, 9, 60, 200, 100_000, 153_500, 400_000, 777_777];
    let (fake, _) = Fake::new(12, ROWS);
    let address = proxy::start(&fake.tcp().await, &budgets).await;
    let client = open(&[address], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 12).await;
    // At least the five cuts behind the handshake hit a stream.
    assert!(stream.stats().reconnects >= 5, "{:?}", stream.stats());
    assert_eq!(stream.stats().batches, 12);
}

#[tokio::test]
async fn another_endpoint_takes_over() {
    let (fake, _) = Fake::new(3, ROWS);
    let dead = "http://127.0.0.1:1".to_owned();
    let client = open(&[dead, fake.tcp().await], quick()).await.expect("the second answers");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 3).await;
}

#[tokio::test]
async fn patience_ends() {
    let dead = ["http://127.0.0.1:1".to_owned()];
    let error = open(&dead, quick().patience(Duration::ZERO)).await.expect_err("nobody listens");
    assert!(
        matches!(&error, Error::Unavailable { message, .. } if message.contains("127.0.0.1:1")),
        "{error}"
    );
}

#[tokio::test]
async fn an_unavailable_server_and_an_early_end_are_waited_out() {
    let (fake, _) = Fake::new(6, ROWS);
    fake.script([
        Turn::new(2, vec![Err(Status::unavailable("source lost"))]),
        Turn::new(0, vec![Err(Status::unavailable("still lost"))]),
        Turn::new(1, vec![]),
    ]);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 6).await;
    assert_eq!(stream.stats().reconnects, 3);
    // Without a batch the step stands; with one its cursor does.
    let starts: Vec<_> = fake.log().streams.iter().map(|request| request.start.clone()).collect();
    use v1::stream_batches_request::Start;
    assert_eq!(starts[0], Some(Start::FromStep(0)));
    for (start, step) in starts[1..].iter().zip([2, 2, 3]) {
        assert!(matches!(start, Some(Start::Cursor(c)) if c.next_step == step), "{start:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_as_denied_is_asked_for_once_more() {
    let revoked = || vec![Err(Status::unauthenticated("the token is not known here"))];
    let (fake, _) = Fake::new(6, ROWS);
    fake.script([Turn::new(2, revoked()), Turn::new(2, revoked())]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "mf_secret").expect("written");
    let options = quick().token_file(file.path());
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 6).await;
    assert_eq!(stream.stats().reconnects, 2);
    // No batch in between: the new token is no better.
    fake.script([Turn::new(1, revoked()), Turn::new(0, revoked())]);
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    check(&stream.next_batch().await.expect("good").expect("not over"), 0, 0, ROWS);
    let error = stream.next_batch().await.expect_err("denied twice");
    assert!(matches!(error, Error::Denied { .. }), "{error}");
}

#[tokio::test]
async fn a_draining_server_hands_over() {
    let (old, _) = Fake::new(5, ROWS);
    let (new, _) = Fake::new(5, ROWS);
    let away = v1::GoAway { reason: "rollout".into(), endpoints: vec!["nonsense".into(), new.tcp().await] };
    old.script([Turn::new(2, vec![Ok(part(Part::GoAway(away)))])]);
    let client = open(&[old.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 5).await;
    // The new server did not know the job, so it was opened there as well.
    assert_eq!((old.log().streams.len(), new.log().opens.len()), (1, 1));
    let open = new.log().opens[0].clone();
    assert_eq!((open.spec, open.expected_digest), (Some(spec(7)), digest(&spec(7))));
}

#[tokio::test]
async fn a_restarted_server_is_told_the_job_again() {
    let (fake, _) = Fake::new(5, ROWS);
    fake.script([Turn::new(2, vec![Err(Status::unavailable("restarting"))])]);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    for step in 0..2 {
        check(&stream.next_batch().await.expect("good").expect("not over"), step, 0, ROWS);
    }
    fake.log().jobs.clear();
    read_all(&mut stream, 2, 5).await;
    assert_eq!(fake.log().opens.len(), 2);
}

#[tokio::test]
async fn another_job_under_the_name_is_an_error() {
    let (fake, _) = Fake::new(5, ROWS);
    fake.script([Turn::new(1, vec![Err(Status::unavailable("restarting"))])]);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    check(&stream.next_batch().await.expect("good").expect("not over"), 0, 0, ROWS);
    let other = digest(&spec(8));
    let found = mixfeed_client::Digest(other.to_vec());
    fake.log().jobs.get_mut(JOB).expect("open").digest = other;
    // A server that checks cursors refuses; one that does not is found out by its headers.
    let error = stream.next_batch().await.expect_err("another job");
    assert!(matches!(error, Error::FailedPrecondition { .. }), "{error}");
    let mut fresh = client.stream(JOB, StreamOptions::default()).await.expect("remembered");
    let error = fresh.next_batch().await.expect_err("another job");
    assert!(matches!(&error, Error::OtherDigest { found: f, .. } if *f == found), "{error}");
    assert!(fresh.next_batch().await.expect("over").is_none());
}

#[allow(clippy::ptr_arg)] // `Turn::tamper` may also remove parts
fn damage(parts: &mut Vec<BatchPart>) {
    if let Some(Part::Chunk(chunk)) = &mut parts[2].part {
        let mut data = chunk.data.to_vec();
        data[17] ^= 4;
        chunk.data = data.into();
    }
}

#[tokio::test]
async fn a_damaged_batch_is_asked_for_once_more() {
    let (fake, _) = Fake::new(3, ROWS);
    fake.script([Turn::tampered(damage)]);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 3).await;
    assert_eq!(stream.stats().reconnects, 1);
}

#[tokio::test]
async fn a_batch_damaged_twice_is_an_error() {
    let (fake, _) = Fake::new(3, ROWS);
    fake.script([Turn::tampered(damage), Turn::tampered(damage)]);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    let error = stream.next_batch().await.expect_err("damaged");
    assert!(matches!(&error, Error::Corrupt { step: 0, tensor, .. } if tensor == "image"), "{error}");
    assert!(stream.next_batch().await.expect("over").is_none());
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let (fake, _) = Fake::new(3, ROWS);
    fake.script([Turn { hang: true, ..Turn::new(1, vec![]) }]);
    let options = quick().idle_timeout(Duration::from_millis(100));
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    read_all(&mut stream, 0, 3).await;
    assert!(stream.stats().reconnects >= 1);
}

use crate::fake::{Fake, JOB, open, pixels, quick};
use futures_util::StreamExt;
use mixfeed_client::{Batch, EndOfJob, EvalOptions, Labels, Replay, Start, StreamOptions, spec::LastBatch};
use std::{sync::atomic::Ordering, time::Duration};

pub fn check(batch: &Batch, step: u64, rank: u32, rows: usize) {
    assert_eq!((batch.step(), batch.rank()), (step, rank));
    let images = batch.images().expect("image");
    assert_eq!(images.shape, [rows, 3, 33, 47]);
    assert!(images.as_u8().expect("u8") == pixels(step, rank, rows), "pixels of step {step}");
}

async fn whole_job(address: String, fake: Fake) {
    let client = open(&[address], quick().prefetch_bytes(12345)).await.expect("opens");
    let options = StreamOptions { rank: 1, world_size: 3, ..Default::default() };
    let mut stream = client.stream(JOB, options).await.expect("known job");
    for step in 0..fake.steps {
        assert_eq!(stream.end(), None);
        let batch = stream.next().await.expect("not over").expect("good");
        check(&batch, step, 1, fake.rows);
        assert_eq!((batch.world_size(), batch.mixture_id(), batch.numerics()), (3, 11, "cpu-1"));
        assert_eq!(batch.receipt().map(|r| (r.step, r.rank)), Some((step, 1)));
        assert_eq!(stream.cursor(), batch.cursor());
        assert_eq!(batch.cursor().map(|c| c.next_step()), Some(step + 1));
        let Labels::Sparse { classes, weights, per_row: 2 } = batch.labels().expect("pairs") else {
            panic!("labels are not sparse pairs");
        };
        assert_eq!(classes[..2], [step as i32, step as i32 + 1]);
        assert_eq!(weights[..2], [0.75, 0.25]);
    }
    assert!(stream.next().await.is_none());
    assert!(stream.next().await.is_none());
    assert_eq!(stream.end(), Some(EndOfJob { steps: fake.steps, dropped_rows: 3, padded_rows: 0 }));
    let stats = stream.stats();
    let bytes = fake.steps * (fake.rows * (3 * 33 * 47 + 24)) as u64;
    assert_eq!((stats.batches, stats.bytes, stats.reconnects), (fake.steps, bytes, 0));
    assert!(stats.waited > Duration::ZERO);
    assert_eq!(fake.log().streams[0].prefetch_bytes, 12345);
}

#[tokio::test]
async fn a_job_arrives_over_tcp() {
    for rows in [1, 33] {
        let (fake, _) = Fake::new(5, rows);
        whole_job(fake.tcp().await, fake).await;
    }
}

#[tokio::test]
async fn a_job_arrives_over_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let (fake, _) = Fake::new(3, 33);
    whole_job(fake.unix(&dir.path().join("feed.sock")), fake).await;
}

#[tokio::test]
async fn a_cursor_continues_where_it_was_taken() {
    let (fake, _) = Fake::new(6, 2);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    for _ in 0..2 {
        stream.next_batch().await.expect("good");
    }
    let text = serde_json::to_string(stream.cursor().expect("after a batch")).expect("plain fields");
    assert!(text.len() < 4096);
    let start = Start::Cursor(serde_json::from_str(&text).expect("own text"));
    let mut again =
        client.stream(JOB, StreamOptions { start, ..Default::default() }).await.expect("known job");
    check(&again.next_batch().await.expect("good").expect("not over"), 2, 0, 2);
}

#[tokio::test]
async fn evaluation_ends_without_an_end_of_job() {
    let (fake, _) = Fake::new(3, 5);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let options = EvalOptions {
        group: "photos/eye".into(),
        batch: 10,
        rank: 1,
        world_size: 2,
        last_batch: LastBatch::Pad,
        from_step: 1,
        held_out: false,
    };
    let mut stream = client.eval(JOB, options).await.expect("known job");
    for step in 1..3 {
        let batch = stream.next_batch().await.expect("good").expect("not over");
        check(&batch, step, 1, 5);
        assert_eq!(batch.cursor(), None);
    }
    assert!(stream.next_batch().await.expect("good").is_none());
    assert_eq!(stream.end(), None);
}

#[tokio::test]
async fn a_batch_is_made_again_by_receipt_and_by_step() {
    let (fake, _) = Fake::new(9, 3);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let first = client.replay(JOB, Replay::Step { step: 5, rank: 2, world_size: 4 }).await.expect("good");
    check(&first, 5, 2, 3);
    let receipt = first.receipt().expect("sent").clone();
    check(&client.replay(JOB, Replay::Receipt(receipt)).await.expect("good"), 5, 2, 3);
}

#[test]
fn a_blocking_iterator_gives_the_same_and_knows_the_end() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let (fake, _) = Fake::new(5, 33);
    // Polled once on this runtime, so that the iterator has to take a position over.
    let stream = runtime.block_on(async {
        let client = open(&[fake.tcp().await], quick()).await.expect("opens");
        let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
        check(&stream.next_batch().await.expect("good").expect("not over"), 0, 0, 33);
        stream
    });
    let mut batches = stream.blocking();
    assert_eq!(batches.cursor().map(|c| c.next_step()), Some(1));
    for step in 1..5 {
        check(&batches.next().expect("not over").expect("good"), step, 0, 33);
        assert_eq!(batches.cursor().map(|c| c.next_step()), Some(step + 1));
    }
    assert!(batches.next().is_none());
    assert!(batches.next().is_none());
    assert_eq!(batches.end().map(|end| end.steps), Some(5));
    assert_eq!(batches.stats().batches, 5);
}

#[test]
fn dropping_a_blocking_iterator_ends_its_stream() {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let (fake, mut drops) = Fake::new(1000, 33);
    let stream = runtime.block_on(async {
        let client = open(&[fake.tcp().await], quick()).await.expect("opens");
        client.stream(JOB, StreamOptions::default()).await.expect("known job")
    });
    let mut batches = stream.blocking();
    check(&batches.next().expect("not over").expect("good"), 0, 0, 33);
    drop(batches);
    assert_eq!(drops.blocking_recv(), Some(()));
}

#[tokio::test]
async fn a_reader_that_stops_holds_its_window_and_control_calls_go_on() {
    let (fake, _) = Fake::new(400, 33);
    let options = quick().window_bytes(64 << 10).frame_bytes(16 << 10);
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    check(&stream.next_batch().await.expect("good").expect("not over"), 0, 0, 33);
    for _ in 0..300 {
        assert_eq!(client.list_jobs().await.expect("answers").len(), 1);
    }
    // 60 MB would have arrived by now without back-pressure.
    assert!(fake.sent.load(Ordering::Relaxed) < 8 << 20, "{}", fake.sent.load(Ordering::Relaxed));
    for step in 1..40 {
        check(&stream.next_batch().await.expect("good").expect("not over"), step, 0, 33);
    }
}

#[tokio::test]
async fn dropping_a_stream_in_the_middle_of_a_batch_ends_it_on_the_server() {
    let (fake, mut drops) = Fake::new(1000, 650);
    let options = quick().window_bytes(64 << 10).frame_bytes(16 << 10);
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    // A batch of 3 MB cannot be there after the first wake-ups.
    while fake.sent.load(Ordering::Relaxed) == 0 {
        tokio::select! {
            biased;
            batch = stream.next_batch() => { panic!("3 MB at once: {batch:?}") }
            () = tokio::task::yield_now() => {}
        }
    }
    drop(stream);
    assert_eq!(drops.recv().await, Some(()));
}

#[tokio::test]
async fn giving_up_a_wait_loses_no_batch() {
    let (fake, _) = Fake::new(4, 33);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    let mut steps = Vec::new();
    while steps.len() < 4 {
        tokio::select! {
            biased;
            batch = stream.next_batch() => {
                let batch = batch.expect("good").expect("not over");
                check(&batch, steps.len() as u64, 0, 33);
                steps.push(batch.step());
            }
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(steps, [0, 1, 2, 3]);
}

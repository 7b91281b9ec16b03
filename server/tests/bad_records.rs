//! Bad records: replaced as a pure function, told in the receipt, or the end of the job; never a gap.
#![allow(clippy::unwrap_used)]

mod stand;

use bytes::Bytes;
use mixfeed_client::{Error, EvalOptions, StreamOptions};
use mixfeed_proto::{JobSpec, LastBatch};
use mixfeed_server::batch::flags;
use mixfeed_server::metrics;
use mixfeed_server::source::{Fetching, Index, Memory, Source, SourceError};
use stand::{Server, bytes, joined, named, pull, spec};

/// The test pictures, with class "bee" spoilt by `spoil(i)`.
fn spoilt(spoil: impl Fn(usize, &Bytes) -> Option<Bytes>) -> Memory {
    let mut records = stand::pictures();
    let bees = records.iter_mut().filter(|r| r.2 == "bee").enumerate();
    bees.for_each(|(i, r)| r.1 = spoil(i, &r.1).unwrap_or(r.1.clone()));
    Memory::new(records).unwrap()
}

/// A PNG header that declares 60000 x 60000 pixels.
fn bomb() -> Bytes {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(60_000u32.to_be_bytes());
    png.extend(60_000u32.to_be_bytes());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    png.into()
}

fn half_bad() -> Memory {
    spoilt(|i, good| match i {
        0 => Some(Bytes::new()),
        1 => Some(Bytes::from_static(b"this is a text file named .jpg")),
        2 => Some(good.slice(..good.len() / 2)),
        3 => Some(bomb()),
        _ => None,
    })
}

fn tolerant() -> JobSpec {
    JobSpec { max_bad_fraction: Some(1.0), ..spec() }
}

#[tokio::test]
async fn a_bad_record_is_replaced_by_another_of_its_group_and_told() {
    let server = Server::start(named(half_bad())).await;
    let client = server.open(&tolerant()).await;
    let batches = pull(&client, 0, 1, 0, 4).await;
    let mut replaced = 0;
    for batch in &batches {
        let flags = batch.tensor("sample.flags").unwrap().as_u32().unwrap();
        let told = &batch.receipt().unwrap().replaced;
        assert_eq!(flags.iter().filter(|f| *f & flags::REPLACED != 0).count(), told.len());
        for r in told {
            assert!(
                r.record.contains("bee") && !r.reason.is_empty() && (1..=16).contains(&r.probes),
                "{r:?}"
            );
            let group = batch.tensor("sample.group").unwrap().as_u32().unwrap()[2 * r.slot as usize];
            let index = batch.tensor("sample.index").unwrap().as_u64().unwrap()[2 * r.slot as usize];
            assert_eq!(group, 1, "bees are the second group");
            assert!((4..7).contains(&index), "a good one: {index}");
        }
        replaced += told.len();
    }
    assert!(replaced > 0, "two epochs meet the four bad records");
    // The same on two ranks and from another start.
    let parts = [pull(&client, 0, 2, 2, 1).await.remove(0), pull(&client, 1, 2, 2, 1).await.remove(0)];
    assert_eq!(joined(&parts), bytes(&batches[2]));
}

/// Records of a store: nobody may wait for them on a thread.
#[derive(Debug)]
struct Far(Memory);

impl Source for Far {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn index(&self) -> &Index {
        self.0.index()
    }
    fn read(&self, _: u32) -> Result<Bytes, SourceError> {
        Err(SourceError::Changed { file: "pics".into(), what: "a thread waits for it".into() })
    }
    fn fetch(&self, numbers: &[u32]) -> Option<Fetching> {
        let all = numbers.iter().map(|number| self.0.read(*number)).collect();
        Some(Box::pin(async move { all }))
    }
    fn far(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn bad_records_of_a_store_are_replaced_by_the_same_ones_and_no_thread_waits() {
    let near = Server::start(named(half_bad())).await;
    let far = Server::start(named(Far(half_bad()))).await;
    let (near, far) = (near.open(&tolerant()).await, far.open(&tolerant()).await);
    let (near, far) = (pull(&near, 0, 1, 0, 6).await, pull(&far, 0, 1, 0, 6).await);
    assert!(near.iter().any(|batch| !batch.receipt().unwrap().replaced.is_empty()));
    for (near, far) in near.iter().zip(&far) {
        assert_eq!(bytes(near), bytes(far));
        assert_eq!(near.receipt().unwrap().replaced, far.receipt().unwrap().replaced);
    }
}

#[tokio::test]
async fn replaced_rows_are_counted_among_those_of_training() {
    let recorder = metrics::install("cpu-1").unwrap();
    let counted = |family: &str| {
        let of = format!("{family}{{job=\"counted\"");
        let text = metrics::render(&recorder);
        let lines = text.lines().filter(|line| line.starts_with(&of));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let server = Server::start(named(half_bad())).await;
    let client = server.client().await;
    client.open_job("counted", &JobSpec { max_steps: 3, ..tolerant() }).await.unwrap();
    let bees = EvalOptions {
        group: "pics/bee".into(),
        batch: 7,
        rank: 0,
        world_size: 1,
        last_batch: LastBatch::Partial,
        from_step: 0,
        held_out: false,
    };
    let ended = client.eval("counted", bees).await.unwrap().next_batch().await;
    assert!(
        matches!(&ended, Err(Error::DataLoss { .. })),
        "nothing stands in for a row of an eval set: {ended:?}"
    );
    assert_eq!(counted("mixfeed_samples_replaced_total"), 0.0);

    let mut stream = client.stream("counted", StreamOptions::default()).await.unwrap();
    let mut told = 0;
    while let Some(batch) = stream.next_batch().await.unwrap() {
        told += batch.receipt().unwrap().replaced.len();
    }
    assert!(told > 0, "an epoch and a half meets bad records");
    assert_eq!(counted("mixfeed_samples_replaced_total"), told as f64);
    assert_eq!(counted("mixfeed_group_samples_delivered_total"), 36.0);
}

async fn fails(source: Memory, spec: JobSpec) -> Error {
    let server = Server::start(named(source)).await;
    let client = server.open(&spec).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    loop {
        match stream.next_batch().await {
            Ok(batch) => assert!(batch.unwrap().step() < 1000, "bad records were never noticed"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn too_many_bad_records_end_the_job_with_the_name_of_one() {
    let error = fails(half_bad(), JobSpec { max_bad_fraction: Some(0.02), ..spec() }).await;
    assert!(
        matches!(&error, Error::DataLoss { message } if message.contains("bee/") && message.contains("0.02")),
        "{error}"
    );
}

#[tokio::test]
async fn a_group_without_a_good_record_ends_the_job() {
    let error = fails(spoilt(|_, _| Some(Bytes::new())), tolerant()).await;
    assert!(matches!(&error, Error::DataLoss { message } if message.contains("bee/")), "{error}");
}

#[tokio::test]
async fn limits_of_the_job_make_a_record_bad() {
    let limits = mixfeed_proto::LimitSpec { max_pixels: 41 * 67, ..Default::default() };
    let server = Server::start(named(Memory::new(stand::pictures()).unwrap())).await;
    let client = server.open(&JobSpec { limits: Some(limits), ..tolerant() }).await;
    let batch = pull(&client, 0, 1, 0, 1).await.remove(0);
    let told = &batch.receipt().unwrap().replaced;
    assert!(!told.is_empty() && told[0].reason.contains("2747"), "{told:?}");
}

#[tokio::test]
async fn pictures_of_one_pixel_and_of_one_row_are_served() {
    let line = stand::picture(3, 1, 200);
    let dot = stand::picture(4, 1, 1);
    let source = spoilt(move |i, _| {
        Some(stand::encoded(if i % 2 == 0 { "a.jpg" } else { "a.png" }, if i < 3 { &line } else { &dot }))
    });
    let server = Server::start(named(source)).await;
    let client = server.open(&tolerant()).await;
    let batches = pull(&client, 0, 1, 0, 4).await;
    assert!(batches.iter().all(|b| b.receipt().unwrap().replaced.is_empty()));
}

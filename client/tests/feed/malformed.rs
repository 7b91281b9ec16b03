use crate::fake::{Fake, JOB, Turn, chunk, open, part, quick};
use mixfeed_client::{ClientOptions, Error, StreamOptions};
use mixfeed_proto::{self as v1, BatchPart, batch_part::Part};
use tonic::Status;

async fn first_error(turn: Turn, options: ClientOptions) -> Error {
    let (fake, _) = Fake::new(2, 3);
    fake.script([turn]);
    let client = open(&[fake.tcp().await], options).await.expect("opens");
    let mut stream = client.stream(JOB, StreamOptions::default()).await.expect("known job");
    stream.next_batch().await.expect_err("malformed")
}

fn header(parts: &mut [BatchPart]) -> &mut v1::BatchHeader {
    match &mut parts[0].part {
        Some(Part::Header(header)) => header,
        other => panic!("not a header: {other:?}"),
    }
}

#[tokio::test]
async fn parts_against_the_contract_are_typed_errors() {
    type Tamper = fn(&mut Vec<BatchPart>);
    let cases: &[(Tamper, &str)] = &[
        (|p| drop(p.remove(0)), "chunk before a header"),
        (|p| p.drain(..5).for_each(drop), "end before a header"),
        (|p| p.insert(1, p[0].clone()), "step 0 has no end"),
        (|p| drop(p.remove(1)), "`image` of step 0 ends after 0 of 13959 bytes"),
        (|p| p.insert(2, p[1].clone()), "offset 0 of tensor `image` in step 0, expected 13959"),
        (|p| p.insert(1, chunk(4, 0, b"x")), "chunk of tensor 4"),
        (|p| p.insert(2, chunk(0, 13959, b"x")), "up to byte 13960"),
        (|p| p.insert(1, chunk(0, 1 << 63, b"x")), "offset 9223372036854775808"),
        (|p| p.insert(1, part(Part::EndOfJob(v1::EndOfJob::default()))), "step 0 has no end"),
        (|p| p.insert(1, chunk(0, 0, &vec![0; (1 << 20) + 1])), "payload of 1048577 bytes"),
        (|p| header(p).step = 1, "step 1 arrived, expected 0"),
        (|p| header(p).world_size = 2, "rank 0 of 2"),
        (|p| header(p).cursor = None, "cursor"),
        (|p| header(p).tensors[1].dtype = 42, "`label.class` has unknown dtype 42"),
        (|p| header(p).tensors[0].shape = vec![u64::MAX; 3], "`image` of shape"),
        (|p| header(p).numerics = "x".repeat(65 << 10), "part of 6"),
        (
            |p| {
                // 2^62 bytes, with a shape that agrees.
                let image = &mut header(p).tensors[0];
                (image.shape, image.bytes) = (vec![1 << 31, 1 << 31], 1 << 62);
            },
            "over its limit of 4294967296 bytes",
        ),
    ];
    for (tamper, reason) in cases {
        let error = first_error(Turn::tampered(*tamper), quick()).await;
        let text = error.to_string();
        assert!(matches!(error, Error::Protocol(_)) && text.contains(reason), "`{text}` for `{reason}`");
    }
}

#[tokio::test]
async fn batches_beyond_the_callers_limit_are_refused() {
    let error = first_error(Turn::new(1, vec![]), quick().max_batch_bytes(13_000)).await;
    assert!(error.to_string().contains("limit of 13000 bytes"), "{error}");
}

#[tokio::test]
async fn a_status_in_the_middle_of_a_stream_is_typed() {
    type IsTyped = fn(&Error) -> bool;
    let cases: [(Status, IsTyped); 6] = [
        (
            Status::aborted("superseded"),
            |e| matches!(e, Error::Aborted { message } if message == "superseded"),
        ),
        (
            Status::data_loss("cat/7: grün"),
            |e| matches!(e, Error::DataLoss { message } if message == "cat/7: grün"),
        ),
        (Status::resource_exhausted("full"), |e| matches!(e, Error::Exhausted { retry_after: None, .. })),
        (Status::unimplemented("torch"), |e| matches!(e, Error::Unimplemented { .. })),
        (Status::unauthenticated("token"), |e| matches!(e, Error::Denied { .. })),
        (Status::internal("bug"), |e| matches!(e, Error::Server { code: 13, .. })),
    ];
    for (status, is_typed) in cases {
        let error = first_error(Turn::new(0, vec![Err(status)]), quick()).await;
        assert!(is_typed(&error), "{error:?}");
    }
}

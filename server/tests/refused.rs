//! What cannot be served is refused with a typed error that says why; nothing hangs, nothing panics.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::Error;
use mixfeed_proto::{self as v1, feed_service_client::FeedServiceClient};
use stand::{Server, Watched, named, pull, sources, spec};
use std::time::SystemTime;
use tonic::Code;

async fn refused(change: impl FnOnce(&mut v1::JobSpec)) -> Error {
    let server = Server::start(sources()).await;
    let mut spec = spec();
    change(&mut spec);
    server.client().await.open_job("job", &spec).await.expect_err("no such job")
}

/// The fields that a spec was refused for.
async fn fields(change: impl FnOnce(&mut v1::JobSpec)) -> Vec<(String, String)> {
    let error = refused(change).await;
    let Error::Invalid { violations, .. } = error else { panic!("not INVALID_ARGUMENT: {error}") };
    violations.into_iter().map(|v| (v.field, v.description)).collect()
}

fn param(spec: &mut v1::JobSpec, policy: &str, name: &str, value: f64) {
    let policies = &mut spec.mix.as_mut().unwrap().policies;
    let policy = policies.iter_mut().find(|p| p.name == policy).unwrap();
    policy.params.insert(name.into(), value);
}

#[tokio::test]
async fn a_spec_names_every_field_that_does_not_fit() {
    let seen = fields(|s| {
        s.global_batch = 0;
        s.image.as_mut().unwrap().height = 0;
        s.image.as_mut().unwrap().horizontal_flip = f64::NAN;
        s.mix
            .as_mut()
            .unwrap()
            .policies
            .push(v1::PolicySpec { name: "mixdown".into(), ..Default::default() });
    })
    .await;
    let names: Vec<&str> = seen.iter().map(|(f, _)| f.as_str()).collect();
    for field in ["global_batch", "image.height", "image.horizontal_flip", "mix.policies[7].name"] {
        assert!(names.contains(&field), "{field} in {seen:?}");
    }
    let policy = &seen.iter().find(|(f, _)| f.starts_with("mix.policies")).unwrap().1;
    assert!(policy.contains("`mixdown`") && policy.contains("cutmix"), "{policy}");
}

#[tokio::test]
async fn parameters_out_of_range_are_refused() {
    for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let seen = fields(|s| param(s, "mixup", "alpha", value)).await;
        assert!(seen[0].1.contains("alpha") && seen[0].1.contains("0.001..=100"), "{value}: {seen:?}");
    }
    let seen = fields(|s| param(s, "cutmix", "beta", 1.0)).await;
    assert!(seen[0].1.contains("no parameter `beta`"), "{seen:?}");
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let seen = fields(|s| s.groups[0].weight = Some(weight)).await;
        assert!(!seen.is_empty(), "weight {weight}");
    }
    let seen = fields(|s| s.global_batch = 13).await;
    assert!(seen[0].1.contains("multiple of mix_block (3)"), "{seen:?}");
    let seen = fields(|s| s.max_bad_fraction = Some(2.0)).await;
    assert_eq!(seen[0].0, "max_bad_fraction");
}

#[tokio::test]
async fn names_that_are_not_known_are_not_found() {
    let error = refused(|s| s.groups[0].group = "nope".into()).await;
    assert!(
        matches!(&error, Error::NotFound { message } if message.contains("`nope`") && message.contains("pics"))
    );
    let error = refused(|s| s.groups[0].group = "pics/dog".into()).await;
    assert!(matches!(&error, Error::NotFound { message } if message.contains("ant")), "{error}");
    let server = Server::start(sources()).await;
    let client = server.client().await;
    assert!(matches!(client.attach("job").await, Err(Error::NotFound { .. })));
    assert!(matches!(client.close_job("job").await, Err(Error::NotFound { .. })));
    let error = client.open_job("a/b", &spec()).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn another_spec_under_the_same_name_is_refused_and_the_same_attaches() {
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    let digest = client.describe_job("job").await.unwrap().digest;
    assert_eq!(server.client().await.open_job("job", &spec()).await.unwrap().digest, digest);
    let other = v1::JobSpec { seed: 6, ..spec() };
    let error = server.client().await.open_job("job", &other).await.unwrap_err();
    assert!(matches!(error, Error::OtherDigest { .. }), "{error}");
    let numerics = v1::JobSpec { numerics: "cpu-9".into(), ..spec() };
    let error = client.open_job("other", &numerics).await.unwrap_err();
    assert!(
        matches!(&error, Error::FailedPrecondition { message, .. } if message.contains("torch-1")),
        "{error}"
    );
    let device = v1::JobSpec { numerics: "torch-1".into(), ..spec() };
    let error = client.open_job("other", &device).await.unwrap_err();
    let refused = if cfg!(feature = "libtorch") {
        matches!(error, Error::FailedPrecondition { .. })
    } else {
        matches!(error, Error::Unimplemented { .. })
    };
    assert!(refused && error.to_string().contains("`cpu-1` or `tolerant`"), "{error}");
}

async fn plain(server: &Server) -> FeedServiceClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::new(server.endpoint().to_owned()).unwrap();
    FeedServiceClient::new(endpoint.connect().await.unwrap())
}

/// Asks a stream of the plain generated client: what any gRPC client would see.
async fn ask(server: &Server, rank: u32, world_size: u32, from: u64) -> tonic::Status {
    let mut client = plain(server).await;
    let start = Some(v1::stream_batches_request::Start::FromStep(from));
    let request =
        v1::StreamBatchesRequest { job: "job".into(), rank, world_size, start, ..Default::default() };
    client.stream_batches(request).await.expect_err("refused")
}

#[tokio::test]
async fn ranks_and_steps_that_do_not_exist_are_refused() {
    let server = Server::start(sources()).await;
    server.open(&v1::JobSpec { max_steps: 5, ..spec() }).await;
    for world_size in [0, 3, 8] {
        let status = ask(&server, 0, world_size, 0).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("one of 1, 2, 4"), "{status}");
    }
    let status = ask(&server, 2, 2, 0).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("rank"), "{status}");
    let status = ask(&server, 0, 1, 6).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("has 5 steps"), "{status}");
    assert_eq!(ask(&server, 0, 1, u64::MAX).await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_newer_reader_fences_an_older_one_and_none_is_from_the_future() {
    let server = Server::start(sources()).await;
    server.open(&spec()).await;
    let request = |fence| v1::StreamBatchesRequest {
        job: "job".into(),
        world_size: 1,
        fence,
        start: Some(v1::stream_batches_request::Start::FromStep(0)),
        ..Default::default()
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut client = plain(&server).await;
    for far in [now + 2 * 3600 * 1_000_000_000, u64::MAX] {
        let status = client.stream_batches(request(far)).await.expect_err("from the future");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("fence"), "{status}");
    }
    let mut old = client.stream_batches(request(now)).await.unwrap().into_inner();
    let _new = client.stream_batches(request(now + 1)).await.unwrap();
    let fenced = loop {
        match old.message().await {
            Ok(part) => assert!(part.is_some(), "the job has no end"),
            Err(status) => break status,
        }
    };
    let again = client.stream_batches(request(now)).await.expect_err("an older reader that comes again");
    for status in [fenced, again] {
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().contains("another reader"), "{status}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_job_or_a_damaged_one_is_refused() {
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    client.open_job("other", &v1::JobSpec { seed: 99, ..spec() }).await.unwrap();
    let cursor = pull(&client, 0, 1, 0, 1).await[0].cursor().unwrap().clone();
    let mut json: serde_json::Value = serde_json::to_value(&cursor).unwrap();
    let options = |cursor| mixfeed_client::StreamOptions {
        start: mixfeed_client::Start::Cursor(cursor),
        ..Default::default()
    };
    let error = client.stream("other", options(cursor)).await.unwrap().next_batch().await.unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition { .. } | Error::OtherDigest { .. }), "{error}");
    json["next_step"] = 7.into();
    let damaged = serde_json::from_value(json);
    if let Ok(damaged) = damaged {
        let error = client.stream("job", options(damaged)).await.unwrap().next_batch().await.unwrap_err();
        assert!(
            matches!(&error, Error::FailedPrecondition { message, .. } if message.contains("damaged")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_unavailable_and_a_shard_that_changed_is_data_loss() {
    for changed in [false, true] {
        let server = Server::start(named(Watched { fail_from: 30, changed, ..Watched::new() })).await;
        let client = server.open(&spec()).await;
        let mut stream = client.stream("job", Default::default()).await.unwrap();
        let error = loop {
            match stream.next_batch().await {
                Ok(batch) => assert!(batch.unwrap().step() < 100, "the disk never failed"),
                Err(error) => break error,
            }
        };
        match changed {
            false => assert!(
                matches!(&error, Error::Unavailable { message, .. } if message.contains("disk")),
                "{error}"
            ),
            true => assert!(
                matches!(&error, Error::DataLoss { message } if message.contains("changed")),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn what_a_later_release_serves_is_unimplemented() {
    let server = Server::start(sources()).await;
    server.open(&spec()).await;
    let mut client = plain(&server).await;
    assert_eq!(
        client.mix_pairs(v1::MixPairsRequest::default()).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let error = refused(|s| {
        s.output = Some(v1::OutputSpec { labels: v1::LabelLayout::Kway as i32, ..Default::default() })
    })
    .await;
    assert!(matches!(error, Error::Unimplemented { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_memory_for_another_stream_says_when_to_come_back() {
    let server = Server::with(sources(), |s| {
        s.memory.0 = 1 << 20;
    })
    .await;
    let client = server.open(&spec()).await;
    let mut first = client.stream("job", Default::default()).await.unwrap();
    first.next_batch().await.unwrap();
    let error = client.stream("job", Default::default()).await.unwrap().next_batch().await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn an_absurdly_long_field_does_not_outgrow_the_answer() {
    let server = Server::start(sources()).await;
    server.open(&spec()).await;
    let mut client = plain(&server).await;
    let expected_digest = vec![7; 60_000].into();
    let request = v1::OpenJobRequest { job: "job".into(), spec: None, expected_digest };
    let status = client.open_job(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().len() + status.details().len() < 8 << 10, "headers hold 8 KiB");
}

use crate::fake::{Fake, JOB, digest, open, quick, spec};
use mixfeed_client::{Client, ClientOptions, Error, Health, StreamOptions, Violation};
use tonic::{Code, Status};

async fn connect(fake: &Fake, options: ClientOptions) -> Client {
    Client::connect_with([fake.tcp().await], options).await.expect("connects")
}

#[tokio::test]
async fn jobs_are_opened_described_listed_and_closed() {
    let (fake, _) = Fake::new(1, 1);
    let client = connect(&fake, quick()).await;
    assert_eq!(client.health().await, Ok(Health::Serving));
    for name in ["c", "a", "b"] {
        let job = client.open_job(name, &spec(3)).await.expect("opens");
        assert_eq!((job.job.as_str(), job.digest.clone()), (name, digest(&spec(3))));
        assert_eq!(client.describe_job(name).await, Ok(job.clone()));
        assert_eq!(client.attach(name).await, Ok(job));
    }
    let names: Vec<_> = client.list_jobs().await.expect("pages").into_iter().map(|job| job.job).collect();
    assert_eq!(names, ["a", "b", "c"]);
    client.close_job("b").await.expect("is open");
    assert!(matches!(client.close_job("b").await, Err(Error::NotFound { message }) if message == "job `b`"));
    assert_eq!(client.list_policies().await.expect("one")[0].name, "cutmix");
    let another = client.open_job("a", &spec(4)).await.expect_err("another spec");
    assert!(matches!(another, Error::OtherDigest { .. }), "{another}");
    let endless = client.list_sources().await.expect_err("no last page");
    assert!(matches!(endless, Error::Protocol(_)), "{endless}");
}

#[tokio::test]
async fn arguments_are_checked_before_a_call() {
    assert!(matches!(Client::connect(Vec::<String>::new()).await, Err(Error::Argument { .. })));
    assert!(matches!(Client::connect(["ftp://x"]).await, Err(Error::Argument { .. })));
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    let options = StreamOptions { rank: 2, world_size: 2, ..Default::default() };
    let error = client.stream(JOB, options).await.expect_err("rank");
    assert!(matches!(&error, Error::Argument { name, .. } if name == "rank"), "{error}");
    let error = client.stream("gone", StreamOptions::default()).await.expect_err("unknown");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_call_is_repeated_while_the_server_is_unavailable() {
    let (fake, _) = Fake::new(1, 1);
    let client = open(&[fake.tcp().await], quick()).await.expect("opens");
    fake.log().refusals.extend([Status::unavailable("a"), Status::unavailable("b")]);
    assert_eq!(client.list_jobs().await.expect("third time").len(), 1);
    assert!(fake.log().refusals.is_empty());
}

#[tokio::test]
async fn violations_arrive_by_field() {
    // google.rpc.Status { details: [Any { BadRequest { [{ "mix_block", "expected 1..=65536" }] } }] }, by hand.
    let field = |tag: u8, value: &[u8]| [&[tag, value.len() as u8][..], value].concat();
    let violation = [field(0x0a, b"mix_block"), field(0x12, b"expected 1..=65536")].concat();
    let any =
        [field(0x0a, b"type.googleapis.com/google.rpc.BadRequest"), field(0x12, &field(0x0a, &violation))]
            .concat();
    let details = field(0x1a, &any);
    let (fake, _) = Fake::new(1, 1);
    let client = connect(&fake, quick()).await;
    let status = Status::with_details(Code::InvalidArgument, "bad spec", details.into());
    fake.log().refusals.push_back(status);
    let violations = vec![Violation { field: "mix_block".into(), description: "expected 1..=65536".into() }];
    assert_eq!(client.list_jobs().await, Err(Error::Invalid { message: "bad spec".into(), violations }));
}

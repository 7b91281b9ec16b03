//! What an operator does to a job: other weights, closing, forgetting.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_weights_against_the_log() {
    let server = Server::start(texts()).await;
    let plain = v1::JobSpec { mixture: None, ..spec(|_| {}) };
    let client = server.open(&plain).await;
    let mut batches = stream(&client, 0, 1, Start::Step(0)).await;
    let before = batches.next_batch().await.unwrap().unwrap();
    assert_eq!((before.segment(), before.mixture_id()), (1, 1));
    let mut watch = client.watch("job", 1);
    assert_eq!(watch.next_entry().await.unwrap().author, "spec");
    let set = |expected_version, from_step| SetWeights {
        expected_version,
        from_step,
        weights: vec![0.0, 1.0, 1.0],
        operator: "eve".into(),
        note: "a is noise".into(),
    };
    let done = client.set_weights("job", set(1, 100_000)).await.unwrap().entry.unwrap();
    assert_eq!((done.seq, done.from_step, &*done.author), (2, 100_000, "operator:eve"));
    assert_eq!(watch.next_entry().await.unwrap(), done);
    assert!(matches!(client.set_weights("job", set(1, 0)).await, Err(Error::Aborted { .. })));
    let shown =
        async |step| client.replay("job", Replay::Step { step, rank: 0, world_size: 1 }).await.unwrap();
    let (later, after) = (shown(99_999).await, shown(100_000).await);
    assert!(later.groups().unwrap().own().any(|g| g == 0));
    assert!(after.groups().unwrap().own().all(|g| g != 0), "group a gets nothing from its step on");
    assert_eq!(after.segment(), 2);
    for (weights, why) in
        [(vec![1.0], "one per group"), (vec![f64::NAN; 3], "finite"), (vec![0.0; 3], "zero")]
    {
        let wrong = SetWeights { weights, ..set(0, 0) };
        let error = client.set_weights("job", wrong).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_job_goes_on_when_opened_again_unless_it_is_forgotten() {
    let server = Server::start(texts()).await;
    let plain = v1::JobSpec { mixture: None, ..spec(|_| {}) };
    let client = server.open(&plain).await;
    let set = SetWeights {
        expected_version: 1,
        from_step: 40,
        weights: vec![0.0, 1.0, 1.0],
        operator: "eve".into(),
        note: String::new(),
    };
    client.set_weights("job", set).await.unwrap();
    client.open_job("other", &plain).await.unwrap();
    client.close_job("job").await.unwrap();
    client.open_job("job", &plain).await.unwrap();
    assert_eq!(client.mixture("job").await.unwrap().version, 2, "what was decided is kept");
    client.forget_job("job").await.unwrap();
    assert!(matches!(client.mixture("job").await, Err(Error::NotFound { .. })), "it was closed too");
    assert!(matches!(client.forget_job("job").await, Err(Error::NotFound { .. })), "nothing is left of it");
    client.open_job("job", &plain).await.unwrap();
    assert_eq!(client.mixture("job").await.unwrap().version, 1);
    // One that was closed before can still be forgotten; the others stay.
    client.close_job("job").await.unwrap();
    client.forget_job("job").await.unwrap();
    assert_eq!(client.mixture("other").await.unwrap().version, 1);
}

//! The batch sequence is a pure function of (job, step): ranks, threads, restarts and starting steps change nothing.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::{Start, StreamOptions};
use mixfeed_server::config;
use proptest::prelude::*;
use stand::{Server, bytes, joined, pull, sources, spec};

#[tokio::test]
async fn one_two_and_four_ranks_get_the_same_rows() {
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    let whole = pull(&client, 0, 1, 0, 5).await;
    for world_size in [2, 4] {
        let mut ranks = Vec::new();
        for rank in 0..world_size {
            ranks.push(pull(&client, rank, world_size, 0, 5).await.into_iter());
        }
        for step in &whole {
            let parts: Vec<_> = ranks.iter_mut().map(|r| r.next().unwrap()).collect();
            assert_eq!(joined(&parts), bytes(step), "world size {world_size}, step {}", step.step());
        }
    }
}

#[tokio::test]
async fn threads_memory_restarts_and_transport_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("s").display());
    let mut seen = Vec::new();
    for (threads, memory, listen) in [(1, 1 << 30, None), (3, 300 << 10, None), (2, 1 << 24, Some(socket))] {
        let server = Server::with(sources(), |s| {
            s.threads = threads;
            s.prefetch = Some(config::Size(memory));
            s.listen = listen.map_or(s.listen.clone(), |l| vec![l]);
        })
        .await;
        let client = server.open(&spec()).await;
        let batches = pull(&client, 0, 1, 3, 4).await;
        seen.push(batches.iter().map(bytes).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test]
async fn a_cursor_that_went_through_json_continues_where_it_was_taken() {
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    let whole = pull(&client, 0, 1, 0, 6).await;
    let kept = serde_json::to_string(whole[2].cursor().unwrap()).unwrap();
    assert!(kept.len() < 4096, "{kept}");
    let start = Start::Cursor(serde_json::from_str(&kept).unwrap());
    let mut stream = client.stream("job", StreamOptions { start, ..Default::default() }).await.unwrap();
    for step in &whole[3..] {
        assert_eq!(bytes(&stream.next_batch().await.unwrap().unwrap()), bytes(step));
    }
}

#[tokio::test]
async fn a_receipt_makes_its_batch_again() {
    use mixfeed_client::Replay;
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    let part = pull(&client, 1, 2, 4, 1).await.remove(0);
    let again = client.replay("job", Replay::Receipt(part.receipt().unwrap().clone())).await.unwrap();
    assert_eq!(bytes(&again), bytes(&part));
    assert_eq!(again.receipt(), part.receipt());
    let by_step = client.replay("job", Replay::Step { step: 4, rank: 1, world_size: 2 }).await.unwrap();
    assert_eq!(bytes(&by_step), bytes(&part));
}

#[tokio::test]
async fn the_seed_changes_the_rows() {
    let server = Server::start(sources()).await;
    let first = pull(&server.open(&spec()).await, 0, 1, 0, 1).await;
    let other = Server::start(sources()).await;
    let changed = mixfeed_proto::JobSpec { seed: 6, ..spec() };
    let second = pull(&other.open(&changed).await, 0, 1, 0, 1).await;
    assert_ne!(bytes(&first[0]), bytes(&second[0]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_start_gives_the_same_step(step in 0u64..2_000_000, before in 0u64..4, ranks in prop::sample::select(vec![1u32, 2, 4])) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = Server::start(sources()).await;
            let client = server.open(&spec()).await;
            let direct = pull(&client, 0, 1, step, 1).await;
            let from = step.saturating_sub(before);
            let mut parts = Vec::new();
            for rank in 0..ranks {
                parts.push(pull(&client, rank, ranks, from, (step - from) as usize + 1).await.pop().unwrap());
            }
            assert_eq!(joined(&parts), bytes(&direct[0]));
        });
    }
}

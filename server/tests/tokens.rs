//! Jobs of tokens over the wire: the same rows for any ranks, threads, memory and restarts; every token once an epoch;
//! held-out sets apart from training.
#![allow(clippy::unwrap_used)]

#[path = "tokens/files.rs"]
mod files_of;
#[path = "tokens/held_out.rs"]
mod held_out_of;
mod stand;

use mixfeed_client::{Batch, BatchStream, Client, Error, EvalOptions, Replay, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::assemble::{self, BlockAt};
use mixfeed_server::source::{self, Declaration, Documents, GroupBy, Kind, Source, TokenMemory};
use mixfeed_server::{Sources, config, job};
use stand::{Server, bytes, named, pull, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::{fs, path::Path, sync::Arc};

const PACKINGS: [v1::Packing; 3] = [v1::Packing::Concat, v1::Packing::BestFit, v1::Packing::Document];
const SEQ_LEN: usize = 16;

/// Group "a" of 41 documents, "b" of 23; an id says group, document and position.
fn documents() -> Vec<(String, Vec<Vec<u32>>)> {
    let group = |(g, (name, count)): (usize, (&str, usize))| {
        let document = |d: usize| {
            let len = [5, 1, 40, 16, 0, 9, 23, 2][(d * 5 + g) % 8] + d % 3;
            (0..len).map(|at| (g * 1_000_000 + d * 1000 + at) as u32).collect()
        };
        (name.to_owned(), (0..count).map(document).collect())
    };
    [("a", 41), ("b", 23)].into_iter().enumerate().map(group).collect()
}

fn memory() -> Sources {
    Sources::from([("toks".into(), Arc::new(TokenMemory::new(documents()).unwrap()) as Arc<dyn Source>)])
}

/// 12 rows in blocks of 3, everything sent.
fn spec(packing: v1::Packing) -> v1::JobSpec {
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "toks".into(), ..Default::default() }],
        seed: 5,
        global_batch: 12,
        mix_block: 3,
        tokens: Some(v1::TokenSpec {
            seq_len: SEQ_LEN as u32,
            packing: packing.into(),
            position_ids: true,
            segment_ids: true,
            cu_seqlens: true,
            labels: true,
            pad_id: 7,
        }),
        ..Default::default()
    }
}

/// One group once, the last batch short.
fn one_epoch(packing: v1::Packing, group: &str) -> v1::JobSpec {
    let group = v1::GroupSpec {
        group: format!("toks/{group}"),
        exhaustion: v1::Exhaustion::StopFirst.into(),
        ..Default::default()
    };
    v1::JobSpec { groups: vec![group], last_batch: v1::LastBatch::Partial.into(), ..spec(packing) }
}

/// A row as received: group, packed row, ids without padding.
type Row = (u32, u64, Vec<i32>);

fn rows(batch: &Batch) -> Vec<Row> {
    let tokens = batch.tokens().unwrap();
    let groups = batch.tensor("sample.group").unwrap().as_u32().unwrap();
    let indexes = batch.tensor("sample.index").unwrap().as_u64().unwrap();
    let mask = tokens.loss_mask().unwrap();
    let row = |i: usize| {
        let ids = tokens.row(i).unwrap();
        let len =
            mask.map_or(ids.len(), |mask| mask[i * SEQ_LEN..][..SEQ_LEN].iter().map(|m| *m as usize).sum());
        assert!(ids[len..].iter().all(|id| *id == 7), "padding of row {i}: {ids:?}");
        (groups[i], indexes[i], ids[..len].to_vec())
    };
    assert_eq!((groups.len(), indexes.len()), (tokens.len(), tokens.len()));
    (0..tokens.len()).map(row).collect()
}

async fn drain(stream: &mut BatchStream) -> Vec<Row> {
    let mut out = Vec::new();
    while let Some(batch) = stream.next_batch().await.unwrap() {
        out.extend(rows(&batch));
    }
    out
}

async fn epoch(client: &Client, job: &str) -> Vec<Row> {
    drain(&mut client.stream(job, StreamOptions::default()).await.unwrap()).await
}

fn held_out(group: &str, batch: u32) -> EvalOptions {
    EvalOptions {
        group: group.into(),
        batch,
        rank: 0,
        world_size: 1,
        last_batch: v1::LastBatch::Partial,
        from_step: 0,
        held_out: true,
    }
}

/// Documents of rows, each with the ids that were seen of it.
fn by_document(rows: &[Row]) -> BTreeMap<i32, Vec<i32>> {
    let mut seen: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for id in rows.iter().flat_map(|row| &row.2) {
        seen.entry(id / 1000).or_default().push(*id);
    }
    seen.values_mut().for_each(|ids| ids.sort_unstable());
    seen
}

#[tokio::test]
async fn one_two_and_four_ranks_get_the_same_rows() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        let name = packing.as_str_name();
        client.open_job(name, &spec(packing)).await.unwrap();
        let of = async |rank, world_size| {
            let options = StreamOptions { rank, world_size, ..Default::default() };
            let mut stream = client.stream(name, options).await.unwrap();
            let mut out = Vec::new();
            for _ in 0..6 {
                out.push(rows(&stream.next_batch().await.unwrap().unwrap()));
            }
            out
        };
        let whole = of(0, 1).await;
        for world_size in [2, 4] {
            let mut ranks = Vec::new();
            for rank in 0..world_size {
                ranks.push(of(rank, world_size).await);
            }
            for (step, whole) in whole.iter().enumerate() {
                let joined: Vec<Row> = ranks.iter().flat_map(|rank| rank[step].clone()).collect();
                assert_eq!(joined, *whole, "{name}, world size {world_size}, step {step}");
            }
        }
    }
}

#[tokio::test]
async fn threads_memory_and_restarts_change_nothing() {
    for packing in PACKINGS {
        let mut seen = Vec::new();
        for (threads, memory_bytes) in [(1, 1 << 30), (3, 600 << 10)] {
            let server = Server::with(memory(), |s| {
                s.threads = threads;
                s.prefetch = Some(config::Size(memory_bytes));
            })
            .await;
            let client = server.open(&spec(packing)).await;
            let batches = pull(&client, 0, 1, 3, 40).await;
            seen.push(batches.iter().map(bytes).collect::<Vec<_>>());
        }
        assert_eq!(seen[0], seen[1], "{packing:?}");
    }
}

#[tokio::test]
async fn the_first_bytes_are_pinned() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    let mut digests = Vec::new();
    for packing in PACKINGS {
        client.open_job(packing.as_str_name(), &spec(packing)).await.unwrap();
        let mut stream = client.stream(packing.as_str_name(), StreamOptions::default()).await.unwrap();
        let batch = stream.next_batch().await.unwrap().unwrap();
        let mut hasher = blake3::Hasher::new();
        batch.tensors().for_each(|t| {
            hasher.update(t.name.as_bytes()).update(t.bytes);
        });
        digests.push(hasher.finalize().to_hex()[..16].to_owned());
    }
    assert_eq!(digests, PINNED, "a change needs a new numerics");
}
const PINNED: [&str; 3] = ["f918d9ee6582ab49", "edae22972e511614", "3da8fbc1a462c2c3"];

#[tokio::test]
async fn every_token_is_served_once_an_epoch() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        for (g, group) in ["a", "b"].into_iter().enumerate() {
            let name = format!("{}-{group}", packing.as_str_name());
            let info = client.open_job(&name, &one_epoch(packing, group)).await.unwrap();
            let rows = epoch(&client, &name).await;
            let mut ids: Vec<i32> = rows.iter().flat_map(|row| row.2.clone()).collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "{name}: an id twice");
            let total: usize = documents()[g].1.iter().map(Vec::len).sum();
            let left = info.group_left_tokens[0] as usize;
            assert_eq!((count + left, info.group_tokens[0] as usize), (total, count), "{name}");
            assert!(left < SEQ_LEN && (packing == v1::Packing::Concat || left == 0));
            assert_eq!(info.groups[0].records as usize, rows.len());
            for (_, _, ids) in rows.iter().filter(|_| packing != v1::Packing::Concat) {
                let documents: BTreeSet<i32> = ids.iter().map(|id| id / 1000).collect();
                let whole = |d: &i32| {
                    let all = documents_of(*d);
                    all.len() > SEQ_LEN || all.iter().all(|id| ids.contains(id))
                };
                assert!(documents.iter().all(whole), "{name}: a short document was cut: {ids:?}");
                assert!(packing == v1::Packing::BestFit || documents.len() == 1);
            }
        }
    }
}

/// Ids of a document by its number over all groups.
fn documents_of(number: i32) -> Vec<i32> {
    let (group, document) = ((number / 1000) as usize, (number % 1000) as usize);
    documents()[group].1[document].iter().map(|id| *id as i32).collect()
}

#[tokio::test]
async fn what_goes_with_the_ids_agrees_with_them() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        client.open_job(packing.as_str_name(), &spec(packing)).await.unwrap();
        let mut stream = client.stream(packing.as_str_name(), StreamOptions::default()).await.unwrap();
        for _ in 0..8 {
            let batch = stream.next_batch().await.unwrap().unwrap();
            let tokens = batch.tokens().unwrap();
            let ragged = packing == v1::Packing::Document;
            assert_eq!(tokens.shape(), (!ragged).then_some((12, SEQ_LEN)));
            assert_eq!(tokens.loss_mask().unwrap().is_none(), ragged);
            let mut at = 0;
            for (i, (_, _, ids)) in rows(&batch).into_iter().enumerate() {
                let width = tokens.row(i).unwrap().len();
                let positions = &tokens.position_ids().unwrap().unwrap()[at..at + width];
                let segments = &tokens.segment_ids().unwrap().unwrap()[at..at + width];
                let labels = &tokens.labels().unwrap().unwrap()[at..at + width];
                at += width;
                let mut cuts = vec![0];
                for t in 0..ids.len() {
                    let begins = t > 0 && ids[t] / 1000 != ids[t - 1] / 1000;
                    cuts.extend(begins.then_some(t as i32));
                    let begin = *cuts.last().unwrap();
                    assert_eq!((segments[t], positions[t]), (cuts.len() as i32, t as i32 - begin));
                    let next = ids.get(t + 1).filter(|next| *next / 1000 == ids[t] / 1000);
                    assert_eq!(labels[t], next.copied().unwrap_or(-100));
                }
                for t in ids.len()..width {
                    assert_eq!((segments[t], positions[t], labels[t]), (0, 0, -100));
                }
                cuts.push(ids.len() as i32);
                assert_eq!(tokens.cu_seqlens(i).unwrap().unwrap(), cuts, "{packing:?}");
            }
            assert_eq!(at, tokens.input_ids().len());
        }
    }
}

#[tokio::test]
async fn odd_batches_and_single_rows_are_served_and_replayed() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        for batch in [1, 7] {
            let name = format!("{}-{batch}", packing.as_str_name());
            let spec = v1::JobSpec { global_batch: batch, mix_block: 7, ..spec(packing) };
            let spec = v1::JobSpec { tokens: spec.tokens.map(|t| v1::TokenSpec { seq_len: 5, ..t }), ..spec };
            client.open_job(&name, &spec).await.unwrap();
            let mut stream = client.stream(&name, StreamOptions::default()).await.unwrap();
            for _ in 0..3 {
                let batch_got = stream.next_batch().await.unwrap().unwrap();
                assert_eq!(batch_got.tokens().unwrap().len(), batch as usize);
                let again = client
                    .replay(&name, Replay::Receipt(batch_got.receipt().unwrap().clone()))
                    .await
                    .unwrap();
                assert_eq!(bytes(&again), bytes(&batch_got));
            }
        }
    }
}

#[tokio::test]
async fn rows_in_process_are_the_rows_on_the_wire() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        client.open_job(packing.as_str_name(), &spec(packing)).await.unwrap();
        let job = job::resolve("here", spec(packing), &memory()).unwrap();
        let mut stream = client.stream(packing.as_str_name(), StreamOptions::default()).await.unwrap();
        for step in 0..4 {
            let received = stream.next_batch().await.unwrap().unwrap();
            let places = job.feed.order.step(step);
            let own = assemble::tokens(&job.feed, &BlockAt { step, slot: 0, places }).unwrap();
            let as_rows: Vec<Row> = own.iter().map(|r| (r.id.group, r.id.index, r.ids.clone())).collect();
            assert_eq!(as_rows, rows(&received));
            for (i, row) in own.iter().enumerate() {
                let cuts: Vec<i32> = row.cuts.iter().map(|c| *c as i32).collect();
                assert_eq!(received.tokens().unwrap().cu_seqlens(i).unwrap().unwrap(), cuts);
                assert_eq!(job.feed.tokens().unwrap().row_tokens(row.id) as usize, row.ids.len());
            }
        }
    }
}

#[tokio::test]
async fn specs_that_do_not_fit_are_refused_by_field() {
    let server = Server::start(memory().into_iter().chain(sources()).collect()).await;
    let client = server.client().await;
    let tokens = |change: fn(&mut v1::TokenSpec)| {
        let mut spec = spec(v1::Packing::Concat);
        change(spec.tokens.as_mut().unwrap());
        spec
    };
    let base = || spec(v1::Packing::Concat);
    let pics = || vec![v1::GroupSpec { group: "pics".into(), ..Default::default() }];
    let held = |fraction| Some(v1::HeldOutSpec { fraction, max_records: 0 });
    let cases = [
        (v1::JobSpec { image: stand::spec().image, ..base() }, "image"),
        (v1::JobSpec { mix: stand::spec().mix, ..base() }, "mix"),
        (v1::JobSpec { tokens: None, ..base() }, "image"),
        (v1::JobSpec { groups: pics(), ..base() }, "groups.group"),
        (v1::JobSpec { groups: base().groups, ..stand::spec() }, "groups.group"),
        (tokens(|t| t.seq_len = 0), "tokens.seq_len"),
        (tokens(|t| t.seq_len = (1 << 20) + 1), "tokens.seq_len"),
        (tokens(|t| t.seq_len = 10_000), "tokens.seq_len"),
        (tokens(|t| t.packing = 9), "tokens.packing"),
        (tokens(|t| t.pad_id = u32::MAX), "tokens.pad_id"),
        (v1::JobSpec { held_out: held(0.6), ..base() }, "held_out.fraction"),
        (v1::JobSpec { held_out: held(f64::NAN), ..base() }, "held_out.fraction"),
    ];
    for (spec, field) in cases {
        let error = client.open_job("job", &spec).await.expect_err(field);
        let Error::Invalid { violations, .. } = &error else { panic!("{field}: {error}") };
        assert!(violations.iter().any(|v| v.field == field), "{field}: {error}");
    }
}

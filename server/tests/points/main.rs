//! Scenes of points from files to the trainer: nothing is lost, nothing depends on ranks, bad scenes are told.
#![allow(clippy::unwrap_used)]

mod bad;
mod device;
mod rooms;
#[path = "../stand/mod.rs"]
mod stand;
mod stand_in;
#[cfg(feature = "libtorch")]
mod torch;

use mixfeed_client::{Batch, Client, Inverse, Replay, Start, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::assemble::{Assembler, BUDGET_UNIT, BlockAt};
use mixfeed_server::cloud::{self, Limits, parts};
use mixfeed_server::source::{self, Declaration, Kind, Source, Tile};
use mixfeed_server::{Sources, job, store};
use rooms::{encoded, memory, plain, room, rooms, spec};
use stand::Server;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio::sync::Semaphore;

const NO_LIMIT: Limits = Limits { points: 1 << 24 };
const TILES: [&str; 3] = ["autzen_1k.laz", "ign_lidarhd_37k.laz", "urban_25k.laz"];

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/points"))
}

/// The real tiles, whole.
fn tiles() -> Sources {
    let declared = Declaration::new(Kind::Points, fixtures().display().to_string());
    named(source::open("tiles", &declared, Path::new("."), &|_, _| {}).unwrap())
}

fn named(source: Arc<dyn Source>) -> Sources {
    Sources::from([("tiles".to_owned(), source)])
}

async fn batches(client: &Client, rank: u32, world_size: u32, from: u64, count: usize) -> Vec<Batch> {
    let options = StreamOptions { rank, world_size, start: Start::Step(from), ..Default::default() };
    let mut stream = client.stream("job", options).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        all.push(stream.next_batch().await.unwrap().unwrap());
    }
    all
}

fn bytes(batch: &Batch, name: &str) -> Vec<u8> {
    batch.tensor(name).unwrap().bytes.to_vec()
}

fn count(classes: impl IntoIterator<Item = i32>) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::new();
    classes.into_iter().for_each(|class| *counts.entry(class).or_default() += 1);
    counts
}

/// Classes of the stored scenes that row `row` was made of, by the ids that came with it.
fn stored(sources: &Sources, job: &v1::JobInfo, batch: &Batch, row: usize) -> BTreeMap<i32, u64> {
    let points = batch.points().unwrap();
    let (group, index) = (batch.tensor("sample.group").unwrap(), batch.tensor("sample.index").unwrap());
    let width = group.shape[1];
    let source = &sources["tiles"];
    let mut counts = BTreeMap::new();
    for k in 0..points.num_logical_samples().unwrap()[row] as usize {
        let group = &job.groups[group.as_u32().unwrap()[row * width + k] as usize].name;
        let own = source.index().groups.iter().find(|g| *group == format!("tiles/{}", g.name)).unwrap();
        let number = own.records[index.as_u64().unwrap()[row * width + k] as usize];
        let scene = cloud::record(&source.read(number).unwrap(), &NO_LIMIT).unwrap();
        for (class, points) in count(scene.segment.unwrap()) {
            *counts.entry(class).or_default() += points;
        }
    }
    counts
}

#[tokio::test]
async fn every_point_of_real_tiles_arrives_in_a_voxel() {
    let sources = tiles();
    let server = Server::start(sources.clone()).await;
    let client = server.client().await;
    let mut spec = spec();
    spec.global_batch = 6;
    spec.mix_block = 3;
    let points = spec.points.as_mut().unwrap();
    // Feet and metres, hundreds of them: cells in proportion. One tile has no colours.
    points.elastic = vec![v1::Elastic { granularity: 50.0, magnitude: 10.0 }];
    points.fill = [("color".to_owned(), 127.0)].into();
    points.voxel.as_mut().unwrap().size = 2.5;
    spec.mix.as_mut().unwrap().policies.truncate(1);
    let info = client.open_job("job", &spec).await.unwrap();
    let mut unions = 0;
    for batch in batches(&client, 0, 1, 0, 2).await {
        let points = batch.points().unwrap();
        for row in 0..points.len() {
            let Inverse { voxels, segment: classes } = points.inverse(row).unwrap().unwrap();
            assert_eq!(count(classes.iter().copied()), stored(&sources, &info, &batch, row), "row {row}");
            let own = points.row(row).unwrap();
            let mut seen = vec![0; own.len()];
            voxels.iter().for_each(|voxel| seen[*voxel as usize] += 1);
            assert_eq!(seen, points.voxel_count().unwrap().unwrap()[own], "row {row}");
            unions += usize::from(points.num_logical_samples().unwrap()[row] == 2);
        }
    }
    assert!(unions > 4, "{unions} unions of 12 rows with probability 0.8");
}

#[tokio::test]
async fn a_budget_is_never_exceeded_and_told() {
    let mut records = rooms(8);
    records.push(("hall".into(), encoded(&room(8, 9000)), "rooms".into())); // more than the whole step
    let sources = memory(records);
    let server = Server::start(sources.clone()).await;
    let client = server.client().await;
    let mut spec = plain();
    spec.points.as_mut().unwrap().max_points = 12 * 300;
    let info = client.open_job("job", &spec).await.unwrap();
    let mut thinned = 0;
    for batch in batches(&client, 0, 1, 0, 4).await {
        let points = batch.points().unwrap();
        assert!(points.points() <= 12 * 300, "{} points", points.points());
        let kept = batch.tensor("sample.points").unwrap().as_u64().unwrap();
        let flags = batch.tensor("sample.flags").unwrap().as_u32().unwrap();
        for row in 0..points.len() {
            let own = points.row(row).unwrap();
            assert_eq!(kept[row * 2..row * 2 + 2].iter().sum::<u64>(), own.len() as u64);
            let (got, all) =
                (count(points.segment().unwrap()[own].iter().copied()), stored(&sources, &info, &batch, row));
            assert!(
                got.iter().all(|(class, n)| n <= &all[class]),
                "more points of a class than its scenes have"
            );
            assert_eq!(got != all, flags[row] & 64 != 0, "row {row} is told to be thinned, or not");
            thinned += usize::from(got != all);
        }
        // A block may keep a third of the step and has at most the sum of its scenes.
        for rows in [0..4, 4..8, 8..12] {
            let block: u64 = kept[rows.start * 2..rows.end * 2].iter().sum();
            assert!(block <= 1200, "{block} points in a block");
        }
    }
    assert!(thinned > 10, "{thinned} rows were thinned");
}

#[tokio::test]
async fn a_finished_block_gives_back_what_its_points_do_not_need() {
    let sources = memory(rooms(9));
    let job = job::resolve("job", spec(), &sources).unwrap().open(&store::memory()).unwrap();
    let (assembler, feed) = (Assembler::new(2, 2, 1 << 20).unwrap(), &job.feed);
    let at = BlockAt { step: 0, slot: 0, places: feed.order.step(0)[..4].to_vec() };
    let asked = Assembler::cost(feed, &at).1.div_ceil(BUDGET_UNIT);
    let budget = Arc::new(Semaphore::new(asked));
    let permit = budget.clone().acquire_many_owned(asked as u32).await.unwrap();
    let block = assembler.block(feed.clone(), at, Some(permit), &assembler.turns()).await.unwrap();
    let long: usize = block.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let held = asked - budget.available_permits();
    assert!(
        (long..asked * BUDGET_UNIT / 2).contains(&(held * BUDGET_UNIT)),
        "{held} of {asked} KiB for {long} bytes"
    );
    drop(block);
    assert_eq!(budget.available_permits(), asked);
}

#[test]
fn what_a_stream_asks_for_holds_a_step_of_ordinary_scenes() {
    let record = |i| (format!("room-{i}"), encoded(&room(i, 450)), "rooms".to_owned());
    let mut spec = plain();
    // Of a number that is no power of two, sizes of buffers are rounded up further than those of its parts.
    (spec.global_batch, spec.mix_block) = (192, 12);
    spec.points.as_mut().unwrap().max_points = 192 * 560;
    let job = job::resolve("job", spec, &memory((0..200).map(record).collect())).unwrap();
    let job = job.open(&store::memory()).unwrap();
    let at = BlockAt { step: 0, slot: 12, places: job.feed.order.step(0)[12..24].to_vec() };
    assert_eq!(Assembler::block_cost(&job.feed, 12), Assembler::cost(&job.feed, &at));
}

#[tokio::test]
async fn rows_of_scenes_tell_where_they_are_from() {
    let server = Server::start(memory(rooms(9))).await;
    let client = server.client().await;
    client.open_job("job", &plain()).await.unwrap();
    let batch = &batches(&client, 0, 1, 0, 1).await[0];
    let points = batch.points().unwrap();
    let ((from, width), scenes) = (points.mixed_from().unwrap(), points.scene_id().unwrap());
    assert_eq!((points.len(), width), (12, 2));
    for row in 0..points.len() {
        assert_eq!(from[row * 2], row as i32, "the base is the row's own slot");
        assert!(
            from[row * 2 + 1] / 4 == row as i32 / 4 && from[row * 2 + 1] != row as i32,
            "a partner of its block"
        );
        let own = points.row(row).unwrap();
        assert!(scenes[own.clone()].is_sorted() && scenes[own.clone()].contains(&1));
        let instance = &points.instance().unwrap()[own.clone()];
        let of = |scene: u8| -> Vec<i32> {
            let both = instance.iter().zip(&scenes[own.clone()]);
            both.filter(|(id, s)| **s == scene && **id >= 0).map(|(id, _)| *id).collect()
        };
        let shared = of(0).iter().any(|id| of(1).contains(id));
        assert!(!shared, "instances of two scenes share an id");
        assert_eq!(count(of(0)).len() + count(of(1)).len(), 6);
    }
}

#[tokio::test]
async fn bytes_do_not_depend_on_ranks_starts_or_servers() {
    let whole = {
        let server = Server::start(memory(rooms(11))).await;
        batches(&server.open(&spec()).await, 0, 1, 0, 3).await
    };
    let server = Server::with(memory(rooms(11)), |settings| settings.threads = 1).await;
    let client = server.open(&spec()).await;
    for (step, whole) in whole.iter().enumerate() {
        let ranks = [0, 1, 2].map(|rank| batches(&client, rank, 3, step as u64, 1));
        let ranks = futures_util::future::join_all(ranks).await;
        for name in [
            "coord",
            "feat",
            "segment",
            "instance",
            "scene_id",
            "grid_coord",
            "voxel.count",
            "inverse",
            "point.segment",
            "mixed_from",
            "sample.points",
        ] {
            let parts: Vec<u8> = ranks.iter().flat_map(|batch| bytes(&batch[0], name)).collect();
            assert!(parts == bytes(whole, name), "`{name}` of step {step} differs by rank");
        }
    }
}

#[tokio::test]
async fn a_replay_is_the_batch() {
    let server = Server::start(memory(rooms(11))).await;
    let client = server.open(&spec()).await;
    let batch = batches(&client, 1, 3, 2, 1).await.remove(0);
    let again = client.replay("job", Replay::Receipt(batch.receipt().unwrap().clone())).await.unwrap();
    assert_eq!(bytes(&again, "coord"), bytes(&batch, "coord"));
    assert_eq!(bytes(&again, "offset"), bytes(&batch, "offset"));
}

#[test]
fn a_large_tile_becomes_many_scenes() {
    let folder = tempfile::tempdir().unwrap();
    let declared = Declaration {
        tile: Some(Tile { block: 100.0, stride: Some(50.0), min_points: Some(100) }),
        cache: Some(folder.path().display().to_string()),
        ..Declaration::new(Kind::Points, fixtures().join(TILES[1]).display().to_string())
    };
    let open = || source::open("tiles", &declared, Path::new("."), &|_, _| {}).unwrap();
    let source = open();
    let whole = std::fs::read(fixtures().join(TILES[1])).unwrap();
    let whole = cloud::record(&parts::pack(&[(TILES[1], &whole)]).into(), &NO_LIMIT).unwrap();
    assert!(source.index().records.len() > 20, "{} blocks", source.index().records.len());
    for number in [0, source.index().records.len() as u32 - 1] {
        let block = cloud::record(&source.read(number).unwrap(), &NO_LIMIT).unwrap();
        let record = &source.index().records[number as usize];
        assert_eq!((block.len() as u64, block.len() >= 100), (record.points, true));
        // Exactly the points of the tile inside its square, with all their digits.
        let min = [0, 1].map(|axis| whole.coord.iter().map(|c| c[axis]).fold(f64::INFINITY, f64::min));
        let (_, at) = record.name.rsplit_once('/').unwrap();
        let (i, j) = at.split_once('_').unwrap();
        let low = [(min[0], i), (min[1], j)]
            .map(|(min, at)| ((min / 50.0).floor() + at.parse::<f64>().unwrap()) * 50.0);
        let inside = |c: &&[f64; 3]| (0..2).all(|axis| (low[axis]..low[axis] + 100.0).contains(&c[axis]));
        let wanted: Vec<[f64; 3]> = whole.coord.iter().filter(inside).copied().collect();
        assert_eq!(block.coord, wanted);
    }
    assert_eq!(open().index(), source.index(), "cut once, found again");
}

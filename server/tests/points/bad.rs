//! Scenes, specs and requests that are wrong: told, counted, survived.

use crate::rooms::{encoded, memory, plain, room, rooms, spec};
use crate::stand::Server;
use crate::{TILES, batches, fixtures};
use bytes::Bytes;
use mixfeed_client::{EvalOptions, StreamOptions};
use mixfeed_proto as v1;
use mixfeed_server::cloud::parts;
use mixfeed_server::job;

#[tokio::test]
async fn bad_scenes_are_replaced_and_told_why() {
    let mut broken = room(1, 200);
    broken.coord[7][1] = f64::NAN;
    let mut colourless = room(2, 200);
    colourless.color = None;
    let mut odd = room(3, 200);
    odd.segment.as_mut().unwrap()[9] = 99;
    let laz = std::fs::read(fixtures().join(TILES[2])).unwrap();
    let cut = parts::pack(&[(TILES[2], &laz[..laz.len() / 2])]);
    let none = block_of_nothing();
    let cases: [(&str, Bytes, &str); 5] = [
        ("nan", encoded(&broken), "y of point 7"),
        ("colourless", encoded(&colourless), "has no color"),
        ("odd", encoded(&odd), "class 99"),
        ("cut", cut.into(), "las"),
        ("empty", none, "no points"),
    ];
    for (name, bytes, why) in cases {
        let mut records = rooms(3);
        records.push((name.into(), bytes, "rooms".into()));
        let server = Server::start(memory(records)).await;
        let mut spec = spec();
        let points = spec.points.as_mut().unwrap();
        points.unmapped = v1::Unmapped::Refuse as i32;
        points.label_map = (0..5).map(|c| v1::LabelMap { stored: c, class: c }).collect();
        let client = server.open(&spec).await;
        let batch = &batches(&client, 0, 1, 0, 1).await[0];
        let told = &batch.receipt().unwrap().replaced;
        assert!(!told.is_empty(), "{name}: nothing was replaced");
        assert!(told.iter().all(|r| r.record.contains(name) && r.reason.contains(why)), "{name}: {told:?}");
        assert_eq!(batch.points().unwrap().len(), 12);
    }
}

/// A block that says that it has no points.
fn block_of_nothing() -> Bytes {
    let mut bytes = encoded(&room(0, 1))[..24].to_vec();
    bytes[8..16].fill(0);
    bytes.into()
}

#[tokio::test]
async fn what_scenes_lack_is_filled_in_as_declared() {
    let mut bare = room(5, 90);
    (bare.color, bare.instance, bare.segment) = (None, None, None);
    let server = Server::start(memory(vec![("bare".into(), encoded(&bare), "rooms".into())])).await;
    let mut spec = plain();
    (spec.global_batch, spec.mix_block) = (1, 1);
    let points = spec.points.as_mut().unwrap();
    points.features = vec!["color".into()];
    points.fill = [("color".to_owned(), 51.0), ("segment".to_owned(), 4.0)].into();
    let client = server.open(&spec).await;
    let batch = &batches(&client, 0, 1, 0, 1).await[0];
    let points = batch.points().unwrap();
    assert_eq!(points.points(), 90);
    assert!(points.feat().unwrap().unwrap().0.iter().all(|c| *c == 0.2));
    assert!(
        points.segment().unwrap().iter().all(|c| *c == 4)
            && points.instance().unwrap().iter().all(|i| *i == -1)
    );
}

#[test]
fn wrong_specs_are_refused_by_field() {
    let sources = memory(rooms(4));
    let refused = |change: &dyn Fn(&mut v1::JobSpec)| {
        let mut spec = spec();
        change(&mut spec);
        job::resolve("job", spec, &sources).expect_err("a wrong spec").to_string()
    };
    let points = |change: &'static dyn Fn(&mut v1::PointSpec)| {
        refused(&move |spec| change(spec.points.as_mut().unwrap()))
    };
    for (message, field) in [
        (points(&|p| p.max_points = 0), "points.max_points"),
        (points(&|p| p.max_points = u64::MAX), "points.max_points"),
        (points(&|p| p.features = vec!["colour".into()]), "points.features"),
        (points(&|p| p.features = vec!["color".into(), "color".into()]), "points.features"),
        (points(&|p| p.scale = vec![2.0, 1.0]), "points.scale"),
        (points(&|p| p.scale = vec![f64::NAN, 1.0]), "points.scale"),
        (points(&|p| p.elastic[0].granularity = 0.0), "elastic granularity"),
        (points(&|p| p.flip_x = f64::NAN), "flip"),
        (points(&|p| p.voxel.as_mut().unwrap().size = 0.0), "points.voxel.size"),
        (points(&|p| p.voxel.as_mut().unwrap().size = f64::INFINITY), "points.voxel.size"),
        (points(&|p| p.voxel.as_mut().unwrap().pick = 9), "points.voxel.pick"),
        (points(&|p| p.color.as_mut().unwrap().shift = 0.5), "points.color.shift"),
        (
            points(&|p| p.dropout = Some(v1::PointDropout { p: 1.0, fraction: 1.0 })),
            "points.dropout.fraction",
        ),
        (points(&|p| p.fill = [("colour".to_owned(), 1.0)].into()), "points.fill"),
        (points(&|p| p.fill = [("color".to_owned(), 256.0)].into()), "points.fill.color"),
        (points(&|p| p.label_map = vec![v1::LabelMap { stored: 1, class: -3 }]), "points.label_map"),
        (refused(&|s| s.image = Some(Default::default())), "image"),
        (refused(&|s| s.mix.as_mut().unwrap().policies[0].name = "cutmix".into()), "mix.policies[0].name"),
        (refused(&|s| s.mix.as_mut().unwrap().smoothing = 0.1), "mix.smoothing"),
        (refused(&|s| s.points = None), "groups.group"),
    ] {
        assert!(message.contains(field), "want `{field}` in: {message}");
    }
}

#[tokio::test]
async fn decoding_in_pieces_does_not_trip_over_other_scenes() {
    // Uncompressed LAS of several runs: they are decoded by the threads that other scenes wait for.
    let record = |i: u32| {
        (format!("tile-{i}"), parts::pack(&[("tile.las", &las(150_000 + i))]).into(), "tiles".into())
    };
    let server = Server::start(memory((0..6).map(record).collect())).await;
    let mut spec = plain();
    (spec.global_batch, spec.mix_block) = (4, 2);
    spec.points.as_mut().unwrap().max_scene_points = 500;
    let client = server.open(&spec).await;
    let readers = (0..3).map(|from| batches(&client, 0, 1, from, 3));
    for read in futures_util::future::join_all(readers).await {
        assert!(read.iter().all(|batch| batch.points().unwrap().points() == 4 * 2 * 500));
    }
}

/// A LAS 1.2 file of format 0, its points on a line.
fn las(points: u32) -> Vec<u8> {
    let mut file = vec![0; 227];
    file[..4].copy_from_slice(b"LASF");
    (file[24], file[25]) = (1, 2);
    file[94..96].copy_from_slice(&227u16.to_le_bytes());
    file[96..100].copy_from_slice(&227u32.to_le_bytes());
    file[105..107].copy_from_slice(&20u16.to_le_bytes());
    file[107..111].copy_from_slice(&points.to_le_bytes());
    for axis in 0..3 {
        file[131 + axis * 8..139 + axis * 8].copy_from_slice(&0.01f64.to_le_bytes());
    }
    for point in 0..points as i32 {
        let mut record = [0; 20];
        record[..4].copy_from_slice(&point.to_le_bytes());
        record[15] = (point % 3) as u8;
        file.extend(record);
    }
    file
}

#[tokio::test]
async fn an_eval_set_may_have_a_larger_batch_than_training() {
    let server = Server::start(memory(rooms(9))).await;
    let mut spec = plain();
    (spec.global_batch, spec.mix_block) = (1, 1);
    spec.points.as_mut().unwrap().max_points = 1000;
    let client = server.open(&spec).await;
    let options = EvalOptions {
        group: "tiles".into(),
        batch: 9,
        rank: 0,
        world_size: 1,
        last_batch: v1::LastBatch::Partial,
        from_step: 0,
        held_out: false,
    };
    let mut stream = client.eval("job", options).await.unwrap();
    let batch = stream.next_batch().await.unwrap().unwrap();
    let whole: usize = (0..9).map(|i| 150 + 31 * i).sum();
    assert_eq!(
        batch.points().unwrap().points(),
        whole,
        "no room of an eval set is thinned where a row may have 1,000"
    );
}

#[tokio::test]
async fn scenes_of_a_row_are_those_that_have_points_in_it() {
    // All points in one band of angles: an exchange of bands takes everything or nothing.
    let mut flat = room(1, 100);
    flat.coord = (0..100).map(|i| [1.0 + f64::from(i), 0.5, 0.1 * (1.0 + f64::from(i))]).collect();
    let records = (0..4).map(|i| (format!("scan-{i}"), encoded(&flat), "scans".to_owned())).collect();
    let server = Server::start(memory(records)).await;
    let mut spec = plain();
    spec.points.as_mut().unwrap().center = Some(false);
    spec.mix.as_mut().unwrap().policies[0].name = "lasermix".into();
    let client = server.open(&spec).await;
    for batch in batches(&client, 0, 1, 0, 3).await {
        let points = batch.points().unwrap();
        let (from, width) = points.mixed_from().unwrap();
        for row in 0..points.len() {
            let scenes = points.num_logical_samples().unwrap()[row];
            assert!(
                points.scene_id().unwrap()[points.row(row).unwrap()].iter().all(|s| i32::from(*s) < scenes)
            );
            assert!(from[row * width..row * width + scenes as usize].iter().all(|slot| *slot >= 0));
        }
    }
}

#[tokio::test]
async fn classes_go_through_the_map_before_any_is_ignored() {
    let server = Server::start(memory(rooms(3))).await;
    let mut spec = plain();
    let points = spec.points.as_mut().unwrap();
    points.label_map = (0..4).map(|c| v1::LabelMap { stored: c, class: c + 10 }).collect();
    points.ignore_label = Some(2);
    let client = server.open(&spec).await;
    let batch = &batches(&client, 0, 1, 0, 1).await[0];
    let mut classes = batch.points().unwrap().segment().unwrap().to_vec();
    classes.sort_unstable();
    classes.dedup();
    assert_eq!(classes, [2, 10, 11, 12, 13], "4 is not mapped and becomes the class to ignore");
}

#[tokio::test]
async fn a_stream_that_cannot_hold_a_step_says_so() {
    let mut records = rooms(60);
    records.push(("hall".into(), encoded(&room(8, 400_000)), "rooms".into()));
    let server = Server::with(memory(records), |settings| {
        settings.prefetch = Some(mixfeed_server::config::Size(1 << 20));
    })
    .await;
    let mut spec = plain();
    spec.points.as_mut().unwrap().max_points = 12 * 64;
    let client = server.open(&spec).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    let error = loop {
        match stream.next_batch().await {
            Ok(batch) => assert!(batch.is_some()),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("prefetch_bytes"), "{error}");
}

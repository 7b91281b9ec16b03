//! Small scenes in memory and jobs on them.

use crate::named;
use bytes::Bytes;
use mixfeed_proto as v1;
use mixfeed_server::Sources;
use mixfeed_server::cloud::{Scene, block};
use mixfeed_server::source::Memory;
use std::sync::Arc;

/// A scene of `points` points on a rough floor with classes 0 to 4, a wall of instances, and colours.
pub fn room(seed: u32, points: u32) -> Scene {
    let at = |i: u32, k: u32| f64::from((i * 7919 + seed * 104_729 + k * 15_485_863) % 1009) / 100.0;
    Scene {
        coord: (0..points).map(|i| [at(i, 1), at(i, 2) * 0.7, at(i, 3) * 0.2]).collect(),
        color: Some((0..points).map(|i| [i as u8, seed as u8, 77]).collect()),
        normal: None,
        intensity: Some((0..points).map(|i| i as f32).collect()),
        segment: Some((0..points).map(|i| (i % 5) as i32).collect()),
        instance: Some((0..points).map(|i| (i % 4) as i32 - 1).collect()),
    }
}

pub fn encoded(scene: &Scene) -> Bytes {
    let mut bytes = Vec::new();
    block::encode(scene, &mut bytes);
    bytes.into()
}

/// Rooms of 150 to 400 points.
pub fn rooms(count: u32) -> Vec<(String, Bytes, String)> {
    let record = |i: u32| (format!("room-{i}"), encoded(&room(i, 150 + 31 * (i % 9))), "rooms".to_owned());
    (0..count).map(record).collect()
}

pub fn memory(records: Vec<(String, Bytes, String)>) -> Sources {
    named(Arc::new(Memory::scenes(records).unwrap()))
}

/// Unions of two rooms, twelve rows in blocks of four, with every transform and with voxels.
pub fn spec() -> v1::JobSpec {
    let policy = |name: &str| v1::PolicySpec { name: name.into(), ..Default::default() };
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "tiles".into(), ..Default::default() }],
        seed: 3,
        global_batch: 12,
        mix_block: 4,
        points: Some(v1::PointSpec {
            max_points: 1 << 20,
            features: vec!["color".into(), "intensity".into(), "distance".into()],
            shift: true,
            flip_x: 0.5,
            flip_y: 0.5,
            elastic: vec![v1::Elastic { granularity: 0.5, magnitude: 0.4 }],
            scale: vec![0.9, 1.1],
            rotate_z: vec![-3.0, 3.0],
            tilt: vec![-0.1, 0.1],
            jitter: Some(v1::PointJitter { sigma: 0.01, clip: 0.05 }),
            color: Some(v1::PointColor {
                brightness: 0.2,
                contrast: 0.2,
                shift: 20.0,
                drop: 0.1,
                jitter: 2.0,
            }),
            voxel: Some(v1::VoxelSpec { size: 0.4, inverse: true, count: true, ..Default::default() }),
            ..Default::default()
        }),
        mix: Some(v1::MixSpec {
            policies: ["mix3d", "polarmix", "lasermix"].map(policy).into(),
            choose: v1::Choose::Row as i32,
            gate_prob: Some(0.8),
            ..Default::default()
        }),
        max_bad_fraction: Some(0.5),
        ..Default::default()
    }
}

/// The same as stored: no transform, no voxel, unions only.
pub fn plain() -> v1::JobSpec {
    let mut spec = spec();
    spec.points = Some(v1::PointSpec { max_points: 1 << 20, ..Default::default() });
    let mix3d = v1::PolicySpec { name: "mix3d".into(), ..Default::default() };
    spec.mix = Some(v1::MixSpec {
        policies: vec![mix3d],
        pairing: v1::Pairing::Derange as i32,
        ..Default::default()
    });
    spec
}

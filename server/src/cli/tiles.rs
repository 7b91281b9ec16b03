//! The embedded survey tiles: blocks of two real ones, see demo-data/NOTICE.md.

use crate::Sources;
use crate::cloud::{Limits, block, parts, record, tile};
use crate::source::{Memory, Source};
use anyhow::Context;
use bytes::Bytes;
use mixfeed_proto as v1;
use std::sync::Arc;

/// A tile: its group, its file and how it is cut.
struct Tile {
    group: &'static str,
    file: &'static str,
    bytes: &'static [u8],
    tiling: tile::Tiling,
    /// Side of a voxel and cell of the elastic distortion, in the tile's unit.
    voxel: f64,
    cell: f64,
}

/// Metres, and feet.
const TILES: [Tile; 2] = [
    Tile {
        group: "survey",
        file: "ign_lidarhd_37k.laz",
        bytes: include_bytes!("../../../demo-data/points/ign_lidarhd_37k.laz"),
        tiling: tile::Tiling { block: 60.0, stride: 15.0, min_points: 4000 },
        voxel: 0.25,
        cell: 3.0,
    },
    Tile {
        group: "street",
        file: "urban_25k.laz",
        bytes: include_bytes!("../../../demo-data/points/urban_25k.laz"),
        tiling: tile::Tiling { block: 30.0, stride: 10.0, min_points: 3000 },
        voxel: 0.25,
        cell: 2.0,
    },
];

/// Names of the groups.
pub fn groups() -> impl Iterator<Item = &'static str> {
    TILES.iter().map(|tile| tile.group)
}

/// The source "tiles": a group a tile, a record a block.
///
/// # Errors
/// When a tile that was built in cannot be read.
pub fn sources() -> anyhow::Result<Sources> {
    let mut blocks = Vec::new();
    for tile in &TILES {
        let packed = Bytes::from(parts::pack(&[(tile.file, tile.bytes)]));
        let whole = record(&packed, &Limits { points: 1 << 20 }).context(tile.file)?;
        let cut = tile::cut(&whole, &tile.tiling).context(tile.file)?;
        for block in cut.tiles() {
            let mut bytes = Vec::new();
            block::encode(&whole.select(cut.points(block)), &mut bytes);
            let name = format!("{}/{}_{}", tile.file, block.i, block.j);
            blocks.push((name, Bytes::from(bytes), tile.group.to_owned()));
        }
    }
    let source: Arc<dyn Source> = Arc::new(Memory::scenes(blocks)?);
    Ok(Sources::from([("tiles".to_owned(), source)]))
}

/// A job on one group: Mix3D's transforms on blocks of a tile, each united with another.
pub fn job(group: &str, seed: u64, batch: u32, policies: Vec<v1::PolicySpec>) -> v1::JobSpec {
    let tile = TILES.iter().find(|tile| tile.group == group).unwrap_or(&TILES[0]);
    let elastic =
        |times: f64, part: f64| v1::Elastic { granularity: tile.cell * times, magnitude: tile.cell * part };
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: format!("tiles/{group}"), ..Default::default() }],
        seed,
        global_batch: batch,
        mix_block: batch,
        points: Some(v1::PointSpec {
            max_points: 16_384 * u64::from(batch),
            max_scene_points: 8192,
            features: vec!["color".into(), "intensity".into()],
            fill: [("color".to_owned(), 128.0)].into(),
            shift: true,
            flip_x: 0.5,
            flip_y: 0.5,
            elastic: vec![elastic(1.0, 1.0), elastic(4.0, 2.0)],
            scale: vec![0.9, 1.1],
            rotate_z: vec![-std::f64::consts::PI, std::f64::consts::PI],
            voxel: Some(v1::VoxelSpec { size: tile.voxel, inverse: true, count: true, ..Default::default() }),
            ..Default::default()
        }),
        mix: Some(v1::MixSpec { policies, pairing: v1::Pairing::Derange as i32, ..Default::default() }),
        ..Default::default()
    }
}

/// A job on the first tile as one policy is previewed: without distortion and voxels. Scenes are shifted for unions only:
/// the other policies exchange what lies about the origin, which would be another place in each of two shifted scenes.
pub fn scan(seed: u64, batch: u32, policies: Vec<v1::PolicySpec>) -> v1::JobSpec {
    let union = policies.iter().all(|policy| policy.name == "mix3d");
    let mut spec = job("survey", seed, batch, policies);
    if let Some(points) = &mut spec.points {
        points.shift = union;
        points.elastic.clear();
        points.voxel = None;
        points.features.clear();
        points.fill = [("segment".to_owned(), -1.0)].into();
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unions_are_previewed_with_shifted_scenes() {
        let shifted = |name: &str| {
            let policy = v1::PolicySpec { name: name.into(), ..Default::default() };
            scan(1, 2, vec![policy]).points.unwrap_or_default().shift
        };
        assert_eq!(["mix3d", "polarmix", "lasermix"].map(shifted), [true, false, false]);
    }
}

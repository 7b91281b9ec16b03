//! A device that does what it is asked for by the functions of the CPU, or does not.

use mixfeed_server::assemble::Slab;
use mixfeed_server::exec::Format;
use mixfeed_server::exec::device::{DeviceError, Input, Mixer, Progress, RowMade, SceneInput, Scenes};
use mixfeed_server::exec::points::union::{self, Part, len};
use mixfeed_server::exec::points::voxel::{self, Voxels};
use mixfeed_server::exec::points::{Points, Scratch, budget, columns, transform};
use mixfeed_server::plan::{Plan, Row};
use std::sync::{Arc, Mutex};

/// What a stand-in does with every block.
#[derive(Clone)]
pub enum Mood {
    Works,
    Fails(DeviceError),
    Panics,
    /// Says that it made something else.
    Lies(fn(&mut Vec<RowMade>)),
}

/// What a stand-in was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Blocks.
    pub blocks: usize,
    /// Scenes that the CPU had transformed.
    pub made: usize,
    /// And those that it was to transform.
    pub stored: usize,
}

/// What it does, and what it was asked for.
pub struct StandIn(pub Mood, pub Arc<Mutex<Seen>>);

impl Mixer<Slab> for StandIn {
    fn run(&mut self, _: &[Row], _: &Input<Slab>, _: &Format, _: &mut [u8]) -> Result<Progress, DeviceError> {
        panic!("these jobs have scenes")
    }

    fn scenes(&mut self, rows: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        let made = block.scenes.iter().filter(|scene| matches!(scene, SceneInput::Made(_))).count();
        let mut seen = self.1.lock().unwrap();
        seen.blocks += 1;
        seen.made += made;
        seen.stored += block.scenes.len() - made;
        drop(seen);
        out.fill(0xa5);
        match &self.0 {
            Mood::Works => made_of(rows, block, out),
            Mood::Fails(error) => Err(error.clone()),
            Mood::Panics => panic!("a defect"),
            Mood::Lies(lie) => {
                let mut made = made_of(rows, block, out)?;
                lie(&mut made);
                Ok(made)
            }
        }
    }
}

/// What a device is to make of a block.
fn made_of(rows: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
    let refused = DeviceError::Refused { slot: 0 };
    let mut scenes = Vec::new();
    for (slot, scene) in (0..).zip(&block.scenes) {
        scenes.push(match scene {
            SceneInput::Made(points) => points.clone(),
            SceneInput::Stored { scene, measured, ops } => {
                let (points, far) = transform(scene.clone(), measured, ops, &mut Scratch::default());
                if block.voxels.as_ref().is_some_and(|voxels| far >= voxels.far) {
                    return Err(DeviceError::Refused { slot });
                }
                points
            }
        });
    }
    let mut parts = union::rows(&Plan { rows: rows.to_vec() }, &scenes).map_err(|_| refused.clone())?;
    let united: Vec<u64> = parts.iter().map(|row| len(row) as u64).collect();
    budget::thin(&mut parts, &scenes, block.share, &block.centres);
    let voxels = voxels_of(&parts, &scenes, block).map_err(|_| refused)?;
    let mut made = Vec::new();
    for (i, (row, united)) in parts.iter().zip(united).enumerate() {
        let mut of: Vec<(u32, u64)> = Vec::new();
        for part in row {
            let points = part.len() as u64;
            match of.iter_mut().find(|(slot, _)| *slot == part.slot) {
                Some((_, own)) => *own += points,
                None => of.push((part.slot, points)),
            }
        }
        let points = columns::served(row, voxels.as_ref().map(|voxels| &voxels[i])) as u64;
        made.push(RowMade { scenes: of, united, inverse: len(row) as u64, points });
    }
    let sum = |of: fn(&RowMade) -> u64| made.iter().map(of).sum::<u64>() as usize;
    let layout = block.layout(sum(|row| row.points), sum(|row| row.inverse));
    let (own, classes) = block.columns(&layout, out);
    if let Some(classes) = classes {
        let all = parts.iter().flatten().flat_map(|part| {
            let segment = scenes[part.slot as usize].segment.as_ref().unwrap();
            part.numbers().map(|number| segment[number as usize])
        });
        classes.chunks_mut(4).zip(all).for_each(|(out, class)| out.copy_from_slice(&class.to_le_bytes()));
    }
    columns::write(&parts, voxels.as_deref(), &scenes, &block.features, own).unwrap();
    Ok(made)
}

fn voxels_of(
    rows: &[Vec<Part>],
    scenes: &[Points],
    block: &Scenes,
) -> Result<Option<Vec<Voxels>>, voxel::VoxelError> {
    let Some(wish) = &block.voxels else { return Ok(None) };
    assert_eq!(wish.picks.len(), rows.len());
    let one = |(row, pick): (&Vec<Part>, &voxel::Pick)| {
        let details = wish.inverse || wish.count || wish.majority;
        let rule = voxel::Rule { size: wish.size, pick: *pick, details };
        let mut found = voxel::voxels(row, scenes, &rule, &mut voxel::Scratch::default())?;
        if wish.majority {
            found.majority(row, scenes);
        }
        Ok(found)
    };
    rows.iter().zip(&wish.picks).map(one).collect::<Result<_, _>>().map(Some)
}

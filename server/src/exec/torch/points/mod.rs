//! Scenes of points on libtorch: what [`crate::exec::points`] does, for all scenes of a block together.
//!
//! All points lie in packed tensors, one scene after the other ([`pack`]). [`transform`] carries out the ops of all scenes
//! that have the same one next. A row is a list of parts, numbers of packed points ([`union`]); [`thin`] shortens them,
//! [`voxel`] picks points of them, and [`columns`] gathers what is sent.
//!
//! Of equal coordinates every column is that of the CPU, bit for bit: the same elementwise operations in the same order,
//! never fused, and integers. Two things are not elementwise. A mean is a sum in f64 in another order, so that scenes which
//! are transformed here may differ by the rounding of their means: coordinates by a few units of the last place of the
//! scene's largest one, and all that is decided by them. And an arc tangent may differ in its last places: a point within
//! 1e-12 radians of the end of a sector or of a band may fall on its other side, also by where it lies in its block.
//!
//! Nothing is added up by atomic operations on floats, and but for such points what becomes of a scene or a row does not
//! depend on the others in its block: the result is one function of the plan on each device. A block waits for the device at most four times: for
//! points and ids of parts, for the bounds of voxels, for their number, and for the columns.

mod columns;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod conformance_stored;
mod decide;
mod elastic;
mod groups;
mod held;
mod pack;
mod spans;
mod steps;
mod thin;
mod transform;
mod union;
mod voxel;

use super::Torch;
use crate::exec::device::{DeviceError, RowMade, Scenes};
use crate::exec::points::union::{Part, len, scenes};
use crate::plan::Row;
use tch::{Kind, Tensor};
use union::Chosen;

impl Torch {
    /// Makes `rows` of the scenes of `block` and writes their columns to the beginning of `out`, as [`Scenes::layout`] has
    /// it for the sums over what is returned. Waits for the device.
    ///
    /// # Errors
    /// [`DeviceError::Misfit`] for a plan that does not fit its block, [`DeviceError::Refused`] for scenes that the CPU
    /// refuses or that only it transforms, and whatever the device answers; with any bytes in `out`.
    pub(super) fn make_scenes(
        &mut self,
        rows: &[Row],
        block: &Scenes,
        out: &mut [u8],
    ) -> Result<Vec<RowMade>, DeviceError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.scenes.forget(); // what a panic may have left
        let made = self.made(rows, block, out);
        if made.is_err() {
            self.scenes.forget();
            self.idle()?; // what was begun may still read the staged bytes
        }
        made
    }

    fn made(&mut self, rows: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        let device = self.place.device;
        held::check(rows, block)?;
        let cloud = pack::cloud(self, block)?;
        let mut chosen = union::unite(device, rows, block, &cloud)?;
        let united: Vec<u64> = chosen.rows.iter().map(|row| points(row)).collect();
        thin::thin(device, &mut chosen, block, &cloud)?;
        let places = chosen.turned(&cloud.coord.f_index_select(0, &chosen.points)?)?;
        let voxels = match &block.voxels {
            Some(wish) => Some(voxel::find(device, wish, rows, &chosen, &places, &cloud)?),
            None => None,
        };
        let made = facts(&chosen, united, voxels.as_ref());
        let sum = |of: fn(&RowMade) -> u64| made.iter().map(of).sum::<u64>() as usize;
        let layout = block.layout(sum(|row| row.points), sum(|row| row.inverse));
        if layout.end > out.len() {
            let why = format!("columns of {} bytes for a buffer of {}", layout.end, out.len());
            return Err(DeviceError::Failed(why));
        }
        let columns = columns::columns(self, block, &cloud, &chosen, &places, voxels.as_ref())?;
        for column in columns {
            self.scenes.down(&column.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?)?;
        }
        if self.place.device.is_cuda() {
            self.idle()?;
        }
        self.scenes.arrived();
        self.scenes.collect(&mut out[..layout.end])?;
        Ok(made)
    }
}

/// Why the CPU is to make a block: what it says of the scene of `slot`.
fn refused(slot: usize) -> DeviceError {
    DeviceError::Refused { slot: slot as u32 }
}

fn points(row: &[Part]) -> u64 {
    len(row) as u64
}

/// What rows were made of.
fn facts(chosen: &Chosen, united: Vec<u64>, voxels: Option<&voxel::Voxels>) -> Vec<RowMade> {
    let fact = |(at, (row, united)): (usize, (&Vec<Part>, u64))| {
        let inverse = points(row);
        let scenes = scenes(row);
        RowMade { scenes, united, inverse, points: voxels.map_or(inverse, |v| v.of_rows[at] as u64) }
    };
    chosen.rows.iter().zip(united).enumerate().map(fact).collect()
}

/// The axes of triples, (n) each.
fn axes(triples: &Tensor) -> Result<[Tensor; 3], DeviceError> {
    Ok([triples.f_select(1, 0)?, triples.f_select(1, 1)?, triples.f_select(1, 2)?])
}

/// Triples, (n, 3), as f64, axis by axis.
fn wide_axes(triples: &Tensor) -> Result<[Tensor; 3], DeviceError> {
    axes(&triples.f_to_kind(Kind::Double)?)
}

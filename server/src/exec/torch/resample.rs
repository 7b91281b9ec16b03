//! Boxes of partners moved or resampled into other boxes, with the tables of the scalar executor.

use super::masks::{tall, wide};
use super::round::{List, Paste};
use super::{DeviceError, Place, upload};
use crate::batch::{CHANNELS, Raster};
use crate::exec::taps::Taps;
use crate::plan::Filter;
use tch::{Kind, Tensor};

/// Partners whose pixels inside each paste's `to` are the nearest ones of its `from`; others are those of the first line
/// or column.
pub(super) fn moved(
    place: &Place,
    clean: &Tensor,
    list: &List<Paste>,
    raster: &Raster,
) -> Result<Tensor, DeviceError> {
    let (mut taps, n) = (Taps::default(), list.of.len());
    let (mut lines, mut columns) = (vec![0; n * raster.height], vec![0; n * raster.width]);
    for (i, paste) in list.of.iter().enumerate() {
        let mut put = |all: &mut [i64], side: usize, from: (u32, u32), to: (u32, u32)| {
            taps.fill(Filter::Nearest, (from.1 - from.0) as usize, (to.1 - to.0) as usize);
            let own = &mut all[i * side..][to.0 as usize..to.1 as usize];
            own.iter_mut().enumerate().for_each(|(k, own)| *own = i64::from(from.0) + taps.at(k).0 as i64);
        };
        let Paste { from, to, .. } = paste;
        put(&mut lines, raster.height, (from.y0, from.y1), (to.y0, to.y1));
        put(&mut columns, raster.width, (from.x0, from.x1), (to.x0, to.x1));
    }
    let rows = upload::places(place.device, &list.src, &[n as i64, 1, 1, 1, 1])?;
    let planes = upload::range(place.device, raster.planes, &[1, raster.planes as i64, 1, 1, 1])?;
    let lines = upload::places(place.device, &lines, &tall(n, raster))?;
    let columns = upload::places(place.device, &columns, &wide(n, raster))?;
    let steps = upload::range(place.device, raster.step, &[1, 1, 1, 1, raster.step as i64])?;
    Ok(clean.f_index(&[Some(rows), Some(planes), Some(lines), Some(columns), Some(steps)])?)
}

/// Partners (f32, 0..=255) whose pixels inside each paste's `to` are its `from` resampled; others are 0. Two products
/// with sparse matrices of weights, lines first: what the scalar executor sums, in the device's order.
pub(super) fn scaled(
    place: &Place,
    partners: &Tensor,
    of: &[Paste],
    raster: &Raster,
) -> Result<Tensor, DeviceError> {
    let (n, height, width) = (of.len() as i64, raster.height as i64, raster.width as i64);
    let (mut down, mut across) = (Matrices::default(), Matrices::default());
    for (i, Paste { from, to, filter }) in of.iter().enumerate() {
        let rows = ((from.y0, from.y1), (to.y0, to.y1));
        down.add(*filter, rows, |from, to| ((i * raster.height + to) * raster.height + from) as i64);
        let columns = ((from.x0, from.x1), (to.x0, to.x1));
        across.add(*filter, columns, |from, to| ((i * raster.width + from) * raster.width + to) as i64);
    }
    let down = down.on(place, &[n, 1, height, height])?;
    let across = across.on(place, &[n, width, width])?;
    let channels = CHANNELS as i64;
    // Interleaved pictures are products of planes too: the change to f32 makes another copy anyway.
    let planar = match raster.step {
        1 => partners.f_view([n, channels, height, width])?,
        _ => partners.f_view([n, height, width, channels])?.f_permute([0, 3, 1, 2])?,
    };
    let lines = down.f_matmul(&planar.f_to_kind(Kind::Float)?.f_contiguous()?)?;
    let made = lines.f_reshape([n, channels * height, width])?.f_bmm(&across)?;
    let made = made.f_view([n, channels, height, width])?;
    Ok(match raster.step {
        1 => made.f_view([n, channels, height, width, 1])?,
        _ => made.f_permute([0, 2, 3, 1])?.f_reshape([n, 1, height, width, channels])?,
    })
}

/// Entries of sparse matrices, one matrix a paste.
#[derive(Default)]
struct Matrices {
    taps: Taps,
    at: Vec<i64>,
    weights: Vec<f32>,
}

impl Matrices {
    /// Weights of one axis; `place` tells where the entry of an input and an output position lies.
    fn add(
        &mut self,
        filter: Filter,
        (from, to): ((u32, u32), (u32, u32)),
        place: impl Fn(usize, usize) -> i64,
    ) {
        self.taps.fill(filter, (from.1 - from.0) as usize, (to.1 - to.0) as usize);
        for i in 0..self.taps.len() {
            let (first, weights) = self.taps.at(i);
            for (k, weight) in weights.iter().enumerate() {
                self.at.push(place(from.0 as usize + first + k, to.0 as usize + i));
                self.weights.push(*weight);
            }
        }
    }

    /// The matrices, 0 where they have no entry.
    fn on(&self, place: &Place, shape: &[i64]) -> Result<Tensor, DeviceError> {
        let at = upload::places(place.device, &self.at, &[self.at.len() as i64])?;
        let weights = upload::floats(place.device, &self.weights, &[self.weights.len() as i64])?;
        let entries = shape.iter().product::<i64>();
        let mut all = Tensor::f_zeros([entries], (Kind::Float, place.device))?;
        let _ = all.f_scatter_(0, &at, &weights)?;
        Ok(all.f_view(shape)?)
    }
}

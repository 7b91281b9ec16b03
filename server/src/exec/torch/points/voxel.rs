//! Voxels of rows, by sorting; see [`crate::exec::points::voxel`] for what they are.

use super::pack::Cloud;
use super::spans::{Sorted, Spans, compact};
use super::union::Chosen;
use super::{DeviceError, refused};
use crate::exec::device::VoxelWish;
use crate::exec::points::voxel::Pick;
use crate::exec::torch::upload;
use crate::plan::Row;
use tch::{Device, Kind, Tensor};

/// The voxels of all rows, one row after the other, in each by their first points.
#[derive(Debug)]
pub(super) struct Voxels {
    /// Voxels of each row.
    pub of_rows: Vec<i64>,
    /// The point that stays, by its place among the chosen ones, i64.
    pub kept: Tensor,
    /// From the smallest of the row, i32 (voxels, 3).
    pub grid: Tensor,
    /// Points of each, i64.
    pub counts: Tensor,
    /// Voxel of each point, counted in its row, i32; where a column holds it.
    pub inverse: Option<Tensor>,
    /// Class that most points of a voxel have, i32; where it is asked for.
    pub segment: Option<Tensor>,
}

/// Finds the voxels of the chosen points, which stand at `places`.
///
/// # Errors
/// [`DeviceError::Refused`] for rows whose voxels do not fit 32 bits.
pub(super) fn find(
    device: Device,
    wish: &VoxelWish,
    rows: &[Row],
    chosen: &Chosen,
    places: &Tensor,
    cloud: &Cloud,
) -> Result<Voxels, DeviceError> {
    let lens = chosen.rows.iter().map(|row| super::points(row) as i64).collect();
    let spans = Spans::new(device, lens)?;
    if spans.total >= 1 << 31 {
        return Err(DeviceError::Failed(format!("a block of {} points", spans.total)));
    }
    // A number on the host would be multiplied by its reciprocal.
    let side = upload::sent(device, &[f64::from(wish.size)], &[1])?;
    let cells = places.f_to_kind(Kind::Double)?.f_div(&side)?.f_floor()?;
    let (lows, sides) = bounds(&spans, &cells, rows)?;
    let cells = cells.f_to_kind(Kind::Int64)?;
    let low = spans.spread(&upload::places(device, &lows, &[-1, 3])?)?;
    let grid = cells.f_sub(&low)?;

    let sorted = Sorted::new(&keys(&spans, &grid, sides)?)?;
    let first = sorted.back(&sorted.first)?;
    let of_rows: Vec<i64> = Vec::try_from(&spans.counts(&first)?)?;
    let voxels: i64 = of_rows.iter().sum();
    // Number of its voxel, at first points.
    let number = first.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?;
    let number = sorted.of_firsts(&number.f_index_select(0, &sorted.from)?)?;
    let voxel = sorted.back(&number.f_index_select(0, &sorted.group)?)?;
    let all = upload::range(device, spans.total as usize, &[-1])?;
    let firsts = compact(&all, &first, voxels)?;
    let mut counts = Tensor::f_zeros([voxels], (Kind::Int64, device))?;
    let _ = counts.f_index_add_(0, &voxel, &voxel.f_ones_like()?)?;

    let kept = match keys_of(&wish.picks) {
        None => firsts.shallow_clone(),
        Some(keys) => {
            let row = spans.of.f_index_select(0, &firsts)?;
            let keys = upload::places(device, &keys, &[-1])?.f_index_select(0, &row)?;
            let before = draw(&keys, &cells.f_index_select(0, &firsts)?, &counts)?;
            let drawn: Vec<bool> = wish.picks.iter().map(|pick| *pick != Pick::First).collect();
            let drawn = upload::truths(device, &drawn, &[-1])?.f_index_select(0, &row)?;
            picked(&sorted, &all, &firsts, &before)?.f_where_self(&drawn, &firsts)?
        }
    };
    let classes = || cloud.segment.f_index_select(0, &chosen.points);
    Ok(Voxels {
        kept,
        grid: grid.f_index_select(0, &firsts)?.f_to_kind(Kind::Int)?,
        inverse: if wish.inverse { Some(inverse(&spans, &voxel, &of_rows)?) } else { None },
        segment: if wish.majority { Some(majority(&voxel, &classes()?, &counts)?) } else { None },
        of_rows,
        counts,
    })
}

/// Voxel of each point, counted in its row, of those counted in all rows.
fn inverse(spans: &Spans, voxel: &Tensor, of_rows: &[i64]) -> Result<Tensor, DeviceError> {
    let mut start = 0;
    let starts = of_rows.iter().map(|voxels| {
        start += voxels;
        start - voxels
    });
    let starts = upload::places(voxel.device(), &starts.collect::<Vec<i64>>(), &[-1])?;
    Ok(voxel.f_sub(&spans.spread(&starts)?)?.f_to_kind(Kind::Int)?)
}

/// The smallest voxel of each row, and how many there are at most along each axis of a row.
fn bounds(spans: &Spans, cells: &Tensor, rows: &[Row]) -> Result<(Vec<i64>, [i64; 3]), DeviceError> {
    let (low, high) = spans.bounds(cells)?;
    let ends: Vec<f64> = Vec::try_from(&Tensor::f_cat(&[low, high], 1)?.f_view([-1])?)?;
    let (mut lows, mut sides) = (Vec::with_capacity(3 * rows.len()), [1; 3]);
    for (row, ends) in rows.iter().zip(ends.as_chunks::<6>().0) {
        let (low, high) = ends.split_at(3);
        for axis in 0..3 {
            let fits = low[axis] >= f64::from(i32::MIN) && high[axis] <= f64::from(i32::MAX);
            // What is no number is in no range.
            if !fits || high[axis] - low[axis] > f64::from(i32::MAX) {
                return Err(refused(row.base as usize));
            }
            sides[axis] = sides[axis].max((high[axis] - low[axis]) as i64 + 1);
            lows.push(low[axis] as i64);
        }
    }
    Ok((lows, sides))
}

/// A number for each point, equal for points of one voxel of one row: their places in a box of all rows, or, where that has
/// too many, what is left when axes are numbered anew by what there is of them.
fn keys(spans: &Spans, grid: &Tensor, sides: [i64; 3]) -> Result<Tensor, DeviceError> {
    let mut key = spans.of.shallow_clone();
    let mut most = spans.lens.len() as i64;
    for (axis, side) in sides.into_iter().enumerate() {
        if most.checked_mul(side).is_none() {
            let sorted = Sorted::new(&key)?;
            key = sorted.back(&sorted.group)?;
            most = spans.total;
        }
        // Less than 2^31 points, at most as many voxels along an axis.
        most = most.saturating_mul(side);
        key = key.f_mul_scalar(side)?.f_add(&grid.f_select(1, axis as i64)?)?;
    }
    Ok(key)
}

/// Keys of rows that pick at random, if there are any.
fn keys_of(picks: &[Pick]) -> Option<Vec<i64>> {
    let key = |pick: &Pick| match pick {
        Pick::First => 0,
        Pick::Random(key) => *key as i64,
    };
    let random = picks.iter().any(|pick| *pick != Pick::First);
    random.then(|| picks.iter().map(key).collect())
}

/// The point of each voxel that has so many of its points before it. Those of a voxel follow each other where they are
/// sorted, in order.
fn picked(sorted: &Sorted, all: &Tensor, firsts: &Tensor, before: &Tensor) -> Result<Tensor, DeviceError> {
    let place = sorted.back(all)?.f_index_select(0, firsts)?;
    Ok(sorted.from.f_index_select(0, &place.f_add(before)?)?)
}

/// `mix(key, voxel) mod count` of u64, two rounds of SplitMix64's finaliser.
fn draw(keys: &Tensor, cells: &Tensor, counts: &Tensor) -> Result<Tensor, DeviceError> {
    let low = |axis: i64| -> Result<Tensor, DeviceError> {
        Ok(cells.f_select(1, axis)?.f_bitwise_and(0xffff_ffff_i64)?)
    };
    let plane = low(0)?.f_bitwise_or_tensor(&low(1)?.f_bitwise_left_shift_tensor_scalar(32)?)?;
    let mixed = finish(&finish(&keys.f_bitwise_xor_tensor(&plane)?)?.f_add(&low(2)?)?)?;
    // The remainder of a number without a sign by that of its half.
    let half = shifted(&mixed, 1)?.f_remainder_tensor(counts)?;
    let whole = half.f_mul_scalar(2)?.f_add(&mixed.f_bitwise_and(1)?)?;
    Ok(whole.f_remainder_tensor(counts)?)
}

/// SplitMix64's finaliser; products wrap.
fn finish(h: &Tensor) -> Result<Tensor, DeviceError> {
    let h = h.f_bitwise_xor_tensor(&shifted(h, 30)?)?.f_mul_scalar(0xbf58_476d_1ce4_e5b9_u64 as i64)?;
    let h = h.f_bitwise_xor_tensor(&shifted(&h, 27)?)?.f_mul_scalar(0x94d0_49bb_1331_11eb_u64 as i64)?;
    Ok(h.f_bitwise_xor_tensor(&shifted(&h, 31)?)?)
}

/// Shifted right, with zeros.
fn shifted(h: &Tensor, bits: i64) -> Result<Tensor, DeviceError> {
    Ok(h.f_bitwise_right_shift_tensor_scalar(bits)?.f_bitwise_and(i64::MAX >> (bits - 1))?)
}

/// The class that most points of each voxel have, the smallest of several.
fn majority(voxel: &Tensor, classes: &Tensor, counts: &Tensor) -> Result<Tensor, DeviceError> {
    const BITS: i64 = 32;
    const LOW: i64 = (1 << BITS) - 1;
    let class = classes.f_to_kind(Kind::Int64)?.f_sub_scalar(i64::from(i32::MIN))?;
    let key = voxel.f_bitwise_left_shift_tensor_scalar(BITS)?.f_bitwise_or_tensor(&class)?;
    let sorted = Sorted::new(&key)?;
    let place = upload::range(voxel.device(), voxel.numel(), &[-1])?;
    // How many of the same class a voxel has up to here; the last one of its most frequent class has the most before it.
    let start = sorted.of_firsts(&place)?.f_index_select(0, &sorted.group)?;
    let fewer = start.f_sub(&place)?.f_add_scalar(LOW)?;
    let voxel = sorted.keys.f_bitwise_right_shift_tensor_scalar(BITS)?;
    // Equal ones stay in the order of classes.
    let order = Sorted::new(&voxel.f_bitwise_left_shift_tensor_scalar(BITS)?.f_bitwise_or_tensor(&fewer)?)?;
    let begin = counts.f_cumsum(0, Kind::Int64)?.f_sub(counts)?;
    let best = sorted.keys.f_index_select(0, &order.from.f_index_select(0, &begin)?)?;
    Ok(best.f_bitwise_and(LOW)?.f_add_scalar(i64::from(i32::MIN))?.f_to_kind(Kind::Int)?)
}

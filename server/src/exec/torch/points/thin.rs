//! The point budget: the largest parts of a block are cut to a common size; see [`budget`] for which points stay.

use super::pack::Cloud;
use super::spans::{Sorted, Spans, compact};
use super::union::Chosen;
use super::{DeviceError, wide_axes};
use crate::exec::device::Scenes;
use crate::exec::points::budget;
use crate::exec::points::union::{self, Part};
use crate::exec::torch::upload;
use tch::{Device, Kind, Tensor};

/// Cuts parts until all together have at most the share of the block.
///
/// # Errors
/// [`DeviceError::Misfit`] when the share is less than the parts.
pub(super) fn thin(
    device: Device,
    chosen: &mut Chosen,
    block: &Scenes,
    cloud: &Cloud,
) -> Result<(), DeviceError> {
    let parts: Vec<&Part> = chosen.rows.iter().flatten().collect();
    if block.share < parts.len() {
        let upto = |row: &Vec<Part>, seen: &mut usize| {
            *seen += row.len();
            *seen > block.share
        };
        let mut seen = 0;
        let row = chosen.rows.iter().position(|row| upto(row, &mut seen)).unwrap_or(0);
        return Err(DeviceError::Misfit { row });
    }
    let sizes: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let kept = budget::kept(&sizes, block.share);
    let cut: Vec<usize> = (0..parts.len()).filter(|part| kept[*part] < sizes[*part]).collect();
    if cut.is_empty() {
        return Ok(());
    }
    let of = |values: &[i64]| cut.iter().map(|part| values[*part]).collect::<Vec<i64>>();
    let (starts, own) = (of(&chosen.spans.starts), Spans::new(device, of(&chosen.spans.lens))?);
    let rows = own.places(&starts)?;
    let points = chosen.points.f_index_select(0, &rows)?;
    let centre = |part: &usize| {
        let (u, size) = (block.centres[parts[*part].slot as usize], sizes[*part]);
        let centre = ((u * size as f64) as usize).min(size - 1);
        chosen.spans.starts[*part] + centre as i64
    };
    let centres: Vec<i64> = cut.iter().map(centre).collect();
    let centres = chosen.points.f_index_select(0, &upload::places(device, &centres, &[-1])?)?;
    let keep: Vec<i64> = cut.iter().map(|part| kept[*part] as i64).collect();
    let stays = nearest(&own, &cloud.coord, &points, &centres, &keep)?;
    let mut all = Tensor::f_ones([chosen.spans.total], (Kind::Bool, device))?;
    let _ = all.f_index_copy_(0, &rows, &stays)?;
    let count = kept.iter().sum::<usize>() as i64;
    let points = compact(&chosen.points, &all, count)?;

    let mut made = std::mem::take(&mut chosen.rows);
    for (part, kept) in made.iter_mut().flatten().zip(kept) {
        part.chosen = union::Chosen::All(kept as u32);
    }
    *chosen = Chosen::new(device, made, points)?;
    Ok(())
}

/// Whether each of `points` is among the `keep` of its part that are nearest to the part's point of `centres`. Turns change
/// no distance, so they are left out.
fn nearest(
    spans: &Spans,
    coord: &Tensor,
    points: &Tensor,
    centres: &Tensor,
    keep: &[i64],
) -> Result<Tensor, DeviceError> {
    let own = wide_axes(&coord.f_index_select(0, points)?)?;
    let centres = wide_axes(&spans.spread(&coord.f_index_select(0, centres)?)?)?;
    let square = |axis: usize| -> Result<Tensor, DeviceError> {
        let apart = own[axis].f_sub(&centres[axis])?;
        Ok(apart.f_mul(&apart)?)
    };
    let square = square(0)?.f_add(&square(1)?)?.f_add(&square(2)?)?.f_to_kind(Kind::Float)?;
    // Bits of floats that are not negative sort like the floats; ties stay in the order of points.
    let bits = square.f_view_dtype(Kind::Int)?.f_to_kind(Kind::Int64)?;
    let sorted = Sorted::new(&spans.of.f_bitwise_left_shift_tensor_scalar(32)?.f_add(&bits)?)?;
    // Sorted by part first: those of a part are where they were.
    let place = upload::range(points.device(), spans.total as usize, &[-1])?;
    let ends: Vec<i64> = spans.starts.iter().zip(keep).map(|(start, keep)| start + keep).collect();
    let ends = spans.spread(&upload::places(points.device(), &ends, &[-1])?)?;
    sorted.back(&place.f_lt_tensor(&ends)?)
}

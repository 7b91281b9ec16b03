//! Masks of many rows at once, made on the device from a few numbers a row. Shapes are (rows, 1, height, width, 1), which
//! stretch over planes and over the elements of a pixel.

use super::round::{Cells, Cross, Paste, Ranks};
use super::{DeviceError, Place, upload};
use crate::batch::Raster;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// How the rows of a list are joined with their partners.
pub(super) enum Join {
    /// True where the partner shows.
    Show(Tensor),
    /// Weights of the base and of the partner.
    Weigh(Tensor, Tensor),
}

impl Join {
    /// Of the base's weights alone; the partner's are 1 minus them, as in the scalar executor.
    fn of(own: Tensor) -> Result<Join, DeviceError> {
        let rest = own.f_rsub_scalar(1.0)?;
        Ok(Join::Weigh(own, rest))
    }
}

/// One weight a row.
pub(super) fn fades(place: &Place, of: &[(f32, f32)]) -> Result<Join, DeviceError> {
    let shape = [of.len() as i64, 1, 1, 1, 1];
    let (own, rest): (Vec<f32>, Vec<f32>) = of.iter().copied().unzip();
    Ok(Join::Weigh(upload::floats(place.device, &own, &shape)?, upload::floats(place.device, &rest, &shape)?))
}

/// Boxes and lattices.
pub(super) fn crosses(place: &Place, of: &[Cross], raster: &Raster) -> Result<Join, DeviceError> {
    let open = |from: u32, to: u32, cell: u32, hole: u32| {
        move |i: u32| (from..to).contains(&i) && (i - from) % cell < hole
    };
    let lines =
        of.iter().flat_map(|c| (0..raster.height as u32).map(open(c.crop.y0, c.crop.y1, c.cell.0, c.hole.0)));
    let columns =
        of.iter().flat_map(|c| (0..raster.width as u32).map(open(c.crop.x0, c.crop.x1, c.cell.1, c.hole.1)));
    let (lines, columns): (Vec<bool>, Vec<bool>) = (lines.collect(), columns.collect());
    let lines = upload::truths(place.device, &lines, &tall(of.len(), raster))?;
    let columns = upload::truths(place.device, &columns, &wide(of.len(), raster))?;
    Ok(Join::Show(lines.f_logical_and(&columns)?))
}

/// Where pastes go.
pub(super) fn boxes(place: &Place, of: &[Paste], raster: &Raster) -> Result<Join, DeviceError> {
    let crosses: Vec<Cross> = of.iter().map(|paste| Cross::filled(paste.to)).collect();
    self::crosses(place, &crosses, raster)
}

/// Cells: a table of all rows, looked up by line and by column.
pub(super) fn cells(place: &Place, of: &[Cells<'_>], raster: &Raster) -> Result<Join, DeviceError> {
    let Raster { height, width, .. } = *raster;
    let most = |side: usize| of.iter().map(|c| side.div_ceil(c.cell)).max().unwrap_or(0);
    let (down, across) = (most(height), most(width));
    let mut shown = vec![false; of.len() * down * across];
    for (shown, cells) in shown.chunks_exact_mut((down * across).max(1)).zip(of) {
        let lines = cells.keep.chunks(cells.columns).take(height.div_ceil(cells.cell));
        for (shown, keep) in shown.chunks_exact_mut(across).zip(lines) {
            shown.iter_mut().zip(keep).for_each(|(shown, keep)| *shown = !keep);
        }
    }
    let lines: Vec<i64> = of.iter().flat_map(|c| (0..height).map(|y| (y / c.cell) as i64)).collect();
    let columns: Vec<i64> = of.iter().flat_map(|c| (0..width).map(|x| (x / c.cell) as i64)).collect();
    let rows: Vec<i64> = (0..of.len() as i64).collect();
    let shown = upload::truths(place.device, &shown, &[of.len() as i64, down as i64, across as i64])?;
    Ok(Join::Show(look_up(place, &shown, &rows, &lines, &columns, raster)?))
}

/// Binary masks of ranks.
pub(super) fn ranks(place: &Place, of: &[Ranks<'_>], raster: &Raster) -> Result<Join, DeviceError> {
    let keep: Vec<i32> = of.iter().map(|r| r.keep as i32).collect();
    let keep = upload::small(place.device, &keep, &[of.len() as i64, 1, 1, 1, 1])?;
    Ok(Join::Show(shifted(place, of, raster)?.f_ge_tensor(&keep)?))
}

/// Soft masks of ranks: 1 below `keep - soft`, 0 from `keep + soft`, between them equal steps.
pub(super) fn ramps(place: &Place, of: &[Ranks<'_>], raster: &Raster) -> Result<Join, DeviceError> {
    let one = [of.len() as i64, 1, 1, 1, 1];
    let low: Vec<i32> = of.iter().map(|r| r.keep as i32 - r.soft as i32).collect();
    let last: Vec<i32> = of.iter().map(|r| 2 * r.soft as i32 - 1).collect();
    let low = upload::small(place.device, &low, &one)?;
    let last = upload::small(place.device, &last, &one)?;
    let none = upload::small(place.device, &[0], &[1])?;
    let above = shifted(place, of, raster)?.f_sub(&low)?.f_clamp_tensor(Some(&none), Some(&last))?;
    Join::of(above.f_to_kind(Kind::Float)?.f_div(&last.f_to_kind(Kind::Float)?)?.f_rsub_scalar(1.0)?)
}

/// Soft masks, products of lines and columns.
pub(super) fn bumps(place: &Place, of: &[(&[f32], &[f32])], raster: &Raster) -> Result<Join, DeviceError> {
    let lines: Vec<f32> = of.iter().flat_map(|(lines, _)| &lines[..raster.height]).copied().collect();
    let columns: Vec<f32> = of.iter().flat_map(|(_, columns)| &columns[..raster.width]).copied().collect();
    let lines = upload::floats(place.device, &lines, &tall(of.len(), raster))?;
    let columns = upload::floats(place.device, &columns, &wide(of.len(), raster))?;
    Join::of(lines.f_mul(&columns)?.f_rsub_scalar(1.0)?)
}

/// Soft masks, pixel by pixel.
pub(super) fn weights(place: &Place, of: &[&[f32]], raster: &Raster) -> Result<Join, DeviceError> {
    let pixels = raster.height * raster.width;
    let all: Vec<f32> = of.iter().flat_map(|weights| &weights[..pixels]).copied().collect();
    let shape = [of.len() as i64, 1, raster.height as i64, raster.width as i64, 1];
    Join::of(upload::floats(place.device, &all, &shape)?)
}

/// The fields of `of`, each shifted its own way.
fn shifted(place: &Place, of: &[Ranks<'_>], raster: &Raster) -> Result<Tensor, DeviceError> {
    let mut fields: Vec<Tensor> = Vec::new();
    let (mut known, mut rows) = (Vec::new(), Vec::new());
    for ranks in of {
        let own = Arc::as_ptr(ranks.field);
        let at = known.iter().position(|other| *other == own);
        if at.is_none() {
            known.push(own);
            fields.push(place.field(ranks.field)?);
        }
        rows.push(at.unwrap_or(known.len() - 1) as i64);
    }
    let cyclic = |shift: u32, side: usize| {
        let shift = shift as usize % side;
        (0..side).map(move |i| ((i + shift) % side) as i64)
    };
    let lines: Vec<i64> = of.iter().flat_map(|r| cyclic(r.shift.0, raster.height)).collect();
    let columns: Vec<i64> = of.iter().flat_map(|r| cyclic(r.shift.1, raster.width)).collect();
    look_up(place, &Tensor::f_stack(&fields, 0)?, &rows, &lines, &columns, raster)
}

/// What `table` (tables, lines, columns) has for every pixel of every row: of table `rows[i]`, line `lines[i, y]`,
/// column `columns[i, x]`.
fn look_up(
    place: &Place,
    table: &Tensor,
    rows: &[i64],
    lines: &[i64],
    columns: &[i64],
    raster: &Raster,
) -> Result<Tensor, DeviceError> {
    let rows_at = upload::places(place.device, rows, &[rows.len() as i64, 1, 1, 1, 1])?;
    let lines = upload::places(place.device, lines, &tall(rows.len(), raster))?;
    let columns = upload::places(place.device, columns, &wide(rows.len(), raster))?;
    Ok(table.f_index(&[Some(rows_at), Some(lines), Some(columns)])?)
}

/// Sizes of one number a line of each row.
pub(super) fn tall(rows: usize, raster: &Raster) -> [i64; 5] {
    [rows as i64, 1, raster.height as i64, 1, 1]
}

/// Sizes of one number a column of each row.
pub(super) fn wide(rows: usize, raster: &Raster) -> [i64; 5] {
    [rows as i64, 1, 1, raster.width as i64, 1]
}

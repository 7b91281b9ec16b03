//! From decoded parts of pictures, each of its own size, to clean rows: resampled, turned, coloured and erased.
//!
//! Resampling is what the decoder's resampler does, to the last bit (see [`super::tables`]): lines first, rounded to
//! levels, then columns. Both passes are sums of weighted rows of a table, `embedding_bag`: a picture's lines are the
//! first table, and the columns of what came out of it, turned over, the second. Mirroring reverses the sums' order, so it
//! costs nothing.

use super::masks::{self, Join};
use super::round::Cross;
use super::tables::{Axis, Bags};
use super::{DeviceError, Place, colours, host, upload};
use crate::batch::{CHANNELS, Crop, Raster, Turn};
use crate::exec::device::Picture;
use crate::exec::finish::{interleaved, turned};
use crate::exec::simd::Level;
use crate::plan::Rect;
use tch::Tensor;

const C: i64 = CHANNELS as i64;

/// One picture, which was checked, to a clean row in this process's memory.
pub(super) fn one<B: AsRef<[u8]>>(
    place: &Place,
    picture: &Picture<B>,
    raster: &Raster,
    row: &mut [u8],
) -> Result<(), DeviceError> {
    if raster.step == 1 {
        return planes(place, picture, raster, row);
    }
    let mut apart = vec![0; raster.len()];
    planes(place, picture, raster, &mut apart)?;
    interleaved(Level::best(), &apart, row);
    Ok(())
}

/// As [`one`], planar.
fn planes<B: AsRef<[u8]>>(
    place: &Place,
    picture: &Picture<B>,
    raster: &Raster,
    row: &mut [u8],
) -> Result<(), DeviceError> {
    let (Kind { transposed, copied }, view) = (kind(picture), &picture.view);
    let pixels = &picture.pixels.as_ref()[..picture.bytes()];
    if copied.is_some() {
        // Bytes that only change places; libtorch copies between such layouts one by one.
        turned(Level::best(), view.turn, pixels, raster.width, row);
        if view.colour.is_empty() && view.erase.is_none() {
            return Ok(());
        }
    }
    host::written(row, &planar(1, raster), |to| {
        if copied.is_none() {
            let shape = [i64::from(picture.height), i64::from(picture.width) * C];
            let rows = host::seen(pixels, &shape, |lines| resampled(place, &[picture], lines))?;
            put(&rows, transposed, to)?;
        }
        colours::apply(place, &[&view.colour], to)?;
        erase(place, &[picture], raster, to)
    })
}

/// Sizes of `rows` rows: row, channel, y, x.
fn planar(rows: usize, raster: &Raster) -> [i64; 4] {
    [rows as i64, C, raster.height as i64, raster.width as i64]
}

/// Rows (row, channel, y, x) as (row, plane, y, x, channel) of interleaved pictures.
fn packed(rows: &Tensor) -> Result<Tensor, DeviceError> {
    Ok(rows.f_permute([0, 2, 3, 1])?.f_unsqueeze(1)?)
}

/// Clean rows of `pictures`, which were checked and lie one behind the other in `pack`: (row, plane, y, x, element), u8.
/// Those are resampled together that take at most `most` bytes of f32.
pub(super) fn together<B>(
    place: &Place,
    pictures: &[Picture<B>],
    pack: &Tensor,
    raster: &Raster,
    most: usize,
) -> Result<Tensor, DeviceError> {
    let mut clean = Tensor::f_empty(super::shape(pictures.len(), raster), (tch::Kind::Uint8, place.device))?;
    let pack = pack.f_view([-1, C])?;
    let mut begins = Vec::with_capacity(pictures.len());
    let mut pixels = 0;
    for picture in pictures {
        begins.push(pixels as i64);
        pixels += picture.bytes() / CHANNELS;
    }
    // Pictures of one chunk lie in one table: those of like sizes waste least of it.
    let mut order: Vec<usize> = (0..pictures.len()).collect();
    order.sort_by_key(|at| (kind(&pictures[*at]), pictures[*at].width, pictures[*at].height));
    for own in chunks(&order, pictures, most) {
        let some: Vec<&Picture<B>> = own.iter().map(|at| &pictures[*at]).collect();
        let begins: Vec<i64> = own.iter().map(|at| begins[*at]).collect();
        let lines = padded(place, &pack, &some, &begins)?;
        let mut rows = Tensor::f_empty(planar(own.len(), raster), (tch::Kind::Uint8, place.device))?;
        chunk(place, &some, &lines, raster, &mut rows)?;
        let rows = if raster.step == 1 { rows.f_unsqueeze(4)? } else { packed(&rows)? };
        let at: Vec<i64> = own.iter().map(|at| *at as i64).collect();
        let at = upload::places(place.device, &at, &[at.len() as i64])?;
        let _ = clean.f_index_copy_(0, &at, &rows)?;
    }
    Ok(clean)
}

/// What pictures of one chunk have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    transposed: bool,
    /// Only turned: whether mirrored top-bottom and left-right, before it is transposed. Resampling mirrors by itself.
    copied: Option<[bool; 2]>,
}

fn kind<B>(picture: &Picture<B>) -> Kind {
    let Picture { height, width, crop, view, .. } = picture;
    let whole = Crop { y: 0.0, x: 0.0, height: f64::from(*height), width: f64::from(*width) };
    let copied = view.size == (*height, *width) && *crop == whole;
    Kind { transposed: view.turn.transpose, copied: copied.then(|| mirrors(view.turn)) }
}

/// Whether lines and columns of what was decoded come in reverse: a transposed picture shows its lines as columns.
fn mirrors(turn: Turn) -> [bool; 2] {
    if turn.transpose { [turn.mirror_x, turn.mirror_y] } else { [turn.mirror_y, turn.mirror_x] }
}

/// Refuses what lies beyond a picture's bytes or the raster, and crops that are not inside of their pictures.
pub(super) fn check<B: AsRef<[u8]>>(pictures: &[Picture<B>], raster: &Raster) -> Result<(), DeviceError> {
    let inside = |start: f64, length: f64, all: u32| {
        start >= 0.0 && length > 0.0 && start + length <= f64::from(all) + 1e-6
    };
    let fits = |picture: &Picture<B>| {
        let Picture { height, width, crop, view, .. } = picture;
        let size =
            if view.turn.transpose { (raster.width, raster.height) } else { (raster.height, raster.width) };
        picture.pixels.as_ref().len() >= picture.bytes()
            && (view.size.0 as usize, view.size.1 as usize) == size
            && inside(crop.y, crop.height, *height)
            && inside(crop.x, crop.width, *width)
            && view
                .erase
                .is_none_or(|(rect, _)| rect.y1 as usize <= raster.height && rect.x1 as usize <= raster.width)
    };
    let misfit = pictures.iter().position(|picture| !fits(picture));
    misfit.map_or(Ok(()), |row| Err(DeviceError::Misfit { row }))
}

/// Cuts `order` where the kind changes or the table would take more than `most` bytes of f32.
fn chunks<'a, B>(
    order: &'a [usize],
    pictures: &'a [Picture<B>],
    most: usize,
) -> impl Iterator<Item = &'a [usize]> {
    let mut rest = order;
    std::iter::from_fn(move || {
        let first = &pictures[*rest.first()?];
        let (mut height, mut width) = (0, 0);
        let fits = |(n, at): (usize, &usize)| {
            let next = &pictures[*at];
            (height, width) = (next.height.max(height), next.width.max(width));
            let bytes = (n + 1) * height as usize * width as usize * CHANNELS * 4;
            kind(next) == kind(first) && (n == 0 || bytes <= most)
        };
        let end = rest.iter().enumerate().map(fits).take_while(|fits| *fits).count();
        let (own, after) = rest.split_at(end);
        rest = after;
        Some(own)
    })
}

/// The lines of `pictures`, which begin at pixels `begins` of `pack`, all of one length: (picture and line, pixel and
/// channel), u8. What lies beyond a picture is of any value.
fn padded<B>(
    place: &Place,
    pack: &Tensor,
    pictures: &[&Picture<B>],
    begins: &[i64],
) -> Result<Tensor, DeviceError> {
    let (n, (height, width)) = (pictures.len() as i64, largest(pictures));
    let widths: Vec<i64> = pictures.iter().map(|picture| i64::from(picture.width)).collect();
    let lines = upload::range(place.device, height, &[1, height as i64, 1])?;
    let mut lines = lines.f_mul(&upload::places(place.device, &widths, &[n, 1, 1])?)?;
    let begins = lines.f_add_(&upload::places(place.device, begins, &[n, 1, 1])?)?;
    let pixels = begins.f_add(&upload::range(place.device, width, &[1, 1, width as i64])?)?;
    let pixels = pixels.f_clamp_max(pack.size()[0] - 1)?.f_view([-1])?;
    let table = pack.f_index_select(0, &pixels)?;
    Ok(table.f_view([n * height as i64, width as i64 * C])?)
}

/// Height and width that hold each of `pictures`.
fn largest<B>(pictures: &[&Picture<B>]) -> (usize, usize) {
    let most =
        |of: fn(&Picture<B>) -> u32| pictures.iter().map(|picture| of(picture)).max().unwrap_or(0) as usize;
    (most(|picture| picture.height), most(|picture| picture.width))
}

/// Writes clean rows of `pictures` of one kind, whose `lines` (u8) are of one length, to `to` (row, channel, y, x).
fn chunk<B>(
    place: &Place,
    pictures: &[&Picture<B>],
    lines: &Tensor,
    raster: &Raster,
    to: &mut Tensor,
) -> Result<(), DeviceError> {
    let own = pictures.first().map_or_else(Default::default, |picture| kind(picture));
    match own.copied {
        Some(mirrors) => {
            let rows = copied(pictures, lines, mirrors)?;
            to.f_copy_(&if own.transposed { rows.f_transpose(2, 3)? } else { rows })?;
        }
        None => put(&resampled(place, pictures, lines)?, own.transposed, to)?,
    }
    let changes: Vec<_> = pictures.iter().map(|picture| &picture.view.colour[..]).collect();
    colours::apply(place, &changes, to)?;
    erase(place, pictures, raster, to)
}

/// Pictures that are only turned, before they are transposed: (picture, channel, line, column).
fn copied<B>(pictures: &[&Picture<B>], lines: &Tensor, mirrors: [bool; 2]) -> Result<Tensor, DeviceError> {
    let (height, width) = largest(pictures);
    let rows =
        lines.f_view([pictures.len() as i64, height as i64, width as i64, C])?.f_permute([0, 3, 1, 2])?;
    let dims = mirrors.into_iter().zip([2, 3]).filter_map(|(mirror, dim)| mirror.then_some(dim));
    let dims: Vec<i64> = dims.collect();
    Ok(if dims.is_empty() { rows } else { rows.f_flip(&dims[..])? })
}

/// Two passes over `lines` (u8): (picture, column, channel, line), u8.
fn resampled<B>(place: &Place, pictures: &[&Picture<B>], lines: &Tensor) -> Result<Tensor, DeviceError> {
    let (n, (high, wide)) = (pictures.len() as i64, largest(pictures));
    let (mut down, mut across) = (Bags::default(), Bags::default());
    let (mut height, mut width) = (0, 0);
    for (i, picture) in pictures.iter().enumerate() {
        let Picture { crop, view, .. } = picture;
        (height, width) = (i64::from(view.size.0), i64::from(view.size.1));
        let mirror = mirrors(view.turn);
        let y = (crop.y, crop.height);
        let axis = Axis { input: picture.height, crop: y, output: view.size.0, mirrored: mirror[0] };
        down.add(axis, i * high)?;
        let x = (crop.x, crop.width);
        let axis = Axis { input: picture.width, crop: x, output: view.size.1, mirrored: mirror[1] };
        across.add(axis, i * wide)?;
    }
    let wide = wide as i64;
    let lines = summed(place, &lines.f_to_kind(tch::Kind::Float)?, &down)?.f_floor_()?;
    let columns = flipped(&lines.f_view([n, height, wide * C])?)?.f_reshape([n * wide, C * height])?;
    // Bytes are floors of floats.
    Ok(summed(place, &columns, &across)?.f_to_kind(tch::Kind::Uint8)?.f_view([n, width, C, height])?)
}

/// Weighted sums of rows of `table`, and a half: levels are their floors.
fn summed(place: &Place, table: &Tensor, bags: &Bags) -> Result<Tensor, DeviceError> {
    let len = bags.inputs.len() as i64;
    let inputs = upload::small(place.device, &bags.inputs, &[len])?;
    let begins = upload::small(place.device, &bags.begins, &[bags.begins.len() as i64])?;
    let weights = upload::floats(place.device, &bags.weights, &[len])?;
    let (mut sums, ..) =
        Tensor::f_embedding_bag(table, &inputs, &begins, false, 0, false, Some(&weights), false)?;
    Ok(sums.f_add_scalar_(0.5)?)
}

/// Matrices with lines and columns exchanged. libtorch has a fast way for one, and only where it has two dimensions.
fn flipped(matrices: &Tensor) -> Result<Tensor, DeviceError> {
    match matrices.size()[0] {
        1 => Ok(matrices.f_squeeze_dim(0)?.f_transpose(0, 1)?),
        _ => Ok(matrices.f_transpose(1, 2)?),
    }
}

/// Writes what was resampled to rows (row, channel, y, x).
fn put(made: &Tensor, transposed: bool, to: &mut Tensor) -> Result<(), DeviceError> {
    let (n, width, _, height) = made.size4()?;
    if transposed {
        return Ok(to.f_copy_(&made.f_permute([0, 2, 1, 3])?)?);
    }
    let rows = flipped(&made.f_view([n, width, C * height])?)?;
    Ok(to.f_view(&rows.size()[..])?.f_copy_(&rows)?)
}

/// Fills the erased box of each picture.
fn erase<B>(
    place: &Place,
    pictures: &[&Picture<B>],
    raster: &Raster,
    rows: &mut Tensor,
) -> Result<(), DeviceError> {
    let erased: Vec<_> = pictures.iter().map(|picture| picture.view.erase.unwrap_or_default()).collect();
    if erased.iter().all(|(rect, _)| rect.area() == 0) {
        return Ok(());
    }
    let values: Vec<u8> = erased.iter().flat_map(|(_, value)| *value).collect();
    let values = upload::sent(place.device, &values, &[pictures.len() as i64, C, 1, 1])?;
    if let [(Rect { y0, y1, x0, x1 }, _)] = erased[..] {
        let lines = rows.f_narrow(2, i64::from(y0), i64::from(y1 - y0))?;
        return Ok(lines.f_narrow(3, i64::from(x0), i64::from(x1 - x0))?.f_copy_(&values)?);
    }
    let most = (u32::MAX, u32::MAX);
    let boxes: Vec<_> =
        erased.iter().map(|(rect, _)| Cross { crop: *rect, cell: most, hole: most }).collect();
    if let Join::Show(inside) = masks::crosses(place, &boxes, raster)? {
        let filled = values.f_where_self(&inside.f_squeeze_dim(4)?, rows)?;
        rows.f_copy_(&filled)?;
    }
    Ok(())
}

//! From decoded parts of pictures, each of its own size, to clean rows: resampled, turned, coloured and erased.
//!
//! Resampling is what the decoder's resampler does, to the last bit (see [`super::tables`]): lines first, rounded to
//! levels, then columns. Both passes are sums of weighted rows of a table, `embedding_bag`: a picture's lines are the
//! first table, and the columns of what came out of it, turned over, the second. Mirroring reverses the sums' order, so it
//! costs nothing.

use super::masks::{self, Join};
use super::round::Cross;
use super::tables::{Axis, Bags};
use super::{DeviceError, Torch, colours, host, upload};
use crate::batch::{CHANNELS, Crop, Raster, Turn};
use crate::exec::device::Picture;
use crate::plan::Rect;
use tch::Tensor;

const C: i64 = CHANNELS as i64;

/// Clean rows of `pictures`, which were checked: (row, plane, y, x, element), u8.
pub(super) fn finish<B: AsRef<[u8]>>(
    torch: &Torch,
    pictures: &[Picture<B>],
    pack: Option<&Tensor>,
    raster: &Raster,
) -> Result<Tensor, DeviceError> {
    let clean = Tensor::f_empty(super::shape(pictures.len(), raster), (tch::Kind::Uint8, torch.device))?;
    match pack {
        Some(pack) => together(torch, pictures, pack, raster, clean),
        None => one_by_one(torch, pictures, raster, clean),
    }
}

fn one_by_one<B: AsRef<[u8]>>(
    torch: &Torch,
    pictures: &[Picture<B>],
    raster: &Raster,
    clean: Tensor,
) -> Result<Tensor, DeviceError> {
    for (at, picture) in pictures.iter().enumerate() {
        let shape = [i64::from(picture.height), i64::from(picture.width) * C];
        let mut own = clean.f_narrow(0, at as i64, 1)?;
        host::seen(picture.pixels.as_ref(), &shape, |lines| match raster.step {
            1 => chunk(torch, &[picture], lines, raster, &mut own.f_squeeze_dim(4)?),
            _ => {
                let mut rows = Tensor::f_empty(planar(1, raster), (tch::Kind::Uint8, torch.device))?;
                chunk(torch, &[picture], lines, raster, &mut rows)?;
                Ok(own.f_copy_(&packed(&rows)?)?)
            }
        })?;
    }
    Ok(clean)
}

/// Sizes of `rows` rows: row, channel, y, x.
fn planar(rows: usize, raster: &Raster) -> [i64; 4] {
    [rows as i64, C, raster.height as i64, raster.width as i64]
}

/// Rows (row, channel, y, x) as (row, plane, y, x, channel) of interleaved pictures.
fn packed(rows: &Tensor) -> Result<Tensor, DeviceError> {
    Ok(rows.f_permute([0, 2, 3, 1])?.f_unsqueeze(1)?)
}

fn together<B>(
    torch: &Torch,
    pictures: &[Picture<B>],
    pack: &Tensor,
    raster: &Raster,
    mut clean: Tensor,
) -> Result<Tensor, DeviceError> {
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
    for own in chunks(&order, pictures, torch.together) {
        let some: Vec<&Picture<B>> = own.iter().map(|at| &pictures[*at]).collect();
        let begins: Vec<i64> = own.iter().map(|at| begins[*at]).collect();
        let lines = padded(torch, &pack, &some, &begins)?;
        let mut rows = Tensor::f_empty(planar(own.len(), raster), (tch::Kind::Uint8, torch.device))?;
        chunk(torch, &some, &lines, raster, &mut rows)?;
        let rows = if raster.step == 1 { rows.f_unsqueeze(4)? } else { packed(&rows)? };
        let at: Vec<i64> = own.iter().map(|at| *at as i64).collect();
        let at = upload::places(torch.device, &at, &[at.len() as i64])?;
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
    torch: &Torch,
    pack: &Tensor,
    pictures: &[&Picture<B>],
    begins: &[i64],
) -> Result<Tensor, DeviceError> {
    let (n, (height, width)) = (pictures.len() as i64, largest(pictures));
    let widths: Vec<i64> = pictures.iter().map(|picture| i64::from(picture.width)).collect();
    let lines = upload::range(torch.device, height, &[1, height as i64, 1])?;
    let mut lines = lines.f_mul(&upload::places(torch.device, &widths, &[n, 1, 1])?)?;
    let begins = lines.f_add_(&upload::places(torch.device, begins, &[n, 1, 1])?)?;
    let pixels = begins.f_add(&upload::range(torch.device, width, &[1, 1, width as i64])?)?;
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
    torch: &Torch,
    pictures: &[&Picture<B>],
    lines: &Tensor,
    raster: &Raster,
    to: &mut Tensor,
) -> Result<(), DeviceError> {
    let own = pictures.first().map_or_else(Default::default, |picture| kind(picture));
    // (picture, channel, line, column) of what was decoded.
    let rows = match own.copied {
        Some(mirrors) => copied(pictures, lines, mirrors)?,
        None => resampled(torch, pictures, &lines.f_to_kind(tch::Kind::Float)?)?.f_permute([0, 3, 2, 1])?,
    };
    to.f_copy_(&if own.transposed { rows.f_transpose(2, 3)? } else { rows })?;
    let changes: Vec<_> = pictures.iter().map(|picture| &picture.view.colour[..]).collect();
    colours::apply(torch, &changes, to)?;
    erase(torch, pictures, raster, to)
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

/// Two passes over `lines`: (picture, column, line, channel), u8.
fn resampled<B>(torch: &Torch, pictures: &[&Picture<B>], lines: &Tensor) -> Result<Tensor, DeviceError> {
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
    let lines = summed(torch, lines, &down)?.f_view([n, height, wide, C])?;
    let columns = lines.f_permute([0, 2, 1, 3])?.f_reshape([n * wide, height * C])?;
    Ok(summed(torch, &columns, &across)?.f_to_kind(tch::Kind::Uint8)?.f_view([n, width, height, C])?)
}

/// Weighted sums of rows of `table`, as levels: the floor of the sum and a half.
fn summed(torch: &Torch, table: &Tensor, bags: &Bags) -> Result<Tensor, DeviceError> {
    let len = bags.inputs.len() as i64;
    let inputs = upload::small(torch.device, &bags.inputs, &[len])?;
    let begins = upload::small(torch.device, &bags.begins, &[bags.begins.len() as i64])?;
    let weights = upload::floats(torch.device, &bags.weights, &[len])?;
    let (mut sums, ..) =
        Tensor::f_embedding_bag(table, &inputs, &begins, false, 0, false, Some(&weights), false)?;
    Ok(sums.f_add_scalar_(0.5)?.f_floor_()?)
}

/// Fills the erased box of each picture.
fn erase<B>(
    torch: &Torch,
    pictures: &[&Picture<B>],
    raster: &Raster,
    rows: &mut Tensor,
) -> Result<(), DeviceError> {
    let erased: Vec<_> = pictures.iter().map(|picture| picture.view.erase.unwrap_or_default()).collect();
    if erased.iter().all(|(rect, _)| rect.area() == 0) {
        return Ok(());
    }
    let values: Vec<u8> = erased.iter().flat_map(|(_, value)| *value).collect();
    let values = upload::sent(torch.device, &values, &[pictures.len() as i64, C, 1, 1])?;
    if let [(Rect { y0, y1, x0, x1 }, _)] = erased[..] {
        let lines = rows.f_narrow(2, i64::from(y0), i64::from(y1 - y0))?;
        return Ok(lines.f_narrow(3, i64::from(x0), i64::from(x1 - x0))?.f_copy_(&values)?);
    }
    let most = (u32::MAX, u32::MAX);
    let boxes: Vec<_> =
        erased.iter().map(|(rect, _)| Cross { crop: *rect, cell: most, hole: most }).collect();
    if let Join::Show(inside) = masks::crosses(torch, &boxes, raster)? {
        let filled = values.f_where_self(&inside.f_squeeze_dim(4)?, rows)?;
        rows.f_copy_(&filled)?;
    }
    Ok(())
}

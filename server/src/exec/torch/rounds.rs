//! From clean rows to mixed ones: round after round, list after list.

use super::masks::{self, Join};
use super::round::{List, Paste, Round};
use super::{DeviceError, Place, resample, upload};
use crate::batch::{Dtype, Raster};
use crate::exec::Format;
use crate::plan::{Rect, Row};
use tch::{Kind, Tensor};

/// Carries out `rows` on `clean` (row, plane, y, x, element; u8). The result has values 0..=255: u8 for an output of
/// bytes, or as long as no op computed anything, else f32.
pub(super) fn run(
    place: &Place,
    rows: &[Row],
    clean: &Tensor,
    format: &Format,
) -> Result<Tensor, DeviceError> {
    let bases: Vec<i64> = rows.iter().map(|row| i64::from(row.base)).collect();
    let mut work = Work {
        clean,
        raster: &format.raster,
        rounds: format.dtype == Dtype::U8,
        rows: rows.len(),
        made: gather(place, clean, &bases)?,
        owned: false,
    };
    let rounds = rows.iter().map(|row| row.ops.len()).max().unwrap_or(0);
    // Each is a call of its own: cheap on the CPU, and on a device dearer than to pass over all pixels.
    let slices = !place.device.is_cuda();
    for number in 0..rounds {
        work.round(place, &Round::new(rows, number, slices))?;
    }
    Ok(work.made)
}

/// Rows of a chunk while they are made.
struct Work<'a> {
    clean: &'a Tensor,
    raster: &'a Raster,
    /// Values become bytes again after each op.
    rounds: bool,
    rows: usize,
    made: Tensor,
    /// `made` shares no memory with `clean`.
    owned: bool,
}

impl Work<'_> {
    fn round(&mut self, place: &Place, round: &Round<'_>) -> Result<(), DeviceError> {
        let raster = self.raster;
        self.list(place, &round.fades, masks::fades)?;
        self.copies(&round.copies)?;
        self.list(place, &round.crosses, |place, of| masks::crosses(place, of, raster))?;
        self.list(place, &round.cells, |place, of| masks::cells(place, of, raster))?;
        self.list(place, &round.ranks, |place, of| masks::ranks(place, of, raster))?;
        self.list(place, &round.ramps, |place, of| masks::ramps(place, of, raster))?;
        self.list(place, &round.bumps, |place, of| masks::bumps(place, of, raster))?;
        self.list(place, &round.weights, |place, of| masks::weights(place, of, raster))?;
        if !round.moves.of.is_empty() {
            let join = masks::boxes(place, &round.moves.of, raster)?;
            let partners = resample::moved(place, self.clean, &round.moves, raster)?;
            self.join(place, &round.moves.at, &partners, &join)?;
        }
        if !round.scales.of.is_empty() {
            let join = masks::boxes(place, &round.scales.of, raster)?;
            let partners = gather(place, self.clean, &round.scales.src)?;
            let mut partners = resample::scaled(place, &partners, &round.scales.of, raster)?;
            if self.rounds {
                partners = partners.f_round_()?.f_to_kind(Kind::Uint8)?;
            }
            self.join(place, &round.scales.at, &partners, &join)?;
        }
        Ok(())
    }

    /// Copies boxes of partners.
    fn copies(&mut self, copies: &List<Paste>) -> Result<(), DeviceError> {
        if copies.of.is_empty() {
            return Ok(());
        }
        self.own(self.made.kind())?;
        let part = |rows: &Tensor, row: i64, Rect { y0, x0, y1, x1 }: Rect| {
            let lines = rows.f_narrow(0, row, 1)?.f_narrow(2, y0.into(), (y1 - y0).into())?;
            lines.f_narrow(3, x0.into(), (x1 - x0).into())
        };
        for ((at, src), Paste { from, to, .. }) in copies.at.iter().zip(&copies.src).zip(&copies.of) {
            let mut place = part(&self.made, *at, *to)?;
            place.f_copy_(&part(self.clean, *src, *from)?)?;
        }
        Ok(())
    }

    /// Makes `made` memory of its own, of `kind`.
    fn own(&mut self, kind: Kind) -> Result<(), DeviceError> {
        if kind != self.made.kind() || !self.owned {
            self.made = self.made.f_to_dtype(kind, false, true)?;
            self.owned = true;
        }
        Ok(())
    }

    /// Joins the rows of `list` with their partners as they are.
    fn list<T>(
        &mut self,
        place: &Place,
        list: &List<T>,
        join: impl FnOnce(&Place, &[T]) -> Result<Join, DeviceError>,
    ) -> Result<(), DeviceError> {
        if list.of.is_empty() {
            return Ok(());
        }
        let join = join(place, &list.of)?;
        let partners = gather(place, self.clean, &list.src)?;
        self.join(place, &list.at, &partners, &join)
    }

    /// Joins the rows `at` with `partners`.
    fn join(&mut self, place: &Place, at: &[i64], partners: &Tensor, join: &Join) -> Result<(), DeviceError> {
        if at.len() == self.rows {
            self.made = self.joined(&self.made, partners, join)?;
            self.owned = true;
            return Ok(());
        }
        let places = upload::places(place.device, at, &[at.len() as i64])?;
        let some = self.joined(&self.made.f_index_select(0, &places)?, partners, join)?;
        // Rows of one chunk share a type: the first computed float makes floats of all of them.
        self.own(if some.kind() == self.made.kind() { some.kind() } else { Kind::Float })?;
        let _ = self.made.f_index_copy_(0, &places, &some.f_to_kind(self.made.kind())?)?;
        Ok(())
    }

    fn joined(&self, own: &Tensor, partners: &Tensor, join: &Join) -> Result<Tensor, DeviceError> {
        match join {
            Join::Show(mask) => Ok(partners.f_where_self(mask, own)?),
            Join::Weigh(weight, rest) => {
                let mut sum = own.f_mul(weight)?.f_addcmul_(partners, rest)?;
                match self.rounds {
                    true => Ok(sum.f_round_()?.f_to_kind(Kind::Uint8)?),
                    false => Ok(sum),
                }
            }
        }
    }
}

/// Rows `which` of `clean`; a view of them where they follow each other.
fn gather(place: &Place, clean: &Tensor, which: &[i64]) -> Result<Tensor, DeviceError> {
    let first = which.first().copied().unwrap_or(0);
    if which.iter().zip(first..).all(|(row, next)| *row == next) {
        return Ok(clean.f_narrow(0, first, which.len() as i64)?);
    }
    let which = upload::places(place.device, which, &[which.len() as i64])?;
    Ok(clean.f_index_select(0, &which)?)
}

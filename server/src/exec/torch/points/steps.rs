//! What each op does to the points of the scenes that have it: the arithmetic of [`crate::plan::scene::SceneOp`], in its order.

use super::groups::Group;
use super::spans::Spans;
use super::{DeviceError, axes};
use crate::exec::points::matrix;
use crate::exec::torch::upload;
use crate::plan::scene::SceneOp;
use tch::{Device, Kind, Tensor};

/// What an op holds, if it is of this kind.
macro_rules! match_op {
    ($op:expr, $kind:pat => $value:expr) => {
        if let $kind = $op { Some($value) } else { None }
    };
}
pub(super) use match_op;

/// The points of a group's scenes.
pub(super) struct Members {
    pub spans: Spans,
    /// Which of all points they are; absent for all.
    rows: Option<Tensor>,
}

impl Members {
    pub(super) fn new(all: &Spans, group: &Group<'_>) -> Result<Members, DeviceError> {
        let lens = group.scenes.iter().map(|scene| all.lens[*scene]).collect();
        let spans = Spans::new(all.of.device(), lens)?;
        let starts: Vec<i64> = group.scenes.iter().map(|scene| all.starts[*scene]).collect();
        let rows = if spans.total == all.total { None } else { Some(spans.places(&starts)?) };
        Ok(Members { spans, rows })
    }

    /// Sets their values to what `op` makes of them.
    pub(super) fn change(
        &self,
        values: &mut Tensor,
        op: impl FnOnce(&Tensor) -> Result<Tensor, DeviceError>,
    ) -> Result<(), DeviceError> {
        *values = match &self.rows {
            None => op(values)?,
            Some(rows) => values.f_index_copy(0, rows, &op(&values.f_index_select(0, rows)?)?)?,
        };
        Ok(())
    }

    /// [`Members::change`] where there is something.
    pub(super) fn change_some(
        &self,
        values: &mut Option<Tensor>,
        op: impl FnOnce(&Tensor) -> Result<Tensor, DeviceError>,
    ) -> Result<(), DeviceError> {
        values.as_mut().map_or(Ok(()), |values| self.change(values, op))
    }

    pub(super) fn device(&self) -> Device {
        self.spans.of.device()
    }

    /// A table with what `of` finds in each op, a line each.
    pub(super) fn table<const N: usize>(
        &self,
        ops: &[&SceneOp],
        of: impl Fn(&SceneOp) -> Option<[f32; N]>,
    ) -> Result<Tensor, DeviceError> {
        let lines: Vec<[f32; N]> = ops.iter().filter_map(|op| of(op)).collect();
        upload::floats(self.device(), lines.as_flattened(), &[-1, N as i64])
    }

    /// For each point the line of its scene.
    fn spread(&self, table: &Tensor) -> Result<Tensor, DeviceError> {
        self.spans.spread(table)
    }

    /// Mean of each scene, f64 (scenes, 3).
    fn means(&self, coord: &Tensor) -> Result<Tensor, DeviceError> {
        let axis: &[i64] = &[0];
        let sums = self.spans.each(coord, |run| Ok(run.f_sum_dim_intlist(axis, false, Kind::Double)?))?;
        let counts: Vec<f64> = self.spans.lens.iter().map(|len| *len as f64).collect();
        Ok(sums.f_div(&upload::sent(self.device(), &counts, &[-1, 1])?)?)
    }
}

/// `(c - mean) as f32` in f64.
pub(super) fn centre(members: &Members, coord: &Tensor) -> Result<Tensor, DeviceError> {
    let means = members.spread(&members.means(coord)?)?;
    Ok(coord.f_to_kind(Kind::Double)?.f_sub(&means)?.f_to_kind(Kind::Float)?)
}

/// `c + 0.5 * (min + fraction * (max - min))`.
pub(super) fn shift(members: &Members, coord: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    let fraction = members.table(ops, |op| match_op!(op, SceneOp::Shift { fraction } => *fraction))?;
    let (low, high) = members.spans.bounds(coord)?;
    let by = low.f_add(&fraction.f_mul(&high.f_sub(&low)?)?)?.f_mul_scalar(0.5)?;
    Ok(coord.f_add(&members.spread(&by)?)?)
}

/// `c * factor`.
pub(super) fn scale(members: &Members, coord: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    let factor = members.table(ops, |op| match_op!(op, SceneOp::Scale { factor } => *factor))?;
    Ok(coord.f_mul(&members.spread(&factor)?)?)
}

/// `from + sign * c`; -0 is added exactly where nothing is mirrored.
pub(super) fn flip(members: &Members, coord: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    // What is added to the largest coordinate: the smallest one, or nothing.
    let both = members.table(
        ops,
        |op| match_op!(op, SceneOp::Flip { translate, .. } => [if *translate { 0.0 } else { 1.0 }]),
    )?;
    let mirrored = members.table(
        ops,
        |op| match_op!(op, SceneOp::Flip { axes, .. } => axes.map(|axis| if axis { 1.0 } else { 0.0 })),
    )?;
    let (low, high) = members.spans.bounds(coord)?;
    let from = low.f_add(&high)?.f_where_self(&both.f_gt(0.5)?, &high)?;
    let from = from.f_where_scalarother(&mirrored.f_gt(0.5)?, -0.0)?;
    Ok(members.spread(&from)?.f_add(&sign(members, coord, ops)?)?)
}

/// `sign * v`.
pub(super) fn sign(members: &Members, values: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    let sign = members.table(
        ops,
        |op| match_op!(op, SceneOp::Flip { axes, .. } => axes.map(|axis| if axis { -1.0 } else { 1.0 })),
    )?;
    Ok(members.spread(&sign)?.f_mul(values)?)
}

/// [`turn`] about the means.
pub(super) fn rotate(members: &Members, coord: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    let about = members.means(coord)?.f_to_kind(Kind::Float)?;
    turn(members, coord, ops, &members.spread(&about)?)
}

/// `((m0 * dx + m1 * dy) + m2 * dz) + about` with `d = v - about`.
pub(super) fn turn(
    members: &Members,
    values: &Tensor,
    ops: &[&SceneOp],
    about: &Tensor,
) -> Result<Tensor, DeviceError> {
    let column = |of: usize| -> Result<Tensor, DeviceError> {
        let table = members.table(
            ops,
            |op| match_op!(op, SceneOp::Rotate { angles } => matrix(angles).map(|row| row[of])),
        )?;
        members.spread(&table)
    };
    let [x, y, z] = axes(&values.f_sub(about)?)?;
    let part = |of: usize, along: &Tensor| -> Result<Tensor, DeviceError> {
        Ok(column(of)?.f_mul(&along.f_unsqueeze(1)?)?)
    };
    Ok(part(0, &x)?.f_add(&part(1, &y)?)?.f_add(&part(2, &z)?)?.f_add(about)?)
}

/// `clip(clip(gain * v + offset) + shift)`.
pub(super) fn tint(members: &Members, color: &Tensor, ops: &[&SceneOp]) -> Result<Tensor, DeviceError> {
    let gain = members.table(ops, |op| match_op!(op, SceneOp::Colour { gain, .. } => [*gain]))?;
    let offset = members.table(ops, |op| match_op!(op, SceneOp::Colour { offset, .. } => [*offset]))?;
    let shift = members.table(ops, |op| match_op!(op, SceneOp::Colour { shift, .. } => *shift))?;
    let tinted = members.spread(&gain)?.f_mul(color)?.f_add(&members.spread(&offset)?)?;
    clip(&clip(&tinted)?.f_add(&members.spread(&shift)?)?)
}

/// `v * 0` for channels that are dropped.
pub(super) fn drop_channels(
    members: &Members,
    color: &Tensor,
    ops: &[&SceneOp],
) -> Result<Tensor, DeviceError> {
    let gain = members.table(
        ops,
        |op| match_op!(op, SceneOp::ChannelDrop { drop } => drop.map(|drop| if drop { 0.0 } else { 1.0 })),
    )?;
    Ok(color.f_mul(&members.spread(&gain)?)?)
}

/// To the range of colours.
pub(super) fn clip(color: &Tensor) -> Result<Tensor, DeviceError> {
    Ok(color.f_clamp(0.0, 255.0)?)
}

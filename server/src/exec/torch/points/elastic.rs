//! Elastic distortion of several scenes, whose lattices lie one after the other; see [`Lattice`] for its definition.

use super::spans::Spans;
use super::steps::{Members, match_op};
use super::{DeviceError, axes, held};
use crate::exec::torch::upload;
use crate::plan::scene::{Lattice, SceneOp};
use tch::{Kind, Tensor};

/// More cells than any grid has along an axis.
const LAST: f64 = (1 << 22) as f64;

/// Moves the points of the members, whose lattices' `noise` follow each other.
pub(super) fn distort(
    members: &Members,
    coord: &Tensor,
    ops: &[&SceneOp],
    noise: &Tensor,
) -> Result<Tensor, DeviceError> {
    let granularity =
        members.table(ops, |op| match_op!(op, SceneOp::Elastic { granularity, .. } => [*granularity]))?;
    let magnitude =
        members.table(ops, |op| match_op!(op, SceneOp::Elastic { magnitude, .. } => [*magnitude]))?;
    let (low, high) = members.spans.bounds(coord)?;
    let across = high.f_sub(&low)?.f_div(&granularity)?.f_clamp_max(f64::from(u32::MAX))?;
    let needed = across.f_trunc()?.f_to_kind(Kind::Int64)?.f_add_scalar(3)?;
    let lattices =
        ops.iter().filter_map(|op| match_op!(op, SceneOp::Elastic { noise, .. } => noise.as_ref()));
    let grids = Grids::new(members, lattices.collect(), &needed)?;
    let nodes = grids.smoothed(grids.gathered(noise)?)?;

    let at = coord.f_sub(&members.spans.spread(&low)?)?.f_div(&members.spans.spread(&granularity)?)?;
    let at = at.f_clamp_max(LAST)?;
    let cell = at.f_floor()?;
    let by = grids.interpolated(members, &nodes, &cell.f_to_kind(Kind::Int64)?, &at.f_sub(&cell)?)?;
    Ok(coord.f_add(&members.spans.spread(&magnitude)?.f_mul(&by)?)?)
}

/// Lattices, one after the other, as they were drawn. Those nodes of them that are not taken are 0 throughout, as is all
/// beyond the last one taken.
struct Grids<'a> {
    lattices: Vec<&'a Lattice>,
    spans: Spans,
    /// Nodes drawn along each axis, i64 (lattices, 3).
    dims: Tensor,
    /// Of them those that are taken, i64 (lattices, 3).
    taken: Tensor,
}

impl<'a> Grids<'a> {
    fn new(members: &Members, lattices: Vec<&'a Lattice>, needed: &Tensor) -> Result<Grids<'a>, DeviceError> {
        let device = members.device();
        let lens =
            lattices.iter().filter_map(|lattice| held::nodes(lattice)).map(|nodes| nodes as i64).collect();
        let dims: Vec<i64> = lattices.iter().flat_map(|lattice| lattice.dims.map(i64::from)).collect();
        let dims = upload::places(device, &dims, &[-1, 3])?;
        let taken = dims.f_minimum(needed)?;
        Ok(Grids { lattices, spans: Spans::new(device, lens)?, dims, taken })
    }

    /// The three fields at each node, side by side, (nodes, 3).
    fn gathered(&self, noise: &Tensor) -> Result<Tensor, DeviceError> {
        let (mut fields, mut at) = (Vec::with_capacity(self.lattices.len()), 0);
        for (lattice, nodes) in self.lattices.iter().zip(&self.spans.lens) {
            fields.push(noise.f_narrow(0, at, 3 * nodes)?.f_view([3, *nodes])?.f_transpose(0, 1)?);
            at += lattice.noise.len() as i64;
        }
        Ok(Tensor::f_cat(&fields, 0)?)
    }

    /// Two rounds of box filters along x, y and z.
    fn smoothed(&self, nodes: Tensor) -> Result<Tensor, DeviceError> {
        let device = nodes.device();
        let [dims, taken] = [axes(&self.spans.spread(&self.dims)?)?, axes(&self.spans.spread(&self.taken)?)?];
        let all = upload::range(device, self.spans.total as usize, &[-1])?;
        let starts = self.spans.spread(&upload::places(device, &self.spans.starts, &[-1])?)?;
        let local = all.f_sub(&starts)?;
        let row = local.f_floor_divide(&dims[2])?;
        let place = [
            row.f_floor_divide(&dims[1])?,
            row.f_remainder_tensor(&dims[1])?,
            local.f_remainder_tensor(&dims[2])?,
        ];
        let strides = [dims[1].f_mul(&dims[2])?, dims[2].shallow_clone(), dims[2].f_ones_like()?];

        let mut inside = place[0].f_lt_tensor(&taken[0])?;
        for axis in 1..3 {
            inside = inside.f_logical_and(&place[axis].f_lt_tensor(&taken[axis])?)?;
        }
        let inside = inside.f_unsqueeze(1)?;
        // Before the first node and behind the last one of an axis lies the 0 behind all nodes.
        let none = self.spans.total;
        let mut sides = Vec::with_capacity(3);
        for axis in 0..3 {
            let before = all.f_sub(&strides[axis])?.f_where_scalarother(&place[axis].f_gt(0)?, none)?;
            let last = place[axis].f_add_scalar(1)?.f_ge_tensor(&dims[axis])?;
            let after = all.f_add(&strides[axis])?.f_where_scalarother(&last.f_logical_not()?, none)?;
            sides.push((before, after));
        }
        let mut nodes = nodes.f_where_scalarother(&inside, 0.0)?;
        for (before, after) in sides.iter().chain(&sides) {
            let padded = padded(&nodes)?;
            let sum =
                padded.f_index_select(0, before)?.f_add(&nodes)?.f_add(&padded.f_index_select(0, after)?)?;
            nodes = sum.f_mul_scalar(f64::from(1.0f32 / 3.0))?.f_where_scalarother(&inside, 0.0)?;
        }
        Ok(nodes)
    }

    /// The fields at points, whose cells and places in them these are, (points, 3) each; 0 outside.
    fn interpolated(
        &self,
        members: &Members,
        nodes: &Tensor,
        cell: &Tensor,
        fraction: &Tensor,
    ) -> Result<Tensor, DeviceError> {
        let spread = |table: &Tensor| members.spans.spread(table);
        let starts = spread(&upload::places(members.device(), &self.spans.starts, &[-1])?)?;
        let [_, high, deep] = axes(&spread(&self.dims)?)?;
        // Node 0 lies one cell before the first point, so a cell needs two nodes after that of its number.
        let inside = cell.f_lt_tensor(&spread(&self.taken)?.f_sub_scalar(2)?)?.f_all_dim(1, false)?;
        let [x, y, z] = axes(&cell.f_add_scalar(1)?)?;
        let corner = x.f_mul(&high)?.f_add(&y)?.f_mul(&deep)?.f_add(&z)?.f_add(&starts)?;
        let (padded, none) = (padded(nodes)?, self.spans.total);
        let at = |place: Tensor| -> Result<Tensor, DeviceError> {
            Ok(padded.f_index_select(0, &place.f_where_scalarother(&inside, none)?)?)
        };
        let [fx, fy, fz] = axes(fraction)?.map(|f| f.f_unsqueeze(1));
        let (fx, fy, fz) = (fx?, fy?, fz?);
        let edge = |place: &Tensor| mix(&at(place.shallow_clone())?, &at(place.f_add_scalar(1)?)?, &fz);
        let side = |place: &Tensor| mix(&edge(place)?, &edge(&place.f_add(&deep)?)?, &fy);
        mix(&side(&corner)?, &side(&corner.f_add(&high.f_mul(&deep)?)?)?, &fx)
    }
}

/// Nodes with a 0 behind them.
fn padded(nodes: &Tensor) -> Result<Tensor, DeviceError> {
    let zero = Tensor::f_zeros([1, 3], (Kind::Float, nodes.device()))?;
    Ok(Tensor::f_cat(&[nodes, &zero], 0)?)
}

/// `a + (b - a) * fraction`.
fn mix(a: &Tensor, b: &Tensor, fraction: &Tensor) -> Result<Tensor, DeviceError> {
    Ok(a.f_add(&b.f_sub(a)?.f_mul(fraction)?)?)
}

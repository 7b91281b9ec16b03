//! Runs of a packed tensor, one after the other: the points of scenes, of parts, of rows; the nodes of lattices.

use super::DeviceError;
use crate::exec::torch::upload;
use tch::{Device, Kind, Tensor};

/// Runs that follow each other. None of them is empty.
#[derive(Debug)]
pub(super) struct Spans {
    pub starts: Vec<i64>,
    pub lens: Vec<i64>,
    /// Entries of all runs.
    pub total: i64,
    /// Number of the run of each entry, i64.
    pub of: Tensor,
}

impl Spans {
    pub(super) fn new(device: Device, lens: Vec<i64>) -> Result<Spans, DeviceError> {
        let mut total = 0;
        let start = |len: &i64| {
            total += len;
            total - len
        };
        let starts: Vec<i64> = lens.iter().map(start).collect();
        let number = upload::range(device, lens.len(), &[-1])?;
        let repeats = upload::places(device, &lens, &[-1])?;
        // Told the total, libtorch does not wait for the device to find it.
        let of = number.f_repeat_interleave_self_tensor(&repeats, 0, total)?;
        Ok(Spans { starts, lens, total, of })
    }

    /// For each entry the line of its run in `table`.
    pub(super) fn spread(&self, table: &Tensor) -> Result<Tensor, DeviceError> {
        Ok(table.f_index_select(0, &self.of)?)
    }

    /// For each entry its place where run i begins at `starts[i]`.
    pub(super) fn places(&self, starts: &[i64]) -> Result<Tensor, DeviceError> {
        let device = self.of.device();
        let by: Vec<i64> = starts.iter().zip(&self.starts).map(|(to, from)| to - from).collect();
        let by = self.spread(&upload::places(device, &by, &[-1])?)?;
        Ok(by.f_add(&upload::range(device, self.total as usize, &[-1])?)?)
    }

    /// What `one` makes of each run of `values`, a line each. Runs are reduced one by one, so that nothing depends on the
    /// runs beside them.
    pub(super) fn each(
        &self,
        values: &Tensor,
        one: impl Fn(&Tensor) -> Result<Tensor, DeviceError>,
    ) -> Result<Tensor, DeviceError> {
        let lines = self.starts.iter().zip(&self.lens);
        let lines = lines.map(|(start, len)| one(&values.f_narrow(0, *start, *len)?));
        Ok(Tensor::f_stack(&lines.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    /// Smallest and largest of each run per axis of triples, (runs, 3) each.
    pub(super) fn bounds(&self, triples: &Tensor) -> Result<(Tensor, Tensor), DeviceError> {
        let both = self.each(triples, |run| {
            let (low, high) = run.f_aminmax(0, false)?;
            Ok(Tensor::f_stack(&[low, high], 0)?)
        })?;
        Ok((both.f_select(1, 0)?, both.f_select(1, 1)?))
    }

    /// Entries of each run that `chosen` has, i64.
    pub(super) fn counts(&self, chosen: &Tensor) -> Result<Tensor, DeviceError> {
        let device = self.of.device();
        let none = Tensor::f_zeros([1], (Kind::Int64, device))?;
        let before = Tensor::f_cat(&[none, chosen.f_cumsum(0, Kind::Int64)?], 0)?;
        let ends: Vec<i64> = self.starts.iter().zip(&self.lens).map(|(start, len)| start + len).collect();
        let at = |places: &[i64]| -> Result<Tensor, DeviceError> {
            Ok(before.f_index_select(0, &upload::places(device, places, &[-1])?)?)
        };
        Ok(at(&ends)?.f_sub(&at(&self.starts)?)?)
    }
}

/// The entries of `values` that `chosen` has, of which there are `count`: told that, it does not wait for the device.
pub(super) fn compact(values: &Tensor, chosen: &Tensor, count: i64) -> Result<Tensor, DeviceError> {
    // All others are written to one place behind them, in any order.
    let place = chosen.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?.f_where_scalarother(chosen, count)?;
    let mut out = Tensor::f_zeros([count + 1], (values.f_kind()?, values.device()))?;
    let _ = out.f_scatter_(0, &place, values)?;
    Ok(out.f_narrow(0, 0, count)?)
}

/// What is found by sorting keys.
#[derive(Debug)]
pub(super) struct Sorted {
    /// Keys, ascending.
    pub keys: Tensor,
    /// Where each of them was; equal ones in their old order.
    pub from: Tensor,
    /// Whether a key is the first one of its value.
    pub first: Tensor,
    /// Number of its value, from 0.
    pub group: Tensor,
}

impl Sorted {
    /// Of keys, i64; at least one.
    pub(super) fn new(keys: &Tensor) -> Result<Sorted, DeviceError> {
        let n = keys.numel() as i64;
        let (keys, from) = keys.f_sort_stable(true, 0, false)?;
        let begin = Tensor::f_ones([1], (Kind::Bool, keys.device()))?;
        let changes = keys.f_narrow(0, 1, n - 1)?.f_ne_tensor(&keys.f_narrow(0, 0, n - 1)?)?;
        let first = Tensor::f_cat(&[begin, changes], 0)?;
        let group = first.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?;
        Ok(Sorted { keys, from, first, group })
    }

    /// `values` of sorted keys, in the order that the keys had.
    pub(super) fn back(&self, values: &Tensor) -> Result<Tensor, DeviceError> {
        let mut out = values.f_zeros_like()?;
        let _ = out.f_scatter_(0, &self.from, values)?;
        Ok(out)
    }

    /// For each value what `values` holds of its first key; anything behind the last value.
    pub(super) fn of_firsts(&self, values: &Tensor) -> Result<Tensor, DeviceError> {
        compact(values, &self.first, values.numel() as i64)
    }
}

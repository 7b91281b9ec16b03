//! Rows of points of a batch: one scene each, or the union of several.

use crate::{Batch, Error, TensorView};
use std::{fmt, ops::Range};

/// Rows of points; with voxels, of one point a voxel.
#[derive(Clone, Copy)]
pub struct Points<'a> {
    batch: &'a Batch,
    coord: &'a [f32],
    offsets: &'a [i64],
}

/// The points of a row before voxels, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inverse<'a> {
    /// Voxel of each point, counted in its row.
    pub voxels: &'a [i32],
    /// Class of each point.
    pub segment: &'a [i32],
}

impl fmt::Debug for Points<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Points").field("rows", &self.len()).field("points", &self.points()).finish()
    }
}

impl<'a> Points<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Result<Self, Error> {
        let view = batch.wanted("coord")?;
        let (Some(offsets), [points, 3]) = (view.offsets, view.shape) else {
            return Err(view.is_not("of shape (points, 3) with offsets"));
        };
        Ok(Points { batch, coord: view.as_f32()?, offsets: batch.offsets(offsets, *points)? })
    }

    /// Rows: what a trainer calls the batch size. Each holds [`Points::num_logical_samples`] scenes.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1 // checked: at least one
    }

    /// True when the batch has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Points of all rows.
    pub fn points(&self) -> usize {
        self.coord.len() / 3
    }

    /// Where rows begin, and the end: n + 1 values. What Pointcept calls `offset` are these without the first.
    pub fn offsets(&self) -> &'a [i64] {
        self.offsets
    }

    /// Points of row `row`; `None` beyond the last one.
    pub fn row(&self, row: usize) -> Option<Range<usize>> {
        Some(*self.offsets.get(row)? as usize..*self.offsets.get(row + 1)? as usize)
    }

    /// x, y, z of every point, in the unit of the source.
    pub fn coord(&self) -> &'a [[f32; 3]] {
        self.coord.as_chunks().0
    }

    /// The declared features: all values and how many a point has; `None` when the job has none.
    pub fn feat(&self) -> Result<Option<(&'a [f32], usize)>, Error> {
        let Some(view) = self.batch.tensor("feat") else { return Ok(None) };
        let [points, columns] = view.shape else { return Err(view.is_not("of shape (points, columns)")) };
        self.fits(&view, *points)?;
        Ok(Some((view.as_f32()?, *columns)))
    }

    /// Class of every point.
    pub fn segment(&self) -> Result<&'a [i32], Error> {
        self.values("segment", |view| view.as_i32())
    }

    /// Instance of every point, unique within its row; negative for none.
    pub fn instance(&self) -> Result<&'a [i32], Error> {
        self.values("instance", |view| view.as_i32())
    }

    /// Which of its row's scenes every point is from, from 0.
    pub fn scene_id(&self) -> Result<&'a [u8], Error> {
        self.values("scene_id", |view| view.as_u8())
    }

    /// Cell of every voxel from the row's smallest, if the job has voxels.
    pub fn grid_coord(&self) -> Result<Option<&'a [[i32; 3]]>, Error> {
        let Some(view) = self.batch.tensor("grid_coord") else { return Ok(None) };
        self.fits(&view, view.shape.first().copied().unwrap_or_default())?;
        Ok(Some(view.as_i32()?.as_chunks().0))
    }

    /// Points in every voxel, if the job asked for them.
    pub fn voxel_count(&self) -> Result<Option<&'a [i32]>, Error> {
        self.optional("voxel.count")
    }

    /// What row `row` was before voxels, if the job asked for it.
    pub fn inverse(&self, row: usize) -> Result<Option<Inverse<'a>>, Error> {
        let Some(view) = self.batch.tensor("inverse") else { return Ok(None) };
        let segment = self.batch.wanted("point.segment")?.as_i32()?;
        let inverse = view.as_i32()?;
        let name = view.offsets.ok_or_else(|| view.is_not("with offsets"))?;
        let offsets = self.batch.offsets(name, inverse.len())?;
        let (Some(from), Some(to)) = (offsets.get(row), offsets.get(row + 1)) else { return Ok(None) };
        let own = *from as usize..*to as usize;
        let segment = segment.get(own.clone()).ok_or_else(|| view.is_not("as long as `point.segment`"))?;
        Ok(Some(Inverse { voxels: &inverse[own], segment }))
    }

    /// Scenes in every row: the number that a loss which counts samples wants, not [`Points::len`].
    pub fn num_logical_samples(&self) -> Result<&'a [i32], Error> {
        self.batch.wanted("num_logical_samples")?.as_i32()
    }

    /// Slots of the step that every row's scenes come from, `width` a row, -1 for none; and the width.
    pub fn mixed_from(&self) -> Result<(&'a [i32], usize), Error> {
        let view = self.batch.wanted("mixed_from")?;
        let [_, width] = view.shape else { return Err(view.is_not("of shape (n, scenes)")) };
        Ok((view.as_i32()?, *width))
    }

    fn values<T>(
        &self,
        name: &str,
        cast: impl Fn(&TensorView<'a>) -> Result<&'a [T], Error>,
    ) -> Result<&'a [T], Error> {
        let view = self.batch.wanted(name)?;
        let values = cast(&view)?;
        self.fits(&view, values.len())?;
        Ok(values)
    }

    fn optional(&self, name: &str) -> Result<Option<&'a [i32]>, Error> {
        let some = self.batch.tensor(name).is_some();
        some.then(|| self.values(name, |view| view.as_i32())).transpose()
    }

    fn fits(&self, view: &TensorView<'a>, values: usize) -> Result<(), Error> {
        if values == self.points() { Ok(()) } else { Err(view.is_not("as long as `coord`")) }
    }
}

#[cfg(test)]
mod tests {
    use super::Inverse;
    use crate::{
        Dtype,
        batch::tests_support::{batch, i32s, i64s},
    };

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn rows_are_cut_by_their_offsets() {
        let batch = batch(&[
            ("coord", Dtype::F32, &[3, 3], Some("offset"), f32s(&[0., 1., 2., 3., 4., 5., 6., 7., 8.])),
            ("segment", Dtype::I32, &[3], Some("offset"), i32s(&[4, 5, 6])),
            ("scene_id", Dtype::U8, &[3], Some("offset"), vec![0, 0, 1]),
            ("feat", Dtype::F32, &[3, 1], Some("offset"), f32s(&[0.5, 0.25, 0.125])),
            ("inverse", Dtype::I32, &[4], Some("point.offset"), i32s(&[0, 0, 0, 1])),
            ("point.segment", Dtype::I32, &[4], Some("point.offset"), i32s(&[4, 7, 5, 6])),
            ("offset", Dtype::I64, &[3], None, i64s(&[0, 1, 3])),
            ("point.offset", Dtype::I64, &[3], None, i64s(&[0, 2, 4])),
            ("mixed_from", Dtype::I32, &[2, 2], None, i32s(&[0, -1, 1, 0])),
        ]);
        let points = batch.points().expect("points");
        assert_eq!((points.len(), points.points(), points.is_empty()), (2, 3, false));
        assert_eq!((points.row(0), points.row(1), points.row(2)), (Some(0..1), Some(1..3), None));
        assert_eq!(points.coord()[2], [6., 7., 8.]);
        assert_eq!(points.segment(), Ok(&[4, 5, 6][..]));
        assert_eq!(points.feat(), Ok(Some((&[0.5, 0.25, 0.125][..], 1))));
        assert_eq!(points.inverse(1), Ok(Some(Inverse { voxels: &[0, 1], segment: &[5, 6] })));
        assert_eq!(points.mixed_from(), Ok((&[0, -1, 1, 0][..], 2)));
        assert_eq!((points.grid_coord(), points.voxel_count()), (Ok(None), Ok(None)));
        assert!(points.instance().expect_err("absent").to_string().contains("`instance` is absent"));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let batch = batch(&[
            ("coord", Dtype::F32, &[2, 3], Some("offset"), f32s(&[0.; 6])),
            ("segment", Dtype::I32, &[1], Some("offset"), i32s(&[4])),
            ("offset", Dtype::I64, &[2], None, i64s(&[0, 2])),
        ]);
        let points = batch.points().expect("points");
        assert!(points.segment().expect_err("short").to_string().contains("as long as `coord`"));
    }
}

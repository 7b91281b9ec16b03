//! The served columns of points, written once, from scenes through parts and voxels into the bytes that are sent.

use super::Points;
use super::colors::{Colors, look};
use super::union::{Part, Turn, len};
use super::voxel::Voxels;
use crate::exec::simd::Level;
use std::mem::take;

/// What a column of features holds of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Feature {
    /// Red, green, blue, `v / 255`; with mean and standard deviation `(v / 255 - mean) / std`.
    Color(Option<([f32; 3], [f32; 3])>),
    /// x, y, z of the normal; it turns with its part.
    Normal,
    /// Intensity.
    Intensity,
    /// x, y, z.
    Coord,
    /// Distance from the origin, `sqrt(x x + y y + z z)` in f32.
    Distance,
}

impl Feature {
    /// Numbers of one point.
    pub fn width(self) -> usize {
        match self {
            Feature::Color(_) | Feature::Normal | Feature::Coord => 3,
            Feature::Intensity | Feature::Distance => 1,
        }
    }
}

/// Numbers of one point in the column of `features`.
pub fn width(features: &[Feature]) -> usize {
    features.iter().map(|f| f.width()).sum()
}

/// A scene that lacks what a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scene of slot {slot} has no {attribute}, which column `{column}` holds")]
pub struct Missing {
    /// Row of the block.
    pub slot: u32,
    /// "color", "normal", "intensity", "segment".
    pub attribute: &'static str,
    /// "feat", "segment".
    pub column: &'static str,
}

/// Bytes of a block's rows, one row after the other, little-endian. P is the number of points of all rows, N of those
/// that are served: P without voxels, otherwise the number of voxels.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    /// f32 (N, 3).
    pub coord: &'a mut [u8],
    /// f32 (N, C), the features one after the other; empty without features.
    pub feat: &'a mut [u8],
    /// i32 (N): class, that of the voxel where it has one of its own.
    pub segment: Option<&'a mut [u8]>,
    /// i32 (N): instance, unique in the row; -1 in scenes without instances.
    pub instance: Option<&'a mut [u8]>,
    /// u8 (N): number of the scene in the row.
    pub scene: Option<&'a mut [u8]>,
    /// i32 (N, 3): voxel, counted from the smallest of the row; only with voxels.
    pub grid: Option<&'a mut [u8]>,
    /// i32 (N): points of the voxel; only with voxels.
    pub count: Option<&'a mut [u8]>,
    /// i32 (P): voxel of each point, counted in its row; only with voxels.
    pub inverse: Option<&'a mut [u8]>,
}

/// Points of `row` that are served.
pub fn served(row: &[Part], voxels: Option<&Voxels>) -> usize {
    voxels.map_or_else(|| len(row), |v| v.kept.len())
}

/// Writes the rows of a block, or one row with its own slices. `voxels` are those of `rows`, one each.
///
/// # Errors
/// [`Missing`], before anything is written.
///
/// # Panics
/// When a slice is shorter than its column, `voxels` has another number of rows, or a column of voxels is wanted without
/// voxels: faults of the caller, never of data.
pub fn write(
    rows: &[Vec<Part>],
    voxels: Option<&[Voxels]>,
    scenes: &[Points],
    features: &[Feature],
    mut out: Columns<'_>,
) -> Result<(), Missing> {
    rows.iter().flatten().try_for_each(|part| check(part, scenes, features, &out))?;
    assert!(voxels.is_none_or(|v| v.len() == rows.len()), "one list of voxels for each row");
    for (at, row) in rows.iter().enumerate() {
        let voxels = voxels.map(|v| &v[at]);
        let classes = voxels.is_none_or(|v| v.segment.is_none());
        runs(row, voxels, |part, points| out.append(part, points, scenes, features, classes));
        out.put_voxels(voxels);
    }
    Ok(())
}

fn check(part: &Part, scenes: &[Points], features: &[Feature], out: &Columns<'_>) -> Result<(), Missing> {
    let scene = &scenes[part.slot as usize];
    let has = |column, attribute, wanted: bool, there: bool| match wanted && !there {
        true => Err(Missing { slot: part.slot, attribute, column }),
        false => Ok(()),
    };
    for feature in features {
        match feature {
            Feature::Color(_) => has("feat", "color", true, scene.color.is_some()),
            Feature::Normal => has("feat", "normal", true, scene.normal.is_some()),
            Feature::Intensity => has("feat", "intensity", true, scene.intensity.is_some()),
            Feature::Coord | Feature::Distance => Ok(()),
        }?;
    }
    has("segment", "segment", out.segment.is_some(), scene.segment.is_some())
}

/// Points whose numbers are looked up at once: few enough that they, and what is read and written for them, stay in the
/// first-level cache.
const RUN: usize = 512;

/// Calls `each` with runs of served points of one part, by their numbers in the scene, in order.
fn runs(row: &[Part], voxels: Option<&Voxels>, mut each: impl FnMut(&Part, &[u32])) {
    let mut run: Vec<u32> = Vec::with_capacity(RUN);
    let Some(voxels) = voxels else {
        for part in row {
            let mut numbers = part.numbers();
            loop {
                run.clear();
                run.extend(numbers.by_ref().take(RUN));
                if run.is_empty() {
                    break;
                }
                each(part, &run);
            }
        }
        return;
    };
    let mut left = voxels.kept.as_slice();
    while let Some(first) = left.first() {
        let (part, own) = part_of(row, *first as usize);
        let most = &left[..left.len().min(RUN)];
        let n = most.iter().position(|kept| !own.contains(&(*kept as usize))).unwrap_or(most.len());
        run.clear();
        run.extend(most[..n].iter().map(|kept| part.number(*kept as usize - own.start)));
        each(part, &run);
        left = &left[n..];
    }
}

/// The part of `row`'s point `at`, and the row's points that are in it. Rows have few parts.
fn part_of(row: &[Part], at: usize) -> (&Part, std::ops::Range<usize>) {
    let mut start = 0;
    for part in row {
        let end = start + part.len();
        if at < end {
            return (part, start..end);
        }
        start = end;
    }
    panic!("point {at} of a row of {start}")
}

impl Columns<'_> {
    /// Appends `points` of a part to the columns of points, to that of classes if `classes`.
    fn append(
        &mut self,
        part: &Part,
        points: &[u32],
        scenes: &[Points],
        features: &[Feature],
        classes: bool,
    ) {
        let (scene, turn, n) = (&scenes[part.slot as usize], part.turn(), points.len());
        let coord = front(&mut self.coord, 12 * n);
        match turn == Turn::NONE {
            true => vectors(coord, 12, &scene.coord, points, |p| p),
            false => vectors(coord, 12, &scene.coord, points, |p| turn.of(p)),
        }
        let stride = 4 * width(features);
        let feat = front(&mut self.feat, stride * n);
        let mut at = 0;
        for feature in features {
            put_feature(*feature, scene, turn, points, &mut feat[at..], stride);
            at += 4 * feature.width();
        }
        if let (Some(out), Some(of)) = (&mut self.segment, &scene.segment)
            && classes
        {
            ints(front(out, 4 * n), points.iter().map(|p| of[*p as usize]));
        }
        if let Some(out) = &mut self.instance {
            let (out, unique) = (front(out, 4 * n), |id: i32| if id < 0 { id } else { id + part.instance });
            match &scene.instance {
                Some(of) => ints(out, points.iter().map(|p| unique(of[*p as usize]))),
                None => out.fill(0xff),
            }
        }
        if let Some(out) = &mut self.scene {
            front(out, n).fill(part.scene);
        }
    }

    /// Appends a row's voxels to the columns of voxels.
    fn put_voxels(&mut self, voxels: Option<&Voxels>) {
        let Some(Voxels { counts, inverse, grid, segment, .. }) = voxels else {
            let wanted = self.grid.is_some() || self.count.is_some() || self.inverse.is_some();
            assert!(!wanted, "columns of voxels without voxels");
            return;
        };
        let lacks = |wanted: bool, n: usize| wanted && n == 0 && !grid.is_empty();
        let lacking =
            lacks(self.count.is_some(), counts.len()) || lacks(self.inverse.is_some(), inverse.len());
        assert!(!lacking, "columns of what voxels were not asked for");
        if let (Some(out), Some(classes)) = (&mut self.segment, segment) {
            ints(front(out, 4 * classes.len()), classes.iter().copied());
        }
        if let Some(out) = &mut self.grid {
            ints(front(out, 12 * grid.len()), grid.iter().flatten().copied());
        }
        if let Some(out) = &mut self.count {
            ints(front(out, 4 * counts.len()), counts.iter().copied());
        }
        if let Some(out) = &mut self.inverse {
            ints(front(out, 4 * inverse.len()), inverse.iter().copied());
        }
    }
}

/// Writes a feature at the front of each point's `stride` bytes.
fn put_feature(feature: Feature, scene: &Points, turn: Turn, points: &[u32], out: &mut [u8], stride: usize) {
    match feature {
        Feature::Coord => vectors(out, stride, &scene.coord, points, |p| turn.of(p)),
        Feature::Normal => vectors(out, stride, attribute(scene.normal.as_deref()), points, |v| turn.of(v)),
        Feature::Color(normal) => colours(out, stride, attribute(scene.color.as_ref()), points, normal),
        Feature::Intensity => {
            let of = attribute(scene.intensity.as_deref());
            scalars(out, stride, points.iter().map(|p| of[*p as usize]));
        }
        Feature::Distance => {
            // A turn about z changes no distance, but it may change its last bit: what is served must agree.
            let norm = |[x, y, z]: [f32; 3]| (x * x + y * y + z * z).sqrt();
            scalars(out, stride, points.iter().map(|p| norm(turn.of(scene.coord[*p as usize]))));
        }
    }
}

/// Mean and standard deviation per channel.
type Normal = Option<([f32; 3], [f32; 3])>;

/// Colours of at most [`RUN`] points.
fn colours(out: &mut [u8], stride: usize, from: &Colors, points: &[u32], normal: Normal) {
    match from {
        Colors::Each(colors) => {
            // Gathered first: a loop over numbers side by side divides many of them at once.
            let (mut gathered, mut scaled) = ([[0.0; 3]; RUN], [[0.0; 3]; RUN]);
            gathered.iter_mut().zip(points).for_each(|(to, point)| *to = colors[*point as usize]);
            scale(&gathered, &mut scaled, normal);
            out.chunks_mut(stride).zip(&scaled[..points.len()]).for_each(|(out, v)| put(out, *v));
        }
        Colors::Stored(bytes, table) => {
            let mut scaled = [[0.0; 3]; 256];
            scale(table, &mut scaled, normal);
            for (out, point) in out.chunks_mut(stride).zip(points) {
                put(out, look(&scaled, bytes[*point as usize]));
            }
        }
    }
}

/// `v / 255`, and less the mean and divided by the deviation where there are any.
fn scale<const N: usize>(from: &[[f32; 3]; N], to: &mut [[f32; 3]; N], normal: Normal) {
    let level = Level::best();
    level.scale_floats(to.as_flattened_mut(), from.as_flattened());
    if let Some((mean, std)) = normal {
        level.normalize(to.as_flattened_mut(), [mean; N].as_flattened(), [std; N].as_flattened());
    }
}

fn attribute<T: ?Sized>(of: Option<&T>) -> &T {
    of.expect("`check` has refused scenes without it")
}

/// Cuts the next `bytes` off the front of a column.
fn front<'a>(column: &mut &'a mut [u8], bytes: usize) -> &'a mut [u8] {
    let (own, rest) = take(column).split_at_mut(bytes);
    *column = rest;
    own
}

fn vectors(
    out: &mut [u8],
    stride: usize,
    from: &[[f32; 3]],
    points: &[u32],
    of: impl Fn([f32; 3]) -> [f32; 3],
) {
    for (out, point) in out.chunks_mut(stride).zip(points) {
        put(out, of(from[*point as usize]));
    }
}

/// Writes a triple at the front of `out`.
fn put(out: &mut [u8], v: [f32; 3]) {
    let out: &mut [u8; 12] = out.first_chunk_mut().expect("a stride holds its features");
    for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(v) {
        *out = v.to_le_bytes();
    }
}

fn scalars(out: &mut [u8], stride: usize, values: impl Iterator<Item = f32>) {
    for (out, v) in out.chunks_mut(stride).zip(values) {
        *out.first_chunk_mut().expect("a stride holds its features") = v.to_le_bytes();
    }
}

fn ints(out: &mut [u8], values: impl Iterator<Item = i32>) {
    for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *out = v.to_le_bytes();
    }
}

#[cfg(test)]
mod tests;

//! A scene as bytes of our own: what caches hold.
//!
//! "MIXPTS1\0", u64 points, u64 flags, then the columns that there are, little-endian, in the order of [`Scene`]'s fields
//! with the 8-byte ones first and colours last: coordinates f64, normals f32, intensity f32, segment i32, instance i32,
//! colours u8.

use super::{CloudError, Limits, Scene, column, read::Cursor};

const MAGIC: &[u8; 8] = b"MIXPTS1\0";
const NORMAL: u64 = 1;
const INTENSITY: u64 = 2;
const SEGMENT: u64 = 4;
const INSTANCE: u64 = 8;
const COLOR: u64 = 16;

/// Whether `bytes` begin as a block does.
pub fn is_block(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Points of a block as it says itself; `None` when `bytes` are none.
pub fn points(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(MAGIC)?;
    rest.first_chunk().map(|points| u64::from_le_bytes(*points))
}

/// Appends `scene` to `out`.
///
/// # Panics
/// When an attribute has another length than the coordinates, which no scene of this room has.
pub fn encode(scene: &Scene, out: &mut Vec<u8>) {
    let points = scene.len();
    let mut flags = 0;
    let mut has = |flag, len: Option<usize>| {
        assert!(len.is_none_or(|len| len == points), "an attribute has as many entries as there are points");
        flags |= if len.is_some() { flag } else { 0 };
    };
    has(NORMAL, scene.normal.as_ref().map(Vec::len));
    has(INTENSITY, scene.intensity.as_ref().map(Vec::len));
    has(SEGMENT, scene.segment.as_ref().map(Vec::len));
    has(INSTANCE, scene.instance.as_ref().map(Vec::len));
    has(COLOR, scene.color.as_ref().map(Vec::len));
    out.reserve(24 + points * point(flags));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(points as u64).to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    put(out, scene.coord.as_flattened(), f64::to_le_bytes);
    put(out, scene.normal.as_deref().unwrap_or_default().as_flattened(), f32::to_le_bytes);
    put(out, scene.intensity.as_deref().unwrap_or_default(), f32::to_le_bytes);
    put(out, scene.segment.as_deref().unwrap_or_default(), i32::to_le_bytes);
    put(out, scene.instance.as_deref().unwrap_or_default(), i32::to_le_bytes);
    out.extend_from_slice(scene.color.as_deref().unwrap_or_default().as_flattened());
}

/// Reads a scene.
///
/// # Errors
/// [`CloudError`] unless `bytes` are exactly what [`encode`] writes of a scene within the limits.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Scene, CloudError> {
    let mut from = Cursor::new("block", bytes);
    if from.take(8, "magic")? != MAGIC {
        return Err(from.wrong("does not begin with MIXPTS1".into()));
    }
    let (points, flags) = (from.u64("points")?, from.u64("flags")?);
    limits.allow(points)?;
    if flags >= 2 * COLOR || points.checked_mul(point(flags) as u64) != Some(from.rest().len() as u64) {
        let found = from.rest().len();
        return Err(from.wrong(format!("{points} points with flags {flags:#x} have {found} bytes")));
    }
    let mut column = |flag: u64, size: u64| {
        let there = flags & flag == flag;
        if there { from.take(points * size, "column").map(Some) } else { Ok(None) }
    };
    let (coord, normal) = (column(0, 24)?, column(NORMAL, 12)?);
    let (intensity, segment) = (column(INTENSITY, 4)?, column(SEGMENT, 4)?);
    let (instance, color) = (column(INSTANCE, 4)?, column(COLOR, 3)?);
    let scene = Scene {
        coord: column::threes(coord.unwrap_or_default().as_chunks().0)?,
        color: color.map(|bytes| bytes.as_chunks().0.to_vec()),
        normal: normal.map(|bytes| threes(bytes, f32::from_le_bytes)),
        intensity: intensity.map(|bytes| get(bytes, f32::from_le_bytes)),
        segment: segment.map(|bytes| get(bytes, i32::from_le_bytes)),
        instance: instance.map(|bytes| get(bytes, i32::from_le_bytes)),
    };
    column::finite_f32("normal", scene.normal.as_deref().unwrap_or_default().as_flattened(), 3)?;
    column::finite_f32("intensity", scene.intensity.as_deref().unwrap_or_default(), 1)?;
    Ok(scene)
}

/// Bytes of a point with the columns of `flags`.
fn point(flags: u64) -> usize {
    let sizes = [(NORMAL, 12), (INTENSITY, 4), (SEGMENT, 4), (INSTANCE, 4), (COLOR, 3)];
    24 + sizes.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, size)| size).sum::<usize>()
}

fn put<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], bytes: impl Fn(T) -> [u8; N]) {
    let begin = out.len();
    out.resize(begin + N * values.len(), 0);
    for (to, &v) in out[begin..].as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *to = bytes(v);
    }
}

fn get<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect()
}

fn threes<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<[T; 3]> {
    let triples = bytes.as_chunks::<N>().0.as_chunks::<3>().0;
    triples.iter().map(|t| t.map(&value)).collect()
}

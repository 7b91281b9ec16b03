//! KITTI's scans: `.bin` is x y z reflectance as little-endian f32; `.label` is per point a u32 with the class below and
//! the instance above, 0 for none.

use super::{
    CloudError, Limits, Scene,
    column::{self, Column, Kind},
};

/// Points of a scan.
pub(super) fn points(scan: &[u8]) -> Result<u64, CloudError> {
    if !scan.len().is_multiple_of(16) {
        return Err(wrong(format!("a scan has {} bytes, want 16 per point", scan.len())));
    }
    Ok(scan.len() as u64 / 16)
}

/// Decodes a scan with its labels, where there are any.
pub(super) fn decode(scan: &[u8], labels: Option<&[u8]>, limits: &Limits) -> Result<Scene, CloudError> {
    let count = points(scan)?;
    limits.allow(count)?;
    if let Some(labels) = labels
        && labels.len() as u64 != 4 * count
    {
        return Err(wrong(format!("labels have {} bytes, want 4 for each of {count} points", labels.len())));
    }
    let column = |c: usize| {
        Column::packed(scan, Kind::F32, false, 4 * c, 16, count as usize).expect("16 bytes per point")
    };
    let words = |labels: &[u8], of: fn([u8; 4]) -> i32| {
        labels.as_chunks::<4>().0.iter().map(|&word| of(word)).collect::<Vec<i32>>()
    };
    Ok(Scene {
        coord: column::coord([&column(0), &column(1), &column(2)])?,
        intensity: Some(column::intensity(&column(3))?),
        segment: labels.map(|l| words(l, |w| i32::from(u16::from_le_bytes([w[0], w[1]])))),
        instance: labels.map(|l| {
            words(l, |w| match u16::from_le_bytes([w[2], w[3]]) {
                0 => -1,
                id => i32::from(id),
            })
        }),
        ..Scene::default()
    })
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "kitti", why }
}

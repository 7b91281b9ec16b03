//! Scenes of points: carries out what [`crate::plan::scene`] drew for each scene, and what a plan's ops make of them.
//!
//! [`apply`] transforms a scene. A row is a list of [`union::Part`]s, points of scenes by number. [`budget`] shortens the
//! lists, [`voxel`] picks points of them, and [`columns`] reads the scenes once, straight into the bytes that are sent: no
//! union is ever stored.
//!
//! The bodies are the definition of `cpu-1`: elementwise IEEE operations in one fixed order, never fused, so any vector
//! width gives the same bits; sums say in which order they add.

pub mod budget;
mod colors;
pub mod columns;
mod crop;
mod elastic;
pub(in crate::exec) mod lanes;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(in crate::exec) mod tests;
mod transform;
pub mod union;
pub mod voxel;
pub(in crate::exec) mod walk;

pub use colors::{Colors, Table};
pub use crop::nearest;
pub use lanes::Measured;

pub use transform::{apply, apply_cut, matrix, transform};

/// Bytes of a buffer up to which it is kept; a rare giant scene must not hold its memory for good.
const KEPT: usize = 16 << 20;

/// Frees `buffer` if it is large.
fn trim<T>(buffer: &mut Vec<T>) {
    if buffer.capacity() * size_of::<T>() > KEPT {
        *buffer = Vec::new();
    }
}

/// Memory kept between scenes: one per thread. Holds no results. Fresh pages cost more than the transforms do.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Buffers for coordinates, colours and normals.
    free: Vec<Vec<[f32; 3]>>,
    nodes: elastic::Nodes,
    keys: crop::Keys,
}

impl Scratch {
    /// Takes the memory of points that are no longer wanted; at most eight buffers are kept.
    pub fn recycle(&mut self, points: Points) {
        let color = points.color.and_then(|color| match color {
            Colors::Each(colors) => Some(colors),
            Colors::Stored(..) => None,
        });
        let buffers = [Some(points.coord), color, points.normal];
        self.free.extend(buffers.into_iter().flatten());
        self.free.iter_mut().for_each(trim);
        self.free.truncate(8);
    }

    /// A buffer of `len` triples with anything in it.
    fn triples(&mut self, len: usize) -> Vec<[f32; 3]> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.resize(len, [0.0; 3]);
        buffer
    }
}

/// Points of one part of a row. Every attribute has as many entries as there are points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// x, y, z in the file's unit.
    pub coord: Vec<[f32; 3]>,
    /// Red, green, blue.
    pub color: Option<Colors>,
    /// Normals, of any length.
    pub normal: Option<Vec<[f32; 3]>>,
    /// Intensity or reflectance as stored.
    pub intensity: Option<Vec<f32>>,
    /// Class of each point as stored.
    pub segment: Option<Vec<i32>>,
    /// Instance of each point; negative means none.
    pub instance: Option<Vec<i32>>,
    /// Smallest and largest coordinate per axis of all points, where it is known.
    pub extent: Option<([f32; 3], [f32; 3])>,
}

impl Points {
    /// Points.
    pub fn len(&self) -> usize {
        self.coord.len()
    }

    /// True without points.
    pub fn is_empty(&self) -> bool {
        self.coord.is_empty()
    }

    /// Keeps the points `keep` of every attribute, in order.
    ///
    /// # Panics
    /// When `keep` is not ascending or names a point that is not there: a fault of the plan.
    pub fn keep(&mut self, keep: &[u32]) {
        crop::keep(&mut self.coord, keep);
        self.color.iter_mut().for_each(|color| color.keep(keep));
        crop::keep_some(&mut self.normal, keep);
        crop::keep_some(&mut self.intensity, keep);
        crop::keep_some(&mut self.segment, keep);
        crop::keep_some(&mut self.instance, keep);
        self.extent = None;
    }
}

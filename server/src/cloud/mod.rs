//! Clouds: files of points to scenes. A leaf: it knows formats and nothing of sources, jobs or plans.
//!
//! [`decode`] makes a [`Scene`] of the files of one record ([`parts`]), [`block`] keeps scenes as bytes, [`tile`] cuts a
//! survey into overlapping blocks.
//!
//! Coordinates stay f64 here: survey tiles lie millions of metres from their origin, where an f32 has steps of half a metre.

mod arrays;
pub mod block;
mod column;
mod format;
#[cfg(test)]
mod hostile;
mod kitti;
mod las;
mod laz;
#[cfg(test)]
mod made;
mod npy;
mod npz;
pub mod parts;
mod ply;
mod ply_header;
mod read;
#[cfg(test)]
mod tests;
mod text;
pub mod tile;

pub use arrays::is_known;
pub use format::{decode, peek};

use bytes::Bytes;

/// The scene of a source's record: the files of one ([`parts`]), or a block of a larger one ([`block`]).
///
/// # Errors
/// [`CloudError`].
pub fn record(bytes: &Bytes, limits: &Limits) -> Result<Scene, CloudError> {
    if block::is_block(bytes) {
        return block::decode(bytes, limits);
    }
    decode(&parts::unpack(bytes)?, limits)
}

/// Points of a source's record as its headers say; `None` where only decoding tells.
///
/// # Errors
/// [`CloudError`] of headers that cannot be read.
pub fn points(bytes: &Bytes) -> Result<Option<u64>, CloudError> {
    if let Some(points) = block::points(bytes) {
        return Ok(Some(points));
    }
    peek(&parts::unpack(bytes)?)
}

/// Points of one scene as they are stored. Every attribute has as many entries as there are points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// x, y, z in the file's unit, finite.
    pub coord: Vec<[f64; 3]>,
    /// Red, green, blue, 0..=255; 16-bit colours are divided by 257 and rounded.
    pub color: Option<Vec<[u8; 3]>>,
    /// Normals as stored, finite.
    pub normal: Option<Vec<[f32; 3]>>,
    /// Intensity or reflectance as stored, finite.
    pub intensity: Option<Vec<f32>>,
    /// Class of each point as stored.
    pub segment: Option<Vec<i32>>,
    /// Instance of each point; negative means none.
    pub instance: Option<Vec<i32>>,
}

impl Scene {
    /// Points.
    pub fn len(&self) -> usize {
        self.coord.len()
    }

    /// True without points.
    pub fn is_empty(&self) -> bool {
        self.coord.is_empty()
    }

    /// The scene of some of its points, in the order of their numbers.
    ///
    /// # Panics
    /// When a number is not below [`Scene::len`].
    pub fn select(&self, points: &[u32]) -> Scene {
        fn of<T: Copy>(values: &[T], points: &[u32]) -> Vec<T> {
            points.iter().map(|&p| values[p as usize]).collect()
        }
        Scene {
            coord: of(&self.coord, points),
            color: self.color.as_ref().map(|v| of(v, points)),
            normal: self.normal.as_ref().map(|v| of(v, points)),
            intensity: self.intensity.as_ref().map(|v| of(v, points)),
            segment: self.segment.as_ref().map(|v| of(v, points)),
            instance: self.instance.as_ref().map(|v| of(v, points)),
        }
    }
}

/// A file that is no scene.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// The bytes are no such file, are cut short, or contradict themselves.
    #[error("{format}: {why}")]
    Format {
        /// "las", "ply", "npy", "npz", "kitti", "text", "block", "parts", "tiles", or "cloud" where none of these fits.
        format: &'static str,
        /// What is there and what was expected, with field and record where there are any.
        why: String,
    },
    /// More than the limits allow; found before anything is allocated.
    #[error("{what} is {value}, want at most {limit}")]
    Limit {
        /// "points" or "encoded size in bytes".
        what: &'static str,
        /// As found.
        value: u64,
        /// Limit.
        limit: u64,
    },
    /// A scene without points.
    #[error("has no points")]
    Empty,
    /// A number that is none.
    #[error("{field} of point {point} is {value}, want a finite number")]
    NotFinite {
        /// "x", "y", "z", "intensity", "normal".
        field: &'static str,
        /// Number of the point from 0.
        point: u64,
        /// As found.
        value: String,
    },
}

/// Limits that hold before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Points of a scene.
    pub points: u64,
}

impl Limits {
    /// Refuses scenes without points and with more than allowed.
    fn allow(&self, points: u64) -> Result<(), CloudError> {
        match points {
            0 => Err(CloudError::Empty),
            n if n > self.points => Err(CloudError::Limit { what: "points", value: n, limit: self.points }),
            _ => Ok(()),
        }
    }
}

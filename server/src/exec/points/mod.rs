//! Scenes of points: what a plan's ops make of them, and the columns that are served.
//!
//! A row is a list of [`union::Part`]s, points of scenes by number. [`budget`] shortens the lists, [`voxel`] picks points
//! of them, and [`columns`] reads the scenes once, straight into the bytes that are sent: no union is ever stored.

pub mod budget;
pub mod columns;
pub mod union;
pub mod voxel;

/// A scene as transforms and unions work on it. Every attribute has as many entries as there are points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// x, y, z, finite.
    pub coord: Vec<[f32; 3]>,
    /// Red, green, blue, 0..=255.
    pub color: Option<Vec<[f32; 3]>>,
    /// Normals, finite.
    pub normal: Option<Vec<[f32; 3]>>,
    /// Intensity or reflectance, finite.
    pub intensity: Option<Vec<f32>>,
    /// Class of each point.
    pub segment: Option<Vec<i32>>,
    /// Instance of each point; negative means none.
    pub instance: Option<Vec<i32>>,
}

#[cfg(test)]
mod tests;

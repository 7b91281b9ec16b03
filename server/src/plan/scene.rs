//! How one scene becomes one part of a row, before any union: Mix3D's volume and colour transforms in its order.

use std::sync::Arc;

/// One transform with everything drawn. Executors compute in the stated type, in point order.
#[derive(Clone, Debug, PartialEq)]
pub enum SceneOp {
    /// Subtract the mean of the coordinates (f64 sums in point order), then round to f32. Always the first op of a scene
    /// whose rule centres; without it coordinates are only rounded to f32.
    Centre,
    /// `c += (min + fraction * (max - min)) / 2` per axis, f32, of the coordinates as they are now.
    Shift {
        /// Uniform in 0..1 per axis.
        fraction: [f32; 3],
    },
    /// Mirror axes. `translate`: `c = max - c` (the reference's, which moves the origin); otherwise `c = (min + max) - c`,
    /// in place. Normals change sign.
    Flip {
        /// x, y, z.
        axes: [bool; 3],
        /// The reference's quirk.
        translate: bool,
    },
    /// Displacement by a smoothed random grid; see [`Lattice`].
    Elastic {
        /// Side of a cell in units of the coordinates.
        granularity: f32,
        /// Displacement per unit of the smoothed field.
        magnitude: f32,
        /// The field as drawn, not yet smoothed.
        noise: Arc<Lattice>,
    },
    /// `c *= factor` per axis about the origin; normals stay.
    Scale {
        /// x, y, z.
        factor: [f32; 3],
    },
    /// Counter-clockwise about z, then y, then x, each about the centroid of the coordinates before the op; normals turn
    /// about the origin.
    Rotate {
        /// Angles about z, y, x in radians.
        angles: [f32; 3],
    },
    /// Subtract the mean again (f64 sums, f32 result).
    Recentre,
    /// `c += offset` per point.
    Jitter {
        /// Clipped normal offsets, as many as points.
        offsets: Arc<[[f32; 3]]>,
    },
    /// `v = clip(gain * v + offset, 0, 255)`, then `v = clip(v + shift[channel], 0, 255)`.
    Colour {
        /// 1 + contrast.
        gain: f32,
        /// 255 * brightness.
        offset: f32,
        /// Per channel, whole numbers.
        shift: [f32; 3],
    },
    /// `v = clip(v + offset, 0, 255)` per point and channel.
    ColourJitter {
        /// Clipped normal offsets, as many as points.
        offsets: Arc<[[f32; 3]]>,
    },
    /// Set channels to 0.
    ChannelDrop {
        /// Red, green, blue.
        drop: [bool; 3],
    },
    /// Keep these points, in order.
    Keep {
        /// Ascending point numbers, at least one.
        points: Arc<[u32]>,
    },
    /// Keep the `most` points nearest to point `centre` (f32 squared distance, ties by number), in point order. Nothing
    /// happens to a scene of at most `most` points.
    Crop {
        /// Uniform in 0..1: the point `floor(centre * points)` of the scene as it is then.
        centre: f64,
        /// Points kept, >= 1.
        most: u32,
    },
}

/// Three independent random fields on the nodes of a grid, x slowest, z fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Lattice {
    /// Nodes per axis: `floor((max - min) / granularity) + 3`; node i of an axis lies at `min + (i - 1) * granularity`.
    pub dims: [u32; 3],
    /// Standard normal values, three fields one after the other.
    pub noise: Vec<f32>,
}

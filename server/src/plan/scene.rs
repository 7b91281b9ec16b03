//! How one scene becomes one part of a row, before any union: Mix3D's volume and colour transforms in its order.
//!
//! [`cut`] draws which points stay; they are cut from the coordinates as stored. Of what is left, [`draw()`] draws the
//! transforms. The reference crops after them: then a cropped part would not be centred itself, and more points would
//! be transformed. What is drawn is addressed by (step, slot) and meaning; nothing else is random.

mod draw;
mod rule;
#[cfg(test)]
mod tests;

pub use draw::{cut, draw};
pub use rule::{ClippedNormal, RuleError, SceneRule};

use std::sync::Arc;

/// One transform with everything drawn. Executors work on f32 coordinates, one op after the other, in the stated order
/// of operations, never fused; "mean" is a sum in f64 in four lanes (point i in lane i mod 4), added as
/// `(0 + 1) + (2 + 3)`, over the count. Attributes that a scene lacks are left out. On scenes without points every op
/// does nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum SceneOp {
    /// Subtract the mean of the coordinates in f64, then round to f32. The first op after the cuts of a scene whose
    /// rule centres; without it coordinates are only rounded to f32. Later in a list it is [`SceneOp::Recentre`].
    Centre,
    /// `c += 0.5 * (min + fraction * (max - min))` per axis, of the coordinates as they are now.
    Shift {
        /// Uniform in 0..1 per axis.
        fraction: [f32; 3],
    },
    /// Mirror axes. `translate`: `c = max - c` (the reference's, after which the axis begins at 0); otherwise
    /// `c = (min + max) - c`, in place. Normals change sign on the mirrored axes.
    Flip {
        /// x, y, z.
        axes: [bool; 3],
        /// The reference's quirk.
        translate: bool,
    },
    /// Displacement by a smoothed random grid: `c += magnitude * field(c)`, where the field is trilinear between the
    /// nodes of [`Lattice`], and 0 outside. Normals stay. Magnitude 0 changes nothing.
    Elastic {
        /// Side of a cell in units of the coordinates, > 0.
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
    /// Counter-clockwise about z, then y, then x, about the mean of the coordinates: one matrix `Rx Ry Rz`, made in f64
    /// and rounded to f32, is applied to `d = c - mean` as `((m0 * dx + m1 * dy) + m2 * dz) + mean`. Normals turn
    /// about the origin and are not made unit.
    Rotate {
        /// Angles about z, y, x in radians.
        angles: [f32; 3],
    },
    /// Subtract the mean of the coordinates as they are now, in f64, then round to f32.
    Recentre,
    /// `c += offset` per point.
    Jitter {
        /// Clipped normal offsets, as many as points.
        offsets: Arc<[[f32; 3]]>,
    },
    /// `v = clip(gain * v + offset, 0, 255)`, then `v = clip(v + shift[channel], 0, 255)`, not rounded.
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
    /// Keep the `most` points nearest to point `floor(centre * points)` of the scene as it is then, in point order.
    /// Nearness is `(dx * dx + dy * dy) + dz * dz` in f64, rounded to f32; ties go to the lower number. Nothing
    /// happens to a scene of at most `most` points.
    Crop {
        /// Uniform in 0..1.
        centre: f64,
        /// Points kept, >= 1.
        most: u32,
    },
}

/// Three independent random fields on the nodes of a grid, x slowest, z fastest.
///
/// Node i of an axis lies at `min + (i - 1) * granularity`, where min is of the coordinates when the op begins. An axis
/// needs `trunc((max - min) / granularity) + 3` nodes (f32). The executor takes the first that many of `dims`: a plan
/// knows the extent before earlier ops only and draws a few more. With fewer, points at or beyond the last node stay.
///
/// Smoothing: two rounds of box filters along x, y and z, each `((before + here) + after) * (1 / 3)`, 0 beyond the
/// first and last node taken. Of standard normal values, nodes far from the border get (19 / 81)^1.5 = 0.1136 as
/// their standard deviation. Interpolation goes along z, then y, then x, each `a + (b - a) * fraction`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lattice {
    /// Nodes per axis, each at least 3.
    pub dims: [u32; 3],
    /// Standard normal values, three fields (displacements along x, y, z) one after the other.
    pub noise: Vec<f32>,
}

/// What of a scene its plan depends on, after the cuts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Points, >= 1.
    pub points: u32,
    /// Smallest x, y, z as stored.
    pub min: [f64; 3],
    /// Largest x, y, z as stored.
    pub max: [f64; 3],
}

impl Shape {
    /// Shape of `coord`; without points min is +inf and max -inf.
    pub fn of(coord: &[[f64; 3]]) -> Shape {
        // Four points at a time, whose twelve numbers fill registers evenly. Order does not matter to min and max.
        let (fours, rest) = coord.as_chunks::<4>();
        let (mut low, mut high) = ([f64::INFINITY; 12], [f64::NEG_INFINITY; 12]);
        for four in fours {
            for ((v, low), high) in four.as_flattened().iter().zip(&mut low).zip(&mut high) {
                *low = if *v < *low { *v } else { *low };
                *high = if *v > *high { *v } else { *high };
            }
        }
        for (i, v) in rest.as_flattened().iter().enumerate() {
            (low[i], high[i]) = (low[i].min(*v), high[i].max(*v));
        }
        let fold = |v: &[f64; 12], f: fn(f64, f64) -> f64| {
            std::array::from_fn(|a| f(f(v[a], v[a + 3]), f(v[a + 6], v[a + 9])))
        };
        Shape { points: coord.len() as u32, min: fold(&low, f64::min), max: fold(&high, f64::max) }
    }
}

/// Largest absolute coordinate that is transformed, in the file's unit.
pub const FAR: f64 = 1e15;

/// Most nodes of one pass of elastic distortion.
pub const MOST_NODES: u32 = 1 << 21;

/// A scene that the rule cannot be applied to; its record is bad.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SceneError {
    /// Coordinates that f32 arithmetic could not hold.
    #[error("{axis} reaches from {min} to {max}, want at most {FAR:e} from the origin")]
    Far {
        /// "x", "y" or "z".
        axis: &'static str,
        /// Smallest coordinate.
        min: f64,
        /// Largest coordinate.
        max: f64,
    },
    /// A scene too large for the granularity of a pass.
    #[error(
        "elastic: a grid of granularity {granularity} over an extent of {extent:?} has {nodes:.0} nodes, \
         want at most {MOST_NODES}: take a larger granularity or smaller scenes"
    )]
    Nodes {
        /// Side of a cell.
        granularity: f64,
        /// Extent of the scene along x, y, z.
        extent: [f64; 3],
        /// Nodes of the grid.
        nodes: f64,
    },
}

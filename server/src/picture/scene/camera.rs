//! Where a point lies in a panel: a parallel projection, seen from the south-west and from above.

use super::Cloud;
use std::ops::Range;

/// How far the camera is turned about z, radians: both sides of a building are seen, one better than the other.
const TURN: f64 = 0.52;
/// How far it looks down, radians.
const TILT: f64 = 0.68;
/// Empty border of a panel as a share of its side.
const BORDER: f64 = 0.04;
/// Share of the points that may lie below the floor: noise below the ground would pull it away from the scene.
const BELOW: f64 = 0.01;
/// Most lines along one side of the floor.
const LINES: f64 = 10.0;

/// A place in a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// Rows from the top, pixels.
    pub y: f64,
    /// Columns from the left, pixels.
    pub x: f64,
    /// Nearness to the viewer, pixels.
    pub near: f64,
}

/// The camera of one or more panels of the same size.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    /// Smallest and largest x, y, z of the points.
    pub low: [f64; 3],
    /// See `low`.
    pub high: [f64; 3],
    /// Height of the floor.
    floor: f64,
    /// Heights that are dark and bright.
    heights: Range<f64>,
    /// Directions to the right, up and to the viewer.
    axes: [[f64; 3]; 3],
    /// Pixels per unit.
    pub scale: f64,
    /// Middle of the points. Directions are taken from it: far from the origin, differences are exact and products not.
    middle: [f64; 3],
    /// Place of the middle: column, row.
    origin: [f64; 2],
}

impl Camera {
    /// The camera that sees all points of all `clouds`; none if no point is finite.
    pub fn new<'a>(
        clouds: impl IntoIterator<Item = Cloud<'a>>,
        height: usize,
        width: usize,
    ) -> Option<Camera> {
        let points: Vec<[f32; 3]> = clouds.into_iter().flat_map(|cloud| finite(cloud.coord)).collect();
        let mut heights: Vec<f32> = points.iter().map(|p| p[2]).collect();
        let last = heights.len().checked_sub(1)?;
        heights.sort_unstable_by(f32::total_cmp);
        let quantile = |share: f64| f64::from(heights[(last as f64 * share).round() as usize]);
        let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
        for point in &points {
            for axis in 0..3 {
                low[axis] = low[axis].min(f64::from(point[axis]));
                high[axis] = high[axis].max(f64::from(point[axis]));
            }
        }
        let heights = quantile(0.02)..quantile(0.98);
        let (axes, floor) = (axes(), quantile(BELOW));
        let middle = [0, 1, 2].map(|axis| (low[axis] + high[axis]) / 2.0);
        let mut camera = Camera { low, high, floor, heights, axes, scale: 1.0, middle, origin: [0.0; 2] };
        camera.fit(&points, height as f64, width as f64);
        Some(camera)
    }

    /// Scales and moves so that everything is in the panel.
    fn fit(&mut self, points: &[[f32; 3]], height: f64, width: f64) {
        let [right, up, _] = self.axes;
        let corners = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| self.corner(i, j));
        let all = points.iter().map(|p| p.map(f64::from)).chain(corners);
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for point in all {
            for (axis, direction) in [right, up].into_iter().enumerate() {
                let at = dot(direction, self.relative(point));
                low[axis] = low[axis].min(at);
                high[axis] = high[axis].max(at);
            }
        }
        let room = [width, height].map(|side| side * (1.0 - 2.0 * BORDER));
        let scale = (room[0] / (high[0] - low[0])).min(room[1] / (high[1] - low[1]));
        self.scale = if scale.is_finite() { scale } else { 1.0 };
        let middle = [0, 1].map(|axis| (low[axis] + high[axis]) / 2.0 * self.scale);
        self.origin = [width / 2.0 - middle[0], height / 2.0 + middle[1]];
    }

    /// A point as seen from the middle.
    fn relative(&self, point: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|axis| point[axis] - self.middle[axis])
    }

    /// A corner of the floor.
    fn corner(&self, i: usize, j: usize) -> [f64; 3] {
        let ends = [self.low, self.high];
        [ends[i][0], ends[j][1], self.floor]
    }

    /// Place of a point.
    pub fn place(&self, point: [f64; 3]) -> Place {
        let [right, up, toward] = self.axes.map(|axis| dot(axis, self.relative(point)) * self.scale);
        Place { y: self.origin[1] - up, x: self.origin[0] + right, near: toward }
    }

    /// 0 for the lowest points, 1 for the highest, those at the ends taken together.
    pub fn brightness(&self, z: f32) -> f64 {
        let Range { start, end } = self.heights;
        if end > start { ((f64::from(z) - start) / (end - start)).clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Distance of the lines on the floor: 1, 2 or 5 times a power of ten; none if the floor is a point.
    pub fn spacing(&self) -> Option<f64> {
        let longest = (self.high[0] - self.low[0]).max(self.high[1] - self.low[1]);
        let power = libm::pow(10.0, libm::floor(libm::log10(longest / LINES)));
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        steps.into_iter().find(|step| step.is_finite() && *step > 0.0 && longest / step <= LINES)
    }

    /// Draws the floor: its edges and lines at round coordinates.
    pub fn floor(&self, mut line: impl FnMut(Place, Place)) {
        let Some(spacing) = self.spacing() else { return };
        for axis in 0..2 {
            let (low, high) = (self.low[axis], self.high[axis]);
            let first = libm::ceil(low / spacing);
            let inner = (0..=LINES as usize).map(|i| (first + i as f64) * spacing).filter(|at| *at < high);
            for at in [low, high].into_iter().chain(inner) {
                let (mut from, mut to) = (self.corner(0, 0), self.corner(1, 1));
                (from[axis], to[axis]) = (at, at);
                line(self.place(from), self.place(to));
            }
        }
    }

    /// Ends of arrows of `length` pixels along x, y and z that start at (0, 0).
    pub fn compass(&self, length: f64) -> [Place; 3] {
        let [right, up, toward] = self.axes;
        [0, 1, 2].map(|axis| Place {
            y: -up[axis] * length,
            x: right[axis] * length,
            near: toward[axis] * length,
        })
    }
}

/// Points that can be drawn.
fn finite(coord: &[[f32; 3]]) -> impl Iterator<Item = [f32; 3]> {
    coord.iter().copied().filter(|point| point.iter().all(|c| c.is_finite()))
}

/// Directions to the right, up and to the viewer.
fn axes() -> [[f64; 3]; 3] {
    let (turn, turned) = (libm::sin(TURN), libm::cos(TURN));
    let (tilt, level) = (libm::sin(TILT), libm::cos(TILT));
    [[turned, turn, 0.0], [-turn * tilt, turned * tilt, level], [turn * level, -turned * level, tilt]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

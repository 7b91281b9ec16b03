//! Points to pixels. The panel is drawn at twice its size and averaged down, which smooths the edges of points.

use super::camera::{Camera, Place};

/// Side of the square that becomes one pixel.
const FINE: usize = 2;
/// Behind the points. White: the colours of classes are made for it.
pub(super) const GROUND: [u8; 3] = [255, 255, 255];
/// Lines on the floor.
const LINE: [u8; 3] = [206, 208, 212];
/// Nothing was drawn here.
const EMPTY: f32 = f32::NEG_INFINITY;
/// Smallest and largest diameter of a point, fine pixels.
const SIZES: (f64, f64) = (2.0, 7.0);
/// Side of the squares by which the area of a scene is counted, fine pixels.
const BLOCK: usize = 16;
/// Points are this much larger than the mean distance between them, so that a plane has no holes.
const CLOSED: f64 = 2.0;
/// Brightness of the lowest points; the highest have 1.
const DIM: f64 = 0.82;
/// Gaps between points up to twice this are closed before shading, fine pixels.
const MEND: usize = 3;
/// Distances at which a pixel is compared with its neighbours, fine pixels.
const REACH: [usize; 2] = [4, 10];
/// Depth of a crease, in units of its reach, beyond which it gets no darker.
const DEEPEST: f32 = 1.5;
/// How much creases are darkened.
const SHADE: f32 = 0.2;
/// Brightness of the deepest creases: their colour must still be seen.
const DARKEST: f32 = 0.38;

/// A panel with depth.
#[derive(Debug)]
pub(super) struct Surface {
    height: usize,
    width: usize,
    near: Vec<f32>,
    rgb: Vec<[u8; 3]>,
}

impl Surface {
    /// An empty panel of `height` x `width` pixels; the caller has checked the size.
    pub fn new(height: usize, width: usize) -> Surface {
        let (height, width) = (height * FINE, width * FINE);
        Surface { height, width, near: vec![EMPTY; height * width], rgb: vec![GROUND; height * width] }
    }

    /// A line on the floor; every point hides it.
    pub fn line(&mut self, from: Place, to: Place) {
        let (dy, dx) = ((to.y - from.y) * FINE as f64, (to.x - from.x) * FINE as f64);
        let steps = dy.abs().max(dx.abs()).min((self.height + self.width) as f64).ceil().max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let (y, x) = (from.y * FINE as f64 + dy * share, from.x * FINE as f64 + dx * share);
            self.dot(y, x, EMPTY, LINE, FINE);
        }
    }

    /// Draws points; of two at one pixel the nearer one is seen, of two equally near the first.
    pub fn points(&mut self, coord: &[[f32; 3]], colors: &[[u8; 3]], camera: &Camera) {
        let place = |point: &[f32; 3]| {
            let place = camera.place(point.map(f64::from));
            (place.y * FINE as f64, place.x * FINE as f64, place.near as f32 * FINE as f32)
        };
        let drawn = || coord.iter().zip(colors).filter(|(point, _)| point.iter().all(|c| c.is_finite()));
        let density = self.density(drawn().map(|(point, _)| place(point)));
        for (point, color) in drawn() {
            let (y, x, near) = place(point);
            let light = DIM + (1.0 - DIM) * camera.brightness(point[2]);
            let size = self.block(y, x).and_then(|block| density.get(block)).map_or(SIZES.1, |count| {
                libm::round(BLOCK as f64 / libm::sqrt(f64::from(*count)) * CLOSED).clamp(SIZES.0, SIZES.1)
            });
            self.dot(y, x, near, color.map(|c| (f64::from(c) * light).round() as u8), size as usize);
        }
    }

    /// Points of each block. Sparse places get larger points than crowded ones, so that both are closed.
    fn density(&self, places: impl Iterator<Item = (f64, f64, f32)>) -> Vec<u32> {
        let mut density = vec![0; self.width.div_ceil(BLOCK) * self.height.div_ceil(BLOCK)];
        for (y, x, _) in places {
            if let Some(count) = self.block(y, x).and_then(|block| density.get_mut(block)) {
                *count += 1;
            }
        }
        density
    }

    /// Number of the block at a place, if it is on the panel.
    fn block(&self, y: f64, x: f64) -> Option<usize> {
        let inside = y >= 0.0 && x >= 0.0 && y < self.height as f64 && x < self.width as f64;
        inside.then(|| y as usize / BLOCK * self.width.div_ceil(BLOCK) + x as usize / BLOCK)
    }

    /// A disc of `size` fine pixels; what lies beyond the edge is dropped.
    fn dot(&mut self, y: f64, x: f64, near: f32, color: [u8; 3], size: usize) {
        let radius = size as f64 / 2.0;
        let first = |at: f64| (at - radius + 0.5).floor();
        for i in 0..size {
            for j in 0..size {
                let (row, column) = (first(y) + i as f64, first(x) + j as f64);
                let (dy, dx) = (i as f64 + 0.5 - radius, j as f64 + 0.5 - radius);
                let inside = dy * dy + dx * dx <= radius * radius + 0.25;
                let on_panel =
                    row >= 0.0 && column >= 0.0 && row < self.height as f64 && column < self.width as f64;
                if !inside || !on_panel {
                    continue;
                }
                let at = row as usize * self.width + column as usize;
                if near > self.near[at] || (near == EMPTY && self.near[at] == EMPTY) {
                    (self.near[at], self.rgb[at]) = (near, color);
                }
            }
        }
    }

    /// Light at a pixel, 0..=1: darker where the surface bends away from the viewer between its neighbours, as at the
    /// foot of a wall and beside a crown. A slope, however steep, is not darkened.
    fn light(&self, depth: &[f32], y: usize, x: usize) -> f32 {
        let here = depth[y * self.width + x];
        let mut crease = 0.0f32;
        for reach in REACH {
            for (dy, dx) in [(0, 1), (1, 0), (1, 1), (1, -1)] {
                let side = |sign: isize| {
                    let row = y.checked_add_signed(sign * dy * reach as isize)?;
                    let column = x.checked_add_signed(sign * dx * reach as isize)?;
                    let inside = row < self.height && column < self.width;
                    let near = if inside { depth[row * self.width + column] } else { EMPTY };
                    (near != EMPTY).then_some(near)
                };
                let (Some(one), Some(other)) = (side(1), side(-1)) else { continue };
                let bend = ((one + other) / 2.0 - here) / reach as f32;
                crease += bend.clamp(0.0, DEEPEST);
            }
        }
        DARKEST + (1.0 - DARKEST) * libm::expf(-SHADE * crease)
    }

    /// Depth without the gaps between points: the nearest within [`MEND`], then the farthest of those.
    fn mended(&self) -> Vec<f32> {
        let (height, width) = (self.height, self.width);
        let nearest = window(&self.near, height, width, f32::max);
        window(&nearest, height, width, |a, b| a.min(b))
    }

    /// Interleaved RGB of the shaded panel.
    pub fn finish(self) -> Vec<u8> {
        let depth = self.mended();
        let mut rgb = Vec::with_capacity(self.rgb.len() / (FINE * FINE) * 3);
        for y in 0..self.height / FINE {
            for x in 0..self.width / FINE {
                let mut sum = [0.0f32; 3];
                for (i, j) in (0..FINE).flat_map(|i| (0..FINE).map(move |j| (i, j))) {
                    let (y, x) = (y * FINE + i, x * FINE + j);
                    let at = y * self.width + x;
                    let light = if self.near[at] == EMPTY { 1.0 } else { self.light(&depth, y, x) };
                    for (sum, c) in sum.iter_mut().zip(self.rgb[at]) {
                        *sum += f32::from(c) * light;
                    }
                }
                rgb.extend(sum.map(|sum| (sum / (FINE * FINE) as f32).round() as u8));
            }
        }
        rgb
    }
}

/// Folds the square of [`MEND`] pixels around every pixel, first along rows, then along columns.
fn window(values: &[f32], height: usize, width: usize, fold: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let rows: Vec<f32> = values
        .chunks_exact(width)
        .flat_map(|row| {
            let fold = &fold;
            let around = move |x: usize| &row[x.saturating_sub(MEND)..(x + MEND + 1).min(width)];
            (0..width).map(move |x| around(x).iter().copied().fold(row[x], fold))
        })
        .collect();
    let mut out = rows.clone();
    for y in 0..height {
        for other in (y.saturating_sub(MEND)..(y + MEND + 1).min(height)).filter(|other| *other != y) {
            for x in 0..width {
                out[y * width + x] = fold(out[y * width + x], rows[other * width + x]);
            }
        }
    }
    out
}

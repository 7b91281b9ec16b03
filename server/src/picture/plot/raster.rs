//! A surface of pixels, with soft edges.

use super::surface::{Anchor, Stroke, Surface};
use crate::picture::PictureError;
use crate::picture::canvas::{Canvas, Color};
use crate::picture::text::{self, Style};

/// Samples per pixel and axis when a polygon is filled.
const FINE: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Raster {
    canvas: Canvas,
    height: usize,
    width: usize,
}

impl Raster {
    /// Blank paper.
    pub fn new(height: usize, width: usize) -> Raster {
        Raster { canvas: Canvas::new(height, width), height, width }
    }

    /// Encodes the page.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        self.canvas.png()
    }

    /// Pixels that a figure with these corners can ink, grown by `by`: rows, columns.
    fn bounds(&self, points: &[(f64, f64)], by: f64) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let span = |of: fn(&(f64, f64)) -> f64, most: usize| {
            let low = points.iter().map(of).fold(f64::INFINITY, f64::min) - by;
            let high = points.iter().map(of).fold(f64::NEG_INFINITY, f64::max) + by;
            (low.floor().max(0.0) as usize).min(most)..(high.ceil().max(0.0) as usize).min(most)
        };
        (span(|p| p.1, self.height), span(|p| p.0, self.width))
    }

    /// One stroke without gaps, laid down once: joints are not darker than the rest.
    fn solid(&mut self, points: &[(f64, f64)], width: f64, color: Color) {
        let reach = width / 2.0 + 0.5;
        let (rows, columns) = self.bounds(points, reach);
        let across = columns.len();
        let mut cover = vec![0u8; rows.len() * across];
        for pair in points.windows(2) {
            let (near_rows, near_columns) = self.bounds(pair, reach);
            for y in near_rows {
                for x in near_columns.clone() {
                    let away = distance((x as f64 + 0.5, y as f64 + 0.5), pair[0], pair[1]);
                    let here = ((reach - away).clamp(0.0, 1.0) * 255.0).round() as u8;
                    let at = &mut cover[(y - rows.start) * across + (x - columns.start)];
                    *at = (*at).max(here);
                }
            }
        }
        for (i, cover) in cover.iter().enumerate().filter(|(_, cover)| **cover > 0) {
            self.canvas.blend(rows.start + i / across, columns.start + i % across, color, *cover);
        }
    }
}

impl Surface for Raster {
    fn fill(&mut self, corners: &[(f64, f64)], color: Color) {
        let (rows, columns) = self.bounds(corners, 0.0);
        let place = |i: usize| (i as f64 + 0.5) / FINE as f64;
        let ends = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];
        for y in rows {
            for x in columns.clone() {
                let hit = |(dx, dy): (f64, f64)| inside((x as f64 + dx, y as f64 + dy), corners);
                let cover = if ends.into_iter().all(hit) {
                    255
                } else {
                    let samples = (0..FINE * FINE).map(|i| (place(i % FINE), place(i / FINE)));
                    samples.filter(|at| hit(*at)).count() * 255 / (FINE * FINE)
                };
                self.canvas.blend(y, x, color, cover as u8);
            }
        }
    }

    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        for piece in dashed(points, stroke.dash) {
            self.solid(&piece, stroke.width, stroke.color);
        }
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str, style: Style) {
        let shown = text::wrap(text, text.len().max(3), 1).concat();
        let width = (shown.len() * style.advance()) as f64;
        let left = match anchor {
            Anchor::Left => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::Right => x - width,
        };
        text::draw(
            &mut self.canvas,
            y.round().max(0.0) as usize,
            left.round().max(0.0) as usize,
            &shown,
            style,
        );
    }
}

/// Distance from a point to a stretch of line.
fn distance(at: (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let square = dx * dx + dy * dy;
    let along = if square > 0.0 { ((at.0 - from.0) * dx + (at.1 - from.1) * dy) / square } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    (at.0 - from.0 - along * dx).hypot(at.1 - from.1 - along * dy)
}

/// Whether a point lies in a polygon, by the number of edges to its right.
fn inside(at: (f64, f64), corners: &[(f64, f64)]) -> bool {
    let edges = corners.iter().zip(corners.iter().cycle().skip(1));
    let right = edges.filter(|(a, b)| {
        (a.1 > at.1) != (b.1 > at.1) && at.0 < a.0 + (at.1 - a.1) / (b.1 - a.1) * (b.0 - a.0)
    });
    right.count() % 2 == 1
}

/// Cuts a line into its inked pieces.
fn dashed(points: &[(f64, f64)], dash: &[f64]) -> Vec<Vec<(f64, f64)>> {
    if dash.is_empty() {
        return vec![points.to_vec()];
    }
    let (mut pieces, mut piece) = (Vec::new(), vec![points[0]]);
    let (mut phase, mut left) = (0, dash[0]);
    for pair in points.windows(2) {
        let ((x, y), (dx, dy)) = (pair[0], (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
        let length = dx.hypot(dy);
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let at = (x + dx * gone / length, y + dy * gone / length);
            piece.push(at);
            if phase % 2 == 0 {
                pieces.push(std::mem::take(&mut piece));
            }
            piece = vec![at];
            phase += 1;
            left = dash[phase % dash.len()];
        }
        left -= length - gone;
        piece.push(pair[1]);
    }
    if phase % 2 == 0 {
        pieces.push(piece);
    }
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

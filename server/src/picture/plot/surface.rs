//! What a page is drawn on.

use crate::picture::canvas::Color;
use crate::picture::text::Style;

/// A line's look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub color: Color,
    /// Pixels.
    pub width: f64,
    /// Lengths of ink and gap by turns, in pixels; empty is solid.
    pub dash: &'static [f64],
}

/// Which side of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// Positions are (x, y) in pixels from the top left corner.
pub(super) trait Surface {
    /// Fills a convex polygon of at least three corners.
    fn fill(&mut self, corners: &[(f64, f64)], color: Color);
    /// Draws a line through at least two points.
    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke);
    /// Writes one row of text whose top is at `at`.
    fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str, style: Style);
}

/// Corners of a rectangle.
pub(super) fn rectangle(left: f64, top: f64, right: f64, bottom: f64) -> [(f64, f64); 4] {
    [(left, top), (right, top), (right, bottom), (left, bottom)]
}

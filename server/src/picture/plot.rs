//! Curves over steps, stacked in panels above one another, as SVG or PNG.
//!
//! The page is drawn once, on a [`surface::Surface`]; SVG and PNG are two of them. Names stand beside the panels, never
//! among the curves, and every curve has a marker besides its colour, so that it is found without colours as well.

mod axis;
mod page;
mod raster;
mod surface;
mod svg;

#[cfg(test)]
mod tests;

use super::{MAX_PIXELS, PictureError};

/// One curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Name for the list beside the panel; empty for a curve that is not listed.
    pub name: String,
    /// Colour and marker, any number: 12 in a row are easily told apart, 28 differ.
    pub hue: usize,
    /// 0 is a solid line; others are dash patterns of thinner lines without markers.
    pub dash: usize,
    /// Whether a value holds until the next one (steps) instead of leading to it in a straight line.
    pub stepped: bool,
    /// (step, value), steps ascending. A value that is not finite breaks the curve.
    pub points: Vec<(f64, f64)>,
}

/// A coordinate system with its curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Heading: what the values are, with their unit.
    pub title: String,
    /// Curves, in the order of the list.
    pub curves: Vec<Curve>,
    /// Dash patterns with their meaning, below the list of curves.
    pub dashes: Vec<(usize, String)>,
    /// Steps [begin, end) with a shade behind the curves.
    pub shades: Vec<(f64, f64)>,
    /// Whether values begin at 0 even when all are far above it.
    pub from_zero: bool,
    /// What is said when there is no value.
    pub empty: String,
}

/// A page of panels over the same steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// Heading of the page.
    pub title: String,
    /// Smaller text below it.
    pub subtitle: String,
    /// Meaning of the horizontal axis.
    pub across: String,
    /// First and last step of the axis.
    pub steps: (f64, f64),
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

impl Plot {
    /// The page as an SVG document.
    pub fn svg(&self) -> String {
        let mut svg = svg::Svg::new(page::size(self));
        page::draw(self, &mut svg);
        svg.finish()
    }

    /// The page as a PNG.
    ///
    /// # Errors
    /// [`PictureError`]: more than [`MAX_PIXELS`], or the encoder's.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        let (height, width) = page::size(self);
        if (height as u64).saturating_mul(width as u64) > MAX_PIXELS {
            return Err(PictureError::TooLarge { height: height as u64, width: width as u64 });
        }
        let mut raster = raster::Raster::new(height, width);
        page::draw(self, &mut raster);
        raster.png()
    }
}

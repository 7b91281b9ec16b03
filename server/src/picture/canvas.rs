//! The page in memory and the strokes on it.

use super::PictureError;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color(pub [u8; 3]);

/// The paper: light, so that white and black pictures both stand out from it.
pub(super) const PAPER: Color = Color([246, 246, 243]);
/// Thin lines between lines of a sheet.
pub(super) const RULE: Color = Color([214, 214, 208]);
/// Frame of a picture.
pub(super) const FRAME: Color = Color([150, 152, 156]);

/// A rectangle of the page in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    /// First row.
    pub y: usize,
    /// First column.
    pub x: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Interleaved RGB pixels. Strokes beyond the edge are dropped.
#[derive(Debug)]
pub(super) struct Canvas {
    height: usize,
    width: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// Blank paper; the caller has checked the size.
    pub fn new(height: usize, width: usize) -> Canvas {
        Canvas { height, width, rgb: PAPER.0.repeat(height * width) }
    }

    /// Colour at (`y`, `x`), which must be on the page.
    #[cfg(test)]
    pub fn at(&self, y: usize, x: usize) -> Color {
        let at = (y * self.width + x) * 3;
        Color([self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]])
    }

    /// Lays `cover` / 255 of `color` over what is there.
    pub fn blend(&mut self, y: usize, x: usize, color: Color, cover: u8) {
        if y >= self.height || x >= self.width {
            return;
        }
        let at = (y * self.width + x) * 3;
        for (old, new) in self.rgb[at..at + 3].iter_mut().zip(color.0) {
            let mixed = u32::from(*old) * u32::from(255 - cover) + u32::from(new) * u32::from(cover);
            *old = ((mixed + 127) / 255) as u8; // <= 255: a weighted mean of two bytes
        }
    }

    /// Paints a rectangle.
    pub fn fill(&mut self, rect: Rect, color: Color) {
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                self.blend(y, x, color, 255);
            }
        }
    }

    /// Lays a picture, interleaved RGB of `rect`'s size, over the page.
    pub fn paste(&mut self, rect: Rect, rgb: &[u8]) {
        for (y, line) in rgb.chunks_exact(rect.width * 3).enumerate() {
            for (x, pixel) in line.chunks_exact(3).enumerate() {
                self.blend(rect.y + y, rect.x + x, Color([pixel[0], pixel[1], pixel[2]]), 255);
            }
        }
    }

    /// Encodes the page.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
            .write_image(&self.rgb, self.width as u32, self.height as u32, ExtendedColorType::Rgb8)
            .map_err(PictureError::Encode)?;
        Ok(bytes)
    }
}

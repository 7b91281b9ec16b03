//! Pictures for people: contact sheets of what went into a row of a batch and what came out of it, and plots of how the
//! mixture went.
//!
//! A sheet is planned first ([`layout`]: rectangles only, checked against a limit), then painted ([`canvas`]).

mod canvas;
mod history;
mod layout;
mod plot;
mod scale;
pub mod scene;
mod text;
mod tiles;

#[cfg(test)]
mod tests;

use crate::batch::{CHANNELS, Raster};
pub use history::{History, shares, status};
use layout::{Cell, Page};
pub use plot::{Curve, Panel, Plot};

/// Most pixels of one PNG, rows * columns; above it a viewer is of no use and memory is at stake (3 bytes each).
pub const MAX_PIXELS: u64 = 1 << 26;

pub use tiles::Tiles;

/// Headings of the four columns of a [`Sheet`].
const HEADINGS: [&str; 4] = ["base", "partner", "mask (white = base)", "result"];

/// Paint of a mask weight that is no number: a bug should be seen, not pass for black.
const NOT_A_NUMBER: [u8; 3] = [255, 0, 255];

/// An interleaved RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows, >= 1.
    pub height: u32,
    /// Columns, >= 1.
    pub width: u32,
    /// `height * width * 3` bytes: red, green, blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Copies one image of a u8 batch, `raster.len()` elements, planar or interleaved. A `row` of another length gives
    /// a picture without pixels, which the sheet then refuses by name.
    pub fn from_row(row: &[u8], raster: &Raster) -> Picture {
        let rgb = if row.len() != raster.len() || raster.planes * raster.step != CHANNELS {
            Vec::new()
        } else if raster.planes == 1 {
            row.to_vec()
        } else {
            let plane = raster.plane_len();
            (0..plane).flat_map(|i| [row[i], row[plane + i], row[2 * plane + i]]).collect()
        };
        Picture { height: side(raster.height), width: side(raster.width), rgb }
    }

    /// Paints the base weights of a mask, `height * width` numbers in row order: 1 (all base) is white, 0 (all partner)
    /// is black, beyond 0..=1 is clamped, and no number (NaN) is magenta. `weights` of another length give a picture
    /// without pixels, which the sheet then refuses by name.
    pub fn from_mask(weights: &[f32], height: u32, width: u32) -> Picture {
        let fits = weights.len() as u64 == u64::from(height) * u64::from(width);
        let known: &[f32] = if fits { weights } else { &[] };
        Picture { height, width, rgb: known.iter().flat_map(|weight| grey(*weight)).collect() }
    }

    /// Checks that the picture has pixels and as many as it says.
    fn check(&self, what: impl FnOnce() -> String) -> Result<(), PictureError> {
        let pixels = u64::from(self.height) * u64::from(self.width);
        let fits = self.rgb.len() as u128 == u128::from(pixels) * CHANNELS as u128;
        if pixels > 0 && fits {
            return Ok(());
        }
        let (height, width, found) = (self.height, self.width, self.rgb.len());
        Err(PictureError::Length { what: what(), height, width, found })
    }
}

/// A side of a raster; one that does not fit saturates and can then not match its length.
fn side(pixels: usize) -> u32 {
    u32::try_from(pixels).unwrap_or(u32::MAX)
}

/// Paint of a mask weight.
fn grey(weight: f32) -> [u8; CHANNELS] {
    if weight.is_nan() {
        return NOT_A_NUMBER;
    }
    [(weight.clamp(0.0, 1.0) * 255.0).round() as u8; CHANNELS]
}

/// One line of a sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The base as it entered the mix.
    pub base: Picture,
    /// The partner as it entered the mix.
    pub partner: Picture,
    /// Weight of the base per pixel, see [`Picture::from_mask`].
    pub mask: Picture,
    /// What the trainer gets.
    pub result: Picture,
    /// Text under each of the four, `\n` starts a new paragraph. The first paragraph is set in darker ink. Long
    /// paragraphs are wrapped, very long ones end in "..".
    pub captions: [String; 4],
}

/// A contact sheet: one line per row of a batch, four pictures each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// Heading of the page.
    pub title: String,
    /// Smaller text below it, may be empty.
    pub subtitle: String,
    /// Lines from top to bottom; none gives a page with headings only.
    pub lines: Vec<Line>,
}

impl Sheet {
    /// Renders the sheet as an RGB PNG.
    ///
    /// # Errors
    /// [`PictureError`]: a picture whose pixels do not match its size, or a sheet of more than [`MAX_PIXELS`].
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        self.page()?.png()
    }

    fn page(&self) -> Result<Page<'_>, PictureError> {
        let mut cells = Vec::with_capacity(self.lines.len() * HEADINGS.len());
        for (number, line) in self.lines.iter().enumerate() {
            let named = [
                ("base", &line.base),
                ("partner", &line.partner),
                ("mask", &line.mask),
                ("result", &line.result),
            ];
            for ((name, picture), caption) in named.into_iter().zip(&line.captions) {
                picture.check(|| format!("`{name}` of line {number}"))?;
                cells.push(Cell { picture, caption });
            }
        }
        Ok(Page {
            title: &self.title,
            subtitle: &self.subtitle,
            headings: &HEADINGS,
            columns: HEADINGS.len(),
            cells,
        })
    }
}

/// Renders a plain grid, `columns` pictures per line (at least 1, at most as many as there are), captions as in
/// [`Line`].
///
/// # Errors
/// [`PictureError`]: a picture whose pixels do not match its size, or a grid of more than [`MAX_PIXELS`].
pub fn grid(title: &str, cells: &[(Picture, String)], columns: usize) -> Result<Vec<u8>, PictureError> {
    grid_page(title, cells, columns)?.png()
}

fn grid_page<'a>(
    title: &'a str,
    cells: &'a [(Picture, String)],
    columns: usize,
) -> Result<Page<'a>, PictureError> {
    for (number, (picture, _)) in cells.iter().enumerate() {
        picture.check(|| format!("cell {number}"))?;
    }
    Ok(Page {
        title,
        subtitle: "",
        headings: &[],
        columns: columns.clamp(1, cells.len().max(1)),
        cells: cells.iter().map(|(picture, caption)| Cell { picture, caption }).collect(),
    })
}

/// A sheet that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// A picture has no pixels, or not as many as its size says.
    #[error(
        "{what} has {found} bytes of pixels, want 3 for each pixel of {height} rows and {width} columns, at least one"
    )]
    Length {
        /// Which picture: "`mask` of line 3", "cell 0".
        what: String,
        /// Rows it claims.
        height: u32,
        /// Columns it claims.
        width: u32,
        /// Bytes it holds.
        found: usize,
    },
    /// A scene has an attribute of another length than its points.
    #[error("`{field}` of {what} has {found} entries, want one for each of the {points} points")]
    Points {
        /// Which scene: "`tile.laz` of example 3", "the union of example 0".
        what: String,
        /// "class", "color", "origin".
        field: &'static str,
        /// Entries it has.
        found: usize,
        /// Points of the scene.
        points: usize,
    },
    /// The page would be too large.
    #[error(
        "a sheet of {height} rows and {width} columns has more than {MAX_PIXELS} pixels, ask for fewer pictures"
    )]
    TooLarge {
        /// Rows of the page.
        height: u64,
        /// Columns of the page.
        width: u64,
    },
    /// The PNG writer failed.
    #[error("png cannot be written: {0}")]
    Encode(#[source] image::ImageError),
}

//! Text on a canvas: which rows a text breaks into, and their ink.

use super::canvas::{Canvas, Color};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Ends a text that was cut.
const CUT: &str = "..";

/// Where a word may be broken: after one of these. Class names are often one long word.
const BREAKS: [char; 9] = ['_', '-', '/', ',', ';', ':', '|', '=', '.'];

/// Look of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    weight: FontWeight,
    size: RasterHeight,
    /// Pixels from one row of text to the next.
    pub pitch: usize,
    /// Ink.
    pub color: Color,
}

impl Style {
    /// Name of the page.
    pub const TITLE: Style =
        Style { weight: FontWeight::Bold, size: RasterHeight::Size20, pitch: 26, color: Color([28, 30, 34]) };
    /// Below the title.
    pub const SUBTITLE: Style = Style {
        weight: FontWeight::Regular,
        size: RasterHeight::Size16,
        pitch: 20,
        color: Color([88, 92, 100]),
    };
    /// Above a column.
    pub const HEADING: Style =
        Style { weight: FontWeight::Bold, size: RasterHeight::Size16, pitch: 20, color: Color([28, 30, 34]) };
    /// First paragraph of a caption.
    pub const CAPTION: Style = Style {
        weight: FontWeight::Regular,
        size: RasterHeight::Size16,
        pitch: 18,
        color: Color([28, 30, 34]),
    };
    /// Further paragraphs of a caption.
    pub const DETAIL: Style = Style { color: Color([88, 92, 100]), ..Style::CAPTION };

    /// Columns of one character.
    pub fn advance(self) -> usize {
        get_raster_width(self.weight, self.size)
    }

    /// Whether it is set in bold.
    pub fn is_bold(self) -> bool {
        self.weight == FontWeight::Bold
    }

    /// Characters that fit into `width` pixels, at least 3 so that a cut text shows something.
    pub fn columns(self, width: usize) -> usize {
        (width / self.advance()).max(3)
    }
}

/// Breaks a paragraph into at most `limit` (>= 1) rows of at most `columns` (>= 3) printable ASCII characters: at
/// spaces, else after punctuation, else anywhere. What does not fit is cut and ends in "..".
pub(super) fn wrap(paragraph: &str, columns: usize, limit: usize) -> Vec<String> {
    // Every row uses up at most `columns` characters and one space: more text than this ends in a cut anyway.
    let text = printable(paragraph, (columns + 1) * limit + 1);
    let mut rest = text.as_str();
    let mut rows = Vec::new();
    while rest.len() > columns && rows.len() + 1 < limit {
        let (row, next) = rest.split_at(break_point(rest, columns));
        rows.push(row.trim_end().to_owned());
        rest = next.trim_start();
    }
    if rest.len() > columns {
        rows.push(format!("{}{CUT}", rest[..columns - CUT.len()].trim_end()));
    } else {
        rows.push(rest.to_owned());
    }
    rows
}

/// Wraps each paragraph of `text` to at most `rows_each` rows; at most `limit` (>= 1) rows in all, the last of which
/// ends in ".." if there were more. With each row comes the number of its paragraph.
pub(super) fn wrap_all(text: &str, columns: usize, rows_each: usize, limit: usize) -> Vec<(usize, String)> {
    let mut rows: Vec<(usize, String)> = Vec::new();
    for (number, paragraph) in text.lines().enumerate() {
        let room = limit - rows.len();
        if room == 0 {
            if let Some((_, last)) = rows.last_mut().filter(|(_, last)| !last.ends_with(CUT)) {
                last.truncate(columns - CUT.len());
                last.push_str(CUT);
            }
            break;
        }
        rows.extend(wrap(paragraph, columns, rows_each.min(room)).into_iter().map(|row| (number, row)));
    }
    rows
}

/// At most `limit` characters of `text` as printable ASCII: runs of white space become one space, what the font lacks
/// becomes '?'.
fn printable(text: &str, limit: usize) -> String {
    let words = text.split_whitespace().enumerate();
    let spaced = words.flat_map(|(i, word)| (i > 0).then_some(' ').into_iter().chain(word.chars()));
    spaced.map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(limit).collect()
}

/// Bytes of `text` (ASCII, longer than `columns`) that go on this row, 1..=columns.
fn break_point(text: &str, columns: usize) -> usize {
    // A break that leaves most of the row empty costs more than a broken word.
    let space = text[..=columns].rfind(' ').filter(|at| *at >= columns / 3);
    let mark = || text[..columns].rfind(BREAKS).map(|at| at + 1).filter(|at| *at >= columns / 2);
    space.or_else(mark).unwrap_or(columns)
}

/// Draws one row of ASCII text with its top left corner at (`y`, `x`).
pub(super) fn draw(canvas: &mut Canvas, y: usize, x: usize, row: &str, style: Style) {
    let advance = get_raster_width(style.weight, style.size);
    for (number, c) in row.chars().enumerate() {
        let Some(glyph) = get_raster(c, style.weight, style.size) else { continue };
        for (dy, cover) in glyph.rows().enumerate() {
            for (dx, cover) in cover.iter().enumerate() {
                canvas.blend(y + dy, x + number * advance + dx, style.color, *cover);
            }
        }
    }
}

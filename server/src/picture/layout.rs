//! Where everything goes: a page becomes a list of marks with their rectangles before a pixel is painted.

use super::canvas::{Canvas, FRAME, RULE, Rect};
use super::text::{self, Style};
use super::{MAX_PIXELS, Picture, PictureError, scale};

/// Empty border of the page.
pub(super) const MARGIN: usize = 32;
/// Empty columns between two columns of pictures, with room for their frames.
pub(super) const GAP: usize = 24;
/// Width of the line around a picture.
const LINE: usize = 1;
/// Empty rows between a picture and its text.
const NEAR: usize = 8;
/// Empty rows above and below a rule.
const FAR: usize = 18;
/// Least width of what is between the margins, so that a title has room above a single column.
const MIN_CONTENT: usize = 448;
/// Most rows of a title, of a subtitle.
const HEAD_ROWS: usize = 4;
/// Most rows of one paragraph of a caption.
const PARAGRAPH_ROWS: usize = 3;
/// Most rows of a caption.
const CAPTION_ROWS: usize = 12;

/// A picture with its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    /// Checked picture.
    pub picture: &'a Picture,
    /// Text below.
    pub caption: &'a str,
}

/// What a PNG shows.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Set large on top.
    pub title: &'a str,
    /// Set small below.
    pub subtitle: &'a str,
    /// Above the columns: none, or one for each.
    pub headings: &'a [&'a str],
    /// Cells per line, >= 1.
    pub columns: usize,
    /// From left to right, from top to bottom.
    pub cells: Vec<Cell<'a>>,
}

/// Something on the page and the rectangle that it may ink.
#[derive(Debug)]
pub(super) enum Mark<'a> {
    /// Rows of text.
    Text(Rect, Vec<(Style, String)>),
    /// A picture; the rectangle is that of its pixels, the frame lies around it.
    Picture(Rect, &'a Picture),
    /// A line across the page.
    Rule(Rect),
}

/// A planned page.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    /// Rows of the page.
    pub height: usize,
    /// Columns of the page.
    pub width: usize,
    /// In the order in which they are painted.
    pub marks: Vec<Mark<'a>>,
}

impl<'a> Page<'a> {
    /// Plans, paints and encodes the page.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        self.layout().paint()?.png()
    }

    /// Plans the page.
    pub fn layout(&self) -> Layout<'a> {
        let column = self.column();
        let content = (self.columns * (column + GAP) - GAP).max(MIN_CONTENT);
        let mut pen = Pen { y: MARGIN, marks: Vec::new() };
        let head = [(self.title, Style::TITLE), (self.subtitle, Style::SUBTITLE)];
        let head: Vec<_> = head.iter().flat_map(|(text, style)| styled(text, *style, content)).collect();
        if !head.is_empty() {
            let height = pen.text(MARGIN, content, head);
            pen.y += height;
            pen.rule(content);
        }
        let headings = self.headings.iter().enumerate().map(|(i, heading)| {
            let rows = styled(heading, Style::HEADING, column);
            pen.text(MARGIN + i * (column + GAP), column, rows)
        });
        let headings = headings.max().unwrap_or(0);
        pen.y += if headings > 0 { headings + NEAR } else { 0 };
        for (number, line) in self.cells.chunks(self.columns).enumerate() {
            if number > 0 {
                pen.rule(content);
            }
            pen.line(line, column);
        }
        Layout { height: pen.y + MARGIN, width: content + 2 * MARGIN, marks: pen.marks }
    }

    /// Width of every column: that of the widest picture as shown.
    pub fn column(&self) -> usize {
        let widths = self.cells.iter().map(|cell| scale::shown(cell.picture.height, cell.picture.width).1);
        widths.max().unwrap_or(0).max(scale::MIN_SIDE)
    }
}

/// Rows of a text in one style.
fn styled(text: &str, style: Style, width: usize) -> Vec<(Style, String)> {
    let rows = text::wrap_all(text, style.columns(width), HEAD_ROWS, HEAD_ROWS);
    rows.into_iter().map(|(_, row)| (style, row)).collect()
}

/// Rows of a caption: the first paragraph says what it is, the others are details.
fn caption(text: &str, width: usize) -> Vec<(Style, String)> {
    let rows = text::wrap_all(text, Style::CAPTION.columns(width), PARAGRAPH_ROWS, CAPTION_ROWS);
    rows.into_iter()
        .map(|(number, row)| (if number == 0 { Style::CAPTION } else { Style::DETAIL }, row))
        .collect()
}

/// Walks down the page.
struct Pen<'a> {
    /// Next free row.
    y: usize,
    marks: Vec<Mark<'a>>,
}

impl<'a> Pen<'a> {
    /// Plans text at the pen without moving it; returns its height, 0 if there is none.
    fn text(&mut self, x: usize, width: usize, rows: Vec<(Style, String)>) -> usize {
        let height = rows.iter().map(|(style, _)| style.pitch).sum();
        if height > 0 {
            self.marks.push(Mark::Text(Rect { y: self.y, x, height, width }, rows));
        }
        height
    }

    /// Plans a line across the page and moves below it.
    fn rule(&mut self, width: usize) {
        self.marks.push(Mark::Rule(Rect { y: self.y + FAR, x: MARGIN, height: LINE, width }));
        self.y += FAR + LINE + FAR;
    }

    /// Plans a line of pictures and their captions and moves below it.
    fn line(&mut self, cells: &[Cell<'a>], column: usize) {
        let x = |i: usize| MARGIN + i * (column + GAP);
        let sizes: Vec<_> = cells.iter().map(|c| scale::shown(c.picture.height, c.picture.width)).collect();
        let tallest = sizes.iter().map(|size| size.0).max().unwrap_or(0);
        for (i, (cell, (height, width))) in cells.iter().zip(sizes).enumerate() {
            // Pictures stand on their captions: a low one is not torn from its text by a high neighbour.
            let y = self.y + LINE + tallest - height;
            self.marks.push(Mark::Picture(Rect { y, x: x(i), height, width }, cell.picture));
        }
        self.y += tallest + 2 * LINE;
        let rows: Vec<_> = cells.iter().map(|cell| caption(cell.caption, column)).collect();
        if rows.iter().any(|rows| !rows.is_empty()) {
            self.y += NEAR;
        }
        let heights: Vec<_> =
            rows.into_iter().enumerate().map(|(i, rows)| self.text(x(i), column, rows)).collect();
        self.y += heights.into_iter().max().unwrap_or(0);
    }
}

impl Layout<'_> {
    /// Paints the page, unless it is larger than [`MAX_PIXELS`].
    pub fn paint(&self) -> Result<Canvas, PictureError> {
        let (height, width) = (self.height as u64, self.width as u64);
        if height.saturating_mul(width) > MAX_PIXELS {
            return Err(PictureError::TooLarge { height, width });
        }
        let mut canvas = Canvas::new(self.height, self.width);
        for mark in &self.marks {
            match mark {
                Mark::Rule(rect) => canvas.fill(*rect, RULE),
                Mark::Picture(rect, picture) => {
                    canvas.fill(framed(*rect), FRAME);
                    canvas.paste(*rect, &scale::resize(picture));
                }
                Mark::Text(rect, rows) => {
                    let mut y = rect.y;
                    for (style, row) in rows {
                        text::draw(&mut canvas, y, rect.x, row, *style);
                        y += style.pitch;
                    }
                }
            }
        }
        Ok(canvas)
    }
}

/// A picture's rectangle with its frame.
pub(super) fn framed(rect: Rect) -> Rect {
    Rect { y: rect.y - LINE, x: rect.x - LINE, height: rect.height + 2 * LINE, width: rect.width + 2 * LINE }
}

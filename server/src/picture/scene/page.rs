//! A page of examples: where panels and texts go, then their ink.

use super::camera::Camera;
use super::{Cloud, Example, Paint, SceneSheet, colors, palette, panel};
use crate::picture::canvas::{Canvas, Color, FRAME, RULE, Rect};
use crate::picture::text::{self, Style};
use crate::picture::{MAX_PIXELS, PictureError};
use std::collections::BTreeSet;

/// Size of a panel, pixels.
pub(super) const PANEL: (usize, usize) = (460, 640);
/// Empty border of the page.
pub(super) const MARGIN: usize = 32;
/// Empty columns between two panels.
pub(super) const GAP: usize = 24;
/// Width of the page.
const WIDTH: usize = 2 * PANEL.1 + GAP + 2 * MARGIN;
/// Width of what is between the margins.
const CONTENT: usize = WIDTH - 2 * MARGIN;
/// Empty rows between a panel and its caption.
const NEAR: usize = 6;
/// Empty rows between blocks.
const FAR: usize = 16;
/// Side of a patch of colour.
const PATCH: usize = 12;
/// Columns from the left edge of a patch to its text.
const INDENT: usize = 20;
/// Rows of classes of one example; the last ones are summed up beyond it.
const MOST_CLASSES: usize = 40;
/// Parts that have their own column in the list of classes; with more only the union has one.
const MOST_COLUMNS: usize = 4;
/// Characters of a column of numbers.
const NUMBER: usize = 12;
/// A part that is this many times smaller than the union is shown enlarged.
const TINY: f64 = 3.0;
/// Length of an arrow and the place where arrows start, from the lower left corner of a panel.
const ARROW: (f64, usize) = (26.0, 40);

/// Something on the page.
enum Mark<'a> {
    /// One row of text.
    Text(usize, usize, String, Style),
    /// A rectangle of one colour.
    Patch(Rect, [u8; 3]),
    /// A panel.
    Panel(Rect, Box<View<'a>>),
}

/// What a panel shows.
struct View<'a> {
    cloud: Cloud<'a>,
    /// Parts that the points are from, where the panel shows them.
    origin: Option<&'a [u8]>,
    camera: Option<Camera>,
}

/// A planned page.
pub(super) struct Plan<'a> {
    sheet: &'a SceneSheet<'a>,
    y: usize,
    marks: Vec<Mark<'a>>,
}

impl<'a> Plan<'a> {
    /// Plans the page of checked examples.
    pub fn new(sheet: &'a SceneSheet<'a>) -> Plan<'a> {
        let mut plan = Plan { sheet, y: MARGIN, marks: Vec::new() };
        plan.paragraph(sheet.title, Style::TITLE);
        plan.paragraph(sheet.subtitle, Style::SUBTITLE);
        for example in sheet.examples {
            if plan.y > MARGIN {
                plan.y += FAR;
                plan.marks
                    .push(Mark::Patch(Rect { y: plan.y, x: MARGIN, height: 1, width: CONTENT }, RULE.0));
                plan.y += FAR;
            }
            plan.example(example);
        }
        plan.y += MARGIN;
        plan
    }

    /// Text across the page.
    fn paragraph(&mut self, text: &str, style: Style) {
        for (_, row) in text::wrap_all(text, style.columns(CONTENT), 3, 6) {
            self.marks.push(Mark::Text(self.y, MARGIN, row, style));
            self.y += style.pitch;
        }
    }

    fn example(&mut self, example: &Example<'a>) {
        self.paragraph(example.title, Style::HEADING);
        self.y += if example.title.is_empty() { 0 } else { NEAR };
        let clouds = example.parts.iter().map(|part| part.cloud).chain([example.union]);
        let camera = Camera::new(clouds, PANEL.0, PANEL.1);
        let parts = example.parts.iter().enumerate().map(|(i, part)| {
            let name = format!("{}: {}", letter(i), part.name);
            let own = own_camera(part.cloud, camera.as_ref());
            (name, View { cloud: part.cloud, origin: None, camera: own.or_else(|| camera.clone()) })
        });
        let union = |name: &str, origin: Option<&'a [u8]>| {
            (name.to_owned(), View { cloud: example.union, origin, camera: camera.clone() })
        };
        let by = match (self.sheet.paint, example.union.class, example.union.color) {
            (Paint::Color, _, Some(_)) => "union in its colours",
            (_, Some(_), _) => "union by class",
            (_, None, _) => "union",
        };
        let panels: Vec<_> =
            parts.chain([union(by, None), union("union by origin", Some(example.origin))]).collect();
        let mut rest = panels.into_iter().peekable();
        while rest.peek().is_some() {
            for (i, (name, view)) in rest.by_ref().take(2).enumerate() {
                self.panel(MARGIN + i * (PANEL.1 + GAP), &name, view, example, camera.as_ref());
            }
            self.y += 1 + PANEL.0 + NEAR + 2 * Style::CAPTION.pitch + FAR;
        }
        self.classes(example);
    }

    /// A panel with its caption; the pen stays.
    fn panel(&mut self, x: usize, name: &str, view: View<'a>, example: &Example, shared: Option<&Camera>) {
        let rect = Rect { y: self.y + 1, x, height: PANEL.0, width: PANEL.1 };
        let y = self.y + 1 + PANEL.0 + NEAR;
        let columns = Style::CAPTION.columns(PANEL.1);
        let row = text::wrap(name, columns, 1).remove(0);
        self.marks.push(Mark::Text(y, x, row, Style::CAPTION));
        let y = y + Style::CAPTION.pitch;
        if let Some(origin) = view.origin {
            self.origins(y, x, origin, example);
        } else {
            let row = text::wrap(&facts(view.cloud, view.camera.as_ref(), shared), columns, 1).remove(0);
            self.marks.push(Mark::Text(y, x, row, Style::DETAIL));
        }
        self.marks.push(Mark::Panel(rect, Box::new(view)));
    }

    /// Colours and counts of origins, as many as have room.
    fn origins(&mut self, y: usize, x: usize, origin: &[u8], example: &Example) {
        let mut at = x;
        for part in 0..example.parts.len() {
            let points = origin.iter().filter(|o| usize::from(**o) == part).count();
            let row = format!("from {}: {}", letter(part), grouped(points));
            let end = at + INDENT + row.len() * Style::DETAIL.advance();
            if end > x + PANEL.1 {
                break;
            }
            self.patch(y, at, palette::origin(part));
            self.marks.push(Mark::Text(y, at + INDENT, row, Style::DETAIL));
            at = end + 2 * INDENT;
        }
    }

    fn patch(&mut self, y: usize, x: usize, color: [u8; 3]) {
        let rect = Rect { y: y + 2, x, height: PATCH, width: PATCH };
        self.marks
            .push(Mark::Patch(Rect { y: y + 1, x: x - 1, height: PATCH + 2, width: PATCH + 2 }, FRAME.0));
        self.marks.push(Mark::Patch(rect, color));
    }

    /// The list of classes with their points in each part and in the union, in two halves side by side.
    fn classes(&mut self, example: &Example) {
        let columns = columns(example);
        let found: BTreeSet<i32> = columns.iter().flat_map(|(_, class)| class.iter().copied()).collect();
        if found.is_empty() {
            return;
        }
        let shows_classes = self.sheet.paint == Paint::Class || example.union.color.is_none();
        let shown: Vec<i32> = found.iter().copied().take(MOST_CLASSES).collect();
        let half = if shown.len() > 4 { shown.len().div_ceil(2) } else { shown.len() };
        for (i, classes) in shown.chunks(half).enumerate() {
            let x = MARGIN + i * (PANEL.1 + GAP);
            let head = columns.iter().map(|(name, _)| name.clone());
            self.row(self.y, x, "points of class", head, Style::DETAIL);
            for (line, class) in classes.iter().enumerate() {
                let y = self.y + (line + 1) * Style::CAPTION.pitch;
                if shows_classes {
                    self.patch(y, x, palette::class(*class, self.sheet.names));
                }
                let counts =
                    columns.iter().map(|(_, all)| grouped(all.iter().filter(|c| *c == class).count()));
                let name = palette::name(*class, self.sheet.names);
                let name = name.map_or_else(|| class.to_string(), |name| format!("{class} {name}"));
                self.row(y, x, &name, counts, Style::CAPTION);
            }
        }
        self.y += (half + 1) * Style::CAPTION.pitch;
        if found.len() > shown.len() {
            self.paragraph(&format!("and {} more classes", found.len() - shown.len()), Style::DETAIL);
        }
    }

    /// A name with numbers flush right beside it.
    fn row(
        &mut self,
        y: usize,
        x: usize,
        name: &str,
        numbers: impl ExactSizeIterator<Item = String>,
        style: Style,
    ) {
        let room = style.columns(PANEL.1 - INDENT) - numbers.len() * NUMBER;
        let name = text::wrap(name, room, 1).remove(0);
        let numbers: String = numbers.map(|number| format!("{number:>NUMBER$}")).collect();
        self.marks.push(Mark::Text(y, x + INDENT, format!("{name:<28}{numbers}"), style));
    }

    /// Paints the page, unless it is larger than [`MAX_PIXELS`].
    pub fn paint(&self) -> Result<Canvas, PictureError> {
        let (height, width) = (self.y as u64, WIDTH as u64);
        if height.saturating_mul(width) > MAX_PIXELS {
            return Err(PictureError::TooLarge { height, width });
        }
        let mut canvas = Canvas::new(self.y, WIDTH);
        for mark in &self.marks {
            match mark {
                Mark::Text(y, x, row, style) => text::draw(&mut canvas, *y, *x, row, *style),
                Mark::Patch(rect, color) => canvas.fill(*rect, Color(*color)),
                Mark::Panel(rect, view) => self.paint_panel(&mut canvas, *rect, view),
            }
        }
        Ok(canvas)
    }

    /// All text of the page, row by row.
    #[cfg(test)]
    pub fn rows(&self) -> Vec<&str> {
        let rows = self.marks.iter().filter_map(|mark| match mark {
            Mark::Text(_, _, row, _) => Some(row.as_str()),
            Mark::Patch(..) | Mark::Panel(..) => None,
        });
        rows.collect()
    }

    fn paint_panel(&self, canvas: &mut Canvas, rect: Rect, view: &View) {
        let frame = Rect { y: rect.y - 1, x: rect.x - 1, height: rect.height + 2, width: rect.width + 2 };
        canvas.fill(frame, FRAME);
        let colors = match view.origin {
            Some(origin) => origin.iter().map(|part| palette::origin(usize::from(*part))).collect(),
            None => colors(view.cloud, self.sheet.names, self.sheet.paint),
        };
        let size = (rect.height as u32, rect.width as u32);
        canvas.paste(rect, &panel(view.cloud, &colors, view.camera.as_ref(), size).rgb);
        match &view.camera {
            Some(camera) if !view.cloud.coord.is_empty() => paint_compass(canvas, rect, camera),
            _ => {
                let text = "no points";
                let x = rect.x + (rect.width - text.len() * Style::DETAIL.advance()) / 2;
                text::draw(canvas, rect.y + rect.height / 2, x, text, Style::DETAIL);
            }
        }
    }
}

/// Arrows along the axes, with their letters, in the lower left corner.
fn paint_compass(canvas: &mut Canvas, rect: Rect, camera: &Camera) {
    let (y, x) = ((rect.y + rect.height - ARROW.1) as f64, (rect.x + ARROW.1) as f64);
    let ends = camera.compass(ARROW.0);
    for (letter, end) in ["x", "y", "z"].into_iter().zip(ends) {
        let steps = ARROW.0 as usize * 2;
        for step in 0..=steps {
            let share = step as f64 / steps as f64;
            let (y, x) = (y + end.y * share, x + end.x * share);
            canvas.blend(y.round() as usize, x.round() as usize, Style::DETAIL.color, 255);
        }
        let (y, x) = (y + end.y * 1.35 - 8.0, x + end.x * 1.35 - 4.0);
        text::draw(canvas, y.round() as usize, x.round() as usize, letter, Style::DETAIL);
    }
}

/// The part's own camera if it would be a speck in the panel of the union.
fn own_camera(cloud: Cloud, shared: Option<&Camera>) -> Option<Camera> {
    let own = Camera::new([cloud], PANEL.0, PANEL.1)?;
    (own.scale > shared?.scale * TINY).then_some(own)
}

/// Size of a scene as shown.
fn facts(cloud: Cloud, camera: Option<&Camera>, shared: Option<&Camera>) -> String {
    let mut facts = format!("{} points", grouped(cloud.coord.len()));
    let Some(camera) = camera else { return facts };
    if let Some(own) = Camera::new([cloud], PANEL.0, PANEL.1) {
        let [x, y, z] = [0, 1, 2].map(|axis| own.high[axis] - own.low[axis]);
        facts += &format!(", {} x {} x {}", short(x), short(y), short(z));
    }
    if let Some(spacing) = camera.spacing() {
        facts += &format!(", lines every {spacing}");
    }
    let larger = shared.map_or(1.0, |shared| camera.scale / shared.scale);
    if larger > 1.0 {
        facts += &format!(", shown {} times larger", short(larger));
    }
    facts
}

/// Classes of each part, if they have room, and of the union.
fn columns<'a>(example: &Example<'a>) -> Vec<(String, &'a [i32])> {
    let parts =
        example.parts.iter().enumerate().map(|(i, part)| (letter(i), part.cloud.class.unwrap_or(&[])));
    let parts = parts.filter(|_| example.parts.len() <= MOST_COLUMNS);
    parts.chain([("union".to_owned(), example.union.class.unwrap_or(&[]))]).collect()
}

/// A, B, ..., Z, then the number of the part.
fn letter(part: usize) -> String {
    let letter = u8::try_from(part).ok().filter(|part| *part < 26).map(|part| char::from(b'A' + part));
    letter.map_or_else(|| part.to_string(), String::from)
}

/// Three digits or more where there are more before the point.
fn short(size: f64) -> String {
    let digits = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{size:.digits$}")
}

/// A count with a comma every three digits.
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

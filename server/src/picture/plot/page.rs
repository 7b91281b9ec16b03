//! The page: where everything goes and how it looks.

use super::axis::Axis;
use super::surface::{Anchor, Stroke, Surface, rectangle};
use super::{Curve, Panel, Plot};
use crate::picture::canvas::{Color, FRAME, PAPER, RULE};
use crate::picture::text::{self, Style};

const WIDTH: usize = 1240;
const MARGIN: usize = 28;
/// Columns left of a panel, for the texts of its ticks.
const SCALE: usize = 76;
/// Columns of the list beside a panel, and the gap before it.
const LIST: usize = 300;
const GAP: usize = 22;
/// Rows from one name of a list to the next.
const PITCH: usize = 21;
/// Least rows of a panel.
const TALL: usize = 230;
/// Rows for a panel's heading, and for the texts of ticks below it.
const HEAD: usize = 30;
const FOOT: usize = 30;
/// Rows below the page's heading.
const NEAR: usize = 8;
/// Columns of a list's sample of a curve, and of its value.
const SAMPLE: usize = 40;
const VALUE: usize = 8;
/// Pixels between two markers of a curve, and half a marker's size.
const APART: f64 = 120.0;
const MARK: f64 = 4.5;
/// Behind probes.
const SHADE: Color = Color([226, 228, 232]);

/// Told apart with any kind of colour vision (Okabe and Ito, 2008; yellow is darkened, black is an ink of the page).
const HUES: [Color; 7] = [
    Color([0, 114, 178]),
    Color([213, 94, 0]),
    Color([0, 158, 115]),
    Color([204, 121, 167]),
    Color([40, 42, 48]),
    Color([86, 180, 233]),
    Color([200, 150, 0]),
];
/// Lengths of ink and gap.
const DASHES: [&[f64]; 4] = [&[7.0, 4.0], &[2.0, 3.0], &[9.0, 3.0, 2.0, 3.0], &[14.0, 5.0]];

/// Rows and columns of the page.
pub(super) fn size(plot: &Plot) -> (usize, usize) {
    let panels: usize = plot.panels.iter().map(|panel| HEAD + tall(panel) + FOOT).sum();
    (MARGIN + head(plot) + panels + PITCH + MARGIN, WIDTH)
}

fn head(plot: &Plot) -> usize {
    Style::TITLE.pitch + subtitle(plot).len() * Style::SUBTITLE.pitch + NEAR
}

fn subtitle(plot: &Plot) -> Vec<String> {
    match plot.subtitle.trim() {
        "" => Vec::new(),
        text => text::wrap(text, Style::SUBTITLE.columns(WIDTH - 2 * MARGIN), 2),
    }
}

fn listed(panel: &Panel) -> impl Iterator<Item = &Curve> {
    panel.curves.iter().filter(|curve| !curve.name.is_empty())
}

/// Rows of a panel's coordinate system: its list must fit beside it.
fn tall(panel: &Panel) -> usize {
    TALL.max((listed(panel).count() + panel.dashes.len()) * PITCH + PITCH / 2)
}

/// Draws the page.
pub(super) fn draw(plot: &Plot, on: &mut impl Surface) {
    let left = MARGIN as f64;
    on.text((left, left), Anchor::Left, &cut(&plot.title, WIDTH - 2 * MARGIN, Style::TITLE), Style::TITLE);
    let mut top = MARGIN + Style::TITLE.pitch;
    for row in subtitle(plot) {
        on.text((left, top as f64), Anchor::Left, &row, Style::SUBTITLE);
        top += Style::SUBTITLE.pitch;
    }
    top += NEAR;
    let right = (WIDTH - MARGIN - LIST - GAP) as f64;
    let across = Axis::new(plot.steps.0, plot.steps.1, (MARGIN + SCALE) as f64, right);
    for panel in &plot.panels {
        let area =
            Area { left: (MARGIN + SCALE) as f64, right, top: top + HEAD, bottom: top + HEAD + tall(panel) };
        on.text((area.left, top as f64 + 6.0), Anchor::Left, &panel.title, Style::HEADING);
        area.draw(panel, &across, on);
        list(panel, right + GAP as f64, (top + HEAD) as f64, on);
        top = area.bottom + FOOT;
    }
    on.text((right, top as f64 - 6.0), Anchor::Right, &plot.across, Style::SUBTITLE);
}

/// A panel's coordinate system.
struct Area {
    left: f64,
    right: f64,
    top: usize,
    bottom: usize,
}

impl Area {
    fn draw(&self, panel: &Panel, across: &Axis, on: &mut impl Surface) {
        let (top, bottom) = (self.top as f64, self.bottom as f64);
        on.fill(&rectangle(self.left, top, self.right, bottom), Color([255, 255, 255]));
        for (begin, end) in merged(&panel.shades) {
            let (from, to) = (across.at(begin).max(self.left), across.at(end).min(self.right));
            if to > from {
                on.fill(&rectangle(from, top, to.max(from + 1.0), bottom), SHADE);
            }
        }
        let (low, high) = range(panel);
        let up = Axis::rounded(low, high, bottom, top, (self.bottom - self.top) / 40);
        if low > high {
            let middle = ((self.left + self.right) / 2.0, (top + bottom) / 2.0 - 8.0);
            on.text(middle, Anchor::Middle, &panel.empty, Style::SUBTITLE);
        } else {
            self.grid(across, &up, on);
        }
        // Thin dashed lines below, markers on top of all lines.
        let solid = panel.curves.iter().filter(|curve| curve.dash == 0);
        for curve in panel.curves.iter().filter(|curve| curve.dash > 0).chain(solid.clone()) {
            for piece in self.pieces(curve, across, &up) {
                on.line(&piece, stroke(curve));
            }
        }
        let count = solid.clone().count().max(1) as f64;
        for (number, curve) in solid.enumerate() {
            let mut x = self.left + APART * (0.25 + number as f64 / count);
            while x < self.right - MARK {
                if let Some(value) = value(curve, across.value(x)) {
                    mark(curve.hue, (x, up.at(value)), on);
                }
                x += APART;
            }
        }
        let frame = rectangle(self.left, top, self.right, bottom);
        let closed: Vec<_> = frame.into_iter().chain([frame[0]]).collect();
        on.line(&closed, Stroke { color: FRAME, width: 1.0, dash: &[] });
    }

    /// The unbroken pieces of a curve in pixels. Of the points in half a column of pixels only those are kept that show.
    fn pieces(&self, curve: &Curve, across: &Axis, up: &Axis) -> Vec<Vec<(f64, f64)>> {
        let mut out: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        let mut held = None;
        for (step, value) in &curve.points {
            let piece = out.last_mut().expect("begins with one");
            // Whatever is given, no line leaves its panel.
            let x = across.at(*step).clamp(self.left, self.right);
            let y = up.at(*value).clamp(self.top as f64, self.bottom as f64);
            if let Some(before) = held.filter(|_| curve.stepped) {
                push(piece, (x, before));
            }
            held = (x + y).is_finite().then_some(y);
            if held.is_some() {
                push(piece, (x, y));
            } else {
                out.push(Vec::new());
            }
        }
        out.retain(|piece| piece.len() > 1);
        out
    }

    fn grid(&self, across: &Axis, up: &Axis, on: &mut impl Surface) {
        let (top, bottom) = (self.top as f64, self.bottom as f64);
        let thin = Stroke { color: RULE, width: 1.0, dash: &[] };
        for (value, text) in up.ticks((self.bottom - self.top) / 40, false) {
            let y = up.at(value);
            on.line(&[(self.left, y), (self.right, y)], thin);
            on.text((self.left - 8.0, y - 8.0), Anchor::Right, &text, Style::DETAIL);
        }
        for (value, text) in across.ticks(9, true) {
            let x = across.at(value);
            on.line(&[(x, bottom), (x, bottom + 5.0)], thin);
            on.line(&[(x, top), (x, bottom)], thin);
            on.text((x, bottom + 7.0), Anchor::Middle, &text, Style::DETAIL);
        }
    }
}

/// Names, last values and samples of a panel's curves, then what its dashes mean.
fn list(panel: &Panel, left: f64, top: f64, on: &mut impl Surface) {
    let room = LIST - SAMPLE;
    let mut y = top;
    for curve in listed(panel) {
        let line = [(left, y + 8.0), (left + SAMPLE as f64 - 10.0, y + 8.0)];
        on.line(&line, stroke(curve));
        if curve.dash == 0 {
            mark(curve.hue, ((line[0].0 + line[1].0) / 2.0, y + 8.0), on);
        }
        let value_room = VALUE * Style::CAPTION.advance();
        let name = cut(&curve.name, room - value_room, Style::CAPTION);
        on.text((left + SAMPLE as f64, y), Anchor::Left, &name, Style::CAPTION);
        if let Some((_, last)) = curve.points.iter().rfind(|(_, value)| value.is_finite()) {
            on.text((left + LIST as f64, y), Anchor::Right, &format!("{last:.3}"), Style::CAPTION);
        }
        y += PITCH as f64;
    }
    for (dash, meaning) in &panel.dashes {
        let line = [(left, y + 8.0), (left + SAMPLE as f64 - 10.0, y + 8.0)];
        on.line(&line, Stroke { color: Style::DETAIL.color, width: 1.4, dash: pattern(*dash) });
        let meaning = cut(meaning, room, Style::DETAIL);
        on.text((left + SAMPLE as f64, y), Anchor::Left, &meaning, Style::DETAIL);
        y += PITCH as f64;
    }
}

/// A text that fits: its begin and "..".
fn cut(text: &str, width: usize, style: Style) -> String {
    let columns = style.columns(width);
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 2).chain("..".chars()).collect()
}

fn pattern(dash: usize) -> &'static [f64] {
    if dash == 0 { &[] } else { DASHES[(dash - 1) % DASHES.len()] }
}

/// Dashed lines are thinner and pale: many of them must not hide the solid ones.
fn stroke(curve: &Curve) -> Stroke {
    let Color(ink) = HUES[curve.hue % HUES.len()];
    let (width, color) = if curve.dash == 0 { (2.0, ink) } else { (1.4, ink.map(|part| part / 2 + 112)) };
    Stroke { color: Color(color), width, dash: pattern(curve.dash) }
}

/// A marker: shape and colour together are one of 28.
fn mark(hue: usize, (x, y): (f64, f64), on: &mut impl Surface) {
    let shape = |r: f64| -> Vec<(f64, f64)> {
        match hue % 4 {
            0 => (0..16)
                .map(|i| f64::from(i) * std::f64::consts::TAU / 16.0)
                .map(|turn| (x + r * turn.cos(), y + r * turn.sin()))
                .collect(),
            1 => rectangle(x - 0.88 * r, y - 0.88 * r, x + 0.88 * r, y + 0.88 * r).to_vec(),
            2 => vec![(x, y - 1.2 * r), (x + 1.1 * r, y + 0.8 * r), (x - 1.1 * r, y + 0.8 * r)],
            _ => vec![(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)],
        }
    };
    on.fill(&shape(MARK + 1.5), PAPER);
    on.fill(&shape(MARK), HUES[hue % HUES.len()]);
}

/// Smallest and largest value; the first above the second when there is none.
fn range(panel: &Panel) -> (f64, f64) {
    let values = panel.curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high && panel.from_zero { (low.min(0.0), high) } else { (low, high) }
}

/// Shades without overlaps, ascending.
fn merged(shades: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<_> = shades.iter().copied().filter(|(begin, end)| end > begin).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out: Vec<(f64, f64)> = Vec::new();
    for (begin, end) in sorted {
        match out.last_mut().filter(|last| last.1 >= begin) {
            Some(last) => last.1 = last.1.max(end),
            None => out.push((begin, end)),
        }
    }
    out
}

/// Value of a curve at a step; none outside of it and in its gaps.
fn value(curve: &Curve, step: f64) -> Option<f64> {
    let next = curve.points.partition_point(|(at, _)| *at <= step);
    let before = curve.points.get(next.checked_sub(1)?)?;
    let after = curve.points.get(next)?;
    let part = (step - before.0) / (after.0 - before.0);
    let value = if curve.stepped { before.1 } else { before.1 + part * (after.1 - before.1) };
    value.is_finite().then_some(value)
}

/// Adds a point. A third one in the same half column of pixels replaces the second unless it turns back.
fn push(piece: &mut Vec<(f64, f64)>, point: (f64, f64)) {
    let column = |p: &(f64, f64)| (p.0 * 2.0).floor();
    if let [.., a, b] = piece.as_slice() {
        let same = column(a) == column(&point) && column(b) == column(&point);
        let between = (b.1 - a.1) * (point.1 - b.1) >= 0.0;
        if same && between {
            piece.pop();
        }
    }
    piece.push(point);
}

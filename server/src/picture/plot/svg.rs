//! A surface that writes SVG.

use super::surface::{Anchor, Stroke, Surface};
use crate::picture::canvas::{Color, PAPER};
use crate::picture::text::Style;
use std::fmt::Write as _;

/// A document in the making.
#[derive(Debug)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    /// Blank paper of `height` and `width` pixels.
    pub fn new((height, width): (usize, usize)) -> Svg {
        let mut svg = Svg { out: String::new() };
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"'Noto Sans Mono', 'DejaVu Sans Mono', monospace\">\n"
        ));
        svg.put(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n", hex(PAPER)));
        svg
    }

    /// The document.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a string takes every write");
    }

    fn points(&mut self, points: &[(f64, f64)]) {
        for (i, (x, y)) in points.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            self.put(format_args!("{space}{x:.1},{y:.1}"));
        }
    }
}

impl Surface for Svg {
    fn fill(&mut self, corners: &[(f64, f64)], color: Color) {
        self.put(format_args!("<polygon fill=\"{}\" points=\"", hex(color)));
        self.points(corners);
        self.put(format_args!("\"/>\n"));
    }

    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        let Stroke { color, width, dash } = stroke;
        self.put(format_args!("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"", hex(color)));
        self.put(format_args!(" stroke-linejoin=\"round\""));
        if !dash.is_empty() {
            let lengths: Vec<String> = dash.iter().map(f64::to_string).collect();
            self.put(format_args!(" stroke-dasharray=\"{}\"", lengths.join(" ")));
        }
        self.put(format_args!(" points=\""));
        self.points(points);
        self.put(format_args!("\"/>\n"));
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str, style: Style) {
        let anchor = match anchor {
            Anchor::Left => "start",
            Anchor::Middle => "middle",
            Anchor::Right => "end",
        };
        // A monospaced letter is 0.6 of its size wide; the baseline lies a letter's height below the top.
        let size = style.advance() as f64 / 0.6;
        let (weight, fill) = (if style.is_bold() { "bold" } else { "normal" }, hex(style.color));
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-size=\"{size:.1}\" \
             font-weight=\"{weight}\" fill=\"{fill}\" xml:space=\"preserve\">{}</text>\n",
            y + size,
            escape(text)
        ));
    }
}

fn hex(Color([red, green, blue]): Color) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text that is text wherever it stands in XML 1.0, which has no control characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

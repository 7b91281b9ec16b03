use super::axis::Axis;
use super::surface::{Anchor, Stroke, Surface};
use super::*;
use crate::picture::canvas::{Color, PAPER};
use crate::picture::text::Style;
use proptest::prelude::*;

/// `groups` curves of two panels, of which the second is empty.
fn plot(groups: usize) -> Plot {
    let curve = |i: usize| Curve {
        name: format!("group {i}"),
        hue: i,
        stepped: true,
        points: vec![(0.0, 0.1 + 0.1 * i as f64), (50.0, 1.0 - 0.05 * i as f64), (100.0, 0.5)],
        ..Curve::default()
    };
    let panel = Panel {
        title: "weights".into(),
        curves: (0..groups).map(curve).collect(),
        shades: vec![(10.0, 20.0), (15.0, 25.0)],
        from_zero: true,
        ..Panel::default()
    };
    let empty = Panel { title: "losses".into(), empty: "no evaluation yet".into(), ..Panel::default() };
    Plot { title: "job".into(), steps: (0.0, 100.0), panels: vec![panel, empty], ..Plot::default() }
}

fn decoded(png: &[u8]) -> image::RgbImage {
    image::load_from_memory(png).unwrap().to_rgb8()
}

/// Writes down what it is asked to draw.
#[derive(Debug, Default)]
struct Notes {
    fills: Vec<(Vec<(f64, f64)>, Color)>,
    lines: Vec<(Vec<(f64, f64)>, Stroke)>,
    texts: Vec<((f64, f64), Anchor, String, Style)>,
}

impl Surface for Notes {
    fn fill(&mut self, corners: &[(f64, f64)], color: Color) {
        self.fills.push((corners.to_vec(), color));
    }
    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        self.lines.push((points.to_vec(), stroke));
    }
    fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str, style: Style) {
        self.texts.push((at, anchor, text.to_owned(), style));
    }
}

fn notes(plot: &Plot) -> Notes {
    let mut notes = Notes::default();
    page::draw(plot, &mut notes);
    notes
}

/// Left, top, right, bottom of a text.
fn extent((at, anchor, text, style): &((f64, f64), Anchor, String, Style)) -> (f64, f64, f64, f64) {
    let width = (text.chars().count() * style.advance()) as f64;
    let left = match anchor {
        Anchor::Left => at.0,
        Anchor::Middle => at.0 - width / 2.0,
        Anchor::Right => at.0 - width,
    };
    (left, at.1, left + width, at.1 + 16.0)
}

#[test]
fn ticks_are_round_and_hit_both_ends_of_a_rounded_axis() {
    for (low, high, most, wanted) in [
        (0.0, 0.83, 6, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"][..]),
        (1.9, 4.3, 6, &["1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5"]),
        (3.001, 3.009, 6, &["3.000", "3.002", "3.004", "3.006", "3.008", "3.010"]),
        (-2e6, 1e6, 5, &["-2000000", "-1000000", "0", "1000000"]),
        (7.0, 7.0, 6, &["6.4", "6.6", "6.8", "7.0", "7.2", "7.4", "7.6"][..]),
    ] {
        let ticks = Axis::rounded(low, high, 0.0, 1.0, most).ticks(most, false);
        let texts: Vec<&str> = ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, wanted, "{low}..={high}");
    }
    let steps = Axis::new(0.0, 3.0, 0.0, 1.0).ticks(9, true);
    assert_eq!(steps.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn both_pages_draw_the_same_commands() {
    let (plot, notes) = (plot(3), notes(&plot(3)));
    let svg = plot.svg();
    assert_eq!(svg.matches("<polyline ").count(), notes.lines.len());
    assert_eq!(svg.matches("<polygon ").count(), notes.fills.len());
    assert_eq!(svg.matches("<text ").count(), notes.texts.len());
    let picture = decoded(&plot.png().unwrap());
    // On the shade's row there is neither a curve nor a grid line: two shades are one, and end.
    let (shade, _) =
        notes.fills.iter().find(|(corners, _)| corners[0].1 > 60.0 && corners[0].0 > 150.0).unwrap();
    let at = |x: f64| picture.get_pixel(x as u32, (shade[0].1 + 6.0) as u32).0;
    assert_eq!((at(shade[0].0 + 3.0), at(shade[1].0 - 3.0)), ([226, 228, 232], [226, 228, 232]));
    assert_eq!((at(shade[0].0 - 3.0), at(shade[1].0 + 3.0)), ([255; 3], [255; 3]));
    // Every curve's ink is on the page, in the middle of its last stretch.
    for (points, stroke) in notes.lines.iter().filter(|(_, stroke)| stroke.width == 2.0) {
        let (a, b) = (points[0], points[1]);
        let middle = (a.0 + 3.0, (a.1 + b.1) / 2.0);
        let near = [-1i32, 0].map(|dy| picture.get_pixel(middle.0 as u32, (middle.1 as i32 + dy) as u32).0);
        assert!(near.contains(&stroke.color.0), "{stroke:?} at {middle:?} is {near:?}");
    }
}

#[test]
fn up_to_twelve_groups_names_stand_clear_of_curves_and_of_each_other() {
    for groups in 1..=12 {
        let notes = notes(&plot(groups));
        let boxes: Vec<_> = notes.texts.iter().map(extent).collect();
        for (i, a) in boxes.iter().enumerate() {
            for b in &boxes[i + 1..] {
                let apart = a.2 <= b.0 || b.2 <= a.0 || a.3 <= b.1 || b.3 <= a.1;
                assert!(apart, "{groups} groups: {a:?} meets {b:?}");
            }
            for (points, _) in &notes.lines {
                let hit = |(x, y): &(f64, f64)| (a.0..a.2).contains(x) && (a.1..a.3).contains(y);
                assert!(!points.iter().any(hit), "{groups} groups: a line runs through {a:?}");
            }
        }
        let names = notes.texts.iter().filter(|text| text.2.starts_with("group "));
        assert_eq!(names.count(), groups);
    }
}

#[test]
fn colour_and_shape_tell_curves_apart() {
    let looks: std::collections::BTreeSet<_> = (0..28)
        .map(|hue| {
            let curve = Curve { name: "x".into(), hue, ..Curve::default() };
            let panel = Panel { curves: vec![curve], ..Panel::default() };
            let notes = notes(&Plot { panels: vec![panel], steps: (0.0, 1.0), ..Plot::default() });
            let (corners, color) = notes.fills.last().cloned().unwrap();
            let top = corners.iter().map(|c| (c.1 * 100.0) as i64).min();
            (corners.len(), top, color.0)
        })
        .collect();
    assert_eq!(looks.len(), 28);
}

#[test]
fn text_of_others_stays_text() {
    let mut hostile = plot(1);
    hostile.title = "</text><script>alert('x')</script>&\u{0}\u{1b}".into();
    hostile.panels[0].curves[0].name = "a\"<b>&c".into();
    let svg = hostile.svg();
    assert!(!svg.contains("<script") && !svg.contains("<b>") && !svg.contains('\u{0}'));
    assert!(svg.contains("a&quot;&lt;b&gt;&amp;c"), "{svg}");
    assert_eq!(svg.matches("<text ").count(), svg.matches("</text>").count());
    hostile.png().unwrap();
}

#[test]
fn gaps_break_a_curve_and_an_empty_panel_says_so() {
    let mut plot = plot(1);
    plot.panels[0].curves[0].points =
        [(0.0, 1.0), (10.0, 2.0), (20.0, f64::NAN), (30.0, 3.0), (40.0, 2.0)].to_vec();
    plot.panels[0].curves[0].stepped = false;
    let notes = notes(&plot);
    // Two pieces, and the sample in the list.
    assert_eq!(notes.lines.iter().filter(|(_, stroke)| stroke.width == 2.0).count(), 3);
    assert!(notes.texts.iter().any(|text| text.2 == "no evaluation yet"));
}

#[test]
fn dashes_leave_gaps() {
    let mut plot = plot(1);
    plot.panels[0].curves[0].dash = 1;
    plot.panels[0].curves[0].points = vec![(0.0, 0.31), (100.0, 0.31)];
    plot.panels[0].shades.clear();
    let (picture, notes) = (decoded(&plot.png().unwrap()), notes(&plot));
    let (points, _) = notes.lines.iter().find(|(_, stroke)| !stroke.dash.is_empty()).unwrap();
    let y = points[0].1 as u32;
    let row: Vec<bool> = (points[0].0 as u32 + 2..points[1].0 as u32 - 2)
        .map(|x| picture.get_pixel(x, y).0[0] < 184) // more than half of the pale blue
        .collect();
    let inked = row.iter().filter(|ink| **ink).count() as f64 / row.len() as f64;
    assert!((0.5..0.85).contains(&inked), "7 of 11 pixels are inked, found {inked}");
    assert_eq!(picture.get_pixel(2, 2).0, PAPER.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn any_numbers_give_a_page(
        points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..12),
        ends in (any::<f64>(), any::<f64>()),
        dash in 0usize..3,
        stepped in any::<bool>(),
    ) {
        let mut plot = plot(1);
        plot.steps = ends;
        plot.panels[0].shades = points.clone();
        plot.panels[0].curves[0] = Curve { name: "n".into(), hue: 3, dash, stepped, points };
        prop_assert!(!plot.svg().contains("NaN,"));
        prop_assert!(plot.png().is_ok());
    }
}

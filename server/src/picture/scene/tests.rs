use super::page::{GAP, MARGIN, PANEL, Plan, grouped};
use super::*;
use crate::picture::Picture;
use proptest::prelude::*;

const SIZE: (u32, u32) = (60, 80);

fn of_classes<'a>(coord: &'a [[f32; 3]], class: &'a [i32]) -> Cloud<'a> {
    Cloud { coord, class: Some(class), color: None }
}

fn drawn(cloud: Cloud) -> Picture {
    picture(cloud, ClassNames::Asprs, Paint::Class, SIZE).unwrap()
}

/// Pixels of a colour, give or take rounding.
fn count(picture: &Picture, color: [u8; 3]) -> usize {
    let same = |pixel: &&[u8]| pixel.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 1);
    picture.rgb.chunks_exact(3).filter(same).count()
}

/// Colour of a point in a scene without heights.
fn half_lit(color: [u8; 3]) -> [u8; 3] {
    color.map(|c| (f64::from(c) * 0.91).round() as u8)
}

#[test]
fn the_nearer_point_hides_the_farther_one_in_any_order() {
    let camera = Camera::new([of_classes(&[[0.0; 3]], &[2])], 60, 80).unwrap();
    let toward = camera.compass(50.0).map(|end| end.near as f32);
    assert!(toward[2] > 0.0 && toward[1] < 0.0, "seen from above and from the south");
    let (near, far) = (palette::class(6, ClassNames::Asprs), palette::class(5, ClassNames::Asprs));
    let dim = far.map(|c| (f64::from(c) * 0.82).round() as u8);
    // Another far point beside them shows what the hidden one would look like.
    let beside = [30.0, 0.0, 0.0];
    for (coord, class) in [([[0.0; 3], toward, beside], [5, 6, 5]), ([toward, [0.0; 3], beside], [6, 5, 5])] {
        let both = drawn(of_classes(&coord, &class));
        let alone = drawn(of_classes(&[toward, beside, beside], &[6, 5, 5]));
        assert!(count(&both, near) > 0);
        assert_eq!(count(&both, dim), count(&alone, dim), "{class:?}");
        assert!(count(&both, dim) > 0);
    }
}

#[test]
fn of_two_equally_near_points_the_first_is_seen() {
    let coord = [[1.0, 2.0, 3.0]; 2];
    let [first, second] = [2, 6].map(|class| half_lit(palette::class(class, ClassNames::Asprs)));
    let picture = drawn(of_classes(&coord, &[2, 6]));
    assert!(count(&picture, first) > 0 && count(&picture, second) == 0);
}

#[test]
fn a_point_has_the_colour_that_was_asked_for() {
    let own = [(1, "tree".to_owned())];
    for names in [ClassNames::Asprs, ClassNames::Own(&own)] {
        for class in -1..70 {
            let cloud = of_classes(&[[5.0, 6.0, 7.0]], std::slice::from_ref(&class));
            let picture = picture(cloud, names, Paint::Class, SIZE).unwrap();
            assert!(count(&picture, half_lit(palette::class(class, names))) > 0, "class {class}");
        }
    }
    let (class, color) = ([6], [[10, 200, 30]]);
    let painted = |paint, has_class: bool, has_color: bool| {
        let (class, color) = (has_class.then_some(&class[..]), has_color.then_some(&color[..]));
        let cloud = Cloud { coord: &[[5.0, 6.0, 7.0]], class, color };
        picture(cloud, ClassNames::Asprs, paint, SIZE).unwrap()
    };
    let by_class = half_lit(palette::class(class[0], ClassNames::Asprs));
    for (paint, has_class, has_color, want) in [
        (Paint::Class, true, true, by_class),
        (Paint::Color, true, true, half_lit(color[0])),
        (Paint::Color, true, false, by_class),
        (Paint::Class, false, true, half_lit(palette::PLAIN)),
    ] {
        assert!(count(&painted(paint, has_class, has_color), want) > 0, "{paint:?} {has_class} {has_color}");
    }
}

/// How a colour looks without red or without green cones (Machado, Oliveira, Fernandes 2009), as CIE Lab.
fn seen(color: [u8; 3], cones: &[[f64; 3]; 3]) -> [f64; 3] {
    let linear = color.map(|c| (f64::from(c) / 255.0).powf(2.2));
    let by = |rows: &[[f64; 3]; 3], v: [f64; 3]| {
        rows.map(|row| (row[0] * v[0] + row[1] * v[1] + row[2] * v[2]).clamp(0.0, 1.0))
    };
    let xyz = by(
        &[[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
        by(cones, linear),
    );
    let [x, y, z] = [xyz[0] / 0.9505, xyz[1], xyz[2] / 1.089].map(f64::cbrt);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[test]
fn frequent_classes_and_origins_are_told_apart_without_red_or_green() {
    let all = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let no_red =
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]];
    let no_green =
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]];
    let classes = [2, 3, 4, 5, 6, 9, 17].map(|class| palette::class(class, ClassNames::Asprs)).to_vec();
    let origins = vec![palette::origin(0), palette::origin(1)];
    for cones in [all, no_red, no_green] {
        for colors in [&classes, &origins] {
            for (i, a) in colors.iter().enumerate() {
                for b in &colors[..i] {
                    let (p, q) = (seen(*a, &cones), seen(*b, &cones));
                    let apart = (0..3).map(|c| (p[c] - q[c]).powi(2)).sum::<f64>().sqrt();
                    assert!(apart > 18.0, "{a:?} and {b:?} are {apart:.1} apart with {cones:?}");
                }
            }
        }
    }
}

const FIRST: [[f32; 3]; 3] = [[0.0, 0.0, 0.0], [9.0, 0.0, 1.0], [9.0, 9.0, 0.0]];
const SECOND: [[f32; 3]; 2] = [[1.0, 1.0, 0.0], [2.0, 8.0, 3.0]];
const UNION: [[f32; 3]; 5] = [FIRST[0], FIRST[1], FIRST[2], SECOND[0], SECOND[1]];

fn with_example<T>(names: ClassNames, then: impl Fn(&SceneSheet) -> T) -> T {
    let parts = [
        Part { name: "one.laz", cloud: of_classes(&FIRST, &[2, 2, 6]) },
        Part { name: "two.laz", cloud: of_classes(&SECOND, &[5, 2]) },
    ];
    let union = of_classes(&UNION, &[2, 2, 6, 5, 2]);
    let examples = [Example { title: "row 7", parts: &parts, union, origin: &[0, 0, 0, 1, 1] }];
    then(&SceneSheet { title: "t", subtitle: "s", examples: &examples, names, paint: Paint::Class })
}

fn page(sheet: &SceneSheet) -> Picture {
    let page = image::load_from_memory(&sheet.png().unwrap()).unwrap().to_rgb8();
    Picture { height: page.height(), width: page.width(), rgb: page.into_raw() }
}

/// Words of every row of the page.
fn rows(sheet: &SceneSheet) -> Vec<String> {
    let words = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
    Plan::new(sheet).rows().into_iter().map(words).collect()
}

#[test]
fn the_list_names_and_counts_the_classes_of_parts_and_union() {
    let rows_of = |names| with_example(names, rows);
    let found = rows_of(ClassNames::Asprs);
    for want in [
        "row 7",
        "A: one.laz",
        "3 points, 9.00 x 9.00 x 1.00, lines every 1",
        "B: two.laz",
        "union by class",
        "union by origin",
        "from A: 3",
        "from B: 2",
        "points of class A B union",
        "2 ground 2 1 3",
        "5 high vegetation 0 1 1",
        "6 building 1 0 1",
    ] {
        assert_eq!(found.iter().filter(|row| *row == want).count(), 1, "{want}: {found:?}");
    }
    let own = [(2, "earth".to_owned())];
    let found = rows_of(ClassNames::Own(&own));
    assert!(
        found.contains(&"2 earth 2 1 3".to_owned()) && found.contains(&"5 0 1 1".to_owned()),
        "{found:?}"
    );
}

#[test]
fn patches_of_the_list_have_the_colours_of_the_panels() {
    let page = with_example(ClassNames::Asprs, page);
    let patch = 12 * 12;
    for class in [2, 5, 6] {
        assert!(count(&page, palette::class(class, ClassNames::Asprs)) >= patch, "class {class}");
    }
    for class in [3, 4, 9, 17] {
        assert_eq!(count(&page, palette::class(class, ClassNames::Asprs)), 0, "class {class}");
    }
    assert!((0..2).all(|part| count(&page, palette::origin(part)) >= patch));
}

/// One panel of the page.
fn cut(page: &Picture, line: usize, column: usize, top: usize) -> Picture {
    let (y, x) = (top + line * (1 + PANEL.0 + 6 + 36 + 16), MARGIN + column * (PANEL.1 + GAP));
    let rows = (y..y + PANEL.0).flat_map(|y| {
        let begin = (y * page.width as usize + x) * 3;
        page.rgb[begin..begin + PANEL.1 * 3].iter().copied()
    });
    Picture { height: PANEL.0 as u32, width: PANEL.1 as u32, rgb: rows.collect() }
}

/// Rows and columns that a panel's points take, by any colour that is far from grey.
fn extent(panel: &Picture) -> [usize; 4] {
    let colored = panel
        .rgb
        .chunks_exact(3)
        .enumerate()
        .filter(|(_, p)| p.iter().max().unwrap() - p.iter().min().unwrap() > 40);
    colored.fold([usize::MAX, 0, usize::MAX, 0], |[top, low, left, right], (at, _)| {
        let (y, x) = (at / PANEL.1, at % PANEL.1);
        [top.min(y), low.max(y), left.min(x), right.max(x)]
    })
}

#[test]
fn a_part_lies_where_it_lies_in_the_union() {
    let page = with_example(ClassNames::Asprs, page);
    // Title, subtitle, rule, heading, frame.
    let top = MARGIN + 26 + 20 + 16 + 16 + 20 + 6 + 1;
    let [one, two] = [0, 1].map(|column| extent(&cut(&page, 0, column, top)));
    let [class, origin] = [0, 1].map(|column| extent(&cut(&page, 1, column, top)));
    let both = [one[0].min(two[0]), one[1].max(two[1]), one[2].min(two[2]), one[3].max(two[3])];
    assert_ne!(one, two);
    for union in [class, origin] {
        for (a, b) in both.into_iter().zip(union) {
            assert!(a.abs_diff(b) <= 2, "{both:?} {union:?}");
        }
    }
}

#[test]
fn a_speck_is_shown_larger_and_says_so() {
    let coord = [[0.0, 0.0, 0.0], [1000.0, 1000.0, 10.0]];
    let parts = [
        Part { name: "large", cloud: Cloud { coord: &coord, ..Cloud::default() } },
        Part { name: "speck", cloud: Cloud { coord: &FIRST, ..Cloud::default() } },
    ];
    let union = Cloud { coord: &coord, ..Cloud::default() };
    let examples = [Example { title: "", parts: &parts, union, origin: &[0, 0] }];
    let names = ClassNames::Asprs;
    let sheet = SceneSheet { title: "", subtitle: "", examples: &examples, names, paint: Paint::Class };
    let rows = rows(&sheet);
    let enlarged: Vec<_> = rows.iter().filter(|row| row.ends_with("times larger")).collect();
    assert!(enlarged.len() == 1 && enlarged[0].starts_with("3 points, 9.00 x 9.00 x 1.00, "), "{rows:?}");
    assert!(!rows.iter().any(|row| row.starts_with("points of class")), "no classes, no list: {rows:?}");
}

#[test]
fn nothing_and_one_point_can_be_drawn() {
    let white = |picture: &Picture| count(picture, surface::GROUND) == (SIZE.0 * SIZE.1) as usize;
    assert!(white(&drawn(Cloud::default())));
    assert!(white(&drawn(of_classes(&[[f32::NAN, 0.0, 0.0]], &[2]))));
    for far in [0.0, 6e6, f32::MAX] {
        let one = drawn(of_classes(&[[far, -far, far]], &[6]));
        assert!(count(&one, half_lit(palette::class(6, ClassNames::Asprs))) > 0, "{far}");
        assert!(!white(&one) && one.rgb[..3] == surface::GROUND);
    }
    let names = ClassNames::Asprs;
    let parts = [Part::default()];
    let examples = [Example { parts: &parts, ..Example::default() }, Example::default()];
    let sheet = SceneSheet { title: "", subtitle: "", examples: &examples, names, paint: Paint::Color };
    assert!(page(&sheet).height as usize > 3 * PANEL.0);
    let empty = SceneSheet { examples: &[], ..sheet };
    assert_eq!(page(&empty).height as usize, 2 * MARGIN);
}

#[test]
fn every_run_gives_the_same_bytes() {
    let [one, two] = [0, 1].map(|_| with_example(ClassNames::Asprs, |sheet| sheet.png().unwrap()));
    assert_eq!(one, two);
}

#[test]
fn lengths_that_differ_are_named() {
    let said = |union: Cloud, origin: &[u8]| {
        let parts = [Part { name: "p.ply", cloud: of_classes(&FIRST, &[1, 2, 3]) }];
        let examples = [Example { title: "", parts: &parts, union, origin }];
        let names = ClassNames::Asprs;
        let sheet = SceneSheet { title: "", subtitle: "", examples: &examples, names, paint: Paint::Class };
        sheet.png().map(|_| ()).unwrap_err().to_string()
    };
    let whole = Cloud { coord: &FIRST, ..Cloud::default() };
    let want = "`origin` of the union of example 0 has 2 entries, want one for each of the 3 points";
    assert_eq!(said(whole, &[0, 0]), want);
    let want = "`color` of the union of example 0 has 1 entries, want one for each of the 3 points";
    assert_eq!(said(Cloud { color: Some(&[[0; 3]]), ..whole }, &[0; 3]), want);
    let short = of_classes(&FIRST, &[1]);
    let error = picture(short, ClassNames::Asprs, Paint::Class, SIZE).unwrap_err().to_string();
    assert_eq!(error, "`class` of the scene has 1 entries, want one for each of the 3 points");
    let huge = picture(whole, ClassNames::Asprs, Paint::Class, (1 << 20, 1 << 20));
    assert!(matches!(huge, Err(PictureError::TooLarge { .. })));
}

#[test]
fn counts_are_grouped_by_three_digits() {
    assert_eq!([0, 999, 1000, 25408, 1234567].map(grouped), ["0", "999", "1,000", "25,408", "1,234,567"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_point_is_clipped(
        coord in prop::collection::vec(prop::array::uniform3(any::<f32>()), 1..20),
        scale in prop::sample::select(vec![1.0f32, 1e-30, 1e-36]),
    ) {
        let coord: Vec<_> = coord.into_iter().map(|point| point.map(|c| c * scale)).collect();
        let cloud = Cloud { coord: &coord, ..Cloud::default() };
        if let Some(camera) = Camera::new([cloud], 300, 400) {
            for point in coord.iter().filter(|point| point.iter().all(|c| c.is_finite())) {
                let place = camera.place(point.map(f64::from));
                let inside = place.y > 11.0 && place.y < 289.0 && place.x > 15.0 && place.x < 385.0;
                prop_assert!(inside && place.near.is_finite(), "{point:?} at {place:?}");
            }
        }
        drawn(cloud);
    }
}

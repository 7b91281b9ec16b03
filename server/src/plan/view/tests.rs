use super::*;
use crate::batch::Format;
use proptest::prelude::*;

fn peek(height: u32, width: u32, orientation: u8) -> Peek {
    Peek { format: Format::Jpeg, height, width, orientation }
}

fn rule(height: u32, width: u32, crop: CropRule) -> ViewRule {
    ViewRule { height, width, crop, flip_x: 0.0, flip_y: 0.0, jitter: None, erase: None, exif: true }
}

fn views(rule: &ViewRule, peek: &Peek, n: u64) -> Vec<View> {
    let stream = Stream::new(2, "view");
    (0..n).map(|slot| draw(rule, peek, &stream, 1, slot)).collect()
}

const IMAGENET: CropRule = CropRule::RandomResized { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) };

proptest! {
    #[test]
    fn crops_and_erased_boxes_stay_inside(
        h in 1u32..300, w in 1u32..300, oh in 1u32..80, ow in 1u32..80, orientation in 1u8..=8,
        s in (1e-6..1.0f64, 1e-6..1.0f64), r in (1e-3..1e3f64, 1e-3..1e3f64),
        resize in proptest::option::of(1u32..300), seed: u64,
    ) {
        let sorted = |(a, b): (f64, f64)| (a.min(b), a.max(b));
        let random = CropRule::RandomResized { scale: sorted(s), ratio: sorted(r) };
        let stream = Stream::new(seed, "view");
        for crop in [random, CropRule::Centre { resize }] {
            let erase = EraseRule { p: 1.0, scale: sorted(s), ratio: sorted(r), value: [1, 2, 3] };
            let rule = ViewRule { flip_x: 0.5, erase: Some(erase), ..rule(oh, ow, crop) };
            let view = draw(&rule, &peek(h, w, orientation), &stream, 0, 0);
            let Crop { y, x, height, width } = view.crop;
            prop_assert!(y >= 0.0 && x >= 0.0 && height > 0.0 && width > 0.0, "{:?}", view);
            prop_assert!(y + height <= f64::from(h) + 1e-9 && x + width <= f64::from(w) + 1e-9, "{:?}", view);
            let (a, b) = if view.turn.transpose { (ow, oh) } else { (oh, ow) };
            prop_assert_eq!(view.size, (a, b));
            if let Some((rect, _)) = view.erase {
                prop_assert!(rect.area() > 0 && rect.y1 <= oh && rect.x1 <= ow);
            }
        }
    }
}

/// Where EXIF says that stored row `r` and column `c` of a 3 x 5 picture are shown, from the standard's own table: side
/// of row 0, side of column 0.
fn shown_at(orientation: u8, r: usize, c: usize) -> (usize, usize) {
    let (far_r, far_c) = (3 - 1 - r, 5 - 1 - c);
    match orientation {
        1 => (r, c),         // top, left
        2 => (r, far_c),     // top, right
        3 => (far_r, far_c), // bottom, right
        4 => (far_r, c),     // bottom, left
        5 => (c, r),         // left, top
        6 => (c, far_r),     // right, top
        7 => (far_c, far_r), // right, bottom
        _ => (far_c, r),     // left, bottom
    }
}

/// Cuts `crop` of the 3 x 5 index picture and turns it.
fn show(crop: &Crop, turn: Turn) -> Vec<Vec<usize>> {
    let range = |from: f64, n: f64| from as usize..(from + n) as usize;
    let mut rows: Vec<Vec<usize>> =
        range(crop.y, crop.height).map(|r| range(crop.x, crop.width).map(|c| 10 * r + c).collect()).collect();
    if turn.transpose {
        rows = (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect();
    }
    if turn.mirror_x {
        rows.iter_mut().for_each(|row| row.reverse());
    }
    if turn.mirror_y {
        rows.reverse();
    }
    rows
}

#[test]
fn all_orientations_and_flips_show_the_region_that_was_drawn() {
    for orientation in 1..=8 {
        let (high, wide) = if orientation < 5 { (3usize, 5usize) } else { (5, 3) };
        let mut upright = vec![vec![0; wide]; high];
        for (r, c) in (0..3).flat_map(|r| (0..5).map(move |c| (r, c))) {
            let (y, x) = shown_at(orientation, r, c);
            upright[y][x] = 10 * r + c;
        }
        let turn = Turn::upright(orientation);
        // Every whole-pixel region of the upright picture, with every flip.
        for (y, x) in (0..high).flat_map(|y| (0..wide).map(move |x| (y, x))) {
            for (rows, columns) in (1..=high - y).flat_map(|a| (1..=wide - x).map(move |b| (a, b))) {
                let crop = Crop { y: y as f64, x: x as f64, height: rows as f64, width: columns as f64 };
                let back = stored(crop, turn, high as u32, wide as u32);
                for (fx, fy) in [(false, false), (true, false), (false, true), (true, true)] {
                    let mut want: Vec<Vec<usize>> =
                        upright[y..y + rows].iter().map(|row| row[x..x + columns].to_vec()).collect();
                    want.iter_mut().filter(|_| fx).for_each(|row| row.reverse());
                    if fy {
                        want.reverse();
                    }
                    assert_eq!(
                        show(&back, turn.mirrored(fx, fy)),
                        want,
                        "orientation {orientation}, {crop:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn orientation_is_ignored_unless_asked_for() {
    let crop = CropRule::Centre { resize: None };
    let view = &views(&ViewRule { exif: false, ..rule(4, 6, crop) }, &peek(30, 50, 6), 1)[0];
    assert_eq!((view.turn, view.size), (Turn::default(), (4, 6)));
    let view = &views(&rule(4, 6, crop), &peek(30, 50, 6), 1)[0];
    assert_eq!((view.turn, view.size), (Turn::upright(6), (6, 4)));
    // Upright it is 50 high and 30 wide; a 4 : 6 output shows 20 x 30 of it, stored as 30 rows and 20 columns.
    assert_eq!(view.crop, Crop { y: 0.0, x: 15.0, height: 30.0, width: 20.0 });
}

#[test]
fn centre_crops_are_torchvisions() {
    let crop = |resize, h, w, oh, ow| centre(h, w, oh, ow, resize);
    // Resize(256) of 300 x 400 gives 256 x 341; CenterCrop(224) is 262.5 source pixels wide.
    assert_eq!(crop(Some(256), 300, 400, 224, 224), Crop { y: 18.75, x: 68.75, height: 262.5, width: 262.5 });
    assert_eq!(crop(None, 300, 400, 100, 50), Crop { y: 0.0, x: 125.0, height: 300.0, width: 150.0 });
    // Resize(50) of 100 x 400 can't cover 60 x 60: raised to 60, not stretched.
    assert_eq!(crop(Some(50), 100, 400, 60, 60), Crop { y: 0.0, x: 150.0, height: 100.0, width: 100.0 });
}

#[test]
fn random_crops_have_the_drawn_area_and_aspect() {
    // 600 x 900 with the ImageNet ranges: nearly every try is legal.
    let crops: Vec<Crop> =
        views(&rule(8, 8, IMAGENET), &peek(600, 900, 1), 4000).iter().map(|v| v.crop).collect();
    let aspects = crops.iter().map(|c| c.width / c.height);
    assert!(aspects.clone().all(|a| (0.74..1.35).contains(&a)), "width over height");
    let areas: Vec<f64> = crops.iter().map(|c| c.width * c.height / 540_000.0).collect();
    assert!(areas.iter().all(|a| (0.079..=1.0).contains(a)));
    assert!(crops.iter().all(|c| [c.y, c.x, c.height, c.width].iter().all(|v| v.fract() == 0.0)));
    // Small crops are always legal: at least P(area < 0.3) = 0.22 / 0.92 of the accepted tries, less four deviations.
    let small = areas.iter().filter(|a| **a < 0.3).count() as f64 / 4000.0;
    assert!(small > 0.22 / 0.92 - 4.0 * 0.0068, "{small}");
    // Aspects are log-uniform: as many below 1 as above while crops are small. n is about 950: 4 sigma are 0.065.
    let narrow: Vec<bool> =
        crops.iter().zip(&areas).filter(|(_, a)| **a < 0.3).map(|(c, _)| c.width < c.height).collect();
    let share = narrow.iter().filter(|n| **n).count() as f64 / narrow.len() as f64;
    assert!((share - 0.5).abs() < 0.07, "{share}");
}

#[test]
fn pictures_without_a_legal_crop_fall_back_to_the_centre() {
    let exact = |scale, ratio, high, wide| {
        let mut rng = Stream::new(1, "view").at(Draw::Warp, 0, 0);
        random_resized(high, wide, scale, ratio, &mut rng)
    };
    // Too wide, too high, and legal as a whole; torchvision rounds half to even and floors the offset.
    let full = (1.0, 1.0);
    assert_eq!(exact(full, (0.75, 1.5), 10, 101), Crop { y: 0.0, x: 43.0, height: 10.0, width: 15.0 });
    assert_eq!(exact(full, (0.8, 1.25), 100, 10), Crop { y: 44.0, x: 0.0, height: 12.0, width: 10.0 });
    assert_eq!(exact(full, (1.5, 1.5), 10, 15), Crop { y: 0.0, x: 0.0, height: 10.0, width: 15.0 });
    assert_eq!(exact((1e-9, 1e-9), (1.0, 1.0), 10, 12), Crop { y: 0.0, x: 1.0, height: 10.0, width: 10.0 });
}

#[test]
fn colour_changes_are_drawn_from_torchvisions_ranges_in_random_order() {
    let jitter = JitterRule { factors: [0.4, 1.5, 0.0], hue: 0.1 };
    let rule = ViewRule { jitter: Some(jitter), ..rule(4, 6, IMAGENET) };
    let mut firsts = [0; 3];
    for view in views(&rule, &peek(30, 50, 1), 600) {
        assert_eq!(view.colour.len(), 3, "a factor of 0 is no change");
        for (i, colour) in view.colour.iter().enumerate() {
            let (kind, value, range) = match *colour {
                Colour::Brightness(f) => (0, f, 0.6..=1.4),
                Colour::Contrast(f) => (1, f, 0.0..=2.5),
                Colour::Hue(f) => (2, f, -0.1..=0.1),
                Colour::Saturation(_) => panic!("saturation is off"),
            };
            assert!(range.contains(&value), "{colour:?}");
            firsts[kind] += usize::from(i == 0);
        }
    }
    // Each kind is first in 200 of 600; four standard deviations are 46, false alarm 2e-4 for the three.
    assert!(firsts.iter().all(|f| (154..=246).contains(f)), "{firsts:?}");
}

#[test]
fn erasing_follows_its_probability_area_and_aspect() {
    let erase = EraseRule { p: 0.25, scale: (0.02, 0.33), ratio: (0.3, 3.3), value: [9, 8, 7] };
    let rule = ViewRule { erase: Some(erase), ..rule(200, 300, IMAGENET) };
    let boxes: Vec<_> = views(&rule, &peek(30, 50, 1), 4000).into_iter().filter_map(|v| v.erase).collect();
    // Binomial(4000, 0.25): four standard deviations are 110, false alarm 6e-5.
    assert!((890..=1110).contains(&boxes.len()), "{}", boxes.len());
    for (rect, value) in boxes {
        let (h, w) = (f64::from(rect.y1 - rect.y0), f64::from(rect.x1 - rect.x0));
        assert!((0.019..0.335).contains(&(h * w / 60_000.0)) && (0.28..3.5).contains(&(h / w)), "{rect:?}");
        assert_eq!(value, [9, 8, 7]);
    }
}

#[test]
fn flips_are_independent_and_an_eval_view_is_plain() {
    let rule = ViewRule { flip_x: 0.5, flip_y: 0.5, ..rule(4, 6, IMAGENET) };
    let mut seen = [0; 4];
    for view in views(&rule, &peek(30, 50, 1), 1600) {
        seen[usize::from(view.turn.mirror_x) + 2 * usize::from(view.turn.mirror_y)] += 1;
    }
    // 400 of 1600 each; four standard deviations are 69.
    assert!(seen.iter().all(|c| (331..=469).contains(c)), "{seen:?}");
    let erase = EraseRule { p: 1.0, scale: (0.1, 0.2), ratio: (1.0, 1.0), value: [0; 3] };
    let jitter = JitterRule { factors: [0.5; 3], hue: 0.5 };
    let eval = plain(&ViewRule { jitter: Some(jitter), erase: Some(erase), ..rule });
    let views = views(&eval, &peek(30, 50, 1), 3);
    assert!(views.iter().all(|v| *v == views[0] && v.colour.is_empty() && v.erase.is_none()));
    assert_eq!(views[0].crop, Crop { y: 0.0, x: 2.5, height: 30.0, width: 45.0 });
}

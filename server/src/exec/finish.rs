//! From a decoded crop to a clean row: turn, colour, erase.

use super::{colour, simd::Level};
use crate::batch::{CHANNELS, Raster, Turn};
use crate::plan::{Rect, view::View};

/// [`super::finish()`] on a given instruction set.
pub(super) fn finish(
    level: Level,
    view: &View,
    decoded: &[u8],
    raster: &Raster,
    scratch: &mut Vec<u8>,
    out: &mut [u8],
) {
    let (height, width) = (raster.height, raster.width);
    let pixels = height * width;
    let wanted = width * CHANNELS + raster.len();
    if scratch.len() < wanted {
        scratch.resize(wanted, 0);
    }
    let (line, spare) = scratch.split_at_mut(width * CHANNELS);
    let (decoded, out) = (&decoded[..raster.len()], &mut out[..raster.len()]);
    match (raster.step, view.colour.is_empty()) {
        (1, plain) => {
            let (r, g, b) = thirds(out, pixels);
            turn_to_planes(level, view.turn, decoded, width, line, (&mut *r, &mut *g, &mut *b));
            if !plain {
                colour::apply(level, &view.colour, r, g, b);
            }
        }
        (_, true) => turn_to_pixels(view.turn, decoded, width, line, out),
        // Colour is defined on planes, which vectorise; interleave afterwards.
        (_, false) => {
            let (r, g, b) = thirds(&mut spare[..CHANNELS * pixels], pixels);
            turn_to_planes(level, view.turn, decoded, width, line, (&mut *r, &mut *g, &mut *b));
            colour::apply(level, &view.colour, r, g, b);
            level.join(r, g, b, out);
        }
    }
    if let Some((rect, value)) = view.erase {
        erase(rect, value, raster, out);
    }
}

/// Turns `decoded` into the planes of `out`, which a raster of `width` has.
#[cfg(feature = "libtorch")]
pub(super) fn turned(level: Level, turn: Turn, decoded: &[u8], width: usize, out: &mut [u8]) {
    let pixels = decoded.len() / CHANNELS;
    let mut line = vec![0; width * CHANNELS];
    turn_to_planes(level, turn, decoded, width, &mut line, thirds(out, pixels));
}

/// Interleaves `planes`.
#[cfg(feature = "libtorch")]
pub(super) fn interleaved(level: Level, planes: &[u8], out: &mut [u8]) {
    let (r, rest) = planes.split_at(planes.len() / CHANNELS);
    let (g, b) = rest.split_at(rest.len() / 2);
    level.join(r, g, b, out);
}

type Planes<'a> = (&'a mut [u8], &'a mut [u8], &'a mut [u8]);

fn thirds(bytes: &mut [u8], pixels: usize) -> Planes<'_> {
    let (r, rest) = bytes.split_at_mut(pixels);
    let (g, b) = rest.split_at_mut(pixels);
    (r, g, b)
}

/// Calls `put` with every output row's source line and whether it still has to be mirrored.
fn turned_lines(
    turn: Turn,
    decoded: &[u8],
    width: usize,
    line: &mut [u8],
    mut put: impl FnMut(usize, &[u8], bool),
) {
    let height = decoded.len() / (width * CHANNELS).max(1);
    for y in 0..height {
        let from = if turn.mirror_y { height - 1 - y } else { y };
        if turn.transpose {
            // Column `from` of the decoded crop, whose rows are `height` pixels long.
            for (x, pixel) in line.chunks_exact_mut(CHANNELS).enumerate() {
                let at = (x * height + from) * CHANNELS;
                pixel.copy_from_slice(&decoded[at..at + CHANNELS]);
            }
            put(y, line, turn.mirror_x);
        } else {
            put(y, &decoded[from * width * CHANNELS..][..width * CHANNELS], turn.mirror_x);
        }
    }
}

fn turn_to_planes(level: Level, turn: Turn, decoded: &[u8], width: usize, line: &mut [u8], to: Planes<'_>) {
    let (r, g, b) = to;
    if turn == Turn::default() {
        return level.split(decoded, r, g, b);
    }
    turned_lines(turn, decoded, width, line, |y, from, mirror| {
        let own = y * width..(y + 1) * width;
        let (r, g, b) = (&mut r[own.clone()], &mut g[own.clone()], &mut b[own]);
        if mirror { level.split_mirrored(from, r, g, b) } else { level.split(from, r, g, b) }
    });
}

fn turn_to_pixels(turn: Turn, decoded: &[u8], width: usize, line: &mut [u8], out: &mut [u8]) {
    turned_lines(turn, decoded, width, line, |y, from, mirror| {
        let to = &mut out[y * width * CHANNELS..][..width * CHANNELS];
        if !mirror {
            return to.copy_from_slice(from);
        }
        for (to, from) in to.chunks_exact_mut(CHANNELS).zip(from.chunks_exact(CHANNELS).rev()) {
            to.copy_from_slice(from);
        }
    });
}

fn erase(rect: Rect, value: [u8; 3], raster: &Raster, out: &mut [u8]) {
    let (x0, x1) = (rect.x0 as usize * raster.step, rect.x1 as usize * raster.step);
    for plane in 0..raster.planes {
        for y in rect.y0 as usize..rect.y1 as usize {
            let line = &mut out[plane * raster.plane_len() + y * raster.width * raster.step..][x0..x1];
            match raster.step {
                1 => line.fill(value[plane]),
                _ => line.chunks_exact_mut(CHANNELS).for_each(|pixel| pixel.copy_from_slice(&value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Crop, Layout};
    use crate::plan::view::Colour;
    use proptest::prelude::*;

    fn view(size: (usize, usize), turn: Turn, colour: Vec<Colour>) -> View {
        let size = (size.0 as u32, size.1 as u32);
        let crop = Crop { y: 0.0, x: 0.0, height: f64::from(size.0), width: f64::from(size.1) };
        View { crop, size, turn, colour, erase: None }
    }

    fn made(level: Level, view: &View, decoded: &[u8], layout: Layout) -> Vec<u8> {
        let (height, width) = (view.size.0 as usize, view.size.1 as usize);
        let (height, width) = if view.turn.transpose { (width, height) } else { (height, width) };
        let raster = Raster::new(height, width, layout);
        let mut out = vec![0xa5; raster.len()];
        finish(level, view, decoded, &raster, &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn a_two_by_three_picture_turned_and_erased() {
        let decoded: Vec<u8> = (0..6).flat_map(|i| [i, 10 + i, 20 + i]).collect();
        let turn = Turn { transpose: true, mirror_x: true, mirror_y: false };
        let mut view = view((2, 3), turn, Vec::new());
        // 0 1 2 / 3 4 5, transposed 0 3 / 1 4 / 2 5, mirrored 3 0 / 4 1 / 5 2.
        let red = [3, 0, 4, 1, 5, 2];
        assert_eq!(made(Level::best(), &view, &decoded, Layout::Nchw)[..6], red);
        view.erase = Some((Rect { y0: 1, y1: 3, x0: 1, x1: 2 }, [7, 8, 9]));
        let planar = made(Level::best(), &view, &decoded, Layout::Nchw);
        assert_eq!(planar, [3, 0, 4, 7, 5, 7, 13, 10, 14, 8, 15, 8, 23, 20, 24, 9, 25, 9]);
        let packed = made(Level::best(), &view, &decoded, Layout::Nhwc);
        assert_eq!(packed[9..12], [7, 8, 9]);
    }

    fn changes() -> impl Strategy<Value = Vec<Colour>> {
        let one = prop_oneof![
            (0.0..2.0f32).prop_map(Colour::Brightness),
            (0.0..2.0f32).prop_map(Colour::Contrast),
            (0.0..2.0f32).prop_map(Colour::Saturation),
            (-0.5..=0.5f32).prop_map(Colour::Hue),
        ];
        prop::collection::vec(one, 0..3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn levels_and_layouts_agree(
            (height, width, decoded) in (1..5usize, 1..110usize).prop_flat_map(|(h, w)| {
                (Just(h), Just(w), prop::collection::vec(any::<u8>(), h * w * CHANNELS))
            }),
            (transpose, mirror_x, mirror_y) in any::<(bool, bool, bool)>(),
            colour in changes(),
        ) {
            let view = view((height, width), Turn { transpose, mirror_x, mirror_y }, colour);
            let planar = made(Level::Scalar, &view, &decoded, Layout::Nchw);
            for level in Level::all() {
                prop_assert!(planar == made(*level, &view, &decoded, Layout::Nchw), "{level:?}");
            }
            let packed = made(Level::best(), &view, &decoded, Layout::Nhwc);
            let pixels = height * width;
            for (i, v) in packed.iter().enumerate() {
                prop_assert_eq!(*v, planar[i % CHANNELS * pixels + i / CHANNELS]);
            }
            if view.colour.is_empty() {
                let (high, wide) = if transpose { (width, height) } else { (height, width) };
                for i in 0..pixels {
                    let y = if mirror_y { high - 1 - i / wide } else { i / wide };
                    let x = if mirror_x { wide - 1 - i % wide } else { i % wide };
                    let from = if transpose { x * width + y } else { y * width + x };
                    prop_assert_eq!(&packed[i * CHANNELS..][..CHANNELS], &decoded[from * CHANNELS..][..CHANNELS]);
                }
            }
        }
    }
}

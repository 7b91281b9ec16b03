//! Clean rows of decoded pictures: the bytes of the decoder's resampler and of the scalar executor, one by one and packed
//! as for a device; and whole plans, from decoded pictures to mixed rows.

use super::conformance::{TORCH, device, pixels, scalar, whole};
use super::{DeviceError, Input, Mixer, Progress, Torch};
use crate::batch::{CHANNELS, Crop, Dtype, Layout, Raster, Turn};
use crate::decode::{Region, Resampler};
use crate::exec::conformance::{format, row};
use crate::exec::device::{MOST_SHRUNK, Picture};
use crate::exec::{Format, finish};
use crate::plan::{Filter, Op, Rect, Row, view::Colour, view::View};
use proptest::prelude::*;
use std::cell::RefCell;

/// Rows that show each picture as it is.
fn plain(count: usize) -> Vec<Row> {
    (0..count as u32).map(|i| row(i, i, Vec::new())).collect()
}

/// What the CPU makes of `pictures`.
fn clean(pictures: &[Picture<Vec<u8>>], raster: &Raster) -> Vec<u8> {
    let (mut resampler, mut scratch) = (Resampler::default(), Vec::new());
    let mut all = vec![0; pictures.len() * raster.len()];
    for (picture, row) in pictures.iter().zip(all.chunks_exact_mut(raster.len())) {
        let Picture { pixels, height, width, crop, view } = picture;
        let mut crop_of_it = vec![0; raster.len()];
        let region = Region { height: *height, width: *width, crop: *crop };
        resampler.run(pixels, &region, view.size, &mut crop_of_it);
        finish(view, &crop_of_it, raster, &mut scratch, row);
    }
    all
}

thread_local! {
    /// Packs and queues blocks, as for a device.
    static QUEUED: RefCell<Torch> = RefCell::new(queued());
}

fn queued() -> Torch {
    let mut torch = Torch::new(device(), 0).expect("the device is there");
    torch.here = None;
    torch
}

/// Runs as this machine does it, then packed into tables of `together` bytes.
fn both(
    rows: &[Row],
    pictures: Vec<Picture<Vec<u8>>>,
    format: &Format,
    together: usize,
) -> [Result<Vec<u8>, DeviceError>; 2] {
    let input = Input::Decoded(pictures);
    let run = |torch: &mut Torch| {
        let mut out = vec![0xa5; rows.len() * format.raster.len() * format.dtype.size()];
        whole(torch, rows, &input, format, &mut out).map(|()| out)
    };
    let queued = QUEUED.with_borrow_mut(|torch| {
        torch.together = together;
        run(torch)
    });
    [TORCH.with_borrow_mut(run), queued]
}

/// Equal, on a device within a level: its division and its sums are IEEE's, but that was not run everywhere.
fn check(made: &[u8], want: &[u8], what: &dyn std::fmt::Debug) {
    let most = u8::from(device().is_cuda());
    let differs = made.iter().zip(want).position(|(a, b)| a.abs_diff(*b) > most);
    assert!(made.len() == want.len() && differs.is_none(), "byte {differs:?} of {what:?}");
}

fn colours() -> impl Strategy<Value = Vec<Colour>> {
    let one = prop_oneof![
        (0.0..3.0f32).prop_map(Colour::Brightness),
        (0.0..3.0f32).prop_map(Colour::Contrast),
        (0.0..3.0f32).prop_map(Colour::Saturation),
        (-0.5..0.5f32).prop_map(Colour::Hue),
    ];
    prop::collection::vec(one, 0..=4)
}

/// A picture for an output of `high` x `wide`: any crop of it that is not shrunk too much, any turn.
fn picture(high: u32, wide: u32) -> impl Strategy<Value = Picture<Vec<u8>>> {
    let axis = |output: u32| {
        (0.05..MOST_SHRUNK, 0.0..1.0f64, 0.0..3.0f64, any::<bool>()).prop_map(
            move |(shrunk, start, rest, whole)| {
                let (length, start) = (shrunk * f64::from(output), start);
                // Whole pixels take other ways through the CPU's resampler, a copy among them.
                let (length, start) = if whole { (length.ceil(), 1.0) } else { (length, start) };
                let length = if whole && rest < 0.5 { f64::from(output) } else { length };
                ((start + length + rest).ceil() as u32, start, length)
            },
        )
    };
    let boxed = prop::option::of((0..=high, 0..=high, 0..=wide, 0..=wide, any::<[u8; 3]>()));
    let turn = any::<(bool, bool, bool)>();
    (turn, colours(), boxed, any::<u8>()).prop_flat_map(move |(turn, colour, boxed, seed)| {
        let turn = Turn { transpose: turn.0, mirror_x: turn.1, mirror_y: turn.2 };
        let size = if turn.transpose { (wide, high) } else { (high, wide) };
        let erase = boxed.map(|(a, b, c, d, value)| {
            (Rect { y0: a.min(b), y1: a.max(b), x0: c.min(d), x1: c.max(d) }, value)
        });
        (axis(size.0), axis(size.1)).prop_map(move |((height, y, rows), (width, x, columns))| {
            let crop = Crop { y, x, height: rows, width: columns };
            let view = View { crop, size, turn, colour: colour.clone(), erase };
            let len = height as usize * width as usize * CHANNELS;
            // Extremes and greys beside values of all kinds.
            let shade = |v: u8| match v % 16 {
                0 => 0,
                1 => 255,
                2..=4 => 100,
                _ => v,
            };
            let pixels = pixels(len + 256).into_iter().skip(seed.into()).take(len).map(shade).collect();
            Picture { pixels, height, width, crop, view }
        })
    })
}

fn blocks() -> impl Strategy<Value = (usize, usize, Vec<Picture<Vec<u8>>>, usize)> {
    (1..=19usize, 1..=23usize).prop_flat_map(|(high, wide)| {
        let pictures = prop::collection::vec(picture(high as u32, wide as u32), 1..=5);
        (Just(high), Just(wide), pictures, prop_oneof![Just(1usize), Just(40_000), Just(1 << 30)])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn clean_rows_have_the_bytes_of_the_cpu((high, wide, pictures, together) in blocks(), last: bool) {
        let layout = if last { Layout::Nhwc } else { Layout::Nchw };
        let format = format(high, wide, layout, Dtype::U8);
        let want = clean(&pictures, &format.raster);
        let views: Vec<View> = pictures.iter().map(|picture| picture.view.clone()).collect();
        for made in both(&plain(pictures.len()), pictures, &format, together) {
            check(&made.expect("libtorch answers"), &want, &views);
        }
    }
}

/// Real sizes: what a crop of a photograph at half its scale looks like.
fn photographs(count: u32, size: (u32, u32)) -> Vec<Picture<Vec<u8>>> {
    (0..count)
        .map(|i| {
            let (height, width) = (size.0 + 31 * i + 3, 2 * size.1 - 17 * i);
            let crop = Crop {
                y: 1.25,
                x: 0.0,
                height: f64::from(height) - 2.5,
                width: f64::from(width) - f64::from(i) / 3.0,
            };
            let turn = Turn { transpose: false, mirror_x: i % 2 == 1, mirror_y: false };
            let colour = vec![Colour::Contrast(1.3), Colour::Hue(0.07), Colour::Brightness(0.8)];
            let pixels = pixels(height as usize * width as usize * CHANNELS);
            Picture { pixels, height, width, crop, view: View { crop, size, turn, colour, erase: None } }
        })
        .collect()
}

#[test]
fn whole_plans_agree_from_decoded_pictures_on() {
    let size = (96, 112);
    let format = format(size.0 as usize, size.1 as usize, Layout::Nchw, Dtype::U8);
    let rect = Rect { y0: 10, y1: 50, x0: 20, x1: 100 };
    let paste = Op::Paste { src: 0, src_rect: rect, dst_rect: rect, filter: Filter::Nearest };
    let rows = [
        row(0, 1, vec![Op::Blend { src: 1, lambda: 0.25, rest: 0.75 }]),
        row(2, 0, vec![paste]),
        row(1, 1, vec![]),
    ];
    let pictures = photographs(3, size);
    let want = scalar(&rows, &clean(&pictures, &format.raster), &format);
    for made in both(&rows, pictures, &format, 1 << 30) {
        let made = made.expect("libtorch answers");
        check(&made[format.raster.len()..], &want[format.raster.len()..], &"moved rows");
        assert!(made.iter().zip(&want).all(|(a, b)| a.abs_diff(*b) <= 1), "a blend within a level");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let size = (96, 112);
    let format = format(size.0 as usize, size.1 as usize, Layout::Nhwc, Dtype::F32);
    let (from, to) = (Rect { y0: 3, y1: 80, x0: 0, x1: 112 }, Rect { y0: 10, y1: 51, x0: 20, x1: 101 });
    let ops = |src| {
        let shrunk = Op::Paste { src, src_rect: from, dst_rect: to, filter: Filter::Bilinear };
        vec![Op::Blend { src, lambda: 0.3, rest: 0.7 }, shrunk]
    };
    let rows: Vec<Row> = (0..7).map(|i| row(i, 6 - i, ops(6 - i))).collect();
    let input = Input::Decoded(photographs(7, size));
    let [one, five] = [1, 5].map(|threads| {
        let mut torch = Torch::new(device(), threads).expect("the device is there");
        if let Some(here) = &mut torch.here {
            here.chunk = 2 * 4 * format.raster.len(); // two rows, the last one alone
        }
        let mut out = vec![0; rows.len() * format.raster.len() * 4];
        whole(&mut torch, &rows, &input, &format, &mut out).expect("libtorch answers");
        out
    });
    assert!(one == five);
}

#[test]
fn blocks_that_are_queued_as_for_a_device_are_the_same() {
    let format = format(24, 31, Layout::Nchw, Dtype::F16);
    let rows = [row(0, 1, vec![Op::Blend { src: 1, lambda: 0.25, rest: 0.75 }]), row(1, 0, vec![])];
    let inputs = [photographs(2, (24, 31)), photographs(2, (24, 31)).into_iter().rev().collect()];
    let clean = pixels(2 * format.raster.len());
    let bytes = rows.len() * format.raster.len() * 2;
    let mut plain = Torch::new(device(), 0).expect("the device is there");
    let mut queued = queued();
    // Two chunks, so that several come down.
    (queued.together, queued.chunk) = (1 << 20, 4 * format.raster.len());
    let inputs = inputs.map(Input::Decoded).into_iter().chain([Input::Clean(clean)]);
    let inputs: Vec<Input<Vec<u8>>> = inputs.collect();
    let want: Vec<Vec<u8>> = inputs
        .iter()
        .map(|input| {
            let mut out = vec![0; bytes];
            whole(&mut plain, &rows, input, &format, &mut out).expect("libtorch answers");
            out
        })
        .collect();
    let mut outs = vec![vec![0xa5; bytes]; inputs.len()];
    for next in 0..=inputs.len() {
        let mixer: &mut dyn Mixer<Vec<u8>> = &mut queued;
        if let Some(input) = inputs.get(next) {
            mixer.stage(input, &format).expect("staged");
        }
        if next > 0 {
            mixer.wait().expect("made");
        }
        if let Some(input) = inputs.get(next) {
            let progress = mixer.run(&rows, input, &format, &mut outs[next]).expect("begun");
            assert_eq!(progress, Progress::Begun);
        }
        if next > 0 {
            assert!(mixer.lend(bytes).is_none(), "two pieces are none");
            mixer.collect(&mut outs[next - 1]).expect("copied");
        }
    }
    assert!(outs == want, "rows of one block are not those of another");
    // A block that was staged and refused leaves nothing behind.
    let mixer: &mut dyn Mixer<Vec<u8>> = &mut queued;
    mixer.stage(&inputs[0], &format).expect("staged");
    let beyond = [row(7, 0, vec![])];
    assert!(mixer.run(&beyond, &inputs[0], &format, &mut outs[0]).is_err());
    whole(&mut queued, &rows, &inputs[2], &format, &mut outs[0]).expect("libtorch answers");
    assert!(outs[0] == want[2]);
}

#[test]
fn rows_in_one_piece_are_lent_and_stay_as_they_are() {
    let format = format(24, 31, Layout::Nchw, Dtype::U8);
    let rows = plain(2);
    let blocks = [1, 2, 3].map(|seed| Input::Clean(pixels(seed + 2 * format.raster.len()).split_off(seed)));
    let mut queued = queued();
    let mixer: &mut dyn Mixer<Vec<u8>> = &mut queued;
    let lent = blocks.each_ref().map(|block| {
        assert_eq!(mixer.run(&rows, block, &format, &mut []).expect("begun"), Progress::Begun);
        mixer.wait().expect("made");
        assert!(mixer.lend(1).is_none(), "of another length");
        let lent = mixer.lend(2 * format.raster.len()).expect("one piece");
        assert!(mixer.lend(2 * format.raster.len()).is_none(), "once");
        lent
    });
    for (lent, block) in lent.iter().zip(&blocks) {
        assert!(matches!(block, Input::Clean(clean) if clean == lent.as_ref()));
    }
}

#[test]
fn a_picture_that_is_only_coloured_stays_as_it_was() {
    let format = format(1, 1, Layout::Nchw, Dtype::U8);
    let crop = Crop { y: 0.0, x: 0.0, height: 1.0, width: 1.0 };
    let view = View {
        crop,
        size: (1, 1),
        turn: Turn::default(),
        colour: vec![Colour::Brightness(2.0)],
        erase: None,
    };
    let picture = Picture { pixels: vec![10, 20, 30], height: 1, width: 1, crop, view };
    let input = Input::Decoded(vec![picture]);
    let mut torch = Torch::new(device(), 0).expect("the device is there");
    for _ in 0..2 {
        let mut out = vec![0; 3];
        whole(&mut torch, &plain(1), &input, &format, &mut out).expect("libtorch answers");
        assert_eq!(out, [20, 40, 60]);
    }
}

#[test]
fn pictures_that_do_not_fit_are_refused_before_the_device_sees_them() {
    let format = format(24, 31, Layout::Nchw, Dtype::U8);
    let spoils: [fn(&mut Picture<Vec<u8>>); 6] = [
        |picture| picture.pixels.truncate(10),
        |picture| picture.view.size = (31, 24),
        |picture| picture.crop.width = 100.0,
        |picture| picture.crop.y = f64::NAN,
        |picture| picture.crop.height = 0.0,
        |picture| picture.view.erase = Some((Rect { y0: 0, y1: 25, x0: 0, x1: 1 }, [0; 3])),
    ];
    for spoil in spoils {
        let mut pictures = photographs(2, (24, 31));
        spoil(&mut pictures[1]);
        for made in both(&plain(2), pictures, &format, 1 << 30) {
            assert!(matches!(made, Err(DeviceError::Misfit { row: 1 })), "{made:?}");
        }
    }
    let mut far = photographs(1, (24, 31));
    far[0].pixels = pixels(400 * 31 * CHANNELS);
    (far[0].height, far[0].width) = (400, 31);
    far[0].crop = Crop { y: 0.0, x: 0.0, height: 400.0, width: 31.0 };
    for made in both(&plain(1), far, &format, 1 << 30) {
        assert!(matches!(made, Err(DeviceError::Failed(ref why)) if why.contains("shrunk")), "{made:?}");
    }
}

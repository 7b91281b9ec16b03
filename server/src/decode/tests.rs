//! Decoding as other rooms see it, on the pictures of `tests/fixtures/images` and on JPEGs made here.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_pixels: 1 << 20, max_bytes: 1 << 20 };

/// A picture of the fixtures with what Pillow reads from it.
struct Fixture {
    name: String,
    bytes: Vec<u8>,
    height: u32,
    width: u32,
    /// Interleaved RGB.
    pixels: Vec<u8>,
}

fn images() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(images().join(name)).unwrap_or_else(|e| panic!("fixture `{name}`: {e}"))
}

fn fixtures() -> Vec<Fixture> {
    let list = String::from_utf8(file("sizes.txt")).expect("text");
    let one = |line: &str| {
        let [name, height, width] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("line `{line}`") };
        let side = |text: &str| text.parse().expect("a number");
        let (height, width) = (side(height), side(width));
        Fixture { name: name.into(), bytes: file(name), height, width, pixels: file(&format!("{name}.rgb")) }
    };
    list.lines().map(one).collect()
}

fn all_of(peek: &Peek) -> Crop {
    Crop { y: 0.0, x: 0.0, height: peek.height.into(), width: peek.width.into() }
}

fn decode(bytes: &[u8], peek: &Peek, crop: &Crop, size: (u32, u32)) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0xaa; size.0 as usize * size.1 as usize * CHANNELS];
    Decoder::new().decode(bytes, peek, crop, size, &mut out)?;
    Ok(out)
}

fn largest_difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn headers_say_what_pillow_says() {
    for Fixture { name, bytes, height, width, .. } in fixtures() {
        let peek = peek(&bytes, LIMITS).unwrap_or_else(|e| panic!("`{name}` {e}"));
        assert_eq!((peek.height, peek.width), (height, width), "{name}");
        let orientation = name.strip_prefix("exif-").map_or(1, |n| n[..1].parse().expect("a digit"));
        assert_eq!(peek.orientation, orientation, "{name}");
        assert_eq!(
            format!("{:?}", peek.format).to_lowercase(),
            name.rsplit('.').next().expect("an ending").replace("jpg", "jpeg")
        );
    }
}

#[test]
fn whole_pictures_equal_pillow() {
    for Fixture { name, bytes, height, width, pixels } in fixtures() {
        let peek = peek(&bytes, LIMITS).expect("sound");
        let ours =
            decode(&bytes, &peek, &all_of(&peek), (height, width)).unwrap_or_else(|e| panic!("`{name}` {e}"));
        // Lossy WebP: another decoder than Pillow's, which rounds YUV to RGB once more.
        let allowed = u8::from(matches!(name.as_str(), "lossy.webp" | "alpha.webp"));
        let difference = largest_difference(&ours, &pixels);
        assert!(difference <= allowed, "{name}: pixels differ by up to {difference}");
    }
}

#[test]
fn resampled_crops_equal_pillow() {
    for name in ["baseline-420.jpg", "grey.jpg", "rgb8.png"] {
        let bytes = file(name);
        let peek = peek(&bytes, LIMITS).expect("sound");
        let (h, w) = (f64::from(peek.height), f64::from(peek.width));
        let crop = Crop { y: 3.5, x: 5.25, height: h * 0.8, width: w * 0.7 };
        let ours = decode(&bytes, &peek, &crop, (11, 37)).expect("sound");
        // Both round to 8 bits after each pass, with weights of 14 to 15 here and 22 bits there; passes in other order.
        let difference = largest_difference(&ours, &file(&format!("{name}.crop")));
        assert!(difference <= 1, "{name}: differs by up to {difference}");
    }
}

/// A picture with edges and texture in every colour, so that each wrong sample shows.
fn textured(height: usize, width: usize) -> Vec<u8> {
    let value = |i: usize| {
        let (y, x, c) = (i / (width * CHANNELS), i / CHANNELS % width, i % CHANNELS);
        let edge = if (x / 11 + y / 7) % 2 == 0 { 60 } else { 0 };
        (x * (3 + c) + y * (5 - c) + (x * y * (c + 1)) % 53 + edge + c * 40) as u8
    };
    (0..height * width * CHANNELS).map(value).collect()
}

/// What decoding the whole picture at the same scale and resampling its crop box gives.
fn without_cropping(bytes: &[u8], peek: &Peek, crop: &Crop, size: (u32, u32)) -> Vec<u8> {
    let source = region::whole(peek, crop, region::eighths(crop, size));
    let (mut raw, mut pixels) = (Vec::new(), Vec::new());
    turbo::decode(bytes, peek, &source, &mut raw, &mut pixels).expect("sound");
    let mut out = vec![0; size.0 as usize * size.1 as usize * CHANNELS];
    let region = Region { height: source.height, width: source.width, crop: source.crop };
    Resampler::default().run(&pixels, &region, size, &mut out);
    out
}

/// A crop in shares of the picture.
fn shares() -> impl Strategy<Value = [f64; 4]> {
    [0.0..1.0, 0.0..1.0, 0.0..1.0, 0.0..1.0]
}

fn crop_of(peek: &Peek, [y, x, height, width]: [f64; 4], whole_pixels: bool) -> Crop {
    let round = |v: f64| if whole_pixels { v.floor() } else { v };
    let (h, w) = (f64::from(peek.height), f64::from(peek.width));
    let (y, x) = (round(y * h * 0.9), round(x * w * 0.9));
    let (height, width) = ((height * (h - y)).max(1.0), (width * (w - x)).max(1.0));
    Crop { y, x, height: round(height).min(h - y), width: round(width).min(w - x) }
}

proptest! {
    #[test]
    fn the_cropped_decode_equals_the_whole_one(
        layout in 0..turbo::LAYOUTS.len(),
        progressive: bool,
        sides in (1_u32..150, 1_u32..190),
        shares in shares(),
        whole_pixels: bool,
        size in (1_u32..60, 1_u32..60),
    ) {
        let (height, width) = sides;
        let pixels = textured(height as usize, width as usize);
        let bytes = turbo::encode(&pixels, height, width, turbo::LAYOUTS[layout], progressive);
        let peek = peek(&bytes, LIMITS).expect("just made");
        let crop = crop_of(&peek, shares, whole_pixels);
        let ours = decode(&bytes, &peek, &crop, size).expect("just made");
        prop_assert!(ours == without_cropping(&bytes, &peek, &crop, size));
    }

    #[test]
    fn damage_never_panics_and_fails_for_every_crop_or_none(
        which in 0..64_usize,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        crops in [shares(), shares()],
    ) {
        let mut fixtures = fixtures();
        let count = fixtures.len();
        let mut bytes = std::mem::take(&mut fixtures[which % count].bytes);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let Ok(peek) = peek(&bytes, LIMITS) else { return Ok(()) };
        let whole = decode(&bytes, &peek, &all_of(&peek), (5, 9));
        prop_assert_eq!(&whole, &decode(&bytes, &peek, &all_of(&peek), (5, 9)));
        for shares in crops {
            for size in [(1, 1), (17, 30)] {
                let part = decode(&bytes, &peek, &crop_of(&peek, shares, false), size);
                prop_assert_eq!(whole.as_ref().err(), part.as_ref().err());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Behind the first bytes of a picture of every format, or behind nothing: refused, or a picture within the limits.
    #[test]
    fn noise_is_refused_or_a_picture(
        which in 0..64_usize,
        keep in 0..80_usize,
        noise in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let fixtures = fixtures();
        let head = &fixtures[which % fixtures.len()].bytes;
        let bytes = [&head[..keep.min(head.len())], &noise].concat();
        if let Ok(peek) = peek(&bytes, LIMITS) {
            prop_assert!(u64::from(peek.height) * u64::from(peek.width) <= LIMITS.max_pixels);
            let _ = decode(&bytes, &peek, &all_of(&peek), (5, 9));
        }
    }

    /// Every run of bytes of a header may claim anything.
    #[test]
    fn headers_that_claim_much_are_refused_or_within_the_limits(
        which in 0..64_usize,
        at in 2..60_usize,
        claim in proptest::sample::select(vec![[0xff_u8; 4], [0x7f, 0xff, 0xff, 0xff], [0; 4], [0xff, 0xff, 0, 0], [0, 0, 0xff, 0xff]]),
    ) {
        let fixtures = fixtures();
        let mut bytes = fixtures[which % fixtures.len()].bytes.clone();
        let at = at.min(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&claim);
        if let Ok(peek) = peek(&bytes, LIMITS) {
            prop_assert!(u64::from(peek.height) * u64::from(peek.width) <= LIMITS.max_pixels);
            let _ = decode(&bytes, &peek, &all_of(&peek), (5, 9));
        }
    }
}

#[test]
fn a_jpeg_cut_anywhere_is_refused() {
    for Fixture { name, bytes, .. } in fixtures().into_iter().filter(|f| f.name.ends_with(".jpg")) {
        for cut in 0..bytes.len() {
            let error = peek(&bytes[..cut], LIMITS).expect_err("cut");
            let known = matches!(error, DecodeError::Format) == (cut < 3);
            assert!(known, "{name} cut at {cut}: {error}");
        }
    }
    let error = peek(&file("baseline-420.jpg")[..1500], LIMITS).expect_err("cut");
    assert_eq!(error.to_string(), "cannot be decoded: jpeg file ends before its end marker `ff d9`");
}

#[test]
fn other_formats_cut_inside_the_first_picture_are_refused_for_every_crop() {
    for Fixture { name, bytes, .. } in fixtures().into_iter().filter(|f| !f.name.ends_with(".jpg")) {
        let part = &bytes[..bytes.len() / 3]; // an animation has two pictures
        let Ok(peek) = peek(part, LIMITS) else { continue };
        let corner = Crop { y: 0.0, x: 0.0, height: 1.0, width: 2.0 };
        for crop in [corner, all_of(&peek)] {
            let error = decode(part, &peek, &crop, (1, 2)).expect_err(&name);
            assert!(matches!(error, DecodeError::Broken(_)), "{name}: {error}");
        }
    }
}

#[test]
fn empty_and_foreign_files_have_no_format() {
    for bytes in [&b""[..], b"\xff", b"just text named .jpg", b"%PDF-1.7", b"RIFF\0\0\0\0WAVEfmt "] {
        assert_eq!(peek(bytes, LIMITS), Err(DecodeError::Format));
    }
}

#[test]
fn limits_hold_before_the_header_and_before_the_pixels() {
    let bytes = file("rgb8.png");
    let size = bytes.len() as u64;
    let limits = |max_pixels, max_bytes| Limits { max_pixels, max_bytes };
    assert!(peek(&bytes, limits(31 * 45, size)).is_ok());
    let error = peek(&bytes, limits(31 * 45 - 1, size)).expect_err("too many pixels");
    assert_eq!(error.to_string(), "height * width is 1395, want at most 1394");
    let error = peek(&bytes, limits(31 * 45, size - 1)).expect_err("too many bytes");
    assert_eq!(error.to_string(), format!("encoded size in bytes is {size}, want at most {}", size - 1));
}

#[test]
fn a_declared_size_without_data_is_refused() {
    let mut png = file("rgb8.png");
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]); // 60000 x 60000
    assert_eq!(
        peek(&png, LIMITS),
        Err(DecodeError::Limit { what: "height * width", value: 3_600_000_000, limit: LIMITS.max_pixels })
    );
    // With a limit that allows it, the size must agree with the data, checksum first.
    let roomy = Limits { max_pixels: u64::MAX, ..LIMITS };
    let said = peek(&png, roomy).expect("a header");
    assert!(matches!(decode(&png, &said, &all_of(&said), (1, 1)), Err(DecodeError::Broken(_))));
    // A header that is not the one that was peeked at.
    let other = Peek { height: 32, ..peek(&file("rgb8.png"), LIMITS).expect("sound") };
    let error = decode(&file("rgb8.png"), &other, &all_of(&other), (1, 1)).expect_err("another size");
    assert_eq!(error.to_string(), "cannot be decoded: header says 31 x 45 pixels, expected 32 x 45");
}

#[test]
fn a_jpeg_without_tables_does_not_borrow_those_of_the_last_picture() {
    let bytes = file("baseline-420.jpg");
    let start = bytes.windows(2).position(|w| w == [0xff, 0xdb]).expect("a quantisation table");
    let length = usize::from(u16::from_be_bytes([bytes[start + 2], bytes[start + 3]]));
    let bare = [&bytes[..start], &bytes[start + 2 + length..]].concat();
    let said = peek(&bytes, LIMITS).expect("sound");
    let mut decoder = Decoder::new();
    let mut out = [0; 6];
    decoder.decode(&bytes, &said, &all_of(&said), (1, 2), &mut out).expect("sound");
    let after = decoder.decode(&bare, &said, &all_of(&said), (1, 2), &mut out);
    assert!(after.is_err());
    assert_eq!(after.err(), decode(&bare, &said, &all_of(&said), (1, 2)).err());
}

#[test]
fn an_error_behind_the_picture_does_not_depend_on_the_crop() {
    // A second frame header between the picture and the end marker: read only by a decode that reaches the bottom.
    let mut bytes = file("baseline-420.jpg");
    let end = bytes.len() - 2;
    bytes.splice(end..end, [0xff, 0xc0, 0, 11, 8, 0, 9, 0, 9, 1, 1, 0x11, 0]);
    let said = peek(&bytes, LIMITS).expect("a header");
    let sound = decode(&file("baseline-420.jpg"), &said, &all_of(&said), (7, 5)).expect("sound");
    assert_eq!(decode(&bytes, &said, &all_of(&said), (7, 5)), Ok(sound));
    let top = Crop { y: 0.0, x: 0.0, height: 9.0, width: 30.0 };
    assert!(decode(&bytes, &said, &top, (7, 5)).is_ok());
}

#[test]
fn twelve_bit_and_unknown_frames_are_broken() {
    let sound = file("baseline-444.jpg");
    let frame = sound.windows(2).position(|w| w == [0xff, 0xc0]).expect("a frame");
    for (at, value) in [(frame + 4, 12), (frame + 1, 0xc5), (frame + 9, 7)] {
        let mut bytes = sound.clone();
        bytes[at] = value;
        let said = peek(&bytes, LIMITS).expect("a header");
        let error = decode(&bytes, &said, &all_of(&said), (3, 2)).expect_err("unsupported");
        assert!(matches!(error, DecodeError::Broken(_)), "{error}");
    }
}

#[test]
fn scratch_of_a_larger_picture_leaves_no_trace() {
    let mut decoder = Decoder::new();
    for name in ["cmyk.jpg", "rgba8.png", "one.jpg", "grey.jpg", "rgb16.png", "row-420.jpg"] {
        let bytes = file(name);
        let peek = peek(&bytes, LIMITS).expect("sound");
        let mut out = vec![0x55; 13 * 4 * CHANNELS];
        decoder.decode(&bytes, &peek, &all_of(&peek), (13, 4), &mut out).expect("sound");
        assert_eq!(Ok(out), decode(&bytes, &peek, &all_of(&peek), (13, 4)), "{name}");
    }
}

//! Decodes whole pictures with the `image` crate: PNG, WebP, GIF, BMP, and JPEG files that libjpeg-turbo refuses.
//!
//! Conversion to RGB is Pillow's `convert("RGB")`: alpha is dropped, not blended; 16-bit samples lose their low byte.

use std::io::Cursor;

use image::codecs::{
    bmp::BmpDecoder, gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder,
};
use image::{ColorType, ImageDecoder, ImageResult, Limits};

use super::DecodeError;
use crate::batch::{CHANNELS, Format, Peek};

/// Bytes a decoder may allocate beside 8 per pixel: room for code tables, palettes and one window of inflate.
const SLACK_BYTES: u64 = 16 << 20;

/// Decodes the picture that `peek` describes into `pixels`: interleaved RGB in its first `height * width * 3` bytes.
/// `raw` holds samples in between.
pub(super) fn decode(
    bytes: &[u8],
    peek: &Peek,
    raw: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let file = Cursor::new(bytes);
    let limits = limits(peek);
    match peek.format {
        Format::Jpeg => read(JpegDecoder::new(file), limits, peek, raw, pixels),
        Format::Png => read(PngDecoder::with_limits(file, limits.clone()), limits, peek, raw, pixels),
        Format::Webp => read(WebPDecoder::new(file), limits, peek, raw, pixels),
        Format::Gif => read(GifDecoder::new(file), limits, peek, raw, pixels),
        Format::Bmp => read(BmpDecoder::new(file), limits, peek, raw, pixels),
    }
}

fn limits(peek: &Peek) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_height = Some(peek.height);
    limits.max_image_width = Some(peek.width);
    limits.max_alloc = Some(u64::from(peek.height) * u64::from(peek.width) * 8 + SLACK_BYTES);
    limits
}

fn read(
    decoder: ImageResult<impl ImageDecoder>,
    limits: Limits,
    peek: &Peek,
    raw: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let broken = |error: image::ImageError| DecodeError::Broken(error.to_string());
    let mut decoder = decoder.map_err(broken)?;
    // Before any buffer: the decoder's own idea of the size, so that no header can make us allocate for another one.
    let (width, height) = decoder.dimensions();
    if (height, width) != (peek.height, peek.width) {
        return Err(DecodeError::broken(format!(
            "header says {height} x {width} pixels, expected {} x {}",
            peek.height, peek.width
        )));
    }
    decoder.set_limits(limits).map_err(broken)?;
    let color = decoder.color_type();
    let samples = usize::try_from(decoder.total_bytes()).expect("pixels were limited");
    let raw = at_least(raw, samples);
    decoder.read_image(raw).map_err(broken)?;
    let count = height as usize * width as usize;
    to_rgb(raw, color, at_least(pixels, count * CHANNELS))
}

/// The first `length` bytes of `buffer`, which grows if it must.
pub(super) fn at_least(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

fn to_rgb(raw: &[u8], color: ColorType, out: &mut [u8]) -> Result<(), DecodeError> {
    // The `image` crate leaves 16-bit samples in the machine's byte order.
    let high = usize::from(cfg!(target_endian = "little"));
    let pixels = out.as_chunks_mut::<CHANNELS>().0.iter_mut();
    match color {
        ColorType::L8 => pixels.zip(raw).for_each(|(to, v)| *to = [*v; 3]),
        ColorType::La8 => pixels.zip(raw.as_chunks::<2>().0).for_each(|(to, [v, _])| *to = [*v; 3]),
        ColorType::Rgb8 => out.copy_from_slice(raw),
        ColorType::Rgba8 => pixels.zip(raw.as_chunks().0).for_each(|(to, [r, g, b, _])| *to = [*r, *g, *b]),
        ColorType::L16 => pixels.zip(raw.as_chunks::<2>().0).for_each(|(to, v)| *to = [v[high]; 3]),
        ColorType::La16 => pixels.zip(raw.as_chunks::<4>().0).for_each(|(to, v)| *to = [v[high]; 3]),
        ColorType::Rgb16 => pixels.zip(raw.as_chunks::<6>().0).for_each(|(to, v)| *to = wide(v, high)),
        ColorType::Rgba16 => pixels.zip(raw.as_chunks::<8>().0).for_each(|(to, v)| *to = wide(v, high)),
        ColorType::Rgb32F | ColorType::Rgba32F | _ => {
            return Err(DecodeError::broken(format!("samples are {color:?}, want 8 or 16 bits")));
        }
    }
    Ok(())
}

fn wide(samples: &[u8], high: usize) -> [u8; CHANNELS] {
    [samples[high], samples[2 + high], samples[4 + high]]
}

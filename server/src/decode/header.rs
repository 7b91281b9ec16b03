//! Format and size of a picture from its first bytes. Reads at most 30 bytes of any format but JPEG.

use super::DecodeError;
use super::jpeg;
use crate::batch::{Format, Peek};

/// Reads format, size and orientation.
pub(super) fn read(bytes: &[u8]) -> Result<Peek, DecodeError> {
    let format = format(bytes).ok_or(DecodeError::Format)?;
    let size = match format {
        Format::Jpeg => {
            let jpeg::Header { height, width, orientation, .. } = jpeg::read(bytes)?;
            return Ok(Peek { format, height, width, orientation });
        }
        Format::Png => png(bytes),
        Format::Webp => webp(bytes),
        Format::Gif => gif(bytes),
        Format::Bmp => bmp(bytes),
    };
    let damaged = || DecodeError::broken(format!("{format:?} header is cut or damaged").to_lowercase());
    let (height, width) = size.ok_or_else(damaged)?;
    if height == 0 || width == 0 {
        return Err(DecodeError::broken(format!(
            "header says {height} x {width} pixels, want at least 1 x 1"
        )));
    }
    Ok(Peek { format, height, width, orientation: 1 })
}

fn format(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        [b'B', b'M', ..] => Some(Format::Bmp),
        _ => None,
    }
}

/// PNG: the first chunk is IHDR with width and height, big-endian.
fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    let chunk = bytes.get(8..24)?.strip_prefix(b"\0\0\0\x0dIHDR")?;
    Some((big(chunk, 4)?, big(chunk, 0)?))
}

/// WebP: the first chunk is lossy (`VP8 `), lossless (`VP8L`) or extended (`VP8X`). RFC 9649.
fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    let body = bytes.get(20..30)?;
    match bytes.get(12..16)? {
        b"VP8 " => {
            let frame = body.get(3..)?.strip_prefix(&[0x9d, 0x01, 0x2a])?;
            // The upper two bits are a hint for display scaling.
            Some((u32::from(small(frame, 2)? & 0x3fff), u32::from(small(frame, 0)? & 0x3fff)))
        }
        b"VP8L" => {
            let bits = little(body.strip_prefix(&[0x2f])?, 0)?;
            Some(((bits >> 14 & 0x3fff) + 1, (bits & 0x3fff) + 1))
        }
        b"VP8X" => {
            let three = |at| Some(u32::from(small(body, at)?) | u32::from(*body.get(at + 2)?) << 16);
            Some((three(7)? + 1, three(4)? + 1))
        }
        _ => None,
    }
}

/// GIF: logical screen.
fn gif(bytes: &[u8]) -> Option<(u32, u32)> {
    Some((u32::from(small(bytes, 8)?), u32::from(small(bytes, 6)?)))
}

/// BMP: OS/2 header of 12 bytes with 16-bit sizes, or a Windows one with 32-bit sizes (negative height: top row first).
fn bmp(bytes: &[u8]) -> Option<(u32, u32)> {
    if little(bytes, 14)? == 12 {
        return Some((u32::from(small(bytes, 20)?), u32::from(small(bytes, 18)?)));
    }
    let width = u32::try_from(little(bytes, 18)?.cast_signed()).ok()?;
    Some((little(bytes, 22)?.cast_signed().unsigned_abs(), width))
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn small(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

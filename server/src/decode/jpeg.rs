//! Header of a JPEG file: walks the markers up to the first scan. ITU-T T.81, annex B.

use super::DecodeError;
use super::exif;

/// What the segments before the first scan say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Rows, >= 1.
    pub height: u32,
    /// Columns, >= 1.
    pub width: u32,
    /// EXIF orientation, 1..=8.
    pub orientation: u8,
    /// Marker of the frame: 0xc0 baseline, 0xc1 extended, 0xc2 progressive, 0xc3 lossless, 0xc9 and 0xca arithmetic.
    frame: u8,
    /// Components of the frame; only the first 4 are kept.
    components: usize,
    /// Horizontal and vertical sampling factor of each component.
    sampling: [(u8, u8); 4],
}

impl Header {
    /// Whether reduced-size transforms exist for this frame: all but lossless ones.
    pub fn scales(&self) -> bool {
        matches!(self.frame, 0xc0 | 0xc1 | 0xc2 | 0xc9 | 0xca)
    }

    /// Width in pixels of the columns of blocks at which a region may begin, or nothing where the picture must be
    /// decoded whole: only the layouts that libjpeg-turbo names can be cropped, and only their ordinary spelling.
    pub fn unit_width(&self) -> Option<u32> {
        let (h, v) = self.sampling[0];
        let usual = matches!((h, v), (1, 1) | (2, 1) | (1, 2) | (2, 2) | (4, 1) | (1, 4));
        let same = match self.components {
            1 => (h, v) == (1, 1),
            3 => self.sampling[1..3] == [(1, 1); 2],
            4 => self.sampling[1..] == [(1, 1), (1, 1), (h, v)],
            _ => false,
        };
        (self.scales() && usual && same).then_some(u32::from(h) * 8)
    }
}

/// Reads the header and checks that an end marker follows the first scan, so that a file that was cut is refused
/// whichever part of it is wanted.
pub(super) fn read(bytes: &[u8]) -> Result<Header, DecodeError> {
    let mut at = 2; // after the magic
    let mut orientation = None;
    let mut header: Option<Header> = None;
    loop {
        let (marker, next) = next_marker(bytes, at).ok_or_else(|| cut("before its first scan"))?;
        at = next;
        // Markers without a length.
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        if marker == 0xd9 {
            return Err(DecodeError::broken("jpeg file has no scan"));
        }
        let length = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|n| u16::from_be_bytes(*n));
        let length = usize::from(length.ok_or_else(|| cut("in a segment's length"))?);
        if length < 2 {
            return Err(DecodeError::broken(format!(
                "segment `ff {marker:02x}` has length {length}, want at least 2"
            )));
        }
        let body = bytes.get(at + 2..at + length).ok_or_else(|| cut("inside a segment"))?;
        at += length;
        match marker {
            0xda => break,
            0xe1 if orientation.is_none() => orientation = exif::orientation(body),
            // c4, c8, cc are tables, not frames.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => match header {
                None => header = Some(frame(marker, body)?),
                Some(_) => return Err(DecodeError::broken("jpeg file has two frame headers")),
            },
            _ => {}
        }
    }
    let mut header =
        header.ok_or_else(|| DecodeError::broken("jpeg file has a scan before its frame header"))?;
    header.orientation = orientation.unwrap_or(1);
    // From the back: at once in a sound file.
    if bytes[at..].windows(2).rposition(|pair| pair == [0xff, 0xd9]).is_none() {
        return Err(cut("before its end marker `ff d9`"));
    }
    Ok(header)
}

fn cut(place: &str) -> DecodeError {
    DecodeError::broken(format!("jpeg file ends {place}"))
}

/// Next marker at or after `at` and the position behind it; skips fill bytes and rubbish as libjpeg does.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut rest = bytes.get(at..)?.iter().enumerate();
    while let Some((_, &byte)) = rest.next() {
        if byte != 0xff {
            continue;
        }
        let (offset, &code) = rest.by_ref().find(|(_, byte)| **byte != 0xff)?;
        if code != 0 {
            return Some((code, at + offset + 1));
        }
    }
    None
}

fn frame(marker: u8, body: &[u8]) -> Result<Header, DecodeError> {
    let Some(&[_precision, h0, h1, w0, w1, components]) = body.first_chunk() else {
        return Err(cut("inside its frame header"));
    };
    let (height, width) = (u16::from_be_bytes([h0, h1]), u16::from_be_bytes([w0, w1]));
    if height == 0 || width == 0 {
        return Err(DecodeError::broken(format!(
            "header says {height} x {width} pixels, want at least 1 x 1"
        )));
    }
    let mut sampling = [(0, 0); 4];
    for (factors, component) in sampling.iter_mut().zip(body[6..].chunks_exact(3)) {
        *factors = (component[1] >> 4, component[1] & 15);
    }
    Ok(Header {
        height: u32::from(height),
        width: u32::from(width),
        orientation: 1,
        frame: marker,
        components: usize::from(components),
        sampling,
    })
}

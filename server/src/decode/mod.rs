//! 2 DECODE: encoded picture to pixels, only the crop and scale that the plan wants.
//!
//! ```text
//! bytes --header--> Peek                      format, size, orientation, limits; allocates nothing
//! bytes --turbo---> scaled pixels of a region --resample--> rows x columns RGB      JPEG
//! bytes --whole---> all pixels                --resample--> rows x columns RGB      the other formats, odd JPEGs
//! ```
//!
//! Result: what one gets by decoding the whole picture (at the scale of [`region::eighths`]) and resampling the crop
//! box of it: half-pixel centres, antialiased triangle. Pixels around the crop take part where the triangle reaches
//! them, as in Pillow's `resize(box=...)`.

use crate::batch::{CHANNELS, Crop, Format, Peek};

mod exif;
mod header;
mod jpeg;
mod region;
mod resample;
mod turbo;
mod whole;

#[cfg(test)]
mod tests;

pub use resample::Resampler;

/// Limits of one record, checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest height * width.
    pub max_pixels: u64,
    /// Largest encoded size in bytes.
    pub max_bytes: u64,
}

/// A bad record: its complete bytes cannot be decoded, or exceed a limit of the job. A property of the record, never of
/// the crop asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a picture of a known format.
    #[error("is no JPEG, PNG, WebP, GIF or BMP file")]
    Format,
    /// Every decoder refuses it.
    #[error("cannot be decoded: {0}")]
    Broken(String),
    /// Beyond a limit of the job.
    #[error("{what} is {value}, want at most {limit}")]
    Limit {
        /// "height * width" or "encoded size in bytes".
        what: &'static str,
        /// What the record says.
        value: u64,
        /// Limit.
        limit: u64,
    },
}

impl DecodeError {
    fn broken(why: impl Into<String>) -> DecodeError {
        DecodeError::Broken(why.into())
    }
}

/// Reads the header of an encoded picture.
///
/// Costs a walk over the markers of a JPEG and a search for its end marker; a few bytes of any other format.
///
/// # Errors
/// [`DecodeError`]: unknown format, damaged header, over a limit, or an incomplete file.
pub fn peek(bytes: &[u8], limits: Limits) -> Result<Peek, DecodeError> {
    let size = bytes.len() as u64;
    if size > limits.max_bytes {
        return Err(DecodeError::Limit {
            what: "encoded size in bytes",
            value: size,
            limit: limits.max_bytes,
        });
    }
    let peek = header::read(bytes)?;
    let pixels = u64::from(peek.height) * u64::from(peek.width);
    if pixels > limits.max_pixels {
        return Err(DecodeError::Limit { what: "height * width", value: pixels, limit: limits.max_pixels });
    }
    Ok(peek)
}

/// A decoded part of a picture, and the crop in its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Rows, >= 1.
    pub height: u32,
    /// Columns, >= 1.
    pub width: u32,
    /// The crop; inside of the region.
    pub crop: Crop,
}

impl Region {
    /// Bytes of its pixels, interleaved RGB.
    pub fn bytes(&self) -> usize {
        self.height as usize * self.width as usize * CHANNELS
    }
}

/// Scratch beyond this is given back after the picture that needed it, so that one huge picture does not stay in the
/// memory of every thread. 64 MiB hold 22 million RGB pixels.
const KEEP_BYTES: usize = 64 << 20;

/// Decodes pictures; keeps its scratch memory, so one per thread.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Decoded RGB rows of the region, before resampling.
    pixels: Vec<u8>,
    /// Samples in the file's own channels (CMYK, grey, 16 bit), before conversion to RGB.
    raw: Vec<u8>,
    resampler: resample::Resampler,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes `crop` (in stored pixels) of a picture whose header said `peek`, resampled to `size` (rows, columns),
    /// into `out`: interleaved RGB, `rows * columns * 3` bytes. `out` is written whole on `Ok`.
    ///
    /// # Errors
    /// [`DecodeError`]; whether it fails does not depend on `crop` and `size`.
    ///
    /// # Panics
    /// If `out` is not `rows * columns * 3` bytes long.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        peek: &Peek,
        crop: &Crop,
        size: (u32, u32),
        out: &mut [u8],
    ) -> Result<(), DecodeError> {
        assert_eq!(out.len(), size.0 as usize * size.1 as usize * CHANNELS, "bytes of `out` for {size:?}");
        self.region(bytes, peek, crop, size, |region, pixels, resampler| {
            resampler.run(pixels, region, size, out);
        })
    }

    /// Decodes what resampling `crop` (in stored pixels) to `size` (rows, columns) reads, and calls `take` with it, its
    /// pixels (interleaved RGB) and what resamples them.
    ///
    /// # Errors
    /// As [`Decoder::decode`]; `take` is not called then.
    pub fn region<T>(
        &mut self,
        bytes: &[u8],
        peek: &Peek,
        crop: &Crop,
        size: (u32, u32),
        take: impl FnOnce(&Region, &[u8], &mut Resampler) -> T,
    ) -> Result<T, DecodeError> {
        let source = match peek.format {
            Format::Jpeg => self.jpeg(bytes, peek, crop, size)?,
            Format::Png | Format::Webp | Format::Gif | Format::Bmp => {
                whole::decode(bytes, peek, &mut self.raw, &mut self.pixels)?;
                region::whole(peek, crop, 8)
            }
        };
        let region = Region { height: source.height, width: source.width, crop: source.crop };
        let taken = take(&region, &self.pixels[..region.bytes()], &mut self.resampler);
        if self.pixels.len() + self.raw.len() > KEEP_BYTES {
            self.pixels = Vec::new();
            self.raw = Vec::new();
        }
        Ok(taken)
    }

    /// Leaves the needed region of a JPEG in `self.pixels`.
    fn jpeg(
        &mut self,
        bytes: &[u8],
        peek: &Peek,
        crop: &Crop,
        size: (u32, u32),
    ) -> Result<region::Source, DecodeError> {
        let header = jpeg::read(bytes)?;
        if (header.height, header.width) != (peek.height, peek.width) {
            return Err(DecodeError::broken(format!(
                "header says {} x {} pixels, expected {} x {}",
                header.height, header.width, peek.height, peek.width
            )));
        }
        let eighths = if header.scales() { region::eighths(crop, size) } else { 8 };
        let source = match header.unit_width() {
            Some(unit) => region::around(peek, crop, size, eighths, unit),
            None => region::whole(peek, crop, eighths),
        };
        match turbo::decode(bytes, peek, &source, &mut self.raw, &mut self.pixels) {
            Ok(()) => Ok(source),
            // A hard error of libjpeg-turbo comes from the header or from scans that it reads whole before the first
            // row, so it is one for every crop, and so is the answer of the second decoder.
            Err(first) => {
                whole::decode(bytes, peek, &mut self.raw, &mut self.pixels)
                    .map_err(|second| DecodeError::broken(format!("{first}; second decoder: {second}")))?;
                Ok(region::whole(peek, crop, 8))
            }
        }
    }
}

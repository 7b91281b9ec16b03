//! JPEG through libjpeg-turbo 3: the accurate inverse transform, smooth chroma upsampling, a region at a scale of n/8.
//!
//! A fresh handle per picture: a handle keeps the quantisation and Huffman tables of earlier pictures and lends them to
//! files that lack theirs, so pixels would depend on what was decoded before. Creating and destroying one takes 0.14 us.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use turbojpeg_sys as tj;

use super::region::Source;
use super::whole::at_least;
use crate::batch::{CHANNELS, Peek};

/// Bytes of a CMYK pixel.
const CMYK: usize = 4;

/// Most scans of a progressive file. Encoders write about 10; each costs a pass over the whole picture, so a small file
/// with thousands of empty ones would hold a thread for minutes. The second decoder has the same limit.
const MAX_SCANS: c_int = 100;

/// Decodes the rectangle `source` of a JPEG whose header said `peek` into `pixels`: interleaved RGB in its first
/// `source.height * source.width * 3` bytes. `raw` holds CMYK samples in between.
///
/// Damaged entropy-coded data are not an error: libjpeg-turbo conceals them with grey blocks.
///
/// # Errors
/// What libjpeg-turbo says when it gives up before the last row.
pub(super) fn decode(
    bytes: &[u8],
    peek: &Peek,
    source: &Source,
    raw: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<(), String> {
    let handle = Handle::new();
    handle.select(bytes, peek, source)?;
    let count = source.height as usize * source.width as usize;
    let rgb = at_least(pixels, count * CHANNELS);
    let space = handle.get(tj::TJPARAM_TJPARAM_COLORSPACE);
    if [tj::TJCS_TJCS_CMYK, tj::TJCS_TJCS_YCCK].map(|s| s as c_int).contains(&space) {
        let cmyk = at_least(raw, count * CMYK);
        handle.rows(bytes, source, tj::TJPF_TJPF_CMYK, CMYK, cmyk)?;
        for (to, from) in rgb.as_chunks_mut().0.iter_mut().zip(cmyk.as_chunks().0) {
            *to = rgb_of_cmyk(*from);
        }
        Ok(())
    } else {
        handle.rows(bytes, source, tj::TJPF_TJPF_RGB, CHANNELS, rgb)
    }
}

/// Adobe stores ink inverted: 255 is no ink. Light is what neither the ink nor black takes, rounded as Pillow does.
fn rgb_of_cmyk([c, m, y, k]: [u8; CMYK]) -> [u8; CHANNELS] {
    [c, m, y].map(|stored| {
        let product = u32::from(255 - stored) * u32::from(k) + 128;
        let taken = (product + (product >> 8)) >> 8;
        k - taken as u8 // `taken` <= k <= 255
    })
}

/// A decompressor of libjpeg-turbo.
struct Handle(NonNull<std::ffi::c_void>);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `self.0` came from tj3Init and is destroyed once, here.
        unsafe { tj::tj3Destroy(self.0.as_ptr().cast()) }
    }
}

impl Handle {
    fn new() -> Handle {
        // SAFETY: takes no pointer; the result is checked below.
        let handle = unsafe { tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as c_int) };
        let handle = Handle(NonNull::new(handle.cast()).expect("memory for a few kilobytes of JPEG decoder"));
        handle.set(tj::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS);
        handle.set(tj::TJPARAM_TJPARAM_SAVEMARKERS, 0);
        handle
    }

    fn get(&self, param: tj::TJPARAM) -> c_int {
        // SAFETY: `self.0` is a live handle.
        unsafe { tj::tj3Get(self.0.as_ptr().cast(), param as c_int) }
    }

    fn set(&self, param: tj::TJPARAM, value: c_int) {
        // SAFETY: `self.0` is a live handle.
        let status = unsafe { tj::tj3Set(self.0.as_ptr().cast(), param as c_int, value) };
        assert_eq!(status, 0, "parameter {param} of libjpeg-turbo takes {value}");
    }

    /// Reads the header, then chooses the scale and rectangle of `source`.
    fn select(&self, bytes: &[u8], peek: &Peek, source: &Source) -> Result<(), String> {
        // The status is of no use: it is also -1 after a mere warning, and then the code for "warning" may hide a later
        // error. The values of a new handle are -1, so what was read tells.
        // SAFETY: `bytes` is valid for its length during the call; the handle keeps no pointer that it uses after it,
        // since `rows` gives the same bytes anew.
        unsafe { tj::tj3DecompressHeader(self.0.as_ptr().cast(), bytes.as_ptr(), bytes.len() as tj::size_t) };
        let (height, width) =
            (self.get(tj::TJPARAM_TJPARAM_JPEGHEIGHT), self.get(tj::TJPARAM_TJPARAM_JPEGWIDTH));
        let expected = (peek.height as c_int, peek.width as c_int);
        if (height, width) != expected || self.get(tj::TJPARAM_TJPARAM_COLORSPACE) < 0 {
            return Err(self.error());
        }
        // Scale and region are ignored for lossless files; `rows` relies on them.
        let plain = source.eighths == 8 && source.is_whole;
        if self.get(tj::TJPARAM_TJPARAM_LOSSLESS) != 0 && !plain {
            return Err("lossless jpeg can only be decoded whole".to_owned());
        }
        let divisor = 1 << source.eighths.trailing_zeros().min(3);
        let scale = tj::tjscalingfactor { num: c_int::from(source.eighths) / divisor, denom: 8 / divisor };
        // SAFETY: `self.0` is a live handle.
        if unsafe { tj::tj3SetScalingFactor(self.0.as_ptr().cast(), scale) } != 0 {
            return Err(self.error());
        }
        if source.is_whole {
            return Ok(()); // a new handle crops nothing
        }
        let side = |pixels: u32| pixels as c_int; // a JPEG has at most 65,535
        let region = tj::tjregion {
            x: side(source.x),
            y: side(source.y),
            w: side(source.width),
            h: side(source.height),
        };
        // SAFETY: `self.0` is a live handle.
        match unsafe { tj::tj3SetCroppingRegion(self.0.as_ptr().cast(), region) } {
            0 => Ok(()),
            _ => Err(self.error()),
        }
    }

    /// Decodes the rectangle that `select` chose into `out`: `source.height` rows of `source.width` pixels of `depth`
    /// bytes.
    fn rows(
        &self,
        bytes: &[u8],
        source: &Source,
        format: tj::TJPF,
        depth: usize,
        out: &mut [u8],
    ) -> Result<(), String> {
        let pitch = source.width as usize * depth;
        assert_eq!(out.len(), source.height as usize * pitch, "bytes of a region");
        let last = out.len() - pitch;
        // A status of -1 may be a warning (the picture is complete), an error behind the last row (so it is, too) or an
        // error before it; the code tells the first from the others only if no warning preceded the error. Rows are
        // written in order, so whether the last one was written tells, and a mark tells that.
        for mark in [0x00, 0xff] {
            out[last..].fill(mark);
            // SAFETY: `bytes` and `out` are valid for their lengths. `select` checked the size of the picture against
            // `source` and set its scale and region on this handle, and it reads the same bytes again, so exactly
            // `source.height` rows of `pitch` bytes are written at most: `out` holds them, as asserted above.
            let status = unsafe {
                tj::tj3Decompress8(
                    self.0.as_ptr().cast(),
                    bytes.as_ptr(),
                    bytes.len() as tj::size_t,
                    out.as_mut_ptr(),
                    pitch as c_int,
                    format,
                )
            };
            if status == 0 || out[last..].iter().any(|byte| *byte != mark) {
                return Ok(());
            }
        }
        Err(self.error())
    }

    /// Message of the last error.
    fn error(&self) -> String {
        // SAFETY: `self.0` is a live handle; the string lives in it or in this thread until the next call, and is copied
        // before that.
        let message = unsafe { CStr::from_ptr(tj::tj3GetErrorStr(self.0.as_ptr().cast())) };
        message.to_string_lossy().replace('\n', " ")
    }
}

/// Chroma layouts that [`encode`] writes.
#[cfg(test)]
pub(super) const LAYOUTS: [tj::TJSAMP; 7] = [
    tj::TJSAMP_TJSAMP_444,
    tj::TJSAMP_TJSAMP_422,
    tj::TJSAMP_TJSAMP_420,
    tj::TJSAMP_TJSAMP_GRAY,
    tj::TJSAMP_TJSAMP_440,
    tj::TJSAMP_TJSAMP_411,
    tj::TJSAMP_TJSAMP_441,
];

/// Encodes interleaved RGB with quality 80.
#[cfg(test)]
pub(super) fn encode(rgb: &[u8], height: u32, width: u32, layout: tj::TJSAMP, progressive: bool) -> Vec<u8> {
    assert_eq!(rgb.len(), height as usize * width as usize * CHANNELS);
    let (mut jpeg, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: `rgb` holds `height` packed rows, as asserted; the library allocates `jpeg`, which is copied, then freed.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_COMPRESS as c_int);
        for (param, value) in [
            (tj::TJPARAM_TJPARAM_QUALITY, 80),
            (tj::TJPARAM_TJPARAM_SUBSAMP, layout),
            (tj::TJPARAM_TJPARAM_PROGRESSIVE, c_int::from(progressive)),
        ] {
            assert_eq!(tj::tj3Set(handle, param as c_int, value), 0);
        }
        let (width, height) = (width as c_int, height as c_int);
        let source = rgb.as_ptr();
        let status =
            tj::tj3Compress8(handle, source, width, 0, height, tj::TJPF_TJPF_RGB, &mut jpeg, &mut length);
        assert_eq!(status, 0);
        let bytes = std::slice::from_raw_parts(jpeg, length as usize).to_vec();
        tj::tj3Free(jpeg.cast());
        tj::tj3Destroy(handle);
        bytes
    }
}

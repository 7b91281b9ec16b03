//! Resamples a fractional crop of RGB pixels: half-pixel centres, triangle filter that widens when shrinking.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::region::Source;
use crate::batch::CHANNELS;

/// Keeps the memory of the first of the two passes.
#[derive(Debug, Default)]
pub(super) struct Resampler {
    resizer: Resizer,
}

impl Resampler {
    /// Resamples `source.crop` of `pixels` (interleaved RGB, at least `source.height * source.width` of them) to `size`
    /// (rows, columns) into `out`, `rows * columns * 3` bytes.
    pub fn run(&mut self, pixels: &[u8], source: &Source, size: (u32, u32), out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        let used = &pixels[..source.height as usize * source.width as usize * CHANNELS];
        let from =
            ImageRef::new(source.width, source.height, used, PixelType::U8x3).expect("length was cut to fit");
        let mut to =
            Image::from_slice_u8(size.1, size.0, out, PixelType::U8x3).expect("length checked by `decode`");
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(
            source.crop.x,
            source.crop.y,
            source.crop.width,
            source.crop.height,
        );
        self.resizer.resize(&from, &mut to, &options).expect("the crop was clipped to the source");
    }
}

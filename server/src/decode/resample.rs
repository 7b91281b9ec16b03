//! Resamples a fractional crop of RGB pixels: half-pixel centres, triangle filter that widens when shrinking.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Region;

/// Resamples; keeps the memory of the first of the two passes.
#[derive(Debug, Default)]
pub struct Resampler {
    resizer: Resizer,
}

impl Resampler {
    /// Resamples `region.crop` of `pixels` (interleaved RGB, at least `region.bytes()`) to `size` (rows, columns) into
    /// `out`.
    ///
    /// # Panics
    /// When `pixels` are fewer, the crop leaves the region, or `out` is not `rows * columns * 3` bytes: faults of the
    /// caller.
    pub fn run(&mut self, pixels: &[u8], region: &Region, size: (u32, u32), out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        let used = &pixels[..region.bytes()];
        let from =
            ImageRef::new(region.width, region.height, used, PixelType::U8x3).expect("length was cut to fit");
        let mut to = Image::from_slice_u8(size.1, size.0, out, PixelType::U8x3)
            .expect("`out` has the bytes of `size`");
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(
            region.crop.x,
            region.crop.y,
            region.crop.width,
            region.crop.height,
        );
        self.resizer.resize(&from, &mut to, &options).expect("the crop was clipped to the region");
    }
}

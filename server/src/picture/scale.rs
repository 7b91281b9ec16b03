//! Size at which a picture is shown: small ones in big pixels, big ones shrunk.

use super::Picture;
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb};

/// Width up to which small pictures are enlarged, pixels; also the least width of a column.
pub(super) const MIN_SIDE: usize = 224;
/// Largest width and height of a shown picture, pixels.
pub(super) const MAX_SIDE: usize = 384;

/// Rows and columns at which a picture of `height` x `width` (both >= 1) is shown, each in `1..=MAX_SIDE`.
pub(super) fn shown(height: u32, width: u32) -> (usize, usize) {
    let (height, width) = (height as usize, width as usize);
    let longest = height.max(width);
    if longest > MAX_SIDE {
        let shrink = |side: usize| ((side * MAX_SIDE + longest / 2) / longest).max(1);
        return (shrink(height), shrink(width));
    }
    let factor = MIN_SIDE.div_ceil(width).min(MAX_SIDE / longest);
    (height * factor, width * factor)
}

/// Rows and columns at which a picture of `height` x `width` (both >= 1) fits into a square of `side` (>= 1): shrunk, or
/// enlarged by a whole number.
pub(super) fn fitted(height: u32, width: u32, side: u32) -> (u32, u32) {
    let longest = height.max(width).max(1);
    if longest > side {
        let shrink = |own: u32| {
            let (own, side, longest) = (u64::from(own), u64::from(side), u64::from(longest));
            ((own * side + longest / 2) / longest).max(1) as u32 // <= side
        };
        return (shrink(height), shrink(width));
    }
    let factor = side / longest;
    (height * factor, width * factor)
}

/// Interleaved RGB of `picture` at its [`shown`] size. The picture must have as many pixels as it says.
pub(super) fn resize(picture: &Picture) -> Vec<u8> {
    let (height, width) = shown(picture.height, picture.width);
    to(picture, (height as u32, width as u32))
}

/// Interleaved RGB of `picture` at a size: smaller, or a whole number of times its own.
pub(super) fn to(picture: &Picture, (height, width): (u32, u32)) -> Vec<u8> {
    if height < picture.height || width < picture.width {
        return shrink(picture, height, width);
    }
    let (height, width) = (height as usize, width as usize);
    let factor = width / picture.width as usize;
    let mut rgb = Vec::with_capacity(height * width * 3);
    for line in picture.rgb.chunks_exact(picture.width as usize * 3) {
        let start = rgb.len();
        rgb.extend(line.chunks_exact(3).flat_map(|pixel| pixel.repeat(factor)));
        for _ in 1..factor {
            rgb.extend_from_within(start..start + width * 3);
        }
    }
    rgb
}

/// Shrinks with a triangle filter: it averages what it drops and, unlike sharper ones, does not ring at a mask's edge.
fn shrink(picture: &Picture, height: u32, width: u32) -> Vec<u8> {
    let view: ImageBuffer<Rgb<u8>, &[u8]> =
        ImageBuffer::from_raw(picture.width, picture.height, picture.rgb.as_slice())
            .expect("a page is made of checked pictures");
    imageops::resize(&view, width, height, FilterType::Triangle).into_raw()
}

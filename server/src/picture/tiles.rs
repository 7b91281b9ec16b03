//! Pictures side by side without a word: what they are is said elsewhere.

use super::{MAX_PIXELS, Picture, PictureError, scale};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

/// Pictures in a grid, each in a tile of the same size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Tiles side by side.
    pub columns: usize,
    /// Rows and columns of pixels of a tile.
    pub size: (u32, u32),
    /// The grid as a PNG.
    pub png: Vec<u8>,
}

impl Tiles {
    /// `pictures`, all of one size, at most `columns` in a line, each at most `side` pixels high and wide: larger ones are
    /// shrunk, small ones shown in big pixels.
    ///
    /// # Errors
    /// [`PictureError`]: a picture whose pixels do not match its size, or is of another size than the first; no picture;
    /// more than [`MAX_PIXELS`].
    pub fn new(pictures: &[Picture], columns: usize, side: u32) -> Result<Tiles, PictureError> {
        let first = pictures.first().map_or((0, 0), |p| (p.height, p.width));
        for (i, picture) in pictures.iter().enumerate() {
            let same = (picture.height, picture.width) == first;
            // One of another size has not the bytes that the first one's size asks for.
            let claimed = Picture { height: first.0, width: first.1, rgb: Vec::new() };
            picture.check(|| format!("tile {i}"))?;
            if !same {
                claimed.check(|| format!("tile {i}"))?;
            }
        }
        if pictures.is_empty() {
            Picture { height: 0, width: 0, rgb: Vec::new() }.check(|| "an empty grid".into())?;
        }
        let columns = columns.clamp(1, pictures.len());
        let size = scale::fitted(first.0, first.1, side.max(1));
        let (height, width) = (size.0 as usize, size.1 as usize);
        let page = (pictures.len().div_ceil(columns) * height, columns * width);
        if (page.0 as u64).saturating_mul(page.1 as u64) > MAX_PIXELS {
            return Err(PictureError::TooLarge { height: page.0 as u64, width: page.1 as u64 });
        }
        let mut rgb = vec![0; page.0 * page.1 * 3];
        for (i, picture) in pictures.iter().enumerate() {
            let (top, left) = (i / columns * height, i % columns * width);
            let tile = scale::to(picture, size);
            for (y, line) in tile.chunks_exact(width * 3).enumerate() {
                let at = ((top + y) * page.1 + left) * 3;
                rgb[at..at + line.len()].copy_from_slice(line);
            }
        }
        let mut png = Vec::new();
        PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
            .write_image(&rgb, page.1 as u32, page.0 as u32, ExtendedColorType::Rgb8)
            .map_err(PictureError::Encode)?;
        Ok(Tiles { columns, size, png })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(height: u32, width: u32, value: u8) -> Picture {
        Picture { height, width, rgb: vec![value; (height * width * 3) as usize] }
    }

    #[test]
    fn tiles_stand_in_lines() {
        let pictures: Vec<Picture> = (0..5).map(|i| flat(3, 4, i * 40)).collect();
        let tiles = Tiles::new(&pictures, 2, 9).unwrap();
        assert_eq!((tiles.columns, tiles.size), (2, (6, 8)));
        let page = image::load_from_memory(&tiles.png).unwrap().to_rgb8();
        assert_eq!(page.dimensions(), (16, 18));
        let at = |x, y| page.get_pixel(x, y).0[0];
        assert_eq!(
            [at(0, 0), at(8, 5), at(7, 6), at(15, 11), at(3, 17), at(12, 17)],
            [0, 40, 80, 120, 160, 0]
        );
        let large = Tiles::new(&[flat(400, 100, 7)], 4, 128).unwrap();
        assert_eq!((large.columns, large.size), (1, (128, 32)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Tiles::new(&[], 4, 100).is_err());
        assert!(Tiles::new(&[flat(2, 3, 0), flat(3, 2, 0)], 4, 100).is_err());
        assert!(Tiles::new(&[Picture { height: 2, width: 2, rgb: vec![0; 11] }], 4, 100).is_err());
    }
}

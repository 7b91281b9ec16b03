//! The nouns that every room shares. No behaviour beyond sizes; imports nothing of ours.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error as _};

/// Channels of every image: red, green, blue.
pub const CHANNELS: usize = 3;

/// Names a record of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Index of the group in the job.
    pub group: u32,
    /// Index of the record in the group, `0..N_g`.
    pub index: u64,
}

/// Element type of a tensor, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Dtype {
    U8,
    F16,
    Bf16,
    F32,
    F64,
    I32,
    I64,
    U32,
    U64,
    U16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }
}

/// Order of axes of an image batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// (n, channel, height, width)
    Nchw,
    /// (n, height, width, channel)
    Nhwc,
}

/// Memory shape of one image: `planes` planes of `height` rows of `width * step` elements. Planar RGB has 3 planes of
/// step 1, interleaved RGB one plane of step 3, so that boxes and masks need one code path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raster {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Planes, 3 or 1.
    pub planes: usize,
    /// Elements per pixel within a plane, 1 or 3.
    pub step: usize,
}

impl Raster {
    /// Raster of an image of `height` x `width` in `layout`.
    pub fn new(height: usize, width: usize, layout: Layout) -> Self {
        match layout {
            Layout::Nchw => Raster { height, width, planes: CHANNELS, step: 1 },
            Layout::Nhwc => Raster { height, width, planes: 1, step: CHANNELS },
        }
    }

    /// Elements of one image.
    pub fn len(&self) -> usize {
        self.planes * self.plane_len()
    }

    /// True for an image without pixels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one plane.
    pub fn plane_len(&self) -> usize {
        self.height * self.width * self.step
    }
}

/// File format of an encoded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    Jpeg,
    Png,
    Webp,
    Gif,
    Bmp,
}

/// What the header of an encoded image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// File format, from its first bytes.
    pub format: Format,
    /// Stored rows, >= 1.
    pub height: u32,
    /// Stored columns, >= 1.
    pub width: u32,
    /// EXIF orientation, 1..=8; 1 when absent or not a JPEG.
    pub orientation: u8,
}

/// A rectangle of a source picture in pixels, fractions allowed, inside `[0, height] x [0, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// Top edge.
    pub y: f64,
    /// Left edge.
    pub x: f64,
    /// Rows, > 0.
    pub height: f64,
    /// Columns, > 0.
    pub width: f64,
}

/// One of the eight symmetries of a rectangle: first transpose (swap rows and columns), then mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Swap rows and columns first.
    pub transpose: bool,
    /// Then mirror left-right.
    pub mirror_x: bool,
    /// Then mirror top-bottom.
    pub mirror_y: bool,
}

impl Turn {
    /// Turn that makes a picture stored with EXIF `orientation` (1..=8) upright.
    pub fn upright(orientation: u8) -> Turn {
        let (transpose, mirror_x, mirror_y) = match orientation {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Turn { transpose, mirror_x, mirror_y }
    }

    /// This turn followed by mirrors.
    pub fn mirrored(self, left_right: bool, top_bottom: bool) -> Turn {
        Turn { mirror_x: self.mirror_x ^ left_right, mirror_y: self.mirror_y ^ top_bottom, ..self }
    }
}

/// Consecutive bytes of a tensor with their checksum.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Little-endian elements.
    pub bytes: Bytes,
    /// crc32c of `bytes`.
    pub crc: u32,
}

impl Piece {
    /// Checksums `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        let crc = crc32c::crc32c(&bytes);
        Piece { bytes, crc }
    }
}

/// Flags of a row, tensor "sample.flags" (u32).
pub mod flags {
    /// The row repeats another one to fill the last batch.
    pub const PADDED: u32 = 1;
    /// The record was bad and another one took its place.
    pub const REPLACED: u32 = 2;
    /// The partner is the row itself.
    pub const SELF_PAIR: u32 = 4;
    /// Both labels are the same class.
    pub const SAME_CLASS: u32 = 8;
    /// The row equals its base bit for bit.
    pub const IDENTITY: u32 = 16;
    /// A class-restricted pairing found no partner; the row was copied.
    pub const NO_PARTNER: u32 = 32;
    /// Points of the row were left out to keep the step within its budget.
    pub const THINNED: u32 = 64;
}

/// A number of bytes: an integer, or text such as "512MiB" or "2GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("`{text}` is no size, want bytes or a number with KiB, MiB or GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let shift = match text[digits..].trim() {
            "" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let number: usize = text[..digits].parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl<'a> Deserialize<'a> for Size {
    fn deserialize<D: Deserializer<'a>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        match Given::deserialize(input)
            .map_err(|_| D::Error::custom("want bytes or text such as \"2GiB\""))?
        {
            Given::Number(n) => Ok(Size(n as usize)),
            Given::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

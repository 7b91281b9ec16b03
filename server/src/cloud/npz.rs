//! NumPy's archives of arrays: zip files, stored or deflated, below 4 GiB.

use super::{
    CloudError, Limits, Scene, arrays,
    npy::{Array, Head},
    read::Cursor,
};
use flate2::{Crc, read::DeflateDecoder};
use std::{borrow::Cow, io::Read};

/// Bytes of the end record without its comment.
const END: usize = 22;
/// Bytes of an array that are inflated to see its header.
const HEAD: u64 = 1 << 16;
/// No deflate stream grows more than this; rounded up.
const RATIO: u64 = 1040;

/// Arrays of an archive.
const MOST: usize = 256;

/// One file of the archive.
#[derive(Debug)]
struct Entry<'a> {
    deflated: bool,
    crc: u32,
    size: u64,
    bytes: &'a [u8],
}

/// Decodes a file. Arrays that belong to no scene are left as they are.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Scene, CloudError> {
    let entries = entries(bytes)?;
    let files: Vec<(&String, Cow<[u8]>)> = arrays::used("npz", &entries)?
        .into_iter()
        .enumerate()
        .map(|(at, (stem, entry))| Ok((stem, entry.read(limits, if at == 0 { 8 } else { 3 })?)))
        .collect::<Result<_, CloudError>>()?;
    let arrays: Vec<(String, Array)> = files
        .iter()
        .map(|(stem, file)| Ok(((*stem).clone(), Array::read("npz", file)?)))
        .collect::<Result<_, CloudError>>()?;
    arrays::scene("npz", &arrays, limits)
}

/// Points, from the header of the coordinates.
pub(super) fn peek(bytes: &[u8]) -> Result<u64, CloudError> {
    let entries = entries(bytes)?;
    Ok(arrays::coord("npz", &entries)?.1.head()?.rows)
}

impl<'a> Entry<'a> {
    fn head(&self) -> Result<Head, CloudError> {
        let mut head = Vec::new();
        self.inflate(HEAD, &mut head)?;
        Head::read("npz", &head)
    }

    /// Its first `most` bytes.
    fn inflate(&self, most: u64, out: &mut Vec<u8>) -> Result<(), CloudError> {
        let read = if self.deflated {
            DeflateDecoder::new(self.bytes).take(most).read_to_end(out)
        } else {
            self.bytes.take(most).read_to_end(out)
        };
        read.map(|_| ()).map_err(|e| wrong(format!("compressed data are damaged: {e}")))
    }

    /// The whole array, once its header says that it is within the limits and `cols`.
    fn read(&self, limits: &Limits, cols: u64) -> Result<Cow<'a, [u8]>, CloudError> {
        let head = self.head()?;
        limits.allow(head.rows)?;
        if head.size() != Some(self.size) || head.cols > cols {
            let (rows, found, size) = (head.rows, head.cols, self.size);
            return Err(wrong(format!(
                "an array is {rows} x {found} in {size} bytes, want at most {cols} columns"
            )));
        }
        let whole = if self.deflated {
            if self.size > RATIO * self.bytes.len() as u64 {
                let (size, packed) = (self.size, self.bytes.len());
                return Err(wrong(format!("{packed} deflated bytes cannot be {size}")));
            }
            let mut out = Vec::with_capacity(self.size as usize);
            self.inflate(self.size + 1, &mut out)?;
            Cow::Owned(out)
        } else {
            Cow::Borrowed(self.bytes)
        };
        let mut crc = Crc::new();
        crc.update(&whole);
        if whole.len() as u64 != self.size || crc.sum() != self.crc {
            return Err(wrong("an array's size or checksum is not the directory's".into()));
        }
        Ok(whole)
    }
}

/// Arrays with their names, from the directory at the end.
fn entries(bytes: &[u8]) -> Result<Vec<(String, Entry<'_>)>, CloudError> {
    let tail = &bytes[bytes.len().saturating_sub(END + 0xffff)..];
    let end = tail
        .windows(END)
        .rposition(|w| w.starts_with(b"PK\x05\x06"))
        .ok_or_else(|| wrong("has no directory: cut short?".into()))?;
    let mut end = Cursor::new("npz", &tail[end + 10..]);
    let (count, size, begin) = (end.u16("files")?, end.u32("directory")?, end.u32("directory")?);
    if begin == u32::MAX {
        return Err(wrong("is a zip64 archive".into()));
    }
    let mut from = Cursor::new("npz", bytes);
    from.seek(u64::from(begin), "directory")?;
    let mut from = Cursor::new("npz", from.take(u64::from(size), "directory")?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let head = from.take(46, "entry of the directory")?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if !head.starts_with(b"PK\x01\x02") || u16_at(8) & 1 == 1 || u16_at(10) % 8 != 0 || u16_at(10) > 8 {
            return Err(wrong("an entry is no stored or deflated file without a password".into()));
        }
        let name = from.take(u64::from(u16_at(28)), "name")?;
        from.take(u64::from(u16_at(30)) + u64::from(u16_at(32)), "extra fields")?;
        let name = String::from_utf8_lossy(name).to_lowercase();
        let entry = Entry {
            deflated: u16_at(10) == 8,
            crc: u32_at(16),
            size: u64::from(u32_at(24)),
            bytes: data(bytes, u32_at(42), u32_at(20))?,
        };
        if let Some(stem) = name.strip_suffix(".npy") {
            if entries.iter().any(|(known, _)| known == stem) || entries.len() == MOST {
                return Err(wrong(format!("has {stem} twice, or more than {MOST} arrays")));
            }
            entries.push((stem.to_owned(), entry));
        }
    }
    Ok(entries)
}

/// Data of the file whose head is at `begin`.
fn data(bytes: &[u8], begin: u32, size: u32) -> Result<&[u8], CloudError> {
    let mut from = Cursor::new("npz", bytes);
    from.seek(u64::from(begin), "file")?;
    let head = from.take(30, "head of a file")?;
    if !head.starts_with(b"PK\x03\x04") {
        return Err(wrong(format!("no file begins at byte {begin}")));
    }
    let skip = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
    from.take(skip(26) + skip(28), "name and extra fields")?;
    from.take(u64::from(size), "data of a file")
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "npz", why }
}

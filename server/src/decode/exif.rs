//! Orientation of a picture from its EXIF block.
//!
//! EXIF 2.32: an APP1 segment "Exif\0\0" followed by a TIFF header and its first directory.

const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;
const LONG: u16 = 4;

#[derive(Clone, Copy)]
enum Endian {
    Little,
    Big,
}

/// Orientation 1..=8 in the body of an APP1 segment, or nothing when it has none that is valid.
pub(super) fn orientation(segment: &[u8]) -> Option<u8> {
    let tiff = segment.strip_prefix(b"Exif\0\0")?;
    let endian = match tiff.get(..2)? {
        b"II" => Endian::Little,
        b"MM" => Endian::Big,
        _ => return None,
    };
    if short(tiff, 2, endian)? != 42 {
        return None;
    }
    let directory = long(tiff, 4, endian)? as usize;
    let entries = usize::from(short(tiff, directory, endian)?);
    let first = directory.checked_add(2)?;
    // At most 65,535 entries, and the first one beyond the segment ends the search.
    for entry in (0..entries).map_while(|i| first.checked_add(i * 12)) {
        if short(tiff, entry, endian)? != ORIENTATION {
            continue;
        }
        let value = match short(tiff, entry + 2, endian)? {
            SHORT => u32::from(short(tiff, entry + 8, endian)?),
            LONG => long(tiff, entry + 8, endian)?,
            _ => return None,
        };
        return u8::try_from(value).ok().filter(|v| (1..=8).contains(v));
    }
    None
}

fn short(tiff: &[u8], at: usize, endian: Endian) -> Option<u16> {
    let pair = *tiff.get(at..)?.first_chunk()?;
    Some(match endian {
        Endian::Little => u16::from_le_bytes(pair),
        Endian::Big => u16::from_be_bytes(pair),
    })
}

fn long(tiff: &[u8], at: usize, endian: Endian) -> Option<u32> {
    let four = *tiff.get(at..)?.first_chunk()?;
    Some(match endian {
        Endian::Little => u32::from_le_bytes(four),
        Endian::Big => u32::from_be_bytes(four),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EXIF block with one unrelated entry before the orientation.
    fn block(big: bool, kind: u16, value: u32) -> Vec<u8> {
        let short = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut out = b"Exif\0\0".to_vec();
        out.extend(if big { b"MM" } else { b"II" });
        out.extend(short(42));
        out.extend(long(8));
        out.extend(short(2));
        for (tag, kind, value) in [(0x010f, 2, 7), (ORIENTATION, kind, value)] {
            out.extend(short(tag));
            out.extend(short(kind));
            out.extend(long(1));
            if kind == SHORT {
                out.extend(short(u16::try_from(value).expect("small")));
                out.extend([0, 0]);
            } else {
                out.extend(long(value));
            }
        }
        out
    }

    #[test]
    fn orientation_is_read_in_both_byte_orders_and_types() {
        for big in [false, true] {
            for kind in [SHORT, LONG] {
                for value in 1..=8 {
                    assert_eq!(orientation(&block(big, kind, value)), u8::try_from(value).ok());
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_and_cut_blocks_have_no_orientation() {
        for value in [0, 9, 300] {
            assert_eq!(orientation(&block(true, SHORT, value)), None);
        }
        let whole = block(false, SHORT, 6);
        for cut in 0..whole.len() - 3 {
            assert_eq!(orientation(&whole[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_directory_outside_the_segment_is_ignored() {
        let mut bytes = block(false, SHORT, 6);
        bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(orientation(&bytes), None);
    }
}

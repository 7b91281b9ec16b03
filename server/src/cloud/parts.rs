//! Several files in one buffer: a scene that is a folder of arrays, or a scan with its labels, is one record.
//!
//! "MIXPARTS", u32 count, then per part u32 bytes of its name and u64 bytes of its data, then names, then data; all
//! little-endian.

use super::{CloudError, read::Cursor};
use bytes::Bytes;

const MAGIC: &[u8; 8] = b"MIXPARTS";
/// Parts of a record. A folder scene has seven.
const MOST: u32 = 256;
/// Bytes of a name.
const LONGEST: u32 = 4096;

/// Files with their names as one record.
///
/// # Panics
/// With more than 256 parts or a name beyond 4,096 bytes: sources name files, not clients.
pub fn pack(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let sizes: Vec<(&str, u64)> = parts.iter().map(|(name, data)| (*name, data.len() as u64)).collect();
    let mut out = head(&sizes);
    parts.iter().for_each(|(_, data)| out.extend_from_slice(data));
    out
}

/// What stands before the data of parts of these names and sizes; [`pack`] is this and the data one after the other.
///
/// # Panics
/// As [`pack`].
pub fn head(parts: &[(&str, u64)]) -> Vec<u8> {
    assert!(parts.len() <= MOST as usize, "at most {MOST} parts");
    let sizes: u64 = parts.iter().map(|(name, size)| 12 + name.len() as u64 + size).sum();
    let mut out = Vec::with_capacity(12 + sizes as usize + 1);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    for (name, size) in parts {
        assert!(name.len() <= LONGEST as usize, "a name has at most {LONGEST} bytes");
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
    }
    parts.iter().for_each(|(name, _)| out.extend_from_slice(name.as_bytes()));
    out
}

/// The files of a record, in their order. Data are slices of `record`, not copies.
///
/// # Errors
/// [`CloudError::Format`] of "parts" unless `record` is exactly what [`pack`] writes.
pub fn unpack(record: &Bytes) -> Result<Vec<(String, Bytes)>, CloudError> {
    let mut from = Cursor::new("parts", record);
    if from.take(8, "magic")? != MAGIC {
        return Err(from.wrong("does not begin with MIXPARTS".into()));
    }
    let count = from.u32("count of parts")?;
    if count > MOST {
        return Err(from.wrong(format!("has {count} parts, want at most {MOST}")));
    }
    let mut sizes = Vec::new();
    for _ in 0..count {
        let sized = (from.u32("length of a name")?, from.u64("size of a part")?);
        if sized.0 > LONGEST {
            return Err(from.wrong(format!("a name has {} bytes, want at most {LONGEST}", sized.0)));
        }
        sizes.push(sized);
    }
    let mut names = Vec::new();
    for (length, _) in &sizes {
        let name = from.take(u64::from(*length), "name")?;
        let name = str::from_utf8(name).map_err(|e| from.wrong(format!("a name is no UTF-8: {e}")))?;
        names.push(name.to_owned());
    }
    let mut parts = Vec::new();
    for (name, (_, size)) in names.into_iter().zip(sizes) {
        let begin = from.at();
        from.take(size, "part")?;
        parts.push((name, record.slice(begin..from.at())));
    }
    match from.rest().len() {
        0 => Ok(parts),
        more => Err(from.wrong(format!("{more} bytes follow the last part"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_come_back_without_a_copy() {
        let record = Bytes::from(pack(&[("a/coord.npy", b"12345"), ("b", b""), ("größe", b"x")]));
        let parts = unpack(&record).unwrap();
        assert_eq!(parts.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["a/coord.npy", "b", "größe"]);
        assert_eq!(parts[0].1, "12345");
        assert!(record.as_ptr_range().contains(&parts[0].1.as_ptr()));
        assert_eq!(unpack(&Bytes::from(pack(&[]))).unwrap(), []);
    }

    #[test]
    fn every_cut_is_an_error() {
        let record = Bytes::from(pack(&[("coord.npy", b"12345"), ("color.npy", b"678")]));
        for cut in 0..record.len() {
            assert!(unpack(&record.slice(..cut)).is_err(), "{cut}");
        }
        let mut longer = record.to_vec();
        longer.push(0);
        assert!(unpack(&longer.into()).unwrap_err().to_string().contains("1 bytes follow"));
    }

    proptest! {
        #[test]
        fn flips_never_panic(at in 0usize..60, bits in 1u8.., tail in 0usize..5) {
            let mut record = pack(&[("coord.npy", b"12345"), ("color.npy", b"678")]);
            let at = at % record.len();
            record[at] ^= bits;
            record.truncate(record.len() - tail);
            let _ = unpack(&record.into());
        }
    }
}

//! Which format the files of a record have: one file by its first bytes, else by its name; several by their names.

use super::{CloudError, Limits, Scene, arrays, kitti, las, npy, npz, ply, text};
use bytes::Bytes;

/// What the files of a record are.
#[derive(Debug)]
enum Format<'a> {
    Las(&'a [u8]),
    Ply(&'a [u8]),
    Npz(&'a [u8]),
    /// Arrays by the stems of their names.
    Arrays(Vec<(String, &'a [u8])>),
    Kitti {
        scan: &'a [u8],
        labels: Option<&'a [u8]>,
    },
    Text(&'a [u8]),
}

/// Decodes the files of one record, by name: a LAS or LAZ file, a PLY file, an `.npz`, an `.npy` of 3, 6, 7 or 8 columns
/// or a text of such; several `.npy`, of which one is called coord; or a KITTI `.bin`, alone or with its `.label`.
///
/// Of a folder of arrays those count whose names are known (coord, color, normal, strength, segment, segment20,
/// segment200, instance and their like); others are left alone.
///
/// # Errors
/// [`CloudError`]; it says what was found and what was expected. Nothing larger than the limits is allocated.
pub fn decode(parts: &[(String, Bytes)], limits: &Limits) -> Result<Scene, CloudError> {
    match find(parts)? {
        Format::Las(bytes) => las::decode(bytes, limits),
        Format::Ply(bytes) => ply::decode(bytes, limits),
        Format::Npz(bytes) => npz::decode(bytes, limits),
        Format::Kitti { scan, labels } => kitti::decode(scan, labels, limits),
        Format::Text(bytes) => text::decode(bytes, limits),
        Format::Arrays(files) => {
            let used: Vec<_> = arrays::used("npy", &files)?
                .into_iter()
                .map(|(stem, file)| Ok((stem.clone(), npy::Array::read("npy", file)?)))
                .collect::<Result<_, CloudError>>()?;
            arrays::scene("npy", &used, limits)
        }
    }
}

/// Points that a record says that it has, from headers alone; None where they would have to be counted.
///
/// # Errors
/// [`CloudError::Format`] of headers that cannot be read.
pub fn peek(parts: &[(String, Bytes)]) -> Result<Option<u64>, CloudError> {
    match find(parts)? {
        Format::Las(bytes) => las::header(bytes).map(|h| Some(h.points)),
        Format::Ply(bytes) => ply::peek(bytes).map(Some),
        Format::Npz(bytes) => npz::peek(bytes).map(Some),
        Format::Kitti { scan, .. } => kitti::points(scan).map(Some),
        Format::Text(_) => Ok(None),
        Format::Arrays(files) => {
            let (_, file) = arrays::coord("npy", &files)?;
            npy::Head::read("npy", file).map(|h| Some(h.rows))
        }
    }
}

fn find(parts: &[(String, Bytes)]) -> Result<Format<'_>, CloudError> {
    let files: Vec<(String, &[u8])> = parts.iter().map(|(name, file)| (base(name), &file[..])).collect();
    match &files[..] {
        [(name, file)] => one(name, file),
        _ if files.iter().any(|(name, _)| name.ends_with(".npy")) => Ok(Format::Arrays(
            files.iter().filter_map(|(name, f)| Some((name.strip_suffix(".npy")?.to_owned(), *f))).collect(),
        )),
        [(first, a), (second, b)] if first.ends_with(".bin") && second.ends_with(".label") => {
            Ok(Format::Kitti { scan: a, labels: Some(b) })
        }
        [(first, a), (second, b)] if first.ends_with(".label") && second.ends_with(".bin") => {
            Ok(Format::Kitti { scan: b, labels: Some(a) })
        }
        _ => Err(unknown(parts)),
    }
}

fn one<'a>(name: &str, file: &'a [u8]) -> Result<Format<'a>, CloudError> {
    let begins = |magic: &[u8]| file.starts_with(magic);
    if begins(b"LASF") {
        Ok(Format::Las(file))
    } else if begins(b"ply\n") || begins(b"ply\r") {
        Ok(Format::Ply(file))
    } else if begins(b"\x93NUMPY") {
        Ok(Format::Arrays(vec![(name.trim_end_matches(".npy").to_owned(), file)]))
    } else if begins(b"PK\x03\x04") {
        Ok(Format::Npz(file))
    } else if name.ends_with(".bin") {
        Ok(Format::Kitti { scan: file, labels: None })
    } else if [".txt", ".xyz", ".csv"].iter().any(|end| name.ends_with(end)) {
        Ok(Format::Text(file))
    } else {
        let (format, ends) = match name.rsplit('.').next() {
            Some("las" | "laz") => ("las", "LASF"),
            Some("ply") => ("ply", "ply"),
            Some("npy") => ("npy", "\\x93NUMPY"),
            Some("npz") => ("npz", "PK"),
            _ => ("cloud", "what a known format begins with"),
        };
        Err(CloudError::Format { format, why: format!("`{name}` does not begin with {ends}") })
    }
}

/// Name of a file without its folders, in lower case.
fn base(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase()
}

fn unknown(parts: &[(String, Bytes)]) -> CloudError {
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).take(8).collect();
    CloudError::Format {
        format: "cloud",
        why: format!(
            "{} files {names:?} are no scene: want one file, coord.npy, or .bin and .label",
            parts.len()
        ),
    }
}

//! Groups of real text as rows of bytes; `server/tests/text/build.py` makes them.

use std::path::{Path, PathBuf};

/// Bytes of a row.
pub const ROW: usize = 64;
/// Rows of a group's held-out set and of its final test that are judged, at least (when there are as many).
const HELD_OUT: usize = 256;
const TEST: usize = 312;
/// One training document in so many is held out.
const HELD_OUT_EVERY: usize = 10;

/// A row.
pub type Row = Vec<u8>;

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// What batches are made of.
    pub train: Vec<Row>,
    /// What the estimator hears about.
    pub held_out: Vec<Row>,
    /// What results are judged by.
    pub test: Vec<Row>,
}

/// Where the groups are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-data/text")
}

/// Digests of the groups.
pub fn manifest() -> String {
    let path = folder().join("MANIFEST");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; `make text` builds it", path.display()))
}

impl Group {
    /// The group `name` of [`folder`].
    pub fn load(name: &str) -> Group {
        let (train, test) = (documents(name, "train"), documents(name, "test"));
        let held = |keep: bool| {
            let of = train
                .iter()
                .enumerate()
                .filter(move |(i, _)| (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == keep);
            pack(of.map(|(_, text)| text.as_slice()))
        };
        let test = pack(test.iter().map(Vec::as_slice));
        let group =
            Group { train: held(false), held_out: spread(&held(true), HELD_OUT), test: spread(&test, TEST) };
        assert!(group.train.len() * ROW > 100_000, "group {name} has {} rows", group.train.len());
        group
    }
}

/// Texts of the files of a part of a group, by name.
fn documents(group: &str, part: &str) -> Vec<Vec<u8>> {
    let folder = folder().join(group).join(part);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}; `make text` builds it", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Documents end to end, cut into rows; the rest is left out.
fn pack<'a>(documents: impl Iterator<Item = &'a [u8]>) -> Vec<Row> {
    let bytes: Vec<u8> = documents.flatten().copied().collect();
    bytes.chunks_exact(ROW).map(<[u8]>::to_vec).collect()
}

/// Every so-many-th of `rows`, so that `n` or up to twice as many are left.
fn spread(rows: &[Row], n: usize) -> Vec<Row> {
    rows.iter().step_by((rows.len() / n).max(1)).cloned().collect()
}

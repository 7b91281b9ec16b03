//! Random fields of a job, as rank maps: one stored field serves every lambda.

/// Rank of every pixel of a field, 0 = largest value, row-major.
#[derive(Debug, PartialEq)]
pub struct RankMap {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Position in the job's bank, for receipts.
    pub id: u32,
    /// A permutation of `0..height * width`; ties broken by position.
    pub ranks: Vec<u32>,
}

/// Fields of one job, made on demand and kept.
#[derive(Debug)]
pub struct Bank {}

impl Bank {
    /// Empty bank of a job with `seed` and an output raster of `height` x `width`.
    pub fn new(_seed: u64, _height: u32, _width: u32) -> Bank {
        Bank {}
    }
}

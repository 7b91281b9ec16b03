//! 1 READ: bytes of records by position. A source is indexed once; afterwards any record is one positional read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One record of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name, unique in the source: "cat/cat_00.jpg", "shard-000.tar/0001.jpg".
    pub name: String,
    /// Encoded size in bytes.
    pub size: u64,
    /// Index into [`Index::classes`]; -1 when it has none.
    pub label: i32,
    /// File of the source that holds it, index into the source's own list.
    pub file: u32,
    /// First byte in that file (tar), or row (Parquet).
    pub offset: u64,
}

/// A group (domain) of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, unique in the source.
    pub name: String,
    /// Numbers of its records, ascending.
    pub records: Vec<u32>,
    /// Over names, sizes, offsets, order and labels of its records.
    pub digest: [u8; 32],
}

/// What a source holds, in an order that depends on names only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Records.
    pub records: Vec<Record>,
    /// Groups by name; together they hold every record exactly once.
    pub groups: Vec<Group>,
    /// Class names by label.
    pub classes: Vec<String>,
}

/// Where records are. The same position always gives the same bytes, or an error.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// "folder", "tar" or "parquet".
    fn kind(&self) -> &'static str;
    /// What it holds.
    fn index(&self) -> &Index;
    /// Reads record `number` (an index into [`Index::records`]); blocks.
    ///
    /// # Errors
    /// [`SourceError::Io`] when it cannot be read now, [`SourceError::Changed`] when it is no longer what was indexed.
    fn read(&self, number: u32) -> Result<Bytes, SourceError>;
}

/// A source that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A read failed; trying again may help.
    #[error("{file}: {error}")]
    Io {
        /// File, as the operator named it.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is no longer what was indexed.
    #[error("{file} changed since it was indexed: {what}")]
    Changed {
        /// File.
        file: String,
        /// What differs.
        what: String,
    },
    /// A file cannot be understood.
    #[error("{file}: {why}")]
    Format {
        /// File.
        file: String,
        /// What is wrong and what was expected.
        why: String,
    },
    /// The declaration does not fit what is there.
    #[error("source `{source_name}`: {why}")]
    Declaration {
        /// Source.
        source_name: String,
        /// What does not fit.
        why: String,
    },
}

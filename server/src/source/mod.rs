//! 1 READ: bytes of records by position. A source is indexed once; afterwards any record is one positional read.

#[cfg(test)]
mod bent;
mod columns;
#[cfg(test)]
mod conformance;
mod declare;
mod draft;
mod folder;
mod group;
mod keep;
mod label;
mod lru;
mod memory;
#[cfg(test)]
mod misfits;
mod parquet;
#[cfg(test)]
mod parquet_shapes;
mod points;
mod remote;
mod shard;
mod tar;
#[cfg(test)]
mod tar_shapes;
mod text;
mod tokens;
mod walk;

pub use declare::{Declaration, Documents, GroupBy, Kind, LabelFrom, Tile, Verify, Width, open};
pub use memory::Memory;
pub use remote::{Credentials, Store};
pub use tokens::TokenMemory;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::pin::Pin;

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
    /// First byte in that file (tar, blocks of scenes), or row (Parquet).
    pub offset: u64,
    /// Points of a scene: of blocks exactly, else as many as fit into its bytes. What making it takes is reckoned from them.
    #[serde(default)]
    pub points: u64,
}

/// A group (domain) of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, unique in the source.
    pub name: String,
    /// Numbers of its records or documents, ascending.
    pub records: Vec<u32>,
    /// Over names, sizes, offsets, order and labels of its records.
    pub digest: [u8; 32],
}

/// What a source holds, in an order that depends on names only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Records; empty when the source has documents ([`Source::tokens`]).
    pub records: Vec<Record>,
    /// Groups by name; together they hold every record, or document, exactly once.
    pub groups: Vec<Group>,
    /// Class names by label.
    pub classes: Vec<String>,
}

impl Index {
    /// Records or documents in all groups.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.records.len()).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Documents of tokens, named by number (the entries of [`Group::records`]).
pub trait Corpus: Send + Sync + std::fmt::Debug {
    /// Tokens of a document; 0 for a number that is none.
    fn len(&self, document: u32) -> u64;
    /// Reads `out.len()` tokens of a document from its `from`-th on, each as a little-endian i32 >= 0; blocks.
    ///
    /// # Errors
    /// [`SourceError::Io`] when they cannot be read now or are not there, [`SourceError::Format`] for an id above 2^31 - 1.
    fn read(&self, document: u32, from: u64, out: &mut [[u8; 4]]) -> Result<(), SourceError>;
    /// Brings the tokens of a document from its `from`-th on close, where that costs little: many of them are then waited
    /// for at once. Changes nothing that is read.
    fn touch(&self, _document: u32, _from: u64) {}
    /// Ids that its documents are made of: those of its tokenizer, or as many as the largest id there asks for; `None` when
    /// nobody has looked.
    fn vocabulary(&self) -> Option<u64>;
    /// File that holds a document, index into the source's own list.
    fn file(&self, document: u32) -> u32;
    /// Asks whether a file is still what was indexed; what was read from it before counts only then.
    ///
    /// # Errors
    /// [`SourceError::Changed`], or [`SourceError::Io`] when it cannot be told.
    fn check(&self, file: u32) -> Result<(), SourceError>;
}

/// Where records are. The same position always gives the same bytes, or an error.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// "folder", "tar", "parquet", "tokens", "text" or "memory".
    fn kind(&self) -> &'static str;
    /// What it holds.
    fn index(&self) -> &Index;
    /// What was left out or is odd, one sentence each: "3 files are no pictures: a.txt, b.txt, c.md".
    fn notes(&self) -> &[String] {
        &[]
    }
    /// Reads record `number` (an index into [`Index::records`]); blocks.
    ///
    /// # Errors
    /// [`SourceError::Io`] when it cannot be read now, [`SourceError::Changed`] when it is no longer what was indexed.
    fn read(&self, number: u32) -> Result<Bytes, SourceError>;
    /// Begins to read `numbers` all at once, where that holds no thread while it waits: objects of stores. `None` when each
    /// of them is to be [`Source::read`]. What comes is in their order, or an error of any of them; it can be dropped.
    fn fetch(&self, _numbers: &[u32]) -> Option<Fetching> {
        None
    }
    /// Whether reading may wait for a store, minutes when it is away: not to be done on threads that others wait for.
    fn far(&self) -> bool {
        false
    }
    /// Whether its records are scenes of points, packed by [`crate::cloud::parts`].
    fn scenes(&self) -> bool {
        false
    }
    /// Its documents; `None` when it has records.
    fn tokens(&self) -> Option<&dyn Corpus> {
        None
    }
}

/// Records on their way, see [`Source::fetch`].
pub type Fetching = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, SourceError>> + Send>>;

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
    /// A read of a store failed, and so did what was tried again; or trying again cannot help. Another time it may be there.
    #[error("{file}: {why}")]
    Unavailable {
        /// Source, object and range; never a query.
        file: String,
        /// What failed last, and how often it was tried.
        why: String,
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

impl SourceError {
    fn io(file: impl Into<String>, error: std::io::Error) -> SourceError {
        SourceError::Io { file: file.into(), error }
    }

    fn changed(file: impl Into<String>, what: impl Into<String>) -> SourceError {
        SourceError::Changed { file: file.into(), what: what.into() }
    }

    fn format(file: impl Into<String>, why: impl Into<String>) -> SourceError {
        SourceError::Format { file: file.into(), why: why.into() }
    }

    fn misfit(source_name: impl Into<String>, why: impl Into<String>) -> SourceError {
        SourceError::Declaration { source_name: source_name.into(), why: why.into() }
    }
}

/// Record `number` of `index`; a number that is none is an error of the caller, not a panic of the server.
fn record(index: &Index, number: u32) -> Result<&Record, SourceError> {
    index.records.get(number as usize).ok_or_else(|| {
        let why = format!("record {number} was asked for, want below {}", index.records.len());
        SourceError::io("index", std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
    })
}

/// True for names with an extension of a picture format that decode knows.
fn is_picture(name: &str) -> bool {
    const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
    let extension =
        name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, extension)| extension);
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

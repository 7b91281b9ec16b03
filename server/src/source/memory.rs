//! Records in memory: the demo's pictures, and other rooms' tests.

use super::{
    Index, Source, SourceError,
    declare::{Declaration, GroupBy, Kind, LabelFrom, Rules},
    draft::{Built, Draft, Label},
    record,
};
use bytes::Bytes;
use std::path::Path;

/// Records in memory, grouped by class.
#[derive(Debug)]
pub struct Memory {
    built: Built,
    bytes: Vec<Bytes>,
}

impl Memory {
    /// Records of (name, encoded picture, class).
    ///
    /// # Errors
    /// [`SourceError::Declaration`] when there is no record or a name comes twice.
    pub fn new(records: Vec<(String, Bytes, String)>) -> Result<Memory, SourceError> {
        let declared = Declaration {
            groups: Some(GroupBy::Class),
            labels: Some(LabelFrom::Folder),
            ..Declaration::new(Kind::Folder, "memory")
        };
        let rules = Rules::check("memory", &declared, Path::new(""))?;
        let mut bytes = Vec::with_capacity(records.len());
        let mut drafts = Vec::with_capacity(records.len());
        for (name, encoded, class) in records {
            let (file, size) = (bytes.len() as u32, encoded.len() as u64);
            drafts.push(Draft { label: Label::Name(class), ..Draft::new(name, file, 0, size) });
            bytes.push(encoded);
        }
        Ok(Memory { built: Built::new(&rules, drafts, Vec::new(), Vec::new())?, bytes })
    }
}

impl Source for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        Ok(self.bytes[record(&self.built.index, number)?.file as usize].clone())
    }
}

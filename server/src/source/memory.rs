//! Records in memory: the demo's pictures, and other rooms' tests.

use super::{
    Index, Source, SourceError,
    declare::{Declaration, GroupBy, Kind, LabelFrom, Rules},
    draft::{Built, Draft, Label},
    record,
};
use crate::cloud;
use bytes::Bytes;
use std::path::Path;

/// Records in memory, grouped by class.
#[derive(Debug)]
pub struct Memory {
    built: Built,
    bytes: Vec<Bytes>,
    scenes: bool,
}

impl Memory {
    /// Records of (name, encoded picture, class).
    ///
    /// # Errors
    /// [`SourceError::Declaration`] when there is no record or a name comes twice.
    pub fn new(records: Vec<(String, Bytes, String)>) -> Result<Memory, SourceError> {
        Memory::by_class(records, false)
    }

    /// Scenes of (name, record as [`crate::cloud::record`] reads it, group).
    ///
    /// # Errors
    /// As [`Memory::new`].
    pub fn scenes(records: Vec<(String, Bytes, String)>) -> Result<Memory, SourceError> {
        Memory::by_class(records, true)
    }

    fn by_class(records: Vec<(String, Bytes, String)>, scenes: bool) -> Result<Memory, SourceError> {
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
            let points = if scenes { cloud::points(&encoded).ok().flatten().unwrap_or(0) } else { 0 };
            drafts.push(Draft { label: Label::Name(class), points, ..Draft::new(name, file, 0, size) });
            bytes.push(encoded);
        }
        let mut built = Built::new(&rules, drafts, Vec::new(), Vec::new())?;
        if scenes {
            // A group of scenes is no class of points.
            built.index.classes.clear();
            built.index.records.iter_mut().for_each(|record| record.label = -1);
        }
        Ok(Memory { built, bytes, scenes })
    }
}

impl Source for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn scenes(&self) -> bool {
        self.scenes
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        Ok(self.bytes[record(&self.built.index, number)?.file as usize].clone())
    }
}

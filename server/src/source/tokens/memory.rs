//! Documents in memory: other rooms' tests and small experiments.

use super::{no_record, within};
use crate::source::{Corpus, Group, Index, Source, SourceError};
use bytes::Bytes;

/// Documents in memory by group.
#[derive(Debug)]
pub struct TokenMemory {
    index: Index,
    documents: Vec<Vec<u32>>,
    vocabulary: u64,
}

impl TokenMemory {
    /// Groups of (name, documents), names unique.
    ///
    /// # Errors
    /// [`SourceError::Declaration`] when there is no document, a name comes twice or an id is above 2^31 - 1.
    pub fn new(mut groups: Vec<(String, Vec<Vec<u32>>)>) -> Result<TokenMemory, SourceError> {
        let misfit = |why: String| SourceError::misfit("memory", why);
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = groups.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(misfit(format!("group `{}` is there twice", pair[0].0)));
        }
        let mut source = TokenMemory { index: Index::default(), documents: Vec::new(), vocabulary: 0 };
        for (name, documents) in groups {
            let mut hasher = blake3::Hasher::new();
            for id in documents.iter().flat_map(|d| [d.len() as u32].into_iter().chain(d.iter().copied())) {
                if id > i32::MAX as u32 {
                    return Err(misfit(format!("group `{name}` has the id {id}, want at most 2147483647")));
                }
                hasher.update(&id.to_le_bytes());
            }
            let largest = documents.iter().flatten().max().map_or(0, |id| u64::from(*id) + 1);
            source.vocabulary = source.vocabulary.max(largest);
            let first = source.documents.len() as u32;
            source.documents.extend(documents);
            let records = (first..source.documents.len() as u32).collect();
            let digest = *hasher.finalize().as_bytes();
            source.index.groups.push(Group { name, records, digest });
        }
        if source.documents.is_empty() {
            return Err(misfit("has no document, want at least one".into()));
        }
        Ok(source)
    }
}

impl Source for TokenMemory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, _: u32) -> Result<Bytes, SourceError> {
        Err(no_record())
    }

    fn tokens(&self) -> Option<&dyn Corpus> {
        Some(self)
    }
}

impl Corpus for TokenMemory {
    fn len(&self, document: u32) -> u64 {
        self.documents.get(document as usize).map_or(0, |d| d.len() as u64)
    }

    fn read(&self, document: u32, from: u64, out: &mut [[u8; 4]]) -> Result<(), SourceError> {
        within(document, Corpus::len(self, document), from, out.len())?;
        if let Some(ids) = self.documents.get(document as usize) {
            out.iter_mut().zip(&ids[from as usize..]).for_each(|(out, id)| *out = id.to_le_bytes());
        }
        Ok(())
    }

    fn vocabulary(&self) -> Option<u64> {
        Some(self.vocabulary).filter(|v| *v > 0)
    }

    fn file(&self, _: u32) -> u32 {
        0
    }

    fn check(&self, _: u32) -> Result<(), SourceError> {
        Ok(())
    }
}

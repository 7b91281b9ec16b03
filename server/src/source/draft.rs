//! From what was found to an index: order, labels, groups, digests. The same for every kind of source.

use super::{
    Group, Index, Record, SourceError,
    declare::{LabelFrom, Rules},
    group, label,
    walk::Tally,
};

/// A record as it was found.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Name in the source.
    pub name: String,
    /// Bytes of the name that are its shard and the `/` after it; 0 in folders.
    pub shard: usize,
    /// Number of its file.
    pub file: u32,
    /// First byte or row.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Points of a scene, see [`Record::points`].
    pub points: u64,
    /// Label.
    pub label: Label,
    /// Value of the group column.
    pub group: Option<String>,
    /// Hash of its bytes, when asked for.
    pub content: Option<[u8; 32]>,
}

/// A label before classes are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// It has none.
    None,
    /// A number.
    Index(i64),
    /// A number or a name, as text.
    Text(String),
    /// A name, even if it looks like a number (a folder).
    Name(String),
}

impl Draft {
    /// A record without label.
    pub fn new(name: String, file: u32, offset: u64, size: u64) -> Draft {
        Draft {
            name,
            shard: 0,
            file,
            offset,
            size,
            points: 0,
            label: Label::None,
            group: None,
            content: None,
        }
    }

    /// Name inside its shard.
    pub fn inner(&self) -> &str {
        &self.name[self.shard..]
    }

    /// Its shard's name.
    pub fn shard_name(&self) -> &str {
        self.name[..self.shard].trim_end_matches('/')
    }

    /// Labels it with its first-level folder.
    pub fn label_by_folder(&mut self) {
        self.label = match self.inner().split_once('/') {
            Some((class, _)) => Label::Name(class.into()),
            None => Label::None,
        };
    }
}

/// An index with what belongs to it.
#[derive(Debug)]
pub(super) struct Built {
    /// The index.
    pub index: Index,
    /// Notes.
    pub notes: Vec<String>,
    /// Hash of every record's bytes; empty when not asked for.
    content: Vec<[u8; 32]>,
}

impl Built {
    /// Orders, labels and groups `drafts`. `classes` are names that exist even without a record (empty folders).
    pub fn new(
        rules: &Rules<'_>,
        mut drafts: Vec<Draft>,
        classes: Vec<String>,
        mut notes: Vec<String>,
    ) -> Result<Built, SourceError> {
        if drafts.is_empty() {
            let notes = notes.iter().map(|note| format!(" ({note})")).collect::<String>();
            let path = &rules.declared.path;
            return Err(rules.misfit(format!("path `{path}` holds no record, want at least one{notes}")));
        }
        if drafts.len() > i32::MAX as usize {
            return Err(rules.misfit(format!("has {} records, want at most {}", drafts.len(), i32::MAX)));
        }
        drafts.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = drafts.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(rules.misfit(format!("record `{}` is there twice, want unique names", pair[0].name)));
        }
        if rules.labels == LabelFrom::Csv {
            label::from_csv(rules, &mut drafts)?;
        }
        let (labels, classes) = label::number(rules, &drafts, classes)?;
        if rules.labels != LabelFrom::None {
            notes.extend(unlabelled(&drafts, &labels));
        }
        let grouped = group::group(rules, &drafts, &labels, &classes)?;
        let content: Vec<[u8; 32]> = drafts.iter().filter_map(|draft| draft.content).collect();
        let records: Vec<Record> = drafts.into_iter().zip(labels).map(finish).collect();
        let groups = grouped
            .into_iter()
            .map(|(name, numbers)| {
                let digest = digest(&numbers, &records, &classes, &content);
                Group { name, records: numbers, digest }
            })
            .collect();
        Ok(Built { index: Index { records, groups, classes }, notes, content })
    }

    /// Hash of a record's bytes, when they are compared with it.
    pub fn hash(&self, number: u32) -> Option<[u8; 32]> {
        self.content.get(number as usize).copied()
    }

    /// Compares bytes that were read with what was indexed; `file` names them in the error.
    pub fn verify(&self, number: u32, bytes: &[u8], file: &str) -> Result<(), SourceError> {
        match self.content.get(number as usize) {
            Some(indexed) if blake3::hash(bytes) != *indexed => {
                Err(SourceError::changed(file, "its content has another hash"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn finish((draft, label): (Draft, i32)) -> Record {
    let Draft { name, file, offset, size, points, .. } = draft;
    Record { name, size, label, file, offset, points }
}

fn unlabelled(drafts: &[Draft], labels: &[i32]) -> Option<String> {
    let mut tally = Tally::default();
    drafts.iter().zip(labels).filter(|(_, label)| **label < 0).for_each(|(draft, _)| tally.add(&draft.name));
    tally.note("record has no label", "records have no label")
}

/// Digest of a group: names, sizes, offsets, class names and, when asked for, contents of its records in order. Record
/// numbers and file numbers are left out, so that other groups of the source don't change it.
fn digest(numbers: &[u32], records: &[Record], classes: &[String], content: &[[u8; 32]]) -> [u8; 32] {
    fn text(hasher: &mut blake3::Hasher, text: &str) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(if content.is_empty() { b"mixfeed index 1 size\n" } else { b"mixfeed index 1 hash\n" });
    for number in numbers {
        let record = &records[*number as usize];
        text(&mut hasher, &record.name);
        hasher.update(&record.size.to_le_bytes());
        hasher.update(&record.offset.to_le_bytes());
        let class = usize::try_from(record.label).ok().and_then(|label| classes.get(label));
        hasher.update(&[u8::from(class.is_some())]);
        text(&mut hasher, class.map_or("", String::as_str));
        if let Some(content) = content.get(*number as usize) {
            hasher.update(content);
        }
    }
    *hasher.finalize().as_bytes()
}

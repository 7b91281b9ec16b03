//! Indexes of shards, kept beside them, so that a shard is read through only once.
//!
//! A kept index is `MAGIC`, the BLAKE3 hash of the rest, and a [`ShardIndex`] in Protocol Buffers encoding. It counts only
//! when the hash fits and the shard's size and time and the rule that made it are the same; otherwise it is made anew.

use super::{
    SourceError,
    declare::{Rules, Verify},
    draft::{Draft, Label},
    shard::{Shard, alias},
};
use prost::Message;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Format of kept indexes; the number goes up with every change of it or of what indexing means.
const MAGIC: &[u8; 8] = b"mixidx01";
/// Ending of their names.
pub(super) const EXTENSION: &str = ".mixidx";
const HEAD: usize = 8 + 32;

/// What is in one shard.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ShardIndex {
    /// Size of the shard in bytes.
    #[prost(uint64, tag = "1")]
    size: u64,
    /// Its time of change, nanoseconds since 1970.
    #[prost(int64, tag = "2")]
    mtime_ns: i64,
    /// Options that it depends on.
    #[prost(string, tag = "3")]
    rule: String,
    /// Records in the order of the shard.
    #[prost(message, repeated, tag = "4")]
    pub members: Vec<Member>,
    /// What was left out.
    #[prost(string, repeated, tag = "5")]
    pub notes: Vec<String>,
    /// Row groups (Parquet).
    #[prost(message, repeated, tag = "6")]
    pub row_groups: Vec<RowGroup>,
}

/// One row group of a Parquet shard.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RowGroup {
    /// Rows of each page of the image column.
    #[prost(uint64, repeated, tag = "1")]
    pub pages: Vec<u64>,
}

/// One record of a shard.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Member {
    /// Name inside the shard; empty for rows.
    #[prost(string, tag = "1")]
    pub name: String,
    /// First byte; 0 for rows.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Label as text.
    #[prost(string, optional, tag = "4")]
    pub label: Option<String>,
    /// Label as a number.
    #[prost(sint64, optional, tag = "5")]
    pub number: Option<i64>,
    /// Value of the group column.
    #[prost(string, optional, tag = "6")]
    pub group: Option<String>,
    /// Hash of its bytes, 32 bytes, when asked for.
    #[prost(bytes = "vec", tag = "7")]
    pub content: Vec<u8>,
}

impl Member {
    /// As record of shard `file`.
    pub fn draft(self, shard: &Shard, file: u32) -> Draft {
        let label = match (self.label, self.number) {
            (Some(text), _) => Label::Text(text),
            (None, Some(number)) => Label::Index(number),
            (None, None) => Label::None,
        };
        Draft {
            shard: shard.name.len() + 1,
            label,
            group: self.group,
            content: self.content.try_into().ok(),
            ..Draft::new(format!("{}/{}", shard.name, self.name), file, self.offset, self.size)
        }
    }
}

/// The index of `shard`: the kept one if it fits, otherwise what `make` finds, which is then kept. Being unable to keep
/// it is a note, not an error. `rule` names the options that the index depends on.
pub(super) fn shard_index(
    rules: &Rules<'_>,
    shard: &Shard,
    rule: &str,
    make: impl FnOnce() -> Result<ShardIndex, SourceError>,
) -> Result<ShardIndex, SourceError> {
    let state = shard.object.as_ref().map(|object| format!(" {}", object.state())).unwrap_or_default();
    let rule = format!("{rule} {:?}{state}", rules.declared.verify);
    let places = places(rules, shard);
    let kept = places.iter().find_map(|place| load(place, shard, &rule, rules.declared.verify));
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let mut made = make()?;
    (made.size, made.mtime_ns, made.rule) = (shard.stamp.size, shard.stamp.mtime_ns, rule);
    let body = made.encode_to_vec();
    if body.len() as u64 <= limit(shard) && !places.iter().any(|place| save(place, &body).is_ok()) {
        made.notes.push(format!(
            "index of {} is not kept: no folder to write it to, `cache` names one",
            shard.shown
        ));
    }
    Ok(made)
}

/// Where an index of `shard` may lie, best first.
fn places(rules: &Rules<'_>, shard: &Shard) -> Vec<PathBuf> {
    if shard.object.is_some() {
        let folder = rules.path(rules.declared.cache.as_deref().unwrap_or("mixfeed-cache"));
        return vec![folder.join(format!("{}{EXTENSION}", alias(&shard.path)))];
    }
    let mut beside = shard.path.as_os_str().to_owned();
    beside.push(EXTENSION);
    let cache = rules.declared.cache.as_deref().map(|cache| rules.path(cache));
    let absolute = std::path::absolute(&shard.path).unwrap_or_else(|_| shard.path.clone());
    let elsewhere = cache.map(|cache| cache.join(format!("{}{EXTENSION}", alias(&absolute))));
    [PathBuf::from(beside)].into_iter().chain(elsewhere).collect()
}

/// Largest index of a shard: a record of it takes far less than this share of the shard.
fn limit(shard: &Shard) -> u64 {
    shard.stamp.size.saturating_mul(8).saturating_add(1 << 20)
}

fn load(place: &Path, shard: &Shard, rule: &str, verify: Verify) -> Option<ShardIndex> {
    let metadata = fs::metadata(place).ok()?;
    if !metadata.is_file() || metadata.len() > limit(shard) + HEAD as u64 {
        return None;
    }
    let bytes = fs::read(place).ok()?;
    let (head, body) = bytes.split_at_checked(HEAD)?;
    if &head[..8] != MAGIC || blake3::hash(body) != <[u8; 32]>::try_from(&head[8..]).ok()? {
        return None;
    }
    let index = ShardIndex::decode(body).ok()?;
    let same = (index.size, index.mtime_ns) == (shard.stamp.size, shard.stamp.mtime_ns) && index.rule == rule;
    let hashed = if verify == Verify::Content { 32 } else { 0 };
    (same && index.members.iter().all(|member| member.content.len() == hashed)).then_some(index)
}

/// Writes it under another name first, so that nobody ever sees half of it.
fn save(place: &Path, body: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut partial = place.as_os_str().to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let bytes = [&MAGIC[..], blake3::hash(body).as_bytes(), body].concat();
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, place));
    if written.is_err() {
        let _ = fs::remove_file(&partial); // it may not be there; the error that matters is the first one
    }
    written
}

/// Rewrites a kept index so that its hash fits again: members and pages get these numbers and texts in turn, and `more` of
/// them are added; labels and names stay with `only_numbers`.
#[cfg(test)]
pub(super) fn lie(place: &Path, numbers: &[u64], texts: &[Option<String>], more: usize, only_numbers: bool) {
    let bytes = fs::read(place).expect("kept");
    let mut index = ShardIndex::decode(&bytes[HEAD..]).expect("ours");
    let (mut numbers, mut texts) = (numbers.iter().cycle().copied(), texts.iter().cycle().cloned());
    let mut number = || numbers.next().expect("they go round");
    let mut text = || texts.next().expect("they go round");
    let last = index.members.last().cloned().unwrap_or_default();
    index.members.extend(std::iter::repeat_n(last, more));
    for member in &mut index.members {
        (member.offset, member.size) = (number(), number());
        if !only_numbers {
            (member.name, member.label, member.group) = (text().unwrap_or_default(), text(), text());
            member.number = Some(number() as i64);
        }
    }
    for pages in index.row_groups.iter_mut().flat_map(|group| &mut group.pages) {
        *pages = number();
    }
    let body = index.encode_to_vec();
    fs::write(place, [&MAGIC[..], blake3::hash(&body).as_bytes(), &body].concat()).expect("written");
}

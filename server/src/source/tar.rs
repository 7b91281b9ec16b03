//! WebDataset shards: tar files whose members with one key (path up to the first dot of the file name) are one sample. Its
//! picture is the record, its `.cls` or `.json` the label.

use super::{
    Fetching, Index, Source, SourceError,
    declare::{LabelFrom, Rules, Verify},
    draft::Built,
    is_picture,
    keep::{Member, ShardIndex, shard_index},
    record,
    remote::{self, Span},
    shard::{Positional, Shard, Shards, find, indexed},
    walk::Tally,
};
use ::tar::{Archive, Entry, EntryType};
use bytes::Bytes;
use std::{
    cell::Cell,
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// Bytes of headers that one member may have, long names included.
const MAX_HEADERS: u64 = 1 << 20;
/// Bytes of a `.cls` or `.json` member.
const MAX_LABEL: u64 = 1 << 20;
const BLOCK: u64 = 512;

/// WebDataset shards.
#[derive(Debug)]
pub(super) struct Tar {
    built: Built,
    shards: Shards<Positional>,
}

impl Tar {
    /// Finds and indexes the shards.
    pub fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Tar, SourceError> {
        // Compressed shards are taken in only to be refused by name.
        let (shards, mut notes) =
            find(rules, &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz"], progress)?;
        let field = rules.declared.json_field.as_deref().unwrap_or("label");
        let rule = match rules.labels {
            LabelFrom::Cls => "tar cls".to_owned(),
            LabelFrom::Json => format!("tar json {field}"),
            LabelFrom::Folder | LabelFrom::Csv | LabelFrom::Column | LabelFrom::None => "tar".to_owned(),
        };
        let mut drafts = Vec::new();
        let index = |shard: &Shard| {
            shard_index(rules, shard, &rule, || {
                let reader = Reading { shard, file: &shard.open()?, labels: rules.labels, field };
                shard.guarded(|| reader.index(rules.declared.verify))
            })
        };
        indexed(&shards, &index, |number, shard, index| {
            progress(drafts.len() as u64, &shard.shown);
            for member in index.members {
                if member.offset.checked_add(member.size).is_none_or(|end| end > shard.stamp.size) {
                    return Err(
                        shard.format(format!("its kept index places `{}` beyond its end", member.name))
                    );
                }
                let mut draft = member.draft(shard, number as u32);
                if rules.labels == LabelFrom::Folder {
                    draft.label_by_folder();
                }
                drafts.push(draft);
            }
            notes.extend(index.notes);
            Ok(())
        })?;
        progress(drafts.len() as u64, &rules.declared.path);
        Ok(Tar { built: Built::new(rules, drafts, Vec::new(), notes)?, shards: Shards::new(shards) })
    }
}

impl Source for Tar {
    fn kind(&self) -> &'static str {
        "tar"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn notes(&self) -> &[String] {
        &self.built.notes
    }

    fn far(&self) -> bool {
        self.shards.shards.first().is_some_and(|shard| shard.object.is_some())
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let record = record(&self.built.index, number)?;
        let shard = &self.shards.shards[record.file as usize];
        if shard.object.is_some() {
            return remote::one(self.want(number)?);
        }
        let bytes = shard.guarded(|| {
            let file = self.shards.get(record.file, |_, file| Ok(file))?;
            file.range(record.offset, record.size)
                .map_err(|error| SourceError::io(shard.shown.as_str(), error))
        })?;
        self.built.verify(number, &bytes, &record.name)?;
        Ok(bytes.into())
    }

    fn fetch(&self, numbers: &[u32]) -> Option<Fetching> {
        self.shards.shards.first()?.object.as_ref()?;
        Some(remote::fetch(numbers.iter().map(|number| self.want(*number)).collect()))
    }
}

impl Tar {
    /// What to ask a store for.
    fn want(&self, number: u32) -> Result<Span, SourceError> {
        let record = record(&self.built.index, number)?;
        let shard = &self.shards.shards[record.file as usize];
        let object = shard.object.clone().ok_or_else(|| shard.format("is no object"))?;
        let (from, length, hash) = (record.offset, record.size, self.built.hash(number));
        Ok(Span { object, from, length, hash, name: record.name.clone() })
    }
}

/// Members with one key.
#[derive(Debug, Default)]
struct Sample {
    picture: Option<(String, u64, u64)>,
    label: Option<Result<Label, String>>,
}

/// A label, as text or as a number.
#[derive(Debug)]
enum Label {
    Text(String),
    Number(i64),
}

/// One shard being indexed.
struct Reading<'a> {
    shard: &'a Shard,
    file: &'a Positional,
    labels: LabelFrom,
    field: &'a str,
}

/// Members that are no record.
#[derive(Default)]
struct Rest {
    links: Tally,
    keyless: Tally,
    pictureless: Tally,
}

impl Reading<'_> {
    fn index(&self, verify: Verify) -> Result<ShardIndex, SourceError> {
        self.refuse_compressed()?;
        let mut rest = Rest::default();
        let samples = self.samples(&mut rest)?;
        let mut index = ShardIndex::default();
        for (key, sample) in samples {
            let Some((name, offset, size)) = sample.picture else {
                rest.pictureless.add(&key);
                continue;
            };
            let mut member = Member { name, offset, size, ..Member::default() };
            match sample.label {
                None => {}
                Some(Ok(Label::Text(text))) => member.label = Some(text),
                Some(Ok(Label::Number(number))) => member.number = Some(number),
                Some(Err(why)) => return Err(self.shard.format(format!("label of `{}` {why}", member.name))),
            }
            if verify == Verify::Content {
                member.content = blake3::hash(&self.bytes(offset, size)?).as_bytes().to_vec();
            }
            index.members.push(member);
        }
        let notes = [
            rest.links.note("member is no plain file", "members are no plain files"),
            rest.keyless.note("member has no WebDataset key", "members have no WebDataset key"),
            rest.pictureless.note("sample has no picture", "samples have no picture"),
        ];
        index.notes =
            notes.into_iter().flatten().map(|note| format!("{}: {note}", self.shard.shown)).collect();
        Ok(index)
    }

    fn bytes(&self, offset: u64, size: u64) -> Result<Vec<u8>, SourceError> {
        self.file.range(offset, size).map_err(|error| SourceError::io(self.shard.shown.as_str(), error))
    }

    fn refuse_compressed(&self) -> Result<(), SourceError> {
        let head = self.bytes(0, self.shard.stamp.size.min(6))?;
        let magics: [(&[u8], &str); 4] =
            [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")];
        match magics.iter().find(|(magic, _)| head.starts_with(magic)) {
            Some((_, what)) => Err(self.shard.format(format!(
                "is compressed with {what}, want a plain tar file: records are read by position"
            ))),
            None => Ok(()),
        }
    }

    /// Samples in the order of their first member.
    fn samples(&self, rest: &mut Rest) -> Result<Vec<(String, Sample)>, SourceError> {
        let budget = Rc::new(Cell::new(MAX_HEADERS));
        let mut archive = Archive::new(Metered { inner: self.file.clone(), budget: budget.clone() });
        let mut samples: Vec<(String, Sample)> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let (mut last, mut next) = (String::from("its start"), 0u64);
        let broken = |last: &str, error: io::Error| {
            self.shard.format(format!("is damaged or cut short after {last}: {error}; want a whole tar file"))
        };
        for entry in archive.entries_with_seek().map_err(|error| broken(&last, error))? {
            let entry = entry.map_err(|error| broken(&last, error))?;
            budget.set(MAX_HEADERS);
            let name = self.name(&entry)?;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let len = self.shard.stamp.size;
            let Some(end) = offset.checked_add(size).filter(|end| *end <= len) else {
                let why = format!(
                    "is cut short in member `{name}`: it ends at byte {offset}+{size}, the file at {len}"
                );
                return Err(self.shard.format(why));
            };
            next = end.next_multiple_of(BLOCK);
            last = format!("member `{name}`");
            let Some((key, extension)) = self.sample_of(entry.header().entry_type(), &name, rest)? else {
                continue;
            };
            let number = *numbers.entry(key.clone()).or_insert_with(|| {
                samples.push((key.clone(), Sample::default()));
                samples.len() - 1
            });
            self.place(&key, &mut samples[number].1, &name, &extension, (offset, size))?;
        }
        // The end mark: without it, a shard that was cut between two members looks whole.
        let mark = self.file.range(next, BLOCK).ok().filter(|block| block.iter().all(|byte| *byte == 0));
        if mark.is_none() {
            return Err(self
                .shard
                .format(format!("is cut short after {last}: it has no end mark (a block of zeros)")));
        }
        Ok(samples)
    }

    /// Key and extension of a member; none when it belongs to no sample.
    fn sample_of(
        &self,
        kind: EntryType,
        name: &str,
        rest: &mut Rest,
    ) -> Result<Option<(String, String)>, SourceError> {
        if kind.is_gnu_sparse() {
            return Err(self.shard.format(format!("member `{name}` is a sparse file, want plain ones")));
        }
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(None);
        }
        if !kind.is_file() && !kind.is_contiguous() {
            rest.links.add(name);
            return Ok(None);
        }
        let split = split(name);
        if split.is_none() {
            rest.keyless.add(name);
        }
        Ok(split)
    }

    fn name(&self, entry: &Entry<'_, Metered>) -> Result<String, SourceError> {
        let bytes = entry.path_bytes();
        let name = std::str::from_utf8(&bytes).map_err(|_| {
            self.shard
                .format(format!("member `{}` has a name that is no UTF-8", String::from_utf8_lossy(&bytes)))
        })?;
        Ok(name.trim_start_matches("./").to_owned())
    }

    /// Puts a member where it belongs in its sample.
    fn place(
        &self,
        key: &str,
        sample: &mut Sample,
        name: &str,
        extension: &str,
        at: (u64, u64),
    ) -> Result<(), SourceError> {
        let twice = |what: &str| {
            Err(self.shard.format(format!("sample `{key}` has two {what}, want one; `{name}` is the second")))
        };
        // "0001.mask.png" is another picture of the sample than "0001.png", not its record.
        if !extension.contains('.') && is_picture(name) {
            if sample.picture.replace((name.to_owned(), at.0, at.1)).is_some() {
                return twice("pictures");
            }
        } else if (self.labels == LabelFrom::Cls && extension == "cls")
            || (self.labels == LabelFrom::Json && extension == "json")
        {
            if at.1 > MAX_LABEL {
                return Err(self
                    .shard
                    .format(format!("member `{name}` has {} bytes, want at most {MAX_LABEL}", at.1)));
            }
            // Now, since in a store it came along with the header; whether it must be good depends on the picture.
            let label = self.label(&self.bytes(at.0, at.1)?);
            if sample.label.replace(label).is_some() {
                return twice("labels");
            }
        }
        Ok(())
    }

    /// The label in the bytes of a `.cls` or `.json`, or what is wrong with it.
    fn label(&self, bytes: &[u8]) -> Result<Label, String> {
        if self.labels == LabelFrom::Cls {
            let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8, want a number or a name")?.trim();
            return match text.is_empty() {
                true => Err("is empty, want a number or a name in its `.cls`".into()),
                false => Ok(Label::Text(text.into())),
            };
        }
        let json: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("cannot be read: its `.json` has {error}"))?;
        let value = json.get(self.field);
        match (value.and_then(serde_json::Value::as_i64), value.and_then(serde_json::Value::as_str)) {
            (Some(number), _) => Ok(Label::Number(number)),
            (None, Some(text)) => Ok(Label::Text(text.into())),
            (None, None) => {
                let is = value.map_or("is not there".into(), |value| format!("is {value:.60}"));
                let field = self.field;
                Err(format!("is missing: field `{field}` of its `.json` {is}, want an integer or a name"))
            }
        }
    }
}

/// Key and extension (lower case) of a member by WebDataset's rule; none for names without a dot or starting with one.
fn split(name: &str) -> Option<(String, String)> {
    let folder = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = folder + name[folder..].find('.')?;
    (dot > folder).then(|| (name[..dot].to_owned(), name[dot + 1..].to_lowercase()))
}

/// Bounds what is read between two members, which is headers only: a header could ask for gigabytes of file name.
struct Metered {
    inner: Positional,
    budget: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.budget.get() as usize);
        if most == 0 && !into.is_empty() {
            let why = format!("headers of one member are over {MAX_HEADERS} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let read = self.inner.read(&mut into[..most])?;
        self.budget.set(self.budget.get() - read as u64);
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn keys_end_at_the_first_dot_of_the_file_name() {
        let pair = |key: &str, extension: &str| Some((key.to_owned(), extension.to_owned()));
        assert_eq!(split("0001.JPG"), pair("0001", "jpg"));
        assert_eq!(split("a.b/c/0001.seg.png"), pair("a.b/c/0001", "seg.png"));
        assert_eq!(split("a.b/README"), None);
        assert_eq!(split("a/.hidden.jpg"), None);
    }
}

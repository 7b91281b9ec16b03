//! Files of token ids, seen through memory maps: raw ids, Megatron's index and data pairs, and our own caches of text.

pub(super) mod cache;
mod formats;
mod map;
mod memory;

pub use memory::TokenMemory;

use super::{
    Corpus, Group, Index, Source, SourceError,
    declare::{GroupBy, Rules, Verify, Width},
    draft::Draft,
    group,
    shard::{Positional, Shard, Shards, find},
};
use bytes::Bytes;
use map::Map;
use std::{collections::BTreeMap, io, sync::OnceLock};

/// Ids that are converted at once.
const RUN: usize = 4096;
/// Ids above are no i32.
const TOP: u32 = 1 << 31;

/// What is in one file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Byte of the first token.
    pub offset: u64,
    /// Type of the ids.
    pub width: Width,
    /// Tokens up to and including each document.
    pub ends: Vec<u64>,
    /// Groups of its own: names and the group of each document.
    pub own: Option<cache::Groups>,
    /// Added to the digest of its groups: hash of its contents, when it is known or asked for.
    pub content: Option<[u8; 32]>,
    /// Ids that its tokens are drawn from, when they are known.
    pub vocabulary: Option<u64>,
}

/// Token files.
#[derive(Debug)]
pub(super) struct Tokens {
    kind: &'static str,
    index: Index,
    notes: Vec<String>,
    shards: Shards<Positional>,
    files: Vec<Place>,
    /// Tokens of all files up to and including each document.
    ends: Vec<u64>,
    vocabulary: Option<u64>,
}

/// Where the documents of a file are.
#[derive(Debug)]
struct Place {
    /// Number of its first document.
    first: u32,
    /// Tokens of the files before it.
    before: u64,
    offset: u64,
    width: Width,
    /// Its map, once somebody asked for it; `None` where there can be none.
    map: OnceLock<Option<Map>>,
}

impl Place {
    /// Where token `at`, counted over all files, begins.
    fn byte(&self, at: u64) -> u64 {
        self.offset + (at - self.before) * self.width.bytes() as u64
    }
}

/// Finds and indexes token files.
pub(super) fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Tokens, SourceError> {
    let (mut shards, notes) = find(rules, &[".bin", cache::EXTENSION, ".idx"], progress)?;
    shards.retain(|shard| !shard.name.ends_with(".idx"));
    let mut layouts = Vec::new();
    let mut documents = 0;
    for shard in &shards {
        progress(documents, &shard.shown);
        let mut layout = shard.guarded(|| formats::layout(rules, shard))?;
        if rules.declared.verify == Verify::Content {
            layout.content = Some(shard.guarded(|| hash(shard))?);
        }
        documents += layout.ends.len() as u64;
        layouts.push(layout);
    }
    progress(documents, &rules.declared.path);
    Tokens::new(rules, "tokens", shards, layouts, notes)
}

/// Hash of a file.
fn hash(shard: &Shard) -> Result<[u8; 32], SourceError> {
    let mut hasher = blake3::Hasher::new();
    let hashed = io::copy(&mut shard.open()?, &mut hasher);
    hashed.map_err(|error| SourceError::io(shard.shown.as_str(), error))?;
    Ok(*hasher.finalize().as_bytes())
}

impl Tokens {
    /// Numbers and groups the documents of `shards`, which lie as `layouts` say.
    pub fn new(
        rules: &Rules<'_>,
        kind: &'static str,
        shards: Vec<Shard>,
        layouts: Vec<Layout>,
        mut notes: Vec<String>,
    ) -> Result<Tokens, SourceError> {
        let (mut files, mut ends) = (Vec::new(), Vec::new());
        for layout in &layouts {
            let before = ends.last().copied().unwrap_or(0);
            let first = u32::try_from(ends.len()).ok().filter(|n| *n <= i32::MAX as u32);
            let most = || rules.misfit(format!("has more than {} documents", i32::MAX));
            let first = first.ok_or_else(most)?;
            let (offset, width) = (layout.offset, layout.width);
            files.push(Place { first, before, offset, width, map: OnceLock::new() });
            ends.extend(layout.ends.iter().map(|end| before + end));
        }
        if ends.len() > i32::MAX as usize || ends.is_empty() {
            return Err(rules.misfit(format!("has {} documents, want 1..={}", ends.len(), i32::MAX)));
        }
        let groups = groups(rules, &shards, &layouts, &files)?;
        let index = Index { records: Vec::new(), groups, classes: Vec::new() };
        let empty = (0..ends.len()).filter(|i| i.checked_sub(1).map_or(0, |i| ends[i]) == ends[*i]).count();
        if empty > 0 {
            notes.push(format!("{empty} documents are empty and are in no row"));
        }
        // One file that nobody has looked through may hold any id.
        let known: Option<Vec<u64>> = layouts.iter().map(|layout| layout.vocabulary).collect();
        let vocabulary = known.and_then(|all| all.into_iter().max());
        Ok(Tokens { kind, index, notes, shards: Shards::new(shards), files, ends, vocabulary })
    }

    /// First and last token of a document over all files.
    fn span(&self, document: u32) -> (u64, u64) {
        let at = document as usize;
        match self.ends.get(at) {
            Some(end) => (at.checked_sub(1).map_or(0, |before| self.ends[before]), *end),
            None => (0, 0),
        }
    }

    /// Copies the tokens from `at` on, counted over all files, which are all in file `number`.
    fn fill(&self, number: u32, at: u64, out: &mut [[u8; 4]]) -> Result<(), SourceError> {
        let place = &self.files[number as usize];
        let byte = place.byte(at);
        let mapped = self.map(number)?.is_some_and(|map| match place.width {
            Width::U16 => map.narrow(byte, out),
            Width::U32 => map.wide(byte, out),
        });
        if !mapped {
            self.read_at(number, byte, out)?;
        }
        if place.width == Width::U32 && out.iter().fold(0, |all, id| all | u32::from_le_bytes(*id)) >= TOP {
            let why = "has an id above 2147483647, want ids that fit an i32";
            return Err(SourceError::format(self.shards.shards[number as usize].shown.as_str(), why));
        }
        Ok(())
    }

    /// The map of a file, made when it is asked for the first time.
    fn map(&self, number: u32) -> Result<Option<&Map>, SourceError> {
        let place = &self.files[number as usize];
        let map = match place.map.get() {
            Some(map) => map,
            None => {
                let file = self.shards.get(number, |_, file| Ok(file))?;
                place.map.get_or_init(|| file.file().and_then(Map::new))
            }
        };
        Ok(map.as_ref())
    }

    /// As [`Tokens::fill`] without a map: it failed and cannot say why, or there is none.
    fn read_at(&self, number: u32, byte: u64, out: &mut [[u8; 4]]) -> Result<(), SourceError> {
        let (place, shard) = (&self.files[number as usize], &self.shards.shards[number as usize]);
        let file = self.shards.get(number, |_, file| Ok(file))?;
        let io = |error: io::Error| {
            // As long as it was when it was opened, or it would have been refused.
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return SourceError::changed(shard.shown.as_str(), "it is shorter than it was");
            }
            SourceError::io(shard.shown.as_str(), error)
        };
        match place.width {
            Width::U32 => file.fill(out.as_flattened_mut(), byte).map_err(io)?,
            Width::U16 => {
                let mut narrow = [[0u8; 2]; RUN];
                for (i, run) in out.chunks_mut(RUN).enumerate() {
                    let narrow = &mut narrow[..run.len()];
                    file.fill(narrow.as_flattened_mut(), byte + (i * RUN * 2) as u64).map_err(io)?;
                    run.iter_mut().zip(narrow).for_each(|(wide, id)| *wide = [id[0], id[1], 0, 0]);
                }
            }
        }
        Ok(())
    }
}

impl Source for Tokens {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn read(&self, _: u32) -> Result<Bytes, SourceError> {
        Err(no_record())
    }

    fn tokens(&self) -> Option<&dyn Corpus> {
        Some(self)
    }
}

/// A source of documents has no records.
fn no_record() -> SourceError {
    let why = "a record was asked for, the source has documents of tokens";
    SourceError::io("index", io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Refuses tokens that a document of `len` does not have.
fn within(document: u32, len: u64, from: u64, tokens: usize) -> Result<(), SourceError> {
    if from.checked_add(tokens as u64).is_some_and(|end| end <= len) {
        return Ok(());
    }
    let why = format!("tokens {from}..{from}+{tokens} of document {document}, which has {len}");
    Err(SourceError::io("index", io::Error::new(io::ErrorKind::InvalidInput, why)))
}

impl Corpus for Tokens {
    fn len(&self, document: u32) -> u64 {
        let (begin, end) = self.span(document);
        end - begin
    }

    fn read(&self, document: u32, from: u64, out: &mut [[u8; 4]]) -> Result<(), SourceError> {
        let (begin, end) = self.span(document);
        within(document, end - begin, from, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        self.fill(self.file(document), begin + from, out)
    }

    fn touch(&self, document: u32, from: u64) {
        let (at, place) = (self.span(document).0 + from, self.files.get(self.file(document) as usize));
        if let Some((place, Some(map))) = place.and_then(|place| Some((place, place.map.get()?))) {
            map.touch(place.byte(at));
        }
    }

    fn vocabulary(&self) -> Option<u64> {
        self.vocabulary
    }

    fn file(&self, document: u32) -> u32 {
        self.files.partition_point(|place| place.first <= document).saturating_sub(1) as u32
    }

    fn check(&self, file: u32) -> Result<(), SourceError> {
        self.shards.shards.get(file as usize).map_or(Ok(()), Shard::check)
    }
}

/// What the digest of a group knows of each file's contents, by number of the file.
type Contents = BTreeMap<usize, Option<[u8; 32]>>;

/// Groups by file, or by what the files say themselves.
fn groups(
    rules: &Rules<'_>,
    shards: &[Shard],
    layouts: &[Layout],
    files: &[Place],
) -> Result<Vec<Group>, SourceError> {
    let mut grouped: BTreeMap<String, (Vec<u32>, Contents)> = BTreeMap::new();
    let numbers = |file: usize| files[file].first..files[file].first + layouts[file].ends.len() as u32;
    let decided = layouts.iter().all(|layout| layout.own.as_ref().is_some_and(|own| own.decided));
    if decided || rules.groups == GroupBy::Column {
        for (file, layout) in layouts.iter().enumerate() {
            let own = layout.own.as_ref().ok_or_else(|| {
                rules.misfit(format!("{} has no groups of its own, want other `groups`", shards[file].shown))
            })?;
            for (name, content) in own.names.iter().zip(&own.contents) {
                grouped.entry(name.clone()).or_default().1.insert(file, Some(*content));
            }
            for (document, number) in numbers(file).enumerate() {
                let name = own.names[own.of(document)].as_str();
                grouped.entry(name.into()).or_default().0.push(number);
            }
        }
    } else {
        for (name, own) in by_file(rules, shards)? {
            let group = grouped.entry(name).or_default();
            for file in own.into_iter().map(|file| file as usize) {
                group.0.extend(numbers(file));
                group.1.insert(file, layouts[file].content);
            }
        }
    }
    let place = |number: u32| {
        let file = files.partition_point(|place| place.first <= number) - 1; // the first one starts at 0
        (file, (number - files[file].first) as usize)
    };
    let group = |(name, (records, contents)): (String, (Vec<u32>, Contents))| {
        let digest = digest(&records, &contents, shards, layouts, place);
        Group { name, records, digest }
    };
    Ok(grouped.into_iter().map(group).collect())
}

/// Numbers of each group's files.
pub(super) fn by_file(
    rules: &Rules<'_>,
    shards: &[Shard],
) -> Result<BTreeMap<String, Vec<u32>>, SourceError> {
    let draft = |(number, shard): (usize, &Shard)| {
        let draft = Draft::new(shard.name.clone(), number as u32, 0, shard.stamp.size);
        let whole = if rules.groups == GroupBy::Shard { shard.name.len() } else { 0 };
        Draft { shard: whole, ..draft }
    };
    let drafts: Vec<Draft> = shards.iter().enumerate().map(draft).collect();
    group::group(rules, &drafts, &[], &[])
}

/// Digest of a group: contents as far as they are known, names of files where they are not, and the lengths of its
/// documents in order.
fn digest(
    numbers: &[u32],
    contents: &Contents,
    shards: &[Shard],
    layouts: &[Layout],
    place: impl Fn(u32) -> (usize, usize),
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mixfeed tokens 1\n");
    for (file, content) in contents {
        let name = if content.is_some() { "" } else { shards[*file].name.as_str() };
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&content.unwrap_or_default());
    }
    for number in numbers {
        let (file, at) = place(*number);
        let ends = &layouts[file].ends;
        let begin = at.checked_sub(1).map_or(0, |before| ends[before]);
        hasher.update(&(ends[at] - begin).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;

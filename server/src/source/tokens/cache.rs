//! Our own token files: texts, tokenised once.
//!
//! ```text
//! 0   "mixtok01"                        all numbers little-endian
//! 8   u64 tokens
//! 16  u64 bytes of the tables
//! 24  u64 bytes of an id, 2 or 4
//! 32  BLAKE3 of bytes 8..32 and the tables
//! 64  ids, then zeros up to a multiple of 8
//! ..  tables: u64 bytes of the head, the head (Protocol Buffers), a u64 end of each document, a u32 group of each
//! ```

use super::Layout;
use crate::source::{SourceError, declare::Width, shard::Shard};
use prost::Message;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Format of caches; the number goes up with every change of it or of what tokenising means.
const MAGIC: &[u8; 8] = b"mixtok01";
/// Ending of their names.
pub(in crate::source) const EXTENSION: &str = ".mixtok";
/// Byte of the first id.
const BEGIN: u64 = 64;
/// Groups of one file; their names are in memory.
const MAX_GROUPS: usize = 1 << 20;

/// What a cache says about itself.
#[derive(Clone, PartialEq, Message)]
pub(in crate::source) struct Head {
    /// Hash of the files and options that it was made from, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub fit: Vec<u8>,
    /// Documents.
    #[prost(uint64, tag = "2")]
    pub documents: u64,
    /// Names of groups.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
    /// Hash of each group's documents, 32 bytes.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub contents: Vec<Vec<u8>>,
    /// What was odd about the texts.
    #[prost(string, repeated, tag = "5")]
    pub notes: Vec<String>,
    /// Ids of the tokenizer; 0 in caches that don't know.
    #[prost(uint64, tag = "6")]
    pub vocabulary: u64,
}

/// Groups that a cache knows.
#[derive(Debug)]
pub(in crate::source) struct Groups {
    /// Names.
    pub names: Vec<String>,
    /// Hash of each group's documents.
    pub contents: Vec<[u8; 32]>,
    /// Whether they are the groups of the source, whatever its declaration says.
    pub decided: bool,
    /// Group of each document; empty when there is one.
    of: Vec<u32>,
}

impl Groups {
    /// Group of a document.
    pub fn of(&self, document: usize) -> usize {
        self.of.get(document).map_or(0, |group| *group as usize)
    }
}

/// A cache being written under another name.
#[derive(Debug)]
pub(in crate::source) struct Writer {
    file: BufWriter<File>,
    partial: PathBuf,
    width: Width,
    head: Head,
    numbers: HashMap<String, u32>,
    hashers: Vec<blake3::Hasher>,
    ends: Vec<u64>,
    of: Vec<u32>,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins the cache `place` of ids below `vocabulary`.
    pub fn new(place: &Path, width: Width, vocabulary: u64) -> io::Result<Writer> {
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut partial = place.as_os_str().to_owned();
        partial.push(format!(".{}.part", std::process::id()));
        let partial = PathBuf::from(partial);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        file.write_all(&[0; BEGIN as usize])?;
        Ok(Writer {
            file,
            partial,
            width,
            head: Head { vocabulary, ..Head::default() },
            numbers: HashMap::new(),
            hashers: Vec::new(),
            ends: Vec::new(),
            of: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// Adds a document; every id fits the width.
    pub fn add(&mut self, group: &str, ids: &[u32]) -> io::Result<()> {
        let number = match self.numbers.get(group) {
            Some(number) => *number,
            None => {
                let number = self.hashers.len() as u32;
                if self.hashers.len() >= MAX_GROUPS {
                    return Err(io::Error::other(format!("there are more than {MAX_GROUPS} groups")));
                }
                self.numbers.insert(group.into(), number);
                self.head.groups.push(group.into());
                self.hashers.push(blake3::Hasher::new());
                number
            }
        };
        self.bytes.clear();
        match self.width {
            Width::U16 => ids.iter().for_each(|id| self.bytes.extend_from_slice(&(*id as u16).to_le_bytes())),
            Width::U32 => ids.iter().for_each(|id| self.bytes.extend_from_slice(&id.to_le_bytes())),
        }
        self.file.write_all(&self.bytes)?;
        let hasher = &mut self.hashers[number as usize];
        hasher.update(&(ids.len() as u64).to_le_bytes());
        hasher.update(&self.bytes);
        self.ends.push(self.ends.last().copied().unwrap_or(0) + ids.len() as u64);
        self.of.push(number);
        Ok(())
    }

    /// Documents so far.
    pub fn documents(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Completes the cache and moves it to `place`.
    pub fn finish(mut self, place: &Path, fit: [u8; 32], notes: Vec<String>) -> io::Result<()> {
        let tokens = self.ends.last().copied().unwrap_or(0);
        let data = tokens * self.width.bytes() as u64;
        self.file.write_all(&[0; 8][..(data.next_multiple_of(8) - data) as usize])?;
        self.head.fit = fit.to_vec();
        self.head.documents = self.documents();
        self.head.notes = notes;
        self.head.contents = self.hashers.iter().map(|h| h.finalize().as_bytes().to_vec()).collect();
        let head = self.head.encode_to_vec();
        let mut tables = (head.len() as u64).to_le_bytes().to_vec();
        tables.extend_from_slice(&head);
        self.ends.iter().for_each(|end| tables.extend_from_slice(&end.to_le_bytes()));
        self.of.iter().for_each(|group| tables.extend_from_slice(&group.to_le_bytes()));
        self.file.write_all(&tables)?;
        let facts = [tokens, tables.len() as u64, self.width.bytes() as u64].map(u64::to_le_bytes).concat();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(MAGIC)?;
        self.file.write_all(&facts)?;
        self.file.write_all(&sum(&facts, &tables))?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.partial, place)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partial); // it was moved, or nobody wants it
    }
}

fn sum(facts: &[u8], tables: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(facts).update(tables).finalize().as_bytes()
}

/// Head and layout of a cache.
pub(in crate::source) fn layout(shard: &Shard) -> Result<(Head, Layout), SourceError> {
    let file = shard.open()?;
    let io = |error| SourceError::io(shard.shown.as_str(), error);
    let wrong =
        |why: &str| shard.format(format!("is no whole token cache: {why}; remove it to make it again"));
    let preamble = file.range(0, BEGIN.min(file.size())).map_err(io)?;
    if preamble.len() < BEGIN as usize || &preamble[..8] != MAGIC {
        return Err(wrong("it does not begin with `mixtok01`"));
    }
    let number = |at: usize| u64::from_le_bytes(preamble[at..at + 8].try_into().expect("eight of 64 bytes"));
    let (tokens, size) = (number(8), number(16));
    let width = match number(24) {
        2 => Width::U16,
        4 => Width::U32,
        _ => return Err(wrong("its ids have neither 2 nor 4 bytes")),
    };
    let data = tokens.checked_mul(width.bytes() as u64).and_then(|bytes| bytes.checked_next_multiple_of(8));
    let begin = data.and_then(|data| data.checked_add(BEGIN));
    let begin = begin.filter(|begin| begin.checked_add(size) == Some(file.size()));
    let begin = begin.ok_or_else(|| wrong("its size is not what it says"))?;
    let tables = file.range(begin, size).map_err(io)?;
    if sum(&preamble[8..32], &tables) != preamble[32..64] {
        return Err(wrong("the hash of its tables does not fit"));
    }
    let (head, ends, of) = parse(&tables).ok_or_else(|| wrong("its tables cannot be read"))?;
    let fits = ends.is_sorted() && ends.last().copied().unwrap_or(0) == tokens;
    let contents: Option<Vec<[u8; 32]>> =
        head.contents.iter().map(|c| c.as_slice().try_into().ok()).collect();
    let contents = contents.filter(|c| c.len() == head.groups.len());
    let fits = fits && of.iter().all(|group| (*group as usize) < head.groups.len());
    let contents = contents.filter(|_| fits).ok_or_else(|| wrong("its tables contradict each other"))?;
    let whole = *blake3::hash(contents.as_flattened()).as_bytes();
    let own = Groups { names: head.groups.clone(), contents, decided: false, of };
    let vocabulary = Some(head.vocabulary).filter(|v| *v > 0);
    let layout = Layout { offset: BEGIN, width, ends, own: Some(own), content: Some(whole), vocabulary };
    Ok((head, layout))
}

/// Compares every document with the hashes of the tables.
pub(in crate::source) fn verify(shard: &Shard, layout: &Layout) -> Result<(), SourceError> {
    let Some(own) = &layout.own else { return Ok(()) };
    let file = shard.open()?;
    let mut hashers = vec![blake3::Hasher::new(); own.names.len()];
    let mut begin = 0;
    for (document, end) in layout.ends.iter().enumerate() {
        let (tokens, width) = (end - begin, layout.width.bytes() as u64);
        let bytes = file.range(layout.offset + begin * width, tokens * width);
        let bytes = bytes.map_err(|error| SourceError::io(shard.shown.as_str(), error))?;
        hashers[own.of(document)].update(&tokens.to_le_bytes()).update(&bytes);
        begin = *end;
    }
    let mut hashes = hashers.iter().map(|h| *h.finalize().as_bytes());
    match own.contents.iter().all(|content| hashes.next() == Some(*content)) {
        true => Ok(()),
        false => Err(shard.format("is damaged: its ids have another hash; remove it to make it again")),
    }
}

/// Head, ends and groups of documents.
fn parse(tables: &[u8]) -> Option<(Head, Vec<u64>, Vec<u32>)> {
    let (len, rest) = tables.split_first_chunk::<8>()?;
    let (head, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let head = Head::decode(head).ok()?;
    let documents = usize::try_from(head.documents).ok()?;
    let (ends, of) = rest.split_at_checked(documents.checked_mul(8)?)?;
    let ends: Vec<u64> = ends.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
    let of: Vec<u32> = of.as_chunks::<4>().0.iter().map(|group| u32::from_le_bytes(*group)).collect();
    (of.len() == documents).then_some((head, ends, of))
}

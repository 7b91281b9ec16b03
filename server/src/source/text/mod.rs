//! Files of text, tokenised once to a cache that is served as a token file.

mod read;
#[cfg(test)]
mod tests;
mod tokenizer;

use super::{
    SourceError,
    declare::{GroupBy, Rules, Verify},
    shard::{Shard, find},
    tokens::{
        Tokens, by_file,
        cache::{self, Writer},
    },
    walk::{Stamp, Tally},
};
use rayon::prelude::*;
use read::Text;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokenizer::Tokenizer;

/// Bytes of text that are tokenised at once, over all threads.
const RUN: usize = 8 << 20;
/// Documents that are tokenised at once, over all threads.
const RUN_DOCUMENTS: usize = 1 << 16;

/// Finds the texts; tokenises them unless a cache of the same texts and options is there.
pub(super) fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Tokens, SourceError> {
    let (mut shards, mut notes) = find(rules, &[""], progress)?;
    shards.retain(|shard| !shard.name.contains(cache::EXTENSION));
    if shards.is_empty() {
        return Err(rules.misfit(format!("path `{}` holds no text", rules.declared.path)));
    }
    let tokenizer = Tokenizer::open(rules)?;
    let groups = groups(rules, &shards)?;
    let fit = fit(rules, &shards, &groups, &tokenizer);
    let place = place(rules);
    let kept = kept(&place, fit);
    if let Kept::Stale(why) = &kept {
        notes.push(format!("the token cache {} was made again: {why}", place.display()));
    }
    let shard = match kept {
        Kept::Fits(shard) => shard,
        Kept::Stale(_) | Kept::None => {
            make(rules, &shards, &groups, &tokenizer, &place, fit, progress)?;
            cached(&place)?
        }
    };
    let (head, mut layout) = shard.guarded(|| cache::layout(&shard))?;
    notes.extend(head.notes);
    layout.vocabulary = Some(tokenizer.vocabulary);
    if let Some(own) = &mut layout.own {
        own.decided = true;
    }
    if rules.declared.verify == Verify::Content {
        cache::verify(&shard, &layout)?;
    }
    Tokens::new(rules, "text", vec![shard], vec![layout], notes)
}

/// Group of each file; empty when a column tells.
fn groups(rules: &Rules<'_>, shards: &[Shard]) -> Result<Vec<String>, SourceError> {
    if rules.groups == GroupBy::Column {
        return Ok(Vec::new());
    }
    let mut groups = vec![String::new(); shards.len()];
    for (name, files) in by_file(rules, shards)? {
        files.into_iter().for_each(|file| groups[file as usize].clone_from(&name));
    }
    Ok(groups)
}

/// Hash of everything that the ids depend on: names, sizes and times of the files, tokenizer, options.
fn fit(rules: &Rules<'_>, shards: &[Shard], groups: &[String], tokenizer: &Tokenizer) -> [u8; 32] {
    let d = rules.declared;
    let documents = d.documents.unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&tokenizer.identity);
    text(&format!("{documents:?} {:?} {:?} {:?}", d.eod, d.text_column, d.group_column));
    for (number, shard) in shards.iter().enumerate() {
        text(&shard.name);
        text(&format!("{} {}", shard.stamp.size, shard.stamp.mtime_ns));
        text(groups.get(number).map_or("", String::as_str));
    }
    *hasher.finalize().as_bytes()
}

/// Where the cache of a source lies: the same place on every machine that declares it the same.
fn place(rules: &Rules<'_>) -> PathBuf {
    let d = rules.declared;
    let folder = rules.path(d.cache.as_deref().unwrap_or("mixfeed-cache"));
    let key = format!("{}\n{}", d.path, d.tokenizer.as_deref().unwrap_or_default());
    let key = blake3::hash(key.as_bytes()).to_hex();
    folder.join(format!("{}-{}{}", rules.name, &key[..16], cache::EXTENSION))
}

/// A cache as it is found.
enum Kept {
    None,
    Stale(&'static str),
    Fits(Shard),
}

fn cached(place: &Path) -> Result<Shard, SourceError> {
    let shown = place.display().to_string();
    let metadata = fs::metadata(place).map_err(|error| SourceError::io(shown.as_str(), error))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Shard { name, shown, path: place.to_owned(), stamp: Stamp::of(&metadata), object: None })
}

fn kept(place: &Path, fit: [u8; 32]) -> Kept {
    let Ok(shard) = cached(place) else { return Kept::None };
    match cache::layout(&shard) {
        Ok((head, _)) if head.fit == fit => Kept::Fits(shard),
        Ok(_) => Kept::Stale("files, tokenizer or options are other ones"),
        Err(_) => Kept::Stale("it was damaged"),
    }
}

/// Tokenises all files in order. The result depends on no thread: ids of a document depend on that document alone.
fn make(
    rules: &Rules<'_>,
    shards: &[Shard],
    groups: &[String],
    tokenizer: &Tokenizer,
    place: &Path,
    fit: [u8; 32],
    progress: &dyn Fn(u64, &str),
) -> Result<(), SourceError> {
    let shown = place.display().to_string();
    let io = |error| SourceError::io(format!("{shown} (`cache` names another folder)"), error);
    let writer = Writer::new(place, tokenizer.width, tokenizer.vocabulary).map_err(io)?;
    let mut run = Run {
        tokenizer,
        eod: rules.declared.eod,
        shards,
        writer,
        texts: Vec::new(),
        bytes: 0,
        place: &shown,
    };
    let mut silent = Tally::default();
    for (number, shard) in shards.iter().enumerate() {
        let before = run.documents();
        progress(before, &shard.shown);
        shard.guarded(|| {
            read::documents(rules, shard, &mut |text| {
                let group = text.group.clone().or_else(|| groups.get(number).cloned()).unwrap_or_default();
                if run.add(number, group, text)? {
                    progress(run.documents(), &shard.shown);
                }
                Ok(())
            })
        })?;
        if run.documents() == before {
            silent.add(&shard.name);
        }
    }
    run.flush()?;
    let notes = silent.note("file has no document", "files have no documents").into_iter().collect();
    if run.writer.documents() == 0 {
        return Err(rules.misfit(format!("path `{}` holds no text that is not empty", rules.declared.path)));
    }
    run.writer.finish(place, fit, notes).map_err(io)
}

/// Documents that wait to be tokenised together.
struct Run<'a> {
    tokenizer: &'a Tokenizer,
    eod: Option<u32>,
    shards: &'a [Shard],
    writer: Writer,
    /// File, group and text of each.
    texts: Vec<(usize, String, Text)>,
    bytes: usize,
    place: &'a str,
}

impl Run<'_> {
    fn documents(&self) -> u64 {
        self.writer.documents() + self.texts.len() as u64
    }

    /// Adds a document; returns whether this tokenised those that waited.
    fn add(&mut self, file: usize, group: String, text: Text) -> Result<bool, SourceError> {
        self.bytes += text.bytes.len();
        self.texts.push((file, group, text));
        let full = self.bytes >= RUN || self.texts.len() >= RUN_DOCUMENTS;
        if full {
            self.flush()?;
        }
        Ok(full)
    }

    fn flush(&mut self) -> Result<(), SourceError> {
        let (tokenizer, eod) = (self.tokenizer, self.eod);
        let encode = |(file, group, text): (usize, String, Text)| {
            let ids = tokenizer.encode(&text.bytes).map(|mut ids| {
                ids.extend(eod);
                ids
            });
            (file, group, ids)
        };
        self.bytes = 0;
        let first = self.writer.documents();
        let encoded: Vec<_> = std::mem::take(&mut self.texts).into_par_iter().map(encode).collect();
        for (number, (file, group, ids)) in encoded.into_iter().enumerate() {
            let wrong = |why| self.shards[file].format(format!("document {} {why}", first + number as u64));
            let ids = ids.map_err(wrong)?;
            self.writer.add(&group, &ids).map_err(|error| SourceError::io(self.place, error))?;
        }
        Ok(())
    }
}

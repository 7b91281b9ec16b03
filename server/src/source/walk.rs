//! Files below a folder, in an order that depends on names only.

use super::{SourceError, keep};
use std::{
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Folders inside folders that are followed.
const MAX_DEPTH: usize = 64;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of its bytes, in nanoseconds since 1970.
    pub mtime_ns: i64,
    inode: u64,
}

impl Stamp {
    /// The state of a file now.
    pub fn of(metadata: &Metadata) -> Stamp {
        let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Stamp { size: metadata.len(), mtime_ns, inode: metadata.ino() }
    }

    /// That of an object, whose changes are noticed otherwise.
    pub fn sized(size: u64) -> Stamp {
        Stamp { size, mtime_ns: 0, inode: 0 }
    }

    /// How `now` differs from this, if it does.
    pub fn differs(&self, now: &Stamp) -> Option<String> {
        if now.size != self.size {
            Some(format!("it has {} bytes, had {}", now.size, self.size))
        } else if now.inode != self.inode {
            Some("it was replaced by another file".into())
        } else if now.mtime_ns != self.mtime_ns {
            Some("it was written to".into())
        } else {
            None
        }
    }
}

/// A file that was wanted.
#[derive(Debug)]
pub(super) struct Found {
    /// Path below the root, with `/`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its state.
    pub stamp: Stamp,
}

/// All bytes of a file that is still what was indexed.
pub(super) fn whole(path: &Path, shown: &str, indexed: &Stamp) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::with_capacity(indexed.size as usize + 1); // one more, to meet the end without growing
    append(path, shown, indexed, &mut bytes)?;
    Ok(bytes)
}

/// Adds all bytes of a file that is still what was indexed to `bytes`.
pub(super) fn append(
    path: &Path,
    shown: &str,
    indexed: &Stamp,
    bytes: &mut Vec<u8>,
) -> Result<(), SourceError> {
    let io = |error| SourceError::io(shown, error);
    // Opening a pipe would wait for a writer, with one of the readers that every source shares.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(SourceError::changed(shown, "it is no file any more"));
    }
    let file = File::open(path).map_err(io)?;
    let differs = |file: &File| Ok(indexed.differs(&Stamp::of(&file.metadata().map_err(io)?)));
    if let Some(what) = differs(&file)? {
        return Err(SourceError::changed(shown, what));
    }
    let read = (&file).take(indexed.size + 1).read_to_end(bytes).map_err(io)?;
    // Once more: it may have been written to while it was read.
    if let Some(what) = differs(&file)? {
        return Err(SourceError::changed(shown, what));
    }
    if read as u64 != indexed.size {
        let why = format!("{read} bytes were read, it had {}", indexed.size);
        return Err(SourceError::changed(shown, why));
    }
    Ok(())
}

/// Names of one sort: how many, and the first few.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: u64,
    first: Vec<String>,
}

impl Tally {
    /// Counts `name`.
    pub fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < 3 {
            self.first.push(name.into());
        }
    }

    /// "3 `many`: a, b, c"; nothing when nothing was counted.
    pub fn note(&self, one: &str, many: &str) -> Option<String> {
        let more = if self.count > self.first.len() as u64 { ", ..." } else { "" };
        let what = if self.count == 1 { one } else { many };
        (self.count > 0).then(|| format!("{} {what}: {}{more}", self.count, self.first.join(", ")))
    }
}

/// What is below a folder.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Wanted files by name.
    pub files: Vec<Found>,
    /// Folders by name.
    pub folders: Vec<String>,
    /// Other files.
    pub others: Tally,
    hidden: Tally,
    loops: Tally,
}

impl Walk {
    /// Notes on what was left out, but for other files.
    pub fn notes(&self) -> Vec<String> {
        let hidden = self.hidden.note("hidden entry is left out", "hidden entries are left out");
        let loops =
            self.loops.note("link leads back to a folder above it", "links lead back to folders above them");
        hidden.into_iter().chain(loops).collect()
    }
}

/// How to walk.
pub(super) struct Want<'a> {
    /// Name of the root in errors.
    pub shown: &'a str,
    /// Levels to enter; the root's own files are level 1.
    pub depth: usize,
    /// Files that are wanted, by name below the root.
    pub file: &'a dyn Fn(&str) -> bool,
    /// Hears the number of files found so far and the folder being read.
    pub progress: &'a dyn Fn(u64, &str),
}

/// All files below `root` that are wanted. Links are followed, but not back to a folder that holds them.
pub(super) fn walk(root: &Path, want: &Want<'_>) -> Result<Walk, SourceError> {
    let mut walk = Walk::default();
    enter(root, "", want, &mut Vec::new(), &mut walk)?;
    walk.files.sort_by(|a, b| a.name.cmp(&b.name));
    walk.folders.sort();
    Ok(walk)
}

fn enter(
    folder: &Path,
    prefix: &str,
    want: &Want<'_>,
    above: &mut Vec<(u64, u64)>,
    out: &mut Walk,
) -> Result<(), SourceError> {
    let shown = format!("{}/{}", want.shown, prefix.trim_end_matches('/'));
    let io = |error| SourceError::io(shown.trim_end_matches('/'), error);
    let metadata = fs::metadata(folder).map_err(io)?;
    let identity = (metadata.dev(), metadata.ino());
    if above.contains(&identity) {
        out.loops.add(prefix.trim_end_matches('/'));
        return Ok(());
    }
    if above.len() >= MAX_DEPTH {
        return Err(SourceError::format(shown, format!("is more than {MAX_DEPTH} folders deep")));
    }
    (want.progress)(out.files.len() as u64, &shown);
    let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(io)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    if !prefix.is_empty() {
        out.folders.push(prefix.trim_end_matches('/').into());
    }
    above.push(identity);
    for entry in entries {
        let Ok(own) = entry.file_name().into_string() else {
            let own = entry.file_name().to_string_lossy().into_owned();
            return Err(SourceError::format(format!("{shown}/{own}"), "has a name that is no UTF-8"));
        };
        let name = format!("{prefix}{own}");
        if own.starts_with('.') {
            out.hidden.add(&name);
            continue;
        }
        visit(&entry, name, want, above, out)?;
    }
    above.pop();
    Ok(())
}

fn visit(
    entry: &fs::DirEntry,
    name: String,
    want: &Want<'_>,
    above: &mut Vec<(u64, u64)>,
    out: &mut Walk,
) -> Result<(), SourceError> {
    let io = |error| SourceError::io(format!("{}/{name}", want.shown), error);
    let path = entry.path();
    let own = entry.file_type().map_err(io)?;
    if name.ends_with(keep::EXTENSION) {
        return Ok(()); // our own
    }
    if own.is_file() && !(want.file)(&name) {
        out.others.add(&name);
        return Ok(());
    }
    let metadata = if own.is_dir() { entry.metadata() } else { fs::metadata(&path) }.map_err(io)?;
    if metadata.is_dir() {
        if above.len() < want.depth {
            enter(&path, &format!("{name}/"), want, above, out)?;
        }
    } else if metadata.is_file() && (want.file)(&name) {
        out.files.push(Found { name, path, stamp: Stamp::of(&metadata) });
    } else {
        out.others.add(&name); // also pipes and devices, whatever their names: reading one may never end
    }
    Ok(())
}

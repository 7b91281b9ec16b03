//! Shard files: finding them, keeping some open, noticing when one changes.

use super::{
    SourceError,
    declare::Rules,
    keep::ShardIndex,
    lru::Lru,
    remote::{self, Ahead, Object},
    walk::{Found, Stamp, Walk, Want, walk},
};
use bytes::Bytes;
use globset::GlobBuilder;
use parquet::file::reader::{ChunkReader, Length};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

/// Files kept open by one source.
const OPEN_FILES: u64 = 256;

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    /// Name in the source: path below the folder, or below the part of the glob without wildcards.
    pub name: String,
    /// Name in errors, as the operator would write it.
    pub shown: String,
    /// Where it is; a URL when it is an object.
    pub path: PathBuf,
    /// State when it was indexed; of an object only its size.
    pub stamp: Stamp,
    /// The object that it is.
    pub object: Option<Arc<Object>>,
}

impl Shard {
    /// Opens it, if it is still what was indexed.
    pub fn open(&self) -> Result<Positional, SourceError> {
        if let Some(object) = &self.object {
            let bytes = Bytestore::Object(Arc::new(Ahead::new(object.clone())));
            return Ok(Positional { bytes, len: self.stamp.size, position: 0 });
        }
        let io = |error| SourceError::io(self.shown.as_str(), error);
        self.check()?; // opening a pipe in its place would wait for a writer
        let file = File::open(&self.path).map_err(io)?;
        self.compare(&Stamp::of(&file.metadata().map_err(io)?))?;
        Ok(Positional { bytes: Bytestore::File(Arc::new(file)), len: self.stamp.size, position: 0 })
    }

    /// Fails when the file at its path is no longer what was indexed. Objects are asked with every read.
    pub fn check(&self) -> Result<(), SourceError> {
        if self.object.is_some() {
            return Ok(());
        }
        let metadata =
            fs::metadata(&self.path).map_err(|error| SourceError::io(self.shown.as_str(), error))?;
        self.compare(&Stamp::of(&metadata))
    }

    /// Runs `read`, and fails with `Changed` when the shard changed before or meanwhile, whatever `read` says.
    /// Of an object, the error is that of the last read of it that failed in `read`, on this thread.
    pub fn guarded<T>(&self, read: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
        if self.object.is_some() {
            let _ = Object::failure(); // of another read, which nobody asked for
            let got = read();
            // Readers of formats take any failed read for damage.
            return match (got, Object::failure()) {
                (Err(_), Some(failure)) => Err(failure),
                (got, _) => got,
            };
        }
        let got = read();
        self.check()?;
        got
    }

    /// An error about what is in it.
    pub fn format(&self, why: impl Into<String>) -> SourceError {
        SourceError::format(self.shown.as_str(), why)
    }

    fn compare(&self, now: &Stamp) -> Result<(), SourceError> {
        self.stamp.differs(now).map_or(Ok(()), |what| Err(SourceError::changed(self.shown.as_str(), what)))
    }
}

/// The shards of a source by name, and notes on what else is there.
pub(super) fn find(
    rules: &Rules<'_>,
    extensions: &[&str],
    progress: &dyn Fn(u64, &str),
) -> Result<(Vec<Shard>, Vec<String>), SourceError> {
    let declared = rules.declared.path.trim_end_matches('/');
    if remote::is_url(declared) {
        return find_objects(rules, extensions, progress);
    }
    let path = rules.path(declared);
    let (found, shown, notes) = if path.is_file() {
        let metadata = fs::metadata(&path).map_err(|error| SourceError::io(declared, error))?;
        let (folder, name) =
            declared.rsplit_once('/').map_or(("", declared), |(folder, name)| (folder, name));
        (vec![Found { name: name.into(), path, stamp: Stamp::of(&metadata) }], folder, Vec::new())
    } else if path.is_dir() {
        let wanted = |name: &str| extensions.iter().any(|extension| name.ends_with(extension));
        let quiet = |_, what: &str| progress(0, what);
        let found =
            walk(&path, &Want { shown: declared, depth: usize::MAX, file: &wanted, progress: &quiet })?;
        let others = found.others.note("file is no shard", "files are no shards");
        let notes = others.into_iter().chain(found.notes()).collect();
        (found.files, declared, notes)
    } else {
        let (found, folder) = glob(rules, declared)?;
        (found.files, folder, Vec::new())
    };
    if found.is_empty() {
        let what = if extensions == [""] { "texts".into() } else { format!("`{}` shards", extensions[0]) };
        return Err(rules.misfit(format!("path `{declared}` matches no file, want {what}")));
    }
    let shard = |found: Found| {
        let shown = if shown.is_empty() { found.name.clone() } else { format!("{shown}/{}", found.name) };
        Shard { name: found.name, shown, path: found.path, stamp: found.stamp, object: None }
    };
    Ok((found.into_iter().map(shard).collect(), notes))
}

/// As [`find`] in a store.
fn find_objects(
    rules: &Rules<'_>,
    extensions: &[&str],
    progress: &dyn Fn(u64, &str),
) -> Result<(Vec<Shard>, Vec<String>), SourceError> {
    let wanted = |name: &str| extensions.iter().any(|extension| name.ends_with(extension));
    let found = remote::list(rules, &wanted, progress)?;
    let others = found.others.note("object is no shard", "objects are no shards");
    let notes = others.into_iter().chain(found.notes()).collect();
    let shard = |(name, object): (String, Arc<Object>)| Shard {
        name,
        shown: object.shown.clone(),
        path: object.shown.as_str().into(),
        stamp: Stamp::sized(object.size()),
        object: Some(object),
    };
    Ok((found.objects.into_iter().map(shard).collect(), notes))
}

/// Files that match the glob `declared`, and the part of it that has no wildcard.
fn glob<'a>(rules: &Rules<'_>, declared: &'a str) -> Result<(Walk, &'a str), SourceError> {
    let Some(wild) = declared.find(['*', '?', '[', '{']) else {
        return Err(
            rules.misfit(format!("path `{declared}` does not exist, want a shard, a folder or a glob"))
        );
    };
    let cut = declared[..wild].rfind('/');
    let (folder, pattern) = cut.map_or(("", declared), |cut| (&declared[..cut.max(1)], &declared[cut + 1..]));
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob = glob.map_err(|error| rules.misfit(format!("path: {error}")))?.compile_matcher();
    let root = rules.path(folder);
    if !root.is_dir() {
        return Err(rules.misfit(format!("path `{declared}`: `{folder}` is no folder, want one with shards")));
    }
    let depth = if pattern.contains("**") { usize::MAX } else { pattern.split('/').count() };
    let wanted = |name: &str| glob.is_match(name);
    let shown = if folder.is_empty() { "." } else { folder };
    Ok((walk(&root, &Want { shown, depth, file: &wanted, progress: &|_, _| {} })?, folder))
}

/// Objects that are indexed at the same time: mostly, each waits for an answer.
const TOGETHER: usize = 16;

/// Makes an index of each of `shards` by `make` and hands them to `each` in their order. Files one after the other,
/// objects several at a time.
pub(super) fn indexed(
    shards: &[Shard],
    make: &(dyn Fn(&Shard) -> Result<ShardIndex, SourceError> + Sync),
    mut each: impl FnMut(usize, &Shard, ShardIndex) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    if shards.iter().all(|shard| shard.object.is_none()) {
        return shards.iter().enumerate().try_for_each(|(number, shard)| each(number, shard, make(shard)?));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // A bound, so that a slow first one does not have all others wait in memory.
        let (tell, hear) = mpsc::sync_channel(TOGETHER);
        for _ in 0..TOGETHER.min(shards.len()) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                while let Some((number, shard)) =
                    Some(next.fetch_add(1, Relaxed)).and_then(|n| Some((n, shards.get(n)?)))
                {
                    if tell.send((number, make(shard))).is_err() {
                        break; // another one failed
                    }
                }
            });
        }
        drop(tell);
        let (mut early, mut due) = (BTreeMap::new(), 0);
        for (number, index) in hear {
            early.insert(number, index?);
            while let Some(index) = early.remove(&due) {
                each(due, &shards[due], index)?;
                due += 1;
            }
        }
        Ok(())
    })
}

/// The shards of a source, some of them open.
#[derive(Debug)]
pub(super) struct Shards<T> {
    /// By name.
    pub shards: Vec<Shard>,
    open: Lru<T>,
}

impl<T> Shards<T> {
    /// Keeps at most [`OPEN_FILES`] of `shards` open.
    pub fn new(shards: Vec<Shard>) -> Shards<T> {
        Shards { shards, open: Lru::new(OPEN_FILES) }
    }

    /// Shard `number`, open; `make` prepares it.
    pub fn get(
        &self,
        number: u32,
        make: impl FnOnce(&Shard, Positional) -> Result<T, SourceError>,
    ) -> Result<Arc<T>, SourceError> {
        let shard = &self.shards[number as usize];
        self.open.get(number, || Ok((make(shard, shard.open()?)?, 1)))
    }
}

/// Where bytes are.
#[derive(Clone, Debug)]
enum Bytestore {
    File(Arc<File>),
    Object(Arc<Ahead>),
}

/// A file or an object read by position, so that threads that share it don't move each other.
#[derive(Clone, Debug)]
pub(super) struct Positional {
    bytes: Bytestore,
    len: u64,
    position: u64,
}

impl Positional {
    /// `size` bytes from `offset`; fails before it allocates when they are not all there.
    pub fn range(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        if offset.checked_add(size).is_none_or(|end| end > self.len) {
            let why = format!("bytes {offset}..{offset}+{size} of a file of {}", self.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        match &self.bytes {
            Bytestore::File(file) => {
                let mut bytes = vec![0; size as usize];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            }
            Bytestore::Object(object) => Ok(object.range(offset, size)?.into()),
        }
    }

    /// Fills `into` from `offset`; fails when the file ends before.
    pub fn fill(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.bytes {
            Bytestore::File(file) => file.read_exact_at(into, offset),
            Bytestore::Object(object) => {
                into.copy_from_slice(&object.range(offset, into.len() as u64)?);
                Ok(())
            }
        }
    }

    /// The file itself, when it is one.
    pub fn file(&self) -> Option<&File> {
        match &self.bytes {
            Bytestore::File(file) => Some(file),
            Bytestore::Object(_) => None,
        }
    }

    /// Bytes of the file when it was opened.
    pub fn size(&self) -> u64 {
        self.len
    }
}

impl Read for Positional {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &self.bytes {
            Bytestore::File(file) => file.read_at(into, self.position)?,
            Bytestore::Object(object) => object.read(into, self.position)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Positional {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Length for Positional {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Positional {
    type T = io::BufReader<Positional>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(io::BufReader::with_capacity(4096, Positional { position: start, ..self.clone() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        Ok(self.range(start, length as u64)?.into())
    }
}

/// Name of `path` for a file that stands for it elsewhere: its own name and a hash of the whole path.
pub(super) fn alias(path: &Path) -> String {
    let hash = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{}", &hash[..16])
}

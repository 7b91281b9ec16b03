//! Records kept on disk: a folder of files, one a record, that never holds more than its limit.
//!
//! An entry is `MAGIC`, its key, a CRC-32C of the bytes, and the bytes. It is written under another name and moved into
//! place. One process at a time, the one that holds the folder's lock, writes and drops entries; others read, and take
//! over when the lock is free. What a process left when it was killed is met again: entries are used, halves dropped.

#[cfg(test)]
mod tests;

use crate::metrics::{self, CacheResult};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Semaphore;

const MAGIC: &[u8; 8] = b"mixrec01";
const HEAD: usize = 8 + 32 + 4;
/// What files take on disk is a multiple of this.
const BLOCK: u64 = 4096;
/// Bytes that wait to be written, in KiB; records beyond it are not kept.
const WRITING_KIB: usize = 64 << 10;
/// Records that wait to be written; each may hold a thread. Records beyond them are not kept.
const WRITING: usize = 64;
/// Between two attempts to take over a folder.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// An entry's time is renewed when it is used after this long, so that a restart knows what was used last.
const RENEW: Duration = Duration::from_secs(600);

/// Names an entry: a hash of object, its state, and range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// `length` bytes from `from` of the object in `state`.
    pub fn new(state: &str, from: u64, length: u64) -> Key {
        Key(*blake3::hash(format!("{state}\n{from} {length}").as_bytes()).as_bytes())
    }

    fn path(&self, folder: &Path) -> PathBuf {
        let name = blake3::Hash::from_bytes(self.0).to_hex();
        folder.join(&name[..2]).join(&name[2..])
    }

    fn of(path: &Path) -> Option<Key> {
        let name = path.file_name()?.to_str()?;
        let folder = path.parent()?.file_name()?.to_str()?;
        blake3::Hash::from_hex(format!("{folder}{name}")).ok().map(|hash| Key(*hash.as_bytes()))
    }
}

/// A folder of entries.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
    ours: Mutex<Ours>,
    writing: Arc<Semaphore>,
}

/// What the process that holds the lock knows.
#[derive(Debug, Default)]
struct Ours {
    lock: Option<File>,
    tried: Option<Instant>,
    held: HashMap<Key, Held>,
    oldest: BTreeMap<u64, Key>,
    clock: u64,
    bytes: u64,
    parts: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    used: u64,
}

impl Cache {
    /// The cache in `folder`, made when it is missing, of at most `limit` bytes; sources that name it share it.
    pub fn open(folder: &Path, limit: u64) -> Result<Arc<Cache>, String> {
        static OPEN: Mutex<BTreeMap<PathBuf, Weak<Cache>>> = Mutex::new(BTreeMap::new());
        let io = |error: io::Error| format!("cannot be used: {error}");
        fs::create_dir_all(folder).map_err(io)?;
        let folder = folder.canonicalize().map_err(io)?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = open.get(&folder).and_then(Weak::upgrade) {
            return match cache.limit == limit {
                true => Ok(cache),
                false => Err(format!("is given with two limits, {} and {limit} bytes", cache.limit)),
            };
        }
        let writing = Arc::new(Semaphore::new(WRITING_KIB));
        let cache = Cache { folder: folder.clone(), limit, ours: Mutex::default(), writing };
        cache.owned(&mut cache.ours()).map_err(io)?;
        metrics::cache_limit(limit as f64);
        let cache = Arc::new(cache);
        open.insert(folder, Arc::downgrade(&cache));
        Ok(cache)
    }

    fn ours(&self) -> std::sync::MutexGuard<'_, Ours> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `length` bytes of `key`, when they are there and whole; blocks.
    pub fn get(&self, key: &Key, length: u64) -> Option<Bytes> {
        let path = key.path(&self.folder);
        let result = match self.load(&path, key, length) {
            Ok(bytes) => {
                self.ours().used(key);
                metrics::cached(CacheResult::Hit);
                return Some(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut ours = self.ours();
                // Entries come under the lock, so one that is not there now was taken away.
                if ours.held.contains_key(key) && !path.exists() {
                    ours.forget(key);
                }
                CacheResult::Miss
            }
            Err(error) if !is_damage(&error) => {
                tracing::warn!("cannot read an entry of the cache of records: {}: {error}", path.display());
                CacheResult::Miss
            }
            Err(error) => {
                tracing::warn!("dropped an entry of the cache of records: {}: {error}", path.display());
                let mut ours = self.ours();
                if fs::remove_file(&path).is_ok() {
                    ours.forget(key);
                }
                CacheResult::Corrupt
            }
        };
        metrics::cached(result);
        None
    }

    fn load(&self, path: &Path, key: &Key, length: u64) -> io::Result<Bytes> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let damaged = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if metadata.len() != length + HEAD as u64 {
            return damaged("it has another length");
        }
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        if head != head_of(key, &bytes) {
            return damaged("its checksum is wrong");
        }
        let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > RENEW) {
            let _ = file.set_modified(SystemTime::now()); // only the order of a restart depends on it
        }
        Ok(bytes.into())
    }

    /// Writes an entry on a thread that may block, unless too many wait for that; nobody waits for it.
    pub fn put(cache: &Arc<Cache>, key: Key, bytes: Bytes) {
        let kib = bytes.len().div_ceil(1024).max(WRITING_KIB / WRITING) as u32;
        let Ok(permit) = cache.writing.clone().try_acquire_many_owned(kib) else { return };
        let cache = cache.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(error) = cache.write(&key, &bytes) {
                tracing::warn!("the cache of records cannot keep one: {error}");
            }
        });
    }

    /// Writes an entry, dropping the ones that were not used for longest; does nothing in a process without the lock.
    fn write(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        let size = (bytes.len() as u64 + HEAD as u64).next_multiple_of(BLOCK);
        let part = {
            let mut ours = self.ours();
            if size > self.limit || !self.owned(&mut ours)? || ours.held.contains_key(key) {
                return Ok(());
            }
            self.make_room(&mut ours, self.limit - size)?;
            // Counted before it is written: also what is half written fits.
            ours.grow(size);
            ours.parts += 1;
            self.folder.join(format!("{}.part", ours.parts))
        };
        let path = key.path(&self.folder);
        let written = File::create(&part).and_then(|mut file| {
            file.write_all(&head_of(key, bytes))?;
            file.write_all(bytes)
        });
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        // Under the lock: of two that write the same entry, one gives way.
        let mut ours = self.ours();
        let moved = written.and(folder).and_then(|()| match ours.held.contains_key(key) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::rename(&part, &path),
        });
        match moved {
            Ok(()) => {
                ours.insert(*key, size);
                Ok(())
            }
            Err(error) => {
                fs::remove_file(&part).or_else(gone)?; // as long as it is there, it counts
                ours.shrink(size);
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
            }
        }
    }

    fn make_room(&self, ours: &mut Ours, limit: u64) -> io::Result<()> {
        while ours.bytes > limit {
            let Some((_, key)) = ours.oldest.first_key_value() else {
                return Err(io::Error::other("entries that are being written fill it"));
            };
            let key = *key;
            fs::remove_file(key.path(&self.folder)).or_else(gone)?;
            ours.forget(&key);
        }
        Ok(())
    }

    /// Whether this process holds the lock; tries to take it, and then meets what is there.
    fn owned(&self, ours: &mut Ours) -> io::Result<bool> {
        if let Some(lock) = &ours.lock {
            if self.is_lock(lock)? {
                return Ok(true);
            }
            // Somebody removed it, and another process may hold a new one: what is there is no longer ours.
            let tried = ours.tried;
            ours.shrink(ours.bytes);
            *ours = Ours { tried, parts: ours.parts, ..Ours::default() };
        }
        if ours.tried.is_some_and(|tried| tried.elapsed() < TAKE_OVER) {
            return Ok(false);
        }
        ours.tried = Some(Instant::now());
        fs::create_dir_all(&self.folder)?;
        let lock = File::options().create(true).append(true).open(self.folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        self.meet(ours)?;
        ours.lock = Some(lock);
        Ok(true)
    }

    /// Whether `lock` is still the file that other processes would open.
    fn is_lock(&self, lock: &File) -> io::Result<bool> {
        let held = lock.metadata()?;
        match fs::metadata(self.folder.join("lock")) {
            Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
            Err(error) => gone(error).map(|()| false),
        }
    }

    /// Counts the entries that are there, oldest first, and drops what is half written or too much.
    fn meet(&self, ours: &mut Ours) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(&path).or_else(gone)?;
            } else if path.is_dir() {
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    let (key, metadata) = (Key::of(&entry.path()), entry.metadata()?);
                    found.extend(key.map(|key| (metadata.modified().ok(), key.0, metadata.len())));
                }
            }
        }
        found.sort_unstable();
        for (_, key, bytes) in found {
            let bytes = bytes.next_multiple_of(BLOCK);
            ours.grow(bytes);
            ours.insert(Key(key), bytes);
        }
        self.make_room(ours, self.limit)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let ours = self.ours.get_mut().unwrap_or_else(PoisonError::into_inner);
        ours.shrink(ours.bytes);
        metrics::cache_limit(-(self.limit as f64));
    }
}

impl Ours {
    fn used(&mut self, key: &Key) {
        if let Some(held) = self.held.get_mut(key) {
            self.oldest.remove(&held.used);
            self.clock += 1;
            held.used = self.clock;
            self.oldest.insert(self.clock, *key);
        }
    }

    /// Puts an entry, whose bytes are counted, into the order.
    fn insert(&mut self, key: Key, bytes: u64) {
        self.clock += 1;
        self.held.insert(key, Held { bytes, used: self.clock });
        self.oldest.insert(self.clock, key);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            self.oldest.remove(&held.used);
            self.shrink(held.bytes);
        }
    }

    fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
        metrics::cache_bytes(bytes as f64);
    }

    fn shrink(&mut self, bytes: u64) {
        self.bytes -= bytes;
        metrics::cache_bytes(-(bytes as f64));
    }
}

fn head_of(key: &Key, bytes: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..40].copy_from_slice(&key.0);
    head[40..].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    head
}

/// Whether `error` says that an entry is not what was written; a disk or a process may fail otherwise.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Removing what is not there is done.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

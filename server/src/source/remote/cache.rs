//! Records kept on disk: a folder of files, one a record, that never holds more than its limit.
//!
//! An entry is `MAGIC`, its key, a CRC-32C of the bytes, and the bytes. It is written under another name and moved into
//! place. One process at a time, the one that holds the folder's lock, writes and drops entries; others read, and take
//! over when the lock is free. What a process left when it was killed is met again: entries are used, halves dropped.

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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::new("s3://b/k 9 \"tag\"", n, 100)
    }

    fn on_disk(folder: &Path) -> u64 {
        let mut sum = 0;
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            sum += if path.is_dir() { on_disk(&path) } else { fs::metadata(&path).expect("there").len() };
        }
        sum
    }

    #[test]
    fn what_was_kept_is_found_until_others_drive_it_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 3 * BLOCK).expect("a cache");
        for n in 0..3 {
            cache.write(&key(n), &[n as u8; 100]).expect("room");
        }
        assert_eq!(cache.get(&key(0), 100).expect("kept"), [0; 100][..]);
        cache.write(&key(3), &[3; 100]).expect("room for it");
        assert!(cache.get(&key(1), 100).is_none(), "it was not used for longest");
        for n in [0, 2, 3] {
            assert_eq!(cache.get(&key(n), 100).expect("kept"), [n as u8; 100][..]);
        }
        cache.write(&key(4), &vec![4; 4 * BLOCK as usize]).expect("nothing happens");
        assert!(cache.get(&key(4), 4 * BLOCK).is_none(), "it is larger than the cache");
        assert!(on_disk(folder.path()) <= 3 * BLOCK);
    }

    #[test]
    fn damage_is_a_miss_and_leaves_no_entry() {
        type Damage = fn(&mut Vec<u8>);
        let damages: [Damage; 4] =
            [|b| b[HEAD + 50] ^= 1, |b| b.truncate(HEAD + 99), |b| b.clear(), |b| b[20] ^= 1];
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        for damage in damages {
            cache.write(&key(1), &[7; 100]).expect("room");
            let path = key(1).path(&cache.folder);
            let mut bytes = fs::read(&path).expect("an entry");
            damage(&mut bytes);
            fs::write(&path, bytes).expect("written");
            assert!(cache.get(&key(1), 100).is_none());
            assert!(!path.exists() && cache.ours().bytes == 0);
        }
        cache.write(&key(1), &[7; 100]).expect("room");
        assert_eq!(cache.get(&key(1), 100).expect("whole again"), [7; 100][..]);
    }

    #[test]
    fn what_was_taken_away_is_kept_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        cache.write(&key(1), &[7; 100]).expect("room");
        fs::remove_file(key(1).path(&cache.folder)).expect("was there");
        assert!(cache.get(&key(1), 100).is_none() && cache.ours().bytes == 0);
        cache.write(&key(1), &[7; 100]).expect("room");
        assert_eq!(cache.get(&key(1), 100).expect("kept again"), [7; 100][..]);
        // All of it, with the lock: another process may take the new one.
        fs::remove_dir_all(&cache.folder).expect("was there");
        cache.ours().tried = None;
        cache.write(&key(1), &[8; 100]).expect("room");
        assert_eq!(cache.get(&key(1), 100).expect("kept again"), [8; 100][..]);
        assert_eq!(cache.ours().bytes, BLOCK);
        let lock = cache.folder.join("lock");
        fs::remove_file(&lock).expect("was there");
        let other = File::create(&lock).expect("a lock");
        other.lock().expect("of another process");
        cache.ours().tried = None;
        cache.write(&key(2), &[9; 100]).expect("nothing happens");
        assert!(cache.get(&key(2), 100).is_none(), "another process writes");
    }

    #[test]
    fn what_cannot_be_read_is_a_miss_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        let path = key(1).path(&cache.folder);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(&path, &path).expect("a link to itself, which no one can open");
        assert!(cache.get(&key(1), 100).is_none());
        assert!(fs::symlink_metadata(&path).is_ok(), "no damage, so it is not dropped");
    }

    #[tokio::test]
    async fn few_records_wait_to_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        let busy = cache.ours();
        (0..200).for_each(|n| Cache::put(&cache, key(n), Bytes::from_static(&[1; 100])));
        drop(busy);
        let all = cache.writing.acquire_many(WRITING_KIB as u32).await.expect("all were written");
        assert_eq!(cache.ours().held.len(), WRITING);
        drop(all);
    }

    #[test]
    fn a_second_process_reads_and_takes_over_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Cache::open(folder.path(), 2 * BLOCK).expect("a cache");
        first.write(&key(1), &[1; 100]).expect("room");
        // As another process would: it is not found among the open ones of this one.
        let writing = Arc::new(Semaphore::new(1));
        let second = Cache { folder: first.folder.clone(), limit: BLOCK, ours: Mutex::default(), writing };
        assert_eq!(second.get(&key(1), 100).expect("kept by the first"), [1; 100][..]);
        second.write(&key(2), &[2; 100]).expect("nothing happens");
        assert!(second.get(&key(2), 100).is_none(), "the first one writes");
        first.write(&key(3), &[3; 100]).expect("room");
        fs::write(folder.path().join("7.part"), [0; 9000]).expect("half an entry of a killed process");
        drop(first);
        second.ours().tried = None;
        second.write(&key(2), &[2; 100]).expect("room");
        assert_eq!(second.get(&key(2), 100).expect("it writes now"), [2; 100][..]);
        assert!(on_disk(folder.path()) <= BLOCK, "its limit holds for what it met");
    }

    #[test]
    fn one_folder_has_one_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("a cache");
        assert!(Arc::ptr_eq(&cache, &Cache::open(folder.path(), 1 << 20).expect("the same")));
        assert!(Cache::open(folder.path(), 2 << 20).expect_err("another limit").contains("two limits"));
    }
}

//! What is kept, lost, damaged and shared.

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

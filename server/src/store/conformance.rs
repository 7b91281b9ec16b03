//! What every store must keep, and what a file must survive.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Tells the copy of this program that a test starts where its store is.
const CHILD: &str = "MIXFEED_TEST_STORE";
const FILE: &str = "mixfeed.redb";

fn records(n: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    n.map(|n| format!("record {n}").into_bytes()).collect()
}

/// What holds for any empty store; leaves some state in it.
fn conforms(store: &dyn Store) {
    assert_eq!((store.len("a").unwrap(), store.keys().unwrap()), (0, vec![]));
    assert_eq!(store.read("a", 0, 9).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(store.snapshot("a").unwrap(), None);
    store.forget("a").unwrap();
    // Appends in order, all or none.
    assert_eq!(store.append("a", 0, &records(0..3)).unwrap(), 3);
    assert_eq!(store.append("a", 3, &records(3..4)).unwrap(), 4);
    for stale in [0, 3, 5, u64::MAX] {
        let error = store.append("a", stale, &records(7..9)).unwrap_err();
        assert!(matches!(error, StoreError::Conflict { expected, found: 4 } if expected == stale), "{error}");
    }
    assert!(matches!(
        store.append("b", 1, &records(0..1)),
        Err(StoreError::Conflict { expected: 1, found: 0 })
    ));
    assert_eq!(store.append("b", 0, &[]).unwrap(), 0);
    assert_eq!(store.keys().unwrap(), ["a"], "an append of nothing makes no key");
    assert_eq!(store.read("a", 0, usize::MAX).unwrap(), records(0..4));
    assert_eq!(store.read("a", 1, 2).unwrap(), records(1..3));
    assert_eq!(store.read("a", 4, 1).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(store.read("a", u64::MAX, usize::MAX).unwrap(), Vec::<Vec<u8>>::new());
    // Snapshots beside records.
    store.put_snapshot("a", 2, b"two").unwrap();
    store.put_snapshot("a", 4, b"four").unwrap();
    store.put_snapshot("only a snapshot", 0, b"").unwrap();
    assert_eq!(store.snapshot("a").unwrap(), Some((4, b"four".to_vec())));
    assert_eq!(store.snapshot("only a snapshot").unwrap(), Some((0, vec![])));
    assert_eq!(store.len("only a snapshot").unwrap(), 0);
    // Any bytes, any size.
    let odd = "\0 \u{10ffff}/../ ".to_owned() + &"k".repeat(1 << 16);
    let (big, bytes) = (vec![0xff; 4 << 20], (0..=255).collect::<Vec<u8>>());
    assert_eq!(store.append(&odd, 0, &[vec![], big.clone(), bytes.clone()]).unwrap(), 3);
    assert_eq!(store.read(&odd, 0, 3).unwrap(), [vec![], big, bytes]);
    store.put_snapshot(&odd, 3, &vec![7; 4 << 20]).unwrap();
    assert_eq!(store.keys().unwrap(), [odd.as_str(), "a", "only a snapshot"]);
    // What is forgotten is gone, for its successor too; the others stay.
    store.forget(&odd).unwrap();
    assert_eq!((store.len(&odd).unwrap(), store.snapshot(&odd).unwrap()), (0, None));
    assert_eq!(store.append(&odd, 0, &records(5..6)).unwrap(), 1);
    assert_eq!(store.read(&odd, 0, 9).unwrap(), records(5..6));
    store.forget(&odd).unwrap();
    assert_eq!(store.keys().unwrap(), ["a", "only a snapshot"]);
    assert_eq!(store.read("a", 0, 9).unwrap(), records(0..4));
}

/// Writers that race for the same number: one wins each, none is lost.
fn races(store: &dyn Store) {
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                let mut mine = 0;
                while mine < 10 {
                    let at = store.len("race").unwrap();
                    match store.append("race", at, &[vec![thread, mine]]) {
                        Ok(now) => {
                            assert_eq!(now, at + 1);
                            mine += 1;
                        }
                        Err(StoreError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let all = store.read("race", 0, 100).unwrap();
    for thread in 0..4 {
        let own: Vec<u8> = all.iter().filter(|r| r[0] == thread).map(|r| r[1]).collect();
        assert!(own.into_iter().eq(0..10), "each writer's records in its order");
    }
    assert_eq!(all.len(), 40);
}

#[test]
fn memory_conforms() {
    let store = memory();
    conforms(&*store);
    races(&*store);
}

#[test]
fn a_flaky_store_conforms_between_its_failures() {
    let store = flaky::Flaky::new(memory());
    conforms(&store);
    races(&store);
    store.refuse(2);
    for _ in 0..2 {
        assert!(matches!(store.append("a", 4, &records(4..5)), Err(StoreError::Io { .. })));
    }
    assert_eq!(store.append("a", 4, &records(4..5)).unwrap(), 5);
    store.unsay(1);
    assert!(store.append("a", 5, &records(5..6)).is_err());
    store.blind(1);
    assert!(store.len("a").is_err());
    assert_eq!(store.len("a").unwrap(), 6, "it got there all the same");
}

#[test]
fn a_file_conforms_and_keeps_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/when/missing");
    let store = open(&path).unwrap();
    conforms(&*store);
    races(&*store);
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(store.keys().unwrap(), ["a", "only a snapshot", "race"]);
    assert_eq!(store.read("a", 0, 9).unwrap(), records(0..4));
    assert_eq!(store.snapshot("a").unwrap(), Some((4, b"four".to_vec())));
    assert_eq!(store.append("a", 4, &records(4..5)).unwrap(), 5);
}

/// Runs in a copy of this program: appends for ever and says what was acknowledged.
fn child(path: &str) {
    let store = open(Path::new(path)).unwrap();
    for n in store.len("log").unwrap().. {
        let record = vec![(n % 251) as u8; 100 + (n as usize * 97) % 5_000];
        store.append("log", n, &[record]).unwrap();
        println!("\nacknowledged {}", n + 1);
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if let Ok(path) = std::env::var(CHILD) {
        return child(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "store::conformance::a_killed_process_loses_nothing_that_it_acknowledged";
    let mut expected = 0;
    for round in 1..=4 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact", "--nocapture"]).env(CHILD, folder.path()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = || said.find_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        assert_eq!(next(), Some(expected + 1), "it goes on where the last one was killed");
        assert!(matches!(open(folder.path()), Err(StoreError::InUse { .. })), "a second process is refused");
        for _ in 0..round * 7 {
            next().unwrap();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        let acknowledged = std::iter::from_fn(next).last().unwrap_or(0).max(expected + 1 + round * 7);
        let store = open(folder.path()).unwrap();
        let held = store.len("log").unwrap();
        assert!(held == acknowledged || held == acknowledged + 1, "{held} of {acknowledged}");
        for (n, record) in store.read("log", 0, usize::MAX).unwrap().into_iter().enumerate() {
            assert_eq!(record, vec![(n % 251) as u8; 100 + (n * 97) % 5_000]);
        }
        expected = held;
    }
}

/// A folder with a store of 60 records and a snapshot, and the bytes of its file.
fn filled() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for n in 0..20 {
        store.append("a", n * 3, &records(n * 3..n * 3 + 3)).unwrap();
    }
    store.put_snapshot("a", 60, &[9; 9_000]).unwrap();
    drop(store);
    let bytes = fs::read(folder.path().join(FILE)).unwrap();
    (folder, bytes)
}

/// What a damaged file may do: be refused as damaged, or hold all that it held.
fn refused_or_whole(folder: &Path, what: &str) -> bool {
    match open(folder) {
        Ok(store) => {
            assert_eq!(store.read("a", 0, 99).unwrap(), records(0..60), "{what}");
            assert_eq!(store.snapshot("a").unwrap(), Some((60, vec![9; 9_000])), "{what}");
            false
        }
        Err(StoreError::Damaged { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_cut_file_is_damaged() {
    let (folder, bytes) = filled();
    for length in [0, 1, 63, 64, 320, 4_095, 4_096, 4_097, bytes.len() / 2, bytes.len() - 4_096] {
        fs::write(folder.path().join(FILE), &bytes[..length]).unwrap();
        assert!(refused_or_whole(folder.path(), &format!("{length} bytes left")) || length > 4_096);
    }
}

#[test]
fn a_file_of_something_else_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for content in [vec![0; 100_000], b"{\"jobs\": []}".to_vec(), vec![0xff; 5_000]] {
        fs::write(folder.path().join(FILE), content).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_flipped_byte_is_found_or_harmless() {
    let (folder, bytes) = filled();
    let mut found = 0;
    // The header byte by byte, pages at odd distances.
    let places = (0..320).chain((320..bytes.len()).step_by(1_021)).collect::<Vec<_>>();
    for at in &places {
        let mut other = bytes.clone();
        other[*at] ^= 0x55;
        fs::write(folder.path().join(FILE), other).unwrap();
        found += u32::from(refused_or_whole(folder.path(), &format!("byte {at} flipped")));
    }
    println!("{found} of {} flipped bytes refused, the others harmless", places.len());
    assert!(found > 0);
}

#[test]
fn what_is_no_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let error = open(&folder.path().join("file")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn an_append_is_cheap_enough_to_wait_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let started = Instant::now();
    for n in 0..100 {
        store.append("a", n, &[vec![1; 500]]).unwrap();
    }
    println!("a durable append of 500 bytes: {:?}", started.elapsed() / 100);
    let (size, started) = (fs::metadata(folder.path().join(FILE)).unwrap().len(), Instant::now());
    drop(store);
    let store = open(folder.path()).unwrap();
    println!("closing and opening its {size} bytes: {:?}", started.elapsed());
    assert_eq!(store.len("a").unwrap(), 100);
}

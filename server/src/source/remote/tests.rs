//! Stores that fail in every way that was thought of, and what readers and operators get of it.

mod declared;

use super::{
    faulty::{Fault, Faulty, until},
    store::Store,
};
use crate::size::Size;
use crate::source::{
    Declaration, GroupBy, Kind, Source, SourceError,
    conformance::{item, quiet, write_folder, write_members, write_parquet, write_tar},
    open,
};
use bytes::Bytes;
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

struct Stand {
    root: tempfile::TempDir,
    store: Faulty,
}

impl Stand {
    /// A tar shard of five records in bucket `b`.
    fn tar() -> Stand {
        let root = tempfile::tempdir().expect("a folder");
        let items: Vec<_> = ["v", "w", "x", "y", "z"]
            .iter()
            .zip(1u8..)
            .map(|(stem, n)| item("cat", stem, vec![n; 3000 * usize::from(n)]))
            .collect();
        write_tar(&root.path().join("data/s-0.tar"), &items);
        Stand { store: Faulty::start("b", root.path()), root }
    }

    fn declared(&self, path: &str) -> Declaration {
        let store = Store {
            endpoint: path.starts_with("s3:").then(|| self.store.endpoint.clone()),
            credentials: path.starts_with("s3:").then_some(super::Credentials::None),
            retries: Some(3),
            ..Store::default()
        };
        let path = path.replace("HTTP", &self.store.endpoint);
        Declaration { store: Some(store), ..Declaration::new(Kind::Tar, path) }
    }

    fn open(&self, declared: &Declaration) -> Result<Arc<dyn Source>, SourceError> {
        open("far", declared, self.root.path(), &quiet)
    }

    fn opened(&self) -> Arc<dyn Source> {
        let source = self.open(&self.declared("s3://b/data")).expect("a good source");
        self.store.asked();
        source
    }

    fn ranges(&self) -> usize {
        self.store.asked().iter().filter(|asked| asked.headers.contains_key("range")).count()
    }
}

fn want(n: u8) -> Vec<u8> {
    vec![n; 3000 * usize::from(n)]
}

fn fetched(source: &Arc<dyn Source>, numbers: &[u32]) -> Result<Vec<Bytes>, SourceError> {
    let fetching = source.fetch(numbers).expect("it is in a store");
    tokio::runtime::Builder::new_current_thread().build().expect("a thread").block_on(fetching)
}

#[test]
fn what_may_pass_is_tried_again_and_the_bytes_are_right() {
    let stand = Stand::tar();
    let source = stand.opened();
    for faults in [
        vec![Fault::Status(503, "SlowDown"), Fault::Status(500, "InternalError"), Fault::Status(429, "Slow")],
        vec![Fault::Truncated, Fault::Short, Fault::Endless],
        vec![Fault::OtherRange],
        vec![Fault::Status(403, "ExpiredToken")],
    ] {
        let tries = faults.len() + 1;
        stand.store.meet(faults.clone());
        assert_eq!(source.read(2).expect("after all"), want(3), "{faults:?}");
        assert_eq!(stand.ranges(), tries, "{faults:?}");
    }
}

#[test]
fn what_does_not_pass_is_an_error_that_says_what_and_where_and_no_secret() {
    let stand = Stand::tar();
    let source = stand.opened();
    let elsewhere = "http://127.0.0.1:1/x?sig=SECRET".to_owned();
    for (fault, tries, says) in [
        (Fault::Status(503, "SlowDown"), 4, "busy or broken (status 503 SlowDown), tried 4 times"),
        (Fault::Truncated, 4, "the connection broke"),
        (Fault::Short, 4, "only 4500 of 9000 bytes came"),
        (Fault::Endless, 4, "more than the 9000 bytes"),
        (Fault::OtherRange, 4, "Requested"),
        (Fault::Status(403, "AccessDenied"), 3, "access denied (status 403 AccessDenied), tried 3 times"),
        (Fault::Status(404, "NoSuchKey"), 1, "not found (status 404 NoSuchKey)"),
        (Fault::Status(400, "Bad"), 1, "refuses (status 400 Bad)"),
        (Fault::Redirect(elsewhere), 1, "the bucket is in region `eu-moon-1`"),
        (Fault::Whole, 4, ""),
    ] {
        stand.store.always(fault.clone());
        let error = source.read(2).expect_err("it never works");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{fault:?}: {error:?}");
        let text = error.to_string();
        let names = text.contains("source `far`: s3://b/data/s-0.tar, bytes ");
        assert!(names && text.contains(says) && !text.contains("SECRET"), "{fault:?}: {text}");
        assert_eq!(stand.ranges(), tries, "{fault:?}: {text}");
    }
    stand.store.meet([]);
    assert_eq!(source.read(2).expect("it works again"), want(3));
}

#[test]
fn another_state_is_told_as_such_and_not_tried_again() {
    let stand = Stand::tar();
    let source = stand.opened();
    for fault in
        [Fault::Status(412, "PreconditionFailed"), Fault::Status(416, "InvalidRange"), Fault::OtherTag]
    {
        stand.store.always(fault.clone());
        let error = source.read(2).expect_err("it changed");
        assert!(matches!(error, SourceError::Changed { .. }), "{fault:?}: {error}");
        assert_eq!(stand.ranges(), 1, "{fault:?}");
    }
}

#[test]
fn a_silent_store_is_given_up() {
    let stand = Stand::tar();
    let mut declared = stand.declared("s3://b/data");
    let store = declared.store.as_mut().expect("given");
    (store.timeout, store.retries) = (Some(1), Some(1));
    let source = stand.open(&declared).expect("a good source");
    stand.store.always(Fault::Silent);
    let error = source.read(0).expect_err("no answer").to_string();
    assert!(error.contains("no answer in time, tried 2 times"), "{error}");
}

#[test]
fn a_slow_store_is_waited_for_as_long_as_bytes_come() {
    let stand = Stand::tar();
    let mut declared = stand.declared("s3://b/data");
    let store = declared.store.as_mut().expect("given");
    (store.timeout, store.retries) = (Some(3), Some(0));
    let source = stand.open(&declared).expect("a good source");
    stand.store.always(Fault::Slow);
    assert_eq!(source.read(0).expect("after five seconds"), want(1));
}

#[test]
fn a_store_that_is_away_is_waited_for() {
    let stand = Stand::tar();
    let mut declared = stand.declared("s3://b/data");
    declared.store.as_mut().expect("given").retries = Some(1000); // however slow this machine is
    let source = stand.open(&declared).expect("a good source");
    stand.store.asked();
    stand.store.always(Fault::Status(503, "SlowDown"));
    let reading = std::thread::spawn({
        let source = source.clone();
        move || source.read(4)
    });
    let mut seen = 0;
    until("it is tried again", || {
        seen += stand.ranges();
        seen >= 2
    });
    stand.store.meet([]);
    assert_eq!(reading.join().expect("no panic").expect("it came back"), want(5));
}

#[test]
fn neighbours_come_in_one_request_and_in_the_order_that_is_asked_for() {
    let stand = Stand::tar();
    let source = stand.opened();
    let got = fetched(&source, &[3, 0, 4, 0]).expect("readable");
    assert_eq!(got, [want(4), want(1), want(5), want(1)]);
    assert_eq!(stand.ranges(), 1);
    stand.store.always(Fault::Status(404, "NoSuchKey"));
    assert!(matches!(fetched(&source, &[1, 2]), Err(SourceError::Unavailable { .. })));
    assert!(matches!(fetched(&source, &[1, 99]), Err(SourceError::Io { .. })), "there is no record 99");
}

#[test]
fn what_is_dropped_is_asked_for_no_more() {
    let stand = Stand::tar();
    let source = stand.opened();
    stand.store.always(Fault::Status(503, "SlowDown"));
    let fetching = source.fetch(&[1]).expect("it is in a store");
    until("it begins", || stand.ranges() > 0);
    drop(fetching);
    stand.store.meet([]);
    assert_eq!(source.read(1).expect("readable"), want(2));
    stand.store.asked();
    let end = Instant::now() + Duration::from_millis(400);
    until("time passes", || Instant::now() > end);
    assert_eq!(stand.ranges(), 0, "the dropped one would have come again");
}

#[test]
fn indexing_leaps_over_payloads_and_is_kept() {
    let root = tempfile::tempdir().expect("a folder");
    let (large, label) = (vec![5; 1 << 20], b"7".to_vec());
    let names: Vec<[String; 2]> = (0..8).map(|n| [format!("{n}.jpg"), format!("{n}.cls")]).collect();
    let members: Vec<(&str, &[u8])> = names
        .iter()
        .flat_map(|[jpg, cls]| [(jpg.as_str(), &large[..]), (cls.as_str(), &label[..])])
        .collect();
    write_members(&root.path().join("data/s.tar"), &members);
    let stand = Stand { store: Faulty::start("b", root.path()), root };
    let declared = stand.declared("s3://b/data/s.tar");
    let source = stand.open(&declared).expect("a good source");
    let ranges: Vec<u64> = stand
        .store
        .asked()
        .iter()
        .filter_map(|asked| {
            let range = asked.headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?.to_owned();
            let (from, to) = range.split_once('-')?;
            Some(to.parse::<u64>().ok()? - from.parse::<u64>().ok()? + 1)
        })
        .collect();
    assert!(ranges.len() <= 20 && ranges.iter().sum::<u64>() < 200 << 10, "{ranges:?} of 8 MiB");
    assert_eq!(source.index().classes[7], "7");

    let again = stand.open(&declared).expect("a good source");
    assert_eq!(stand.ranges(), 1, "its state is asked for, and the kept index is used");
    assert_eq!(again.index(), source.index());
    let mut other = members.clone();
    other.rotate_left(2);
    write_members(&stand.root.path().join("data/s.tar"), &other);
    let changed = stand.open(&declared).expect("a good source");
    assert!(stand.ranges() > 1, "another object is indexed anew");
    assert_ne!(changed.index(), source.index());
}

#[test]
fn a_failure_while_indexing_is_no_damage_of_the_shard() {
    let stand = Stand::tar();
    write_parquet(&stand.root.path().join("p/a.parquet"), &[item("c", "0", [1]), item("c", "1", [2])], 1);
    let parquet = Declaration { kind: Kind::Parquet, ..stand.declared("s3://b/p") };
    for declared in [stand.declared("s3://b/data"), parquet] {
        stand.store.always(Fault::Status(503, "SlowDown"));
        let error = stand.open(&declared).expect_err("nothing can be read");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");
        stand.store.meet([Fault::Status(503, "SlowDown"), Fault::Truncated]);
        stand.open(&declared).expect("it was tried again");
    }
}

#[test]
fn a_server_without_tags_is_pinned_by_time_and_one_with_neither_is_refused() {
    let stand = Stand::tar();
    stand.store.untagged();
    let source = stand.open(&stand.declared("HTTP/b/data/s-0.tar")).expect("a good source");
    assert_eq!(source.read(0).expect("readable"), want(1));
    let listed = stand.open(&stand.declared("s3://b/data")).expect("a good source");
    assert_eq!(listed.read(1).expect("a listing tells other times than reads"), want(2));
    let path = stand.root.path().join("data/s-0.tar");
    let later = std::time::SystemTime::now() + Duration::from_secs(100);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(later)).expect("can be");
    assert!(matches!(source.read(0), Err(SourceError::Changed { .. })));
    let beginning = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_modified(beginning))
        .expect("can be");
    let error = stand.open(&stand.declared("HTTP/b/data/s-0.tar")).expect_err("no state").to_string();
    assert!(error.contains("neither ETag nor Last-Modified"), "{error}");
}

#[test]
fn web_redirects_are_followed_and_ranges_are_wanted() {
    let stand = Stand::tar();
    let source = stand.open(&stand.declared("HTTP/b/data/s-0.tar")).expect("a good source");
    let here = format!("{}/b/data/s-0.tar", stand.store.endpoint);
    stand.store.meet([Fault::Redirect(here)]);
    assert_eq!(source.read(1).expect("found elsewhere"), want(2));
    stand.store.always(Fault::Whole);
    let error = source.read(1).expect_err("no range").to_string();
    assert!(error.contains("does not serve ranges"), "{error}");
}

#[test]
fn records_are_kept_on_disk_and_damaged_ones_fetched_anew() {
    let stand = Stand::tar();
    let mut declared = stand.declared("s3://b/data");
    let store = declared.store.as_mut().expect("given");
    (store.cache, store.cache_dir) = (Some(Size(1 << 20)), Some("kept".into()));
    let source = stand.open(&declared).expect("a good source");
    stand.store.asked();
    fetched(&source, &[1, 3]).expect("readable");
    let folder = stand.root.path().join("kept");
    until("both are written", || entries(&folder).len() == 2);
    stand.store.always(Fault::Status(503, "SlowDown"));
    assert_eq!(fetched(&source, &[3, 1]).expect("kept"), [want(4), want(2)]);
    for path in entries(&folder) {
        let mut bytes = fs::read(&path).expect("an entry");
        *bytes.last_mut().expect("some") ^= 1;
        fs::write(&path, bytes).expect("written");
    }
    stand.store.meet([]);
    stand.store.asked();
    assert_eq!(fetched(&source, &[3, 1]).expect("fetched"), [want(4), want(2)]);
    assert!(stand.ranges() > 0);
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let inside = |path: &Path| -> Vec<std::path::PathBuf> {
        fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    };
    inside(folder).iter().filter(|path| path.is_dir()).flat_map(|path| inside(path)).collect()
}

#[test]
fn keys_come_from_the_file_and_new_ones_are_used() {
    let stand = Stand::tar();
    let keys = stand.root.path().join("keys");
    let write = |id: &str| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = SECRET\n");
        fs::write(keys.with_extension("new"), text).expect("a file");
        fs::rename(keys.with_extension("new"), &keys).expect("moved into place");
    };
    write("OLD");
    let mut declared = stand.declared("s3://b/data");
    let store = declared.store.as_mut().expect("given");
    (store.credentials, store.credentials_file) = (None, Some("keys".into()));
    let source = stand.open(&declared).expect("a good source");
    let signed = |id: &str| {
        let asked = stand.store.asked();
        !asked.is_empty()
            && asked.iter().all(|asked| {
                let value = asked.headers.get("authorization").and_then(|value| value.to_str().ok());
                value.is_some_and(|value| value.contains(&format!("Credential={id}/")))
            })
    };
    assert!(signed("OLD"));
    write("NEW");
    source.read(0).expect("readable");
    assert!(signed("NEW"));
    fs::remove_file(&keys).expect("was there");
    let error = source.read(0).expect_err("no keys").to_string();
    assert!(error.contains("credentials file `keys` cannot be read") && !error.contains("SECRET"), "{error}");
}

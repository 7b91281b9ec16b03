//! What every kind of source promises, run against each of them on the same records.

use super::{
    remote::{Credentials, Faulty, Store},
    *,
};
use ::parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

/// A record to store.
#[derive(Clone)]
pub(super) struct Item {
    pub class: &'static str,
    pub stem: &'static str,
    pub bytes: Vec<u8>,
}

pub(super) fn item(class: &'static str, stem: &'static str, bytes: impl Into<Vec<u8>>) -> Item {
    Item { class, stem, bytes: bytes.into() }
}

fn items() -> Vec<Item> {
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-data/photos/cat/cat_00.jpg");
    vec![
        item("cat", "a0", fs::read(photo).expect("a committed photo")),
        item("cat", "b1", vec![1; 513]),
        item("dog", "c0", vec![2; 512]),
        item("dog", "d1", vec![]),
        item("emu", "e0", vec![3]),
    ]
}

/// How one kind of source is written.
struct Kit {
    write: fn(&Path, &[Item]),
    declaration: fn() -> Declaration,
    /// Name of record i, and file that holds it.
    place: fn(&[Item], usize) -> (String, PathBuf),
    /// Names of items are names of records.
    named: bool,
    /// Read from a store.
    far: bool,
}

const FOLDER: Kit = Kit {
    far: false,
    write: write_folder,
    declaration: || Declaration::new(Kind::Folder, "data"),
    place: |items, i| {
        let name = format!("{}/{}.jpg", items[i].class, items[i].stem);
        (name.clone(), Path::new("data").join(name))
    },
    named: true,
};

const TAR: Kit = Kit {
    far: false,
    write: |root, items| {
        for shard in ["0", "1"] {
            let items = items.iter().filter(|item| item.stem.ends_with(shard)).cloned().collect::<Vec<_>>();
            write_tar(&root.join(format!("data/s-{shard}.tar")), &items);
        }
    },
    declaration: || Declaration {
        groups: Some(GroupBy::Class),
        ..Declaration::new(Kind::Tar, "data/s-*.tar")
    },
    place: |items, i| {
        let shard = format!("s-{}.tar", &items[i].stem[1..]);
        (format!("{shard}/{}.jpg", items[i].stem), Path::new("data").join(shard))
    },
    named: true,
};

const PARQUET: Kit = Kit {
    far: false,
    write: |root, items| write_parquet(&root.join("data/p.parquet"), items, 2),
    declaration: || Declaration {
        groups: Some(GroupBy::Class),
        label_column: Some("label".into()),
        ..Declaration::new(Kind::Parquet, "data")
    },
    place: |_, i| (format!("p.parquet/{i:010}"), "data/p.parquet".into()),
    named: false,
};

/// The same source in a store whose bucket is `root`; its index is not kept.
fn in_a_store(declaration: Declaration, root: &Path) -> Declaration {
    // One for all tests: it must live as long as the sources.
    static STORE: LazyLock<Faulty> = LazyLock::new(|| Faulty::start("none", Path::new("/nonexistent")));
    let bucket = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..32].to_owned();
    STORE.bucket(&bucket, root);
    let store = Store {
        endpoint: Some(STORE.endpoint.clone()),
        credentials: Some(Credentials::None),
        retries: Some(0),
        ..Store::default()
    };
    let path = format!("s3://{bucket}/{}", declaration.path);
    Declaration { path, store: Some(store), ..declaration }
}

pub(super) fn write_folder(root: &Path, items: &[Item]) {
    for item in items {
        let folder = root.join("data").join(item.class);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{}.jpg", item.stem)), &item.bytes).expect("a file");
    }
}

pub(super) fn write_members(path: &Path, members: &[(&str, &[u8])]) {
    fs::create_dir_all(path.parent().expect("has one")).expect("a folder");
    let mut tar = ::tar::Builder::new(File::create(path).expect("a file"));
    for (name, bytes) in members {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("a member");
    }
    tar.finish().expect("an end mark");
}

pub(super) fn write_tar(path: &Path, items: &[Item]) {
    let names: Vec<[String; 2]> =
        items.iter().map(|item| ["jpg", "cls"].map(|ext| format!("{}.{ext}", item.stem))).collect();
    let both = items.iter().zip(&names);
    let members: Vec<(&str, &[u8])> = both
        .flat_map(|(item, [jpg, cls])| {
            [(jpg.as_str(), &item.bytes[..]), (cls.as_str(), item.class.as_bytes())]
        })
        .collect();
    write_members(path, &members);
}

pub(super) fn write_parquet(path: &Path, items: &[Item], rows: usize) {
    fs::create_dir_all(path.parent().expect("has one")).expect("a folder");
    let schema = "message m { required binary image; required binary label (UTF8); }";
    let schema = parse_message_type(schema).expect("a schema").into();
    let properties = WriterProperties::builder().build().into();
    let mut writer =
        SerializedFileWriter::new(File::create(path).expect("a file"), schema, properties).expect("a writer");
    for chunk in items.chunks(rows) {
        let mut group = writer.next_row_group().expect("a row group");
        let pictures: Vec<ByteArray> = chunk.iter().map(|item| item.bytes.clone().into()).collect();
        let labels: Vec<ByteArray> = chunk.iter().map(|item| item.class.into()).collect();
        for values in [pictures, labels] {
            let mut column = group.next_column().expect("can be written").expect("two columns");
            column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("values");
            column.close().expect("closes");
        }
        group.close().expect("closes");
    }
    writer.close().expect("closes");
}

pub(super) fn quiet(_: u64, _: &str) {}

struct Made {
    root: tempfile::TempDir,
    source: Arc<dyn Source>,
}

impl Kit {
    fn open(&self, root: &Path, verify: Verify) -> Arc<dyn Source> {
        let mut declaration = Declaration { verify, ..(self.declaration)() };
        if self.far {
            declaration = in_a_store(declaration, root);
        }
        open("s", &declaration, root, &quiet).expect("a good source")
    }

    fn make(&self, items: &[Item], verify: Verify) -> Made {
        let root = tempfile::tempdir().expect("a folder");
        (self.write)(root.path(), items);
        Made { source: self.open(root.path(), verify), root }
    }

    fn digests(&self, items: &[Item], verify: Verify) -> BTreeMap<String, [u8; 32]> {
        digests(&*self.make(items, verify).source)
    }

    fn number(&self, source: &dyn Source, items: &[Item], i: usize) -> u32 {
        let (name, _) = (self.place)(items, i);
        source.index().records.iter().position(|r| r.name == name).expect("indexed by this name") as u32
    }
}

fn digests(source: &dyn Source) -> BTreeMap<String, [u8; 32]> {
    source.index().groups.iter().map(|group| (group.name.clone(), group.digest)).collect()
}

fn order_depends_on_names_only(kit: &Kit) {
    let items = items();
    let made = kit.make(&items, Verify::Size);
    let index = made.source.index();
    assert!(index.records.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(*index, *kit.open(made.root.path(), Verify::Size).index(), "opened again");
    assert_eq!(*index, *kit.make(&items, Verify::Size).source.index(), "in another place");
    if kit.named {
        let backwards: Vec<Item> = items.iter().rev().cloned().collect();
        let names =
            |source: &dyn Source| source.index().records.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            names(&*made.source),
            names(&*kit.make(&backwards, Verify::Size).source),
            "written backwards"
        );
    }
}

fn every_record_is_in_its_one_group(kit: &Kit) {
    let items = items();
    let made = kit.make(&items, Verify::Size);
    let index = made.source.index();
    assert_eq!(index.classes, ["cat", "dog", "emu"]);
    assert!(index.groups.is_sorted_by(|a, b| a.name < b.name));
    let mut seen: Vec<u32> = index.groups.iter().flat_map(|group| group.records.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..items.len() as u32).collect::<Vec<_>>());
    for (i, item) in items.iter().enumerate() {
        let number = kit.number(&*made.source, &items, i);
        let group = index.groups.iter().find(|group| group.records.contains(&number)).expect("in a group");
        assert_eq!(group.name, item.class);
        assert_eq!(index.classes[index.records[number as usize].label as usize], item.class);
        assert!(group.records.is_sorted());
    }
}

fn reads_give_the_bytes(kit: &Kit) {
    let items = items();
    for verify in [Verify::Size, Verify::Content] {
        let made = kit.make(&items, verify);
        for i in [4, 0, 3, 2, 1, 0, 4] {
            let number = kit.number(&*made.source, &items, i);
            let bytes = made.source.read(number).expect("readable");
            assert!(
                bytes == items[i].bytes,
                "record {i}: {} bytes for {}",
                bytes.len(),
                items[i].bytes.len()
            );
            assert_eq!(made.source.index().records[number as usize].size, items[i].bytes.len() as u64);
        }
        assert!(matches!(made.source.read(5), Err(SourceError::Io { .. })), "there is no record 5");
    }
}

fn changes_are_noticed(kit: &Kit) {
    let changes: [fn(&Path); 4] = [
        |path| {
            let file = File::options().append(true).open(path).expect("a file");
            file.set_len(file.metadata().expect("has some").len() + 1).expect("grows");
        },
        |path| File::options().write(true).open(path).expect("a file").set_len(7).expect("shrinks"),
        |path| set_time(path, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_007)),
        |path| {
            let time = fs::metadata(path).and_then(|m| m.modified()).expect("has one");
            fs::copy(path, path.with_extension("new")).expect("a copy");
            set_time(&path.with_extension("new"), time);
            fs::rename(path.with_extension("new"), path).expect("replaced by its copy");
        },
    ];
    for (which, change) in changes.into_iter().enumerate() {
        for read_before in [false, true] {
            if kit.far && !kit.named && read_before {
                continue; // its rows are kept decoded: those of the state that was indexed, and nobody is asked
            }
            let items = items();
            let made = kit.make(&items, Verify::Size);
            let number = kit.number(&*made.source, &items, 0);
            if read_before {
                made.source.read(number).expect("unchanged");
            }
            change(&made.root.path().join((kit.place)(&items, 0).1));
            let got = made.source.read(number);
            assert!(
                matches!(got, Err(SourceError::Changed { .. })),
                "change {which}, read before: {read_before}: {got:?}"
            );
        }
    }
}

fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("its time is set");
}

fn a_missing_file_is_a_read_error(kit: &Kit) {
    let items = items();
    let made = kit.make(&items, Verify::Size);
    fs::remove_file(made.root.path().join((kit.place)(&items, 0).1)).expect("was there");
    let number = kit.number(&*made.source, &items, 0);
    let got = made.source.read(number);
    assert!(matches!(got, Err(SourceError::Io { .. } | SourceError::Unavailable { .. })), "{got:?}");
}

fn digests_change_with_labels_names_and_sizes_only(kit: &Kit) {
    let first = items();
    let before = kit.digests(&first, Verify::Size);
    let changed = |change: fn(&mut Item), verify| {
        let mut items = items();
        change(&mut items[1]);
        kit.digests(&items, verify)
    };
    let same_size = |item: &mut Item| item.bytes[0] ^= 255;
    assert_ne!(before, changed(|item| item.class = "dog", Verify::Size), "label");
    assert_ne!(before["cat"], changed(|item| item.bytes.push(0), Verify::Size)["cat"], "size");
    if kit.named {
        assert_ne!(before["cat"], changed(|item| item.stem = "bb1", Verify::Size)["cat"], "name");
    }
    assert_eq!(before, changed(same_size, Verify::Size), "bytes, not asked for");
    let hashed = kit.digests(&first, Verify::Content);
    let after = changed(same_size, Verify::Content);
    assert_ne!(hashed["cat"], after["cat"], "bytes, asked for");
    assert_eq!(hashed["emu"], after["emu"], "another group");

    let made = kit.make(&first, Verify::Size);
    set_time(
        &made.root.path().join((kit.place)(&first, 1).1),
        SystemTime::UNIX_EPOCH + Duration::from_secs(9),
    );
    assert_eq!(before, digests(&*kit.open(made.root.path(), Verify::Size)), "time");
}

fn content_is_compared_when_asked_for(kit: &Kit) {
    let items = items();
    for verify in [Verify::Size, Verify::Content] {
        let made = kit.make(&items, verify);
        let path = made.root.path().join((kit.place)(&items, 0).1);
        let time = fs::metadata(&path).and_then(|m| m.modified()).expect("has one");
        let mut bytes = fs::read(&path).expect("a file");
        let photo = &items[0].bytes;
        let at = bytes.windows(photo.len()).position(|window| window == photo).expect("stored plainly");
        bytes[at + photo.len() / 2] ^= 1;
        fs::write(&path, bytes).expect("written in place");
        set_time(&path, time);
        let got = made.source.read(kit.number(&*made.source, &items, 0));
        match verify {
            Verify::Size => assert!(got.is_ok(), "nothing but the bytes tells: {got:?}"),
            Verify::Content => assert!(matches!(got, Err(SourceError::Changed { .. })), "{got:?}"),
        }
    }
}

macro_rules! conform {
    ($($name:ident: $kit:expr;)*) => {$(
        mod $name {
            use super::*;
            conform!(@ $kit, order_depends_on_names_only, every_record_is_in_its_one_group, reads_give_the_bytes,
                changes_are_noticed, a_missing_file_is_a_read_error,
                digests_change_with_labels_names_and_sizes_only, content_is_compared_when_asked_for);
        }
    )*};
    (@ $kit:expr, $($test:ident),*) => {$(
        #[test]
        fn $test() {
            super::$test(&$kit);
        }
    )*};
}

conform! {
    folder: FOLDER;
    tar: TAR;
    parquet: PARQUET;
    folder_in_a_store: Kit { far: true, ..FOLDER };
    tar_in_a_store: Kit { far: true, ..TAR };
    parquet_in_a_store: Kit { far: true, ..PARQUET };
}

#[test]
fn a_store_changes_no_index_and_no_byte() {
    for near in [FOLDER, TAR, PARQUET] {
        let items = items();
        let root = near.make(&items, Verify::Content).root;
        let near_source = near.open(root.path(), Verify::Content);
        let far_source = Kit { far: true, ..near }.open(root.path(), Verify::Content);
        assert_eq!(near_source.index(), far_source.index());
        let all: Vec<u32> = (0..items.len() as u32).collect();
        for number in &all {
            let (a, b) = (near_source.read(*number), far_source.read(*number));
            assert_eq!(a.expect("readable"), b.expect("readable"));
        }
        assert!(near_source.fetch(&all).is_none());
    }
}

#[test]
fn memory_conforms() {
    let items = items();
    let made = |items: &[Item]| {
        let one =
            |item: &Item| (item.stem.to_owned(), Bytes::from(item.bytes.clone()), item.class.to_owned());
        Memory::new(items.iter().map(one).collect()).expect("good records")
    };
    let source = made(&items);
    assert_eq!(source.index().classes, ["cat", "dog", "emu"]);
    for (number, record) in source.index().records.iter().enumerate() {
        let item = items.iter().find(|item| item.stem == record.name).expect("given");
        assert!(source.read(number as u32).expect("in memory") == item.bytes);
        assert_eq!(source.index().classes[record.label as usize], item.class);
    }
    let backwards: Vec<Item> = items.iter().rev().cloned().collect();
    assert_eq!(digests(&source), digests(&made(&backwards)));
    assert!(matches!(Memory::new(Vec::new()), Err(SourceError::Declaration { .. })));
}

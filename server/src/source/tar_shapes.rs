//! Tar shards as they should not be, and the indexes kept beside them.

use super::{
    conformance::{item, quiet, write_members, write_tar},
    misfits::{declare, opened, refused, two},
    *,
};
use std::{fs, path::Path};

fn tar(toml: &str) -> Declaration {
    declare(&format!("kind = \"tar\"\npath = \"s\"\n{toml}"))
}

fn shard(members: &'static [(&'static str, &'static [u8])]) -> impl Fn(&Path) {
    move |root| write_members(&root.join("s/x.tar"), members)
}

#[test]
fn tar_members() {
    let json = tar("labels = \"json\"");
    refused(
        shard(&[("a.jpg", b"1"), ("a.json", b"{\"y\": 1}")]),
        &json,
        &["s/x.tar", "`a.jpg`", "field `label`", "not there"],
    );
    refused(
        shard(&[("a.jpg", b"1"), ("a.json", b"{\"label\": 1.5}")]),
        &json,
        &["s/x.tar", "`a.jpg`", "is 1.5"],
    );
    refused(shard(&[("a.jpg", b"1"), ("a.json", b"{")]), &json, &["s/x.tar", "`a.jpg`", "cannot be read"]);
    refused(shard(&[("a.jpg", b"1"), ("a.cls", b" \n")]), &tar(""), &["s/x.tar", "`a.jpg` is empty"]);
    refused(
        shard(&[("a.jpg", b"1"), ("a.PNG", b"2")]),
        &tar(""),
        &["s/x.tar", "sample `a` has two pictures", "`a.PNG`"],
    );
    refused(
        shard(&[("a.jpg", b"1"), ("a.jpg", b"2")]),
        &tar(""),
        &["s/x.tar", "sample `a` has two pictures"],
    );
    refused(
        |root| {
            fs::create_dir_all(root.join("s")).expect("made");
            fs::write(root.join("s/x.tar.gz"), b"\x1f\x8b\x08 and so on").expect("written");
        },
        &tar(""),
        &["s/x.tar.gz is compressed with gzip, want a plain tar file".replace(" is", ": is").as_str()],
    );

    let source = opened(
        shard(&[
            ("./d/b.jpg", b"bb"),
            ("d/b.json", b"{\"label\": 2}"),
            ("a.mask.png", b"no record"),
            ("a.jpg", b"a"),
            ("a.json", b"{\"label\": 0, \"more\": [1]}"),
            ("README", b"none"),
            ("c.txt", b"no picture"),
        ]),
        &json,
    )
    .expect("fits");
    let records: Vec<(&str, i32)> =
        source.index().records.iter().map(|r| (r.name.as_str(), r.label)).collect();
    assert_eq!(records, [("x.tar/a.jpg", 0), ("x.tar/d/b.jpg", 2)]);
    assert_eq!(source.index().groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["all"]);
    let notes = source.notes().join("\n");
    assert!(notes.contains("1 member has no WebDataset key: README"), "{notes}");
    assert!(notes.contains("1 sample has no picture: c"), "{notes}");
}

#[test]
fn a_shard_cut_anywhere_is_refused() {
    let whole = tempfile::tempdir().expect("a folder");
    write_tar(&whole.path().join("x.tar"), &[item("cat", "a", vec![7; 700]), item("dog", "b", vec![8; 30])]);
    let bytes = fs::read(whole.path().join("x.tar")).expect("written");
    // Two samples of two members, each a header and its blocks; then two blocks of zeros, of which one may be lost.
    let end = 4 * 512 + 1024 + 3 * 512;
    assert_eq!(bytes.len(), end + 1024);
    for cut in [0, 1, 511, 512, 513, 1200, 1535, 1536, 2048, 2560, 3000, end - 512, end - 1, end, end + 511] {
        refused(
            |root| {
                fs::create_dir_all(root.join("s")).expect("made");
                fs::write(root.join("s/x.tar"), &bytes[..cut]).expect("written");
            },
            &tar(""),
            &["s/x.tar: is", "cut short"],
        );
    }
    refused(
        |root| {
            fs::create_dir_all(root.join("s")).expect("made");
            fs::write(root.join("s/x.tar"), &bytes[..1000]).expect("written");
        },
        &tar(""),
        &["member `a.jpg`"],
    );
}

#[test]
fn headers_cannot_ask_for_gigabytes() {
    refused(
        |root| {
            fs::create_dir_all(root.join("s")).expect("made");
            let mut header = ::tar::Header::new_gnu();
            header.set_entry_type(::tar::EntryType::GNULongName);
            header.set_size(1 << 33);
            header.set_cksum();
            let file = fs::File::create(root.join("s/x.tar")).expect("a file");
            std::io::Write::write_all(&mut &file, header.as_bytes()).expect("written");
            file.set_len(1 << 34).expect("grown, without taking space");
        },
        &tar(""),
        &["s/x.tar", "headers of one member are over 1048576 bytes"],
    );
}

#[test]
fn kept_indexes_are_used_but_never_trusted() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("s/x.tar");
    let beside = root.path().join("s/x.tar.mixidx");
    write_tar(&path, &two());
    let index = || open("pets", &tar("cache = \"kept\""), root.path(), &quiet).expect("fits").index().clone();
    let first = index();
    let again = open("pets", &tar("cache = \"kept\""), root.path(), &quiet).expect("fits");
    assert!(again.notes().is_empty(), "our own file is nothing to tell: {:?}", again.notes());
    let good = fs::read(&beside).expect("kept beside the shard");
    assert_eq!(first, index(), "from the kept index");

    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).expect("has one");
    let before = time(&path);
    let mut shard = fs::read(&path).expect("written");
    shard[0] = b'!'; // a damaged header: indexing again would refuse it
    fs::write(&path, &shard).expect("written");
    let file = fs::File::options().write(true).open(&path).expect("opens");
    file.set_modified(before).expect("its time is set");
    assert_eq!(first, index(), "the kept index was used: the shard's headers were not read");
    for damage in [0, 8, 45, good.len() - 1] {
        let mut bad = good.clone();
        bad[damage] ^= 1;
        fs::write(&beside, bad).expect("written");
        let error = open("pets", &tar(""), root.path(), &quiet).expect_err("the index was used").to_string();
        assert!(error.contains("s/x.tar"), "byte {damage}: {error}");
    }
    fs::write(&beside, &good).expect("written");
    file.set_modified(before + std::time::Duration::from_secs(1)).expect("its time is set");
    assert!(open("pets", &tar(""), root.path(), &quiet).is_err(), "an index of another time");

    write_tar(&path, &[item("cat", "a", [1, 2, 3, 4]), item("dog", "b", [5])]);
    assert_ne!(first, index(), "made anew");
    assert_ne!(good, fs::read(&beside).expect("kept again"));
}

#[test]
fn indexes_go_to_the_cache_when_they_cannot_lie_beside() {
    let root = tempfile::tempdir().expect("a folder");
    write_tar(&root.path().join("s/x.tar"), &two());
    fs::create_dir(root.path().join("s/x.tar.mixidx")).expect("in the way");
    let source = open("pets", &tar(""), root.path(), &quiet).expect("fits");
    assert!(
        source.notes().iter().any(|note| note.contains("index of s/x.tar is not kept")),
        "{:?}",
        source.notes()
    );
    let source = open("pets", &tar("cache = \"kept\""), root.path(), &quiet).expect("fits");
    let kept: Vec<_> = fs::read_dir(root.path().join("kept")).expect("made").collect();
    assert_eq!(kept.len(), 1);
    assert!(!source.notes().iter().any(|note| note.contains("not kept")), "{:?}", source.notes());
}

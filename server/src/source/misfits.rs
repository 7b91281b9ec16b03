//! Declarations and files that don't fit: each is refused by an error that names what and where.

use super::{
    conformance::{Item, item, quiet, write_folder, write_members, write_parquet, write_tar},
    *,
};
use proptest::prelude::*;
use std::{fs, path::Path, sync::Arc};

fn folder(toml: &str) -> Declaration {
    declare(&format!("kind = \"folder\"\npath = \"data\"\n{toml}"))
}

pub(super) fn declare(toml: &str) -> Declaration {
    toml::from_str(toml).expect("a declaration")
}

pub(super) fn two() -> Vec<Item> {
    vec![item("cat", "a", [1, 2, 3]), item("dog", "b", "this is text, not a picture")]
}

/// Opens a source in a fresh folder that `write` filled.
pub(super) fn opened(
    write: impl Fn(&Path),
    declaration: &Declaration,
) -> Result<Arc<dyn Source>, SourceError> {
    let root = tempfile::tempdir().expect("a folder");
    write(root.path());
    open("pets", declaration, root.path(), &quiet)
}

#[track_caller]
pub(super) fn refused(write: impl Fn(&Path), declaration: &Declaration, wants: &[&str]) {
    let error = opened(write, declaration).expect_err("does not fit").to_string();
    for want in wants {
        assert!(error.contains(want), "`{error}` does not say `{want}`");
    }
}

#[test]
fn declarations_are_read_from_toml() {
    let d = declare(
        "kind = \"tar\"\npath = \"s/*.tar\"\nlabels = \"json\"\njson_field = \"y\"\nverify = \"content\"\n\
         [groups.pattern]\nweb = \"web-*\"\nlab = \"lab-*\"",
    );
    assert_eq!((d.kind, d.labels, d.verify), (Kind::Tar, Some(LabelFrom::Json), Verify::Content));
    assert!(matches!(&d.groups, Some(GroupBy::Pattern(p)) if p["web"] == "web-*" && p.len() == 2));
    assert_eq!(folder("groups = \"one\"").groups, Some(GroupBy::One));
    let unknown = toml::from_str::<Declaration>("kind = \"folder\"\npath = \"x\"\nclass = 1")
        .expect_err("no such field");
    assert!(unknown.to_string().contains("unknown field `class`"), "{unknown}");
}

#[test]
fn fields_that_contradict_each_other() {
    let write = |root: &Path| write_folder(root, &two());
    let s = "source `pets`";
    refused(
        write,
        &folder("labels = \"cls\""),
        &[s, "labels of kind `folder`", "want `folder`, `csv` or `none`"],
    );
    refused(write, &folder("labels = \"csv\""), &[s, "labels_csv is missing"]);
    refused(write, &folder("label_column = \"y\""), &[s, "labels of kind `folder` cannot be `column`"]);
    refused(write, &folder("labels = \"none\""), &[s, "groups = `class` wants labels"]);
    refused(
        write,
        &folder("groups = \"shard\""),
        &[s, "groups = `shard` wants kind `tar`, `parquet`, `tokens` or `text`"],
    );
    refused(write, &folder("groups = { pattern = {} }"), &[s, "at least one group"]);
    refused(write, &folder("image_column = \"x\""), &[s, "image_column means nothing to kind `folder`"]);
    refused(write, &folder("classes = [\"a\", \"a\"]"), &[s, "classes names `a` twice"]);
    refused(write, &folder("classes = [\"cat\"]"), &[s, "folder `dog` is no class"]);
    let d = declare("kind = \"parquet\"\npath = \"x\"\ndecoded_mib = 0");
    refused(write, &d, &[s, "decoded_mib is 0, want 1..=65536"]);
}

#[test]
fn paths_without_records() {
    refused(|_| {}, &folder(""), &["source `pets`", "path `data` is no folder"]);
    refused(
        |root| fs::create_dir_all(root.join("data/cat")).expect("made"),
        &folder(""),
        &["path `data` holds no record"],
    );
    let tar = |path: &str| Declaration::new(Kind::Tar, path);
    refused(|_| {}, &tar("data/*.tar"), &["`data` is no folder"]);
    refused(|_| {}, &tar("x.tar"), &["path `x.tar` does not exist"]);
    refused(|root| write_folder(root, &two()), &tar("data/*.tar"), &["matches no file, want `.tar` shards"]);
    refused(|root| write_members(&root.join("x.tar"), &[]), &tar("x.tar"), &["path `x.tar` holds no record"]);
}

#[test]
fn folders_say_what_they_leave_out() {
    let write = |root: &Path| {
        write_folder(root, &two());
        write_folder(root, &[item("dog", "B", [9])]);
        fs::rename(root.join("data/dog/B.jpg"), root.join("data/dog/B.JPeG")).expect("renamed");
        for name in ["data/n.txt", "data/cat/m.txt", "data/cat/o", "data/cat/p.jpg.bak", "data/.hidden.jpg"] {
            fs::write(root.join(name), "x").expect("written");
        }
        fs::create_dir_all(root.join("data/ant/deep")).expect("made");
        std::os::unix::fs::symlink("..", root.join("data/cat/up")).expect("a link");
        std::os::unix::fs::symlink("../cat/a.jpg", root.join("data/dog/linked.jpg")).expect("a link");
    };
    let root = tempfile::tempdir().expect("a folder");
    write(root.path());
    let source = open("pets", &folder(""), root.path(), &quiet).expect("fits");
    let names: Vec<&str> = source.index().records.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["cat/a.jpg", "dog/B.JPeG", "dog/b.jpg", "dog/linked.jpg"]);
    assert_eq!(source.read(3).expect("follows the link")[..], [1, 2, 3]);
    let groups: Vec<(&str, usize)> =
        source.index().groups.iter().map(|g| (g.name.as_str(), g.records.len())).collect();
    assert_eq!(groups, [("ant", 0), ("cat", 1), ("dog", 3)], "an empty class stays");
    let notes = source.notes().join("\n");
    for want in [
        "4 files are no pictures: cat/m.txt, cat/o, cat/p.jpg.bak, ...",
        "1 hidden entry is left out: .hidden.jpg",
        "1 link leads back to a folder above it: cat/up",
    ] {
        assert!(notes.contains(want), "{notes}");
    }
    let by_folder = open("pets", &folder("groups = \"folder\""), root.path(), &quiet).expect("fits");
    assert_eq!(by_folder.index().groups.len(), 2);
    refused(
        |root| {
            write(root);
            fs::write(root.join("data/top.png"), "x").expect("written");
        },
        &folder(""),
        &["source `pets`", "record `top.png` has no label", "FOLDER/CLASS/PICTURE"],
    );
}

#[test]
fn csv_labels() {
    let csv = |text: &'static str| {
        move |root: &Path| {
            write_folder(root, &two());
            fs::write(root.join("y.csv"), text).expect("written");
        }
    };
    let d = folder("labels_csv = \"y.csv\"\ngroups = \"one\"");
    refused(|root| write_folder(root, &two()), &d, &["y.csv: "]);
    refused(csv("cat/a.jpg,3\ncat/a.jpg,4\n"), &d, &["y.csv:2", "`cat/a.jpg` again, line 1"]);
    refused(
        csv("label,name\n1,cat/a.jpg\n2,cat/z.jpg\n"),
        &d,
        &["y.csv:3", "`cat/z.jpg`, which is no record"],
    );
    refused(csv("cat/a.jpg,1\ncat/a.jpg\n"), &d, &["y.csv:2", "has 1 columns, want 2"]);
    refused(csv("cat/a.jpg,1,2\n"), &d, &["y.csv:1", "has 3 columns"]);
    refused(csv("cat/a.jpg,\n"), &d, &["y.csv:1", "has no label for `cat/a.jpg`"]);
    refused(csv("cat/a.jpg,99999999\n"), &d, &["`cat/a.jpg` has the label `99999999`, want 0..1048576"]);
    refused(csv("cat/a.jpg,-2\n"), &d, &["label `-2`"]);
    let root = tempfile::tempdir().expect("a folder");
    write_folder(root.path(), &two());
    fs::write(root.path().join("y.csv"), b"cat/a.jpg,\xff\n").expect("written");
    let error = open("pets", &d, root.path(), &quiet).expect_err("no UTF-8").to_string();
    assert!(error.starts_with("y.csv:1") && error.contains("UTF-8"), "{error}");

    let labels = |text, d: &Declaration| {
        let source = opened(csv(text), d).expect("fits");
        let labels: Vec<i32> = source.index().records.iter().map(|r| r.label).collect();
        (labels, source.index().classes.clone(), source.notes().join("\n"))
    };
    let (got, classes, _) = labels("id,label,file\n7,2,dog/b.jpg\n8,0,cat/a.jpg\n", &d);
    assert_eq!((got, classes.join(" ")), (vec![0, 2], "0 1 2".into()));
    let (got, classes, notes) = labels("dog/b.jpg,hound", &d);
    assert_eq!((got, classes.join(" ")), (vec![-1, 0], "hound".into()));
    assert!(notes.contains("1 record has no label: cat/a.jpg"), "{notes}");
    let named = Declaration { classes: Some(vec!["3".into(), "x".into()]), ..d.clone() };
    assert_eq!(labels("cat/a.jpg,x\ndog/b.jpg,3", &named).0, [1, 0], "names that look like numbers");
    assert_eq!(labels("cat/a.jpg,1\ndog/b.jpg,0", &named).0, [1, 0], "numbers");
    refused(
        csv("cat/a.jpg,y\n"),
        &named,
        &["`cat/a.jpg` has the label `y`, want a name or number of `classes`"],
    );
}

#[test]
fn groups_by_pattern_and_list() {
    let write = |root: &Path| {
        write_folder(root, &two());
        fs::write(root.join("a.txt"), "cat/a.jpg\n\n").expect("written");
        fs::write(root.join("both.txt"), "cat/a.jpg\ndog/b.jpg").expect("written");
        fs::write(root.join("odd.txt"), "dog/b.jpg\ncat/z.jpg").expect("written");
    };
    let names = |toml: &str| {
        let source = opened(write, &folder(toml)).expect("fits");
        source
            .index()
            .groups
            .iter()
            .map(|g| format!("{}{:?}", g.name, g.records))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names("groups = { pattern = { none = \"x*\", all = \"*.jpg\" } }"), "all[0, 1] none[]");
    assert_eq!(names("groups = { list = { l = \"both.txt\" } }"), "l[0, 1]");
    let pattern = |p: &str| folder(&format!("groups = {{ pattern = {{ {p} }} }}"));
    refused(write, &pattern("a = \"cat/*\""), &["record `dog/b.jpg` matches no pattern"]);
    refused(
        write,
        &pattern("a = \"*\", b = \"dog/*\""),
        &["`dog/b.jpg` matches the patterns of `a` and `b`"],
    );
    refused(write, &pattern("a = \"[\""), &["groups.pattern.a"]);
    let list = |l: &str| folder(&format!("groups = {{ list = {{ {l} }} }}"));
    refused(write, &list("a = \"a.txt\""), &["record `dog/b.jpg` is in no list"]);
    refused(write, &list("a = \"a.txt\", b = \"both.txt\""), &["both.txt:1", "already in group `a`"]);
    refused(write, &list("a = \"odd.txt\""), &["odd.txt:2", "`cat/z.jpg`, which is no record"]);
    refused(write, &list("a = \"gone.txt\""), &["gone.txt: "]);
}

#[test]
fn parquet_files_that_do_not_fit() {
    let parquet = |toml: &str| declare(&format!("kind = \"parquet\"\npath = \"p\"\n{toml}"));
    let write = |root: &Path| write_parquet(&root.join("p/x.parquet"), &two(), 2);
    let columns = "want one of `image`, `label`";
    refused(write, &parquet("image_column = \"img\""), &["p/x.parquet", "no column `img`", columns]);
    refused(write, &parquet("label_column = \"y\""), &["p/x.parquet", "no column `y`", columns]);
    refused(write, &parquet("group_column = \"g\""), &["p/x.parquet", "no column `g`", columns]);
    refused(
        write,
        &parquet("groups = \"column\""),
        &["groups = `column` wants kind `parquet` or `text` and a `group_column`"],
    );
    refused(
        |root| {
            fs::create_dir_all(root.join("p")).expect("made");
            fs::write(root.join("p/x.parquet"), "no Parquet").expect("written");
        },
        &parquet(""),
        &["p/x.parquet", "no readable Parquet file"],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Damage anywhere: an error or a source, whose every record can be read or is refused; never a panic.
    #[test]
    fn damaged_shards_never_panic(at in 0usize..4000, byte: u8, cut in prop::option::of(0usize..4000), tar: bool) {
        let root = tempfile::tempdir().expect("a folder");
        let (path, kind) = if tar { ("x.tar", Kind::Tar) } else { ("x.parquet", Kind::Parquet) };
        let path = root.path().join(path);
        if tar { write_tar(&path, &two()) } else { write_parquet(&path, &two(), 1) }
        let mut bytes = fs::read(&path).expect("written");
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(cut.map_or(len, |cut| cut % len));
        fs::write(&path, bytes).expect("written");
        let declaration = Declaration::new(kind, path.file_name().expect("has one").to_string_lossy());
        if let Ok(source) = open("pets", &declaration, root.path(), &quiet) {
            for number in 0..source.index().records.len() as u32 {
                let _ = source.read(number);
            }
        }
    }

    /// However records are named and labelled, each is in one group, and the order they came in changes nothing.
    #[test]
    fn groups_are_a_partition(
        records in prop::collection::btree_map("[a-c]{1,3}", "[x-z]{1,2}", 1..12),
    ) {
        let all: Vec<_> = records.into_iter().map(|(n, c)| (n.clone(), Bytes::from(n), c)).collect();
        let source = Memory::new(all.clone()).expect("unique names");
        let mut seen: Vec<u32> = source.index().groups.iter().flat_map(|g| g.records.clone()).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..all.len() as u32).collect::<Vec<_>>());
        let digests = |s: &Memory| s.index().groups.iter().map(|g| (g.name.clone(), g.digest)).collect::<Vec<_>>();
        let backwards = Memory::new(all.into_iter().rev().collect()).expect("unique names");
        prop_assert_eq!(digests(&source), digests(&backwards));
    }
}

#[test]
fn a_file_that_became_a_pipe_is_changed_and_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    let file = folder.path().join("a/b.jpg");
    std::fs::write(&file, b"bytes").unwrap();
    let declaration = Declaration::new(Kind::Folder, folder.path().display().to_string());
    let source = open("s", &declaration, Path::new("."), &|_, _| {}).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let error = source.read(0).unwrap_err();
    assert!(matches!(&error, SourceError::Changed { what, .. } if what.contains("no file")), "{error}");
}

//! What a declaration finds, and what it is refused for.

use super::*;

#[test]
fn patterns_globs_and_manifests_name_the_same_records() {
    let root = tempfile::tempdir().expect("a folder");
    for n in 8..=11 {
        write_tar(&root.path().join(format!("d/a b/s-{n:03}.tar")), &[item("x", "0", vec![n; 9])]);
    }
    fs::write(root.path().join("d/a b/notes.txt"), "x").expect("a file");
    let stand = Stand { store: Faulty::start("b", root.path()), root };
    let host = &stand.store.endpoint;
    let manifest = format!("# all\ns-{{008..010}}.tar\n\n{host}/b/d/a%20b/s-011.tar?sig=SECRET\n");
    fs::write(stand.root.path().join("list.txt"), manifest).expect("a file");
    fs::write(stand.root.path().join("d/names.txt"), "s-{008..011}.tar").expect("a file");
    let local = open("near", &Declaration::new(Kind::Tar, "d/a b"), stand.root.path(), &quiet).expect("good");
    let manifest =
        |path: &str, list: &str| Declaration { manifest: Some(list.into()), ..stand.declared(path) };
    for declared in [
        stand.declared("s3://b/d/a b"),
        stand.declared("s3://b/d/a b/"),
        stand.declared("s3://b/d/a b/s-*.tar"),
        stand.declared("s3://b/d/a b/s-{008..011}.tar"),
        stand.declared("s3://b/d/a b/s-{00,01}?.tar"),
        manifest("s3://b/d/a b", "s3://b/d/names.txt"),
        stand.declared("HTTP/b/d/a%20b/s-{008..011}.tar"),
        manifest("HTTP/b/d/a%20b", "list.txt"),
    ] {
        let far = stand.open(&declared).unwrap_or_else(|error| panic!("{}: {error}", declared.path));
        assert_eq!(far.index(), local.index(), "{}", declared.path);
        assert_eq!(far.read(3).expect("readable"), local.read(3).expect("readable"), "{}", declared.path);
    }
    let signed = stand.store.asked().into_iter().filter(|asked| asked.path.ends_with("s-011.tar"));
    assert!(signed.last().is_some_and(|asked| asked.query == "sig=SECRET"));
    let one = stand.open(&stand.declared("s3://b/d/a b/s-009.tar")).expect("one shard");
    assert_eq!(one.index().records[0].name, "s-009.tar/0.jpg");

    fs::write(stand.root.path().join("twice.txt"), "s-008.tar?v=1\ns-008.tar?v=2\n").expect("a file");
    let error = stand.open(&manifest("HTTP/b/d/a%20b", "twice.txt")).expect_err("one name").to_string();
    assert!(error.contains("is there twice"), "{error}");

    stand.store.always(Fault::Status(503, "SlowDown"));
    let error = stand.open(&manifest("HTTP/b/d/a%20b", "list.txt")).expect_err("away").to_string();
    assert!(!error.contains("SECRET"), "{error}");
}

#[test]
fn folders_of_pictures_have_their_classes_and_leave_out_what_is_hidden() {
    let root = tempfile::tempdir().expect("a folder");
    write_folder(root.path(), &[item("cat", "a&b", [1]), item("dog", "c", [2, 3]), item("dog", ".x", [4])]);
    fs::write(root.path().join("data/dog/list.txt"), "x").expect("a file");
    let stand = Stand { store: Faulty::start("b", root.path()), root };
    let declared = Declaration { kind: Kind::Folder, ..stand.declared("s3://b/data") };
    let source = stand.open(&declared).expect("a good source");
    let local =
        open("near", &Declaration::new(Kind::Folder, "data"), stand.root.path(), &quiet).expect("good");
    assert_eq!(source.index(), local.index());
    assert_eq!(
        source.notes(),
        ["1 object is no picture: dog/list.txt", "1 hidden object is left out: dog/.x.jpg"]
    );
}

#[test]
fn declarations_that_do_not_fit_say_so() {
    let stand = Stand::tar();
    let tar = |path: &str| Declaration::new(Kind::Tar, path);
    let with = |store: Store| Declaration { store: Some(store), ..tar("s3://b/d") };
    for (declared, says) in [
        (
            Declaration { kind: Kind::Text, tokenizer: Some("bytes".into()), ..tar("s3://b/d") },
            "kind `text` reads files",
        ),
        (Declaration { kind: Kind::Points, ..tar("https://h/d") }, "kind `points` reads files"),
        (Declaration { store: Some(Store::default()), ..tar("data") }, "store is given"),
        (Declaration { manifest: Some("m".into()), ..tar("data") }, "manifest is given"),
        (Declaration::new(Kind::Folder, "https://h/d"), "manifest is missing"),
        (tar("https://h/*.tar"), "cannot list"),
        (tar("https://h/a.tar?X-Amz-Signature=SECRET"), "want it in a `manifest`"),
        (tar("https://eve:SECRET@h/a.tar"), "holds a name or password"),
        (tar("http://far.example/a.tar"), "without TLS"),
        (tar("s3:///d"), "names no bucket"),
        (tar("s3://b/d-{1..}.tar"), "no list"),
        (with(Store { timeout: Some(0), ..Store::default() }), "store.timeout is 0, want 1..=3600"),
        (with(Store { requests: Some(5000), ..Store::default() }), "store.requests is 5000"),
        (
            with(Store { endpoint: Some("ftp://SECRET@x".into()), ..Store::default() }),
            "holds a name or password",
        ),
        (with(Store { cache_dir: Some("c".into()), ..Store::default() }), "want a `cache`"),
        (with(Store { profile: Some("p".into()), ..Store::default() }), "want a `credentials_file`"),
        (
            Declaration {
                store: Some(Store { region: Some("x".into()), ..Store::default() }),
                ..tar("https://h/a.tar")
            },
            "store.region is given",
        ),
        (
            with(Store { ca_file: Some("missing.pem".into()), ..Store::default() }),
            "`missing.pem` cannot be read",
        ),
        (with(Store { endpoint: Some("http://far.example".into()), ..Store::default() }), "without TLS"),
        (
            Declaration { groups: Some(GroupBy::One), ..stand.declared("s3://b/nothing") },
            "path `s3://b/nothing` holds nothing of its kind",
        ),
    ] {
        let error = stand.open(&declared).expect_err(says).to_string();
        assert!(error.contains(says) && !error.contains("SECRET"), "want {says}: {error}");
    }
}

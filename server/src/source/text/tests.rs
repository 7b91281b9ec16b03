//! Texts of every format become the same documents, once.

use super::*;
use crate::source::{Declaration, Documents, Kind, Source, open as open_source};
use ::parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::sync::Arc;

fn declared(path: &str, tokenizer: &str) -> Declaration {
    Declaration { tokenizer: Some(tokenizer.into()), ..Declaration::new(Kind::Text, path) }
}

fn opened(folder: &Path, declaration: &Declaration) -> Result<Arc<dyn Source>, SourceError> {
    open_source("prose", declaration, folder, &|_, _| {})
}

/// Documents by group.
fn texts(source: &dyn Source) -> Vec<(String, Vec<Vec<u32>>)> {
    let corpus = source.tokens().expect("documents");
    let read = |number: &u32| {
        let mut out = vec![[0; 4]; corpus.len(*number) as usize];
        corpus.read(*number, 0, &mut out).unwrap();
        out.into_iter().map(u32::from_le_bytes).collect()
    };
    source.index().groups.iter().map(|g| (g.name.clone(), g.records.iter().map(read).collect())).collect()
}

fn bytes(texts: &[&str]) -> Vec<Vec<u32>> {
    texts.iter().map(|text| text.bytes().map(u32::from).collect()).collect()
}

fn temp(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = temp.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    temp
}

const PLAIN: &[u8] = b"one\r\ntwo\n\n \nthree\nfour";

#[test]
fn plain_files_are_cut_as_asked_and_grouped_by_folder() {
    let temp = temp(&[("t/law/a.txt", PLAIN), ("t/law/empty.txt", b""), ("t/go/b.go", b"x")]);
    let by = |documents| {
        let d = Declaration { documents, groups: Some(GroupBy::Folder), ..declared("t", "bytes") };
        let source = opened(temp.path(), &d).unwrap();
        (texts(source.as_ref()), source.notes().to_vec())
    };
    let (found, notes) = by(None);
    let whole = std::str::from_utf8(PLAIN).unwrap();
    assert_eq!(found, [("go".into(), bytes(&["x"])), ("law".into(), bytes(&[whole]))]);
    assert_eq!(notes, ["1 file has no document: law/empty.txt"]);
    let (lines, notes) = by(Some(Documents::Line));
    assert_eq!(lines[1].1, bytes(&["one", "two", " ", "three", "four"]));
    assert!(notes[0].contains("was made again: files, tokenizer or options are other ones"), "{notes:?}");
    assert_eq!(by(Some(Documents::Paragraph)).0[1].1, bytes(&["one\ntwo", "three\nfour"]));
}

#[test]
fn records_come_from_json_lines_packed_or_not_and_from_parquet() {
    let json = b"{\"body\": \"ab\", \"lang\": \"x\"}\n\n{\"lang\": \"y\", \"body\": \"c\\u00e4\"}\n{\"lang\": \"x\", \"body\": \"d\"}";
    let packed = zstd::encode_all(&json[..], 3).unwrap();
    let temp =
        temp(&[("a.jsonl", json), ("b.jsonl.zst", &packed), ("cut.jsonl.zst", &packed[..packed.len() - 6])]);
    write_parquet(&temp.path().join("c.parquet"), &[("ab", "x"), ("cä", "y"), ("d", "x")]);
    let want = [("x".into(), bytes(&["ab", "d"])), ("y".into(), bytes(&["cä"]))];
    let mut digests = Vec::new();
    for file in ["a.jsonl", "b.jsonl.zst", "c.parquet"] {
        let d = Declaration {
            text_column: Some("body".into()),
            group_column: Some("lang".into()),
            ..declared(file, "bytes")
        };
        let source = opened(temp.path(), &d).unwrap();
        assert_eq!(texts(source.as_ref()), want, "{file}");
        digests.push(source.index().groups.iter().map(|g| g.digest).collect::<Vec<_>>());
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "the digest is of documents, not of files");
    let d = Declaration { text_column: Some("body".into()), ..declared("cut.jsonl.zst", "bytes") };
    let error = opened(temp.path(), &d).unwrap_err().to_string();
    assert!(error.contains("cut.jsonl.zst: cannot be unpacked after line"), "{error}");
    let error = opened(temp.path(), &declared("a.jsonl", "bytes")).unwrap_err().to_string();
    assert!(error.contains("a.jsonl:1: has no text in `text` (text_column)"), "{error}");
}

fn write_parquet(path: &Path, rows: &[(&str, &str)]) {
    let schema = "message texts { required binary body (UTF8); required binary lang (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in 0..2 {
        let values: Vec<ByteArray> =
            rows.iter().map(|r| if column == 0 { r.0.into() } else { r.1.into() }).collect();
        let mut out = group.next_column().unwrap().unwrap();
        out.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_cache_is_kept_until_texts_or_options_change() {
    let temp = temp(&[("t/a.txt", b"alpha"), ("t/b.txt", b"beta")]);
    let d = declared("t", "bytes");
    let cache = || {
        let files = fs::read_dir(temp.path().join("mixfeed-cache")).unwrap();
        let files: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "one cache, nothing half written: {files:?}");
        (files[0].clone(), Stamp::of(&fs::metadata(&files[0]).unwrap()))
    };
    let first = texts(opened(temp.path(), &d).unwrap().as_ref());
    let (file, stamp) = cache();
    let again = opened(temp.path(), &d).unwrap();
    let ids = |source: &dyn Source| source.tokens().unwrap().vocabulary();
    assert_eq!(ids(again.as_ref()), Some(256));
    // The cache as a source of its own knows it too.
    let own = Declaration::new(Kind::Tokens, "mixfeed-cache");
    assert_eq!(ids(open_source("toks", &own, temp.path(), &|_, _| {}).unwrap().as_ref()), Some(256));
    assert_eq!((texts(again.as_ref()), cache().1), (first.clone(), stamp));
    assert!(again.notes().is_empty());

    fs::write(temp.path().join("t/b.txt"), b"gamma").unwrap();
    let changed = opened(temp.path(), &d).unwrap();
    assert_eq!(texts(changed.as_ref())[0].1, bytes(&["alpha", "gamma"]));
    assert!(changed.notes()[0].contains("was made again"), "{:?}", changed.notes());

    let whole = fs::read(&file).unwrap();
    for at in [0, 9, 30, 40, whole.len() - 1] {
        let mut harmed = whole.clone();
        harmed[at] ^= 1;
        fs::write(&file, harmed).unwrap();
        let mended = opened(temp.path(), &d).unwrap();
        assert_eq!(texts(mended.as_ref())[0].1, bytes(&["alpha", "gamma"]), "byte {at}");
        assert!(mended.notes()[0].contains("it was damaged"), "byte {at}: {:?}", mended.notes());
    }
    let served = opened(temp.path(), &d).unwrap();
    fs::write(&file, &whole[..70]).unwrap();
    assert!(matches!(served.tokens().unwrap().check(0), Err(SourceError::Changed { .. })));
    assert!(served.tokens().unwrap().read(1, 0, &mut [[0; 4]; 5]).is_err());
}

#[test]
fn contents_are_compared_when_asked() {
    let temp = temp(&[("a.txt", b"alpha")]);
    let d = Declaration { verify: Verify::Content, ..declared("a.txt", "bytes") };
    opened(temp.path(), &d).unwrap();
    let file = fs::read_dir(temp.path().join("mixfeed-cache")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[64] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(opened(temp.path(), &d).unwrap_err().to_string().contains("its ids have another hash"));
    assert!(opened(temp.path(), &declared("a.txt", "bytes")).is_ok());
}

#[test]
fn threads_change_nothing() {
    let text: String = (0..3000).map(|i| format!("line {i} of a text\n")).collect();
    let digest = |threads| {
        let temp = temp(&[("a.txt", text.as_bytes())]);
        let d = Declaration {
            documents: Some(Documents::Line),
            eod: Some(50256),
            ..declared("a.txt", "r50k_base")
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| opened(temp.path(), &d).unwrap().index().groups[0].digest)
    };
    assert_eq!(digest(1), digest(4));
}

/// Ids as OpenAI's cookbook prints them ("How to count tokens with tiktoken").
#[test]
fn openai_encodings_give_the_published_ids() {
    let long = "antidisestablishmentarianism";
    let born = "お誕生日おめでとう";
    let known: [(&str, &str, &[u32]); 10] = [
        ("r50k_base", long, &[415, 29207, 44390, 3699, 1042]),
        ("p50k_base", long, &[415, 29207, 44390, 3699, 1042]),
        ("cl100k_base", long, &[519, 85342, 34500, 479, 8997, 2191]),
        ("o200k_base", long, &[493, 129901, 376, 160388, 21203, 2367]),
        ("r50k_base", "2 + 2 = 4", &[17, 1343, 362, 796, 604]),
        ("cl100k_base", "2 + 2 = 4", &[17, 489, 220, 17, 284, 220, 19]),
        ("o200k_base", "2 + 2 = 4", &[17, 659, 220, 17, 314, 220, 19]),
        (
            "r50k_base",
            born,
            &[2515, 232, 45739, 243, 37955, 33768, 98, 2515, 232, 1792, 223, 30640, 30201, 29557],
        ),
        ("cl100k_base", born, &[33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699]),
        ("o200k_base", born, &[8930, 9697, 243, 128225, 8930, 17693, 4344, 48669]),
    ];
    for (tokenizer, text, ids) in known {
        let temp = temp(&[("a.txt", text.as_bytes())]);
        let d = Declaration { eod: Some(7), ..declared("a.txt", tokenizer) };
        let found = texts(opened(temp.path(), &d).unwrap().as_ref()).remove(0).1.remove(0);
        assert_eq!(found, [ids, &[7]].concat(), "{tokenizer}: {text}");
    }
}

#[test]
fn a_tokenizer_file_is_read_and_chance_is_refused() {
    let file = |dropout: &str| {
        format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "Whitespace"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "BPE", "dropout": {dropout}, "unk_token": "?", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {{"a": 0, "b": 1, "ab": 2, "?": 70000}}, "merges": ["a b"]}}}}"#
        )
    };
    let temp = temp(&[
        ("a.txt", b"ab b a ?x"),
        ("t.json", file("null").as_bytes()),
        ("d.json", file("0.1").as_bytes()),
    ]);
    let source = opened(temp.path(), &declared("a.txt", "file:t.json")).unwrap();
    assert_eq!(texts(source.as_ref())[0].1, [vec![2, 1, 0, 70000, 70000]]);
    let error = opened(temp.path(), &declared("a.txt", "file:d.json")).unwrap_err().to_string();
    assert!(error.contains("d.json: has model.dropout"), "{error}");
    let error = opened(temp.path(), &declared("a.txt", "file:a.txt")).unwrap_err().to_string();
    assert!(error.starts_with("a.txt: "), "{error}");
}

#[test]
fn what_does_not_fit_is_named() {
    let temp = temp(&[("bad.txt", b"ok \xff"), ("empty/a.txt", b"")]);
    let cases = [
        (declared("bad.txt", "r50k_base"), "bad.txt: document 0 is no UTF-8 after byte 3"),
        (declared("bad.txt", "gpt9"), "tokenizer is `gpt9`, want one of bytes, r50k_base"),
        (declared("empty", "bytes"), "path `empty` holds no text that is not empty"),
        (Declaration::new(Kind::Text, "bad.txt"), "tokenizer is missing"),
        (
            Declaration { dtype: Some(Default::default()), ..declared("bad.txt", "bytes") },
            "dtype means nothing to kind `text`",
        ),
        (Declaration { eod: Some(u32::MAX), ..declared("bad.txt", "bytes") }, "eod is 4294967295"),
        (
            Declaration { group_column: Some("g".into()), ..declared("bad.txt", "bytes") },
            "group_column means nothing to bad.txt",
        ),
        (
            Declaration { labels: Some(crate::source::LabelFrom::Folder), ..declared("bad.txt", "bytes") },
            "labels of kind `text`",
        ),
    ];
    for (declaration, why) in cases {
        let error = opened(temp.path(), &declaration).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
    let binary = opened(temp.path(), &declared("bad.txt", "bytes")).unwrap();
    assert_eq!(texts(binary.as_ref())[0].1, [vec![111, 107, 32, 255]]);
}

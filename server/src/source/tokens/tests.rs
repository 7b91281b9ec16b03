//! Token files as others write them, whole, cut short and wrong.

use super::*;
use crate::source::{Declaration, Kind, open};
use proptest::prelude::*;
use std::{fs, path::Path, sync::Arc};

/// An index and data pair as Megatron writes it; every sequence is a document.
pub(crate) fn write_megatron(folder: &Path, name: &str, documents: &[Vec<u32>], code: u8) {
    let mut index = b"MMIDIDX\x00\x00".to_vec();
    let count = documents.len() as u64;
    index.extend(1u64.to_le_bytes());
    index.push(code);
    index.extend(count.to_le_bytes());
    index.extend((count + 1).to_le_bytes());
    documents.iter().for_each(|d| index.extend((d.len() as i32).to_le_bytes()));
    let (mut at, width) = (0i64, if code == 8 { 2 } else { 4 });
    for document in documents {
        index.extend(at.to_le_bytes());
        at += document.len() as i64 * width;
    }
    (0..=count as i64).for_each(|border| index.extend(border.to_le_bytes()));
    let id =
        |id: &u32| if code == 8 { (*id as u16).to_le_bytes().to_vec() } else { id.to_le_bytes().to_vec() };
    fs::write(folder.join(format!("{name}.idx")), index).unwrap();
    let data: Vec<u8> = documents.iter().flatten().flat_map(id).collect();
    fs::write(folder.join(format!("{name}.bin")), data).unwrap();
}

fn documents() -> Vec<Vec<u32>> {
    let document = |(i, len): (usize, &usize)| (0..*len as u32).map(|t| t * 7 % 60_000 + i as u32).collect();
    [3, 1, 0, 9000, 5].iter().enumerate().map(document).collect()
}

fn opened(folder: &Path, change: impl FnOnce(&mut Declaration)) -> Result<Arc<dyn Source>, SourceError> {
    let mut declaration = Declaration::new(Kind::Tokens, "data");
    change(&mut declaration);
    open("toks", &declaration, folder, &|_, _| {})
}

fn read(source: &dyn Source, document: u32) -> Result<Vec<u32>, SourceError> {
    let corpus = source.tokens().expect("documents");
    let mut out = vec![[0; 4]; corpus.len(document) as usize];
    corpus.read(document, 0, &mut out)?;
    Ok(out.into_iter().map(u32::from_le_bytes).collect())
}

fn all(source: &dyn Source) -> Vec<Vec<u32>> {
    let numbers: Vec<u32> = source.index().groups.iter().flat_map(|g| g.records.clone()).collect();
    numbers.into_iter().map(|n| read(source, n).unwrap()).collect()
}

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    fs::create_dir(&data).unwrap();
    (temp, data)
}

#[test]
fn megatron_pairs_of_both_widths_are_read_by_document() {
    for code in [8, 4] {
        let (temp, data) = folder();
        write_megatron(&data, "a", &documents(), code);
        let source = opened(temp.path(), |_| {}).unwrap();
        assert_eq!(all(source.as_ref()), documents());
        assert_eq!(source.notes(), ["1 documents are empty and are in no row"]);
        let corpus = source.tokens().unwrap();
        let mut part = [[0; 4]; 5000];
        corpus.read(3, 4000, &mut part).unwrap();
        assert!(part.iter().map(|id| u32::from_le_bytes(*id)).eq(documents()[3][4000..].iter().copied()));
        assert!(corpus.read(3, 4001, &mut part).is_err() && corpus.read(99, 0, &mut part).is_err());
    }
}

#[test]
fn raw_files_are_cut_at_the_mark_and_grouped_by_file() {
    let (temp, data) = folder();
    let bytes = |ids: &[u32]| ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect::<Vec<u8>>();
    fs::write(data.join("a.bin"), bytes(&[5, 6, 9, 7, 9, 8])).unwrap();
    fs::write(data.join("b.bin"), bytes(&[9, 1, 9])).unwrap();
    let source = opened(temp.path(), |d| (d.eod, d.groups) = (Some(9), Some(GroupBy::Shard))).unwrap();
    let names: Vec<(&str, &[u32])> =
        source.index().groups.iter().map(|g| (g.name.as_str(), &g.records[..])).collect();
    assert_eq!(names, [("a.bin", &[0, 1, 2][..]), ("b.bin", &[3, 4])]);
    assert_eq!(all(source.as_ref()), [vec![5, 6, 9], vec![7, 9], vec![8], vec![9], vec![1, 9]]);
    assert_eq!(source.tokens().unwrap().vocabulary(), Some(10), "looking for the mark shows every id");
    let whole = opened(temp.path(), |_| {}).unwrap();
    assert_eq!(all(whole.as_ref()), [vec![5, 6, 9, 7, 9, 8], vec![9, 1, 9]]);
    assert_eq!(whole.tokens().unwrap().vocabulary(), None, "nobody has looked");
    let wide = opened(temp.path(), |d| d.dtype = Some(Width::U32));
    assert!(wide.unwrap_err().to_string().contains("data/b.bin: has 6 bytes, want a multiple of 4"));
}

#[test]
fn a_mark_at_the_border_of_two_reads_is_found() {
    let (temp, data) = folder();
    let mut ids = vec![1u16; 3 << 19];
    (ids[(1 << 19) - 1], ids[1 << 19], ids[(3 << 19) - 1]) = (9, 9, 9);
    fs::write(data.join("a.bin"), ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let source = opened(temp.path(), |d| d.eod = Some(9)).unwrap();
    let lengths: Vec<u64> = (0..3).map(|d| source.tokens().unwrap().len(d)).collect();
    assert_eq!(lengths, [1 << 19, 1, (1 << 20) - 1]);
    assert_eq!(source.index().groups[0].records.len(), 3);
}

#[test]
fn a_file_that_changes_while_it_is_served_is_an_error() {
    let (temp, data) = folder();
    write_megatron(&data, "a", &documents(), 8);
    let source = opened(temp.path(), |_| {}).unwrap();
    assert!(read(source.as_ref(), 0).is_ok());
    let file = fs::File::options().write(true).open(data.join("a.bin")).unwrap();
    file.set_len(100).unwrap();
    assert!(matches!(read(source.as_ref(), 3), Err(SourceError::Changed { .. })));
    assert!(matches!(source.tokens().unwrap().check(0), Err(SourceError::Changed { .. })));
}

#[test]
fn wrong_files_are_named_with_what_is_wrong() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 6] = [
        ("a.idx: has 140 bytes, too few for 5 sequences", |d| cut(&d.join("a.idx"), 140)),
        ("a.idx: is no Megatron index", |d| cut(&d.join("a.idx"), 20)),
        ("data/a.bin: has 17 bytes, its index wants 18018", |d| cut(&d.join("a.bin"), 17)),
        ("has version 2, want 1", |d| patch(&d.join("a.idx"), 9, 2)),
        ("has ids of type 6, want 4 (int32) or 8 (uint16)", |d| patch(&d.join("a.idx"), 17, 6)),
        ("places sequence 1 of 1 tokens at byte 7, want 6", |d| patch(&d.join("a.idx"), 34 + 20 + 8, 7)),
    ];
    for (why, harm) in cases {
        let (temp, data) = folder();
        write_megatron(&data, "a", &documents(), 8);
        harm(&data);
        let error = opened(temp.path(), |_| {}).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
    let (temp, data) = folder();
    write_megatron(&data, "a", &[vec![1, 1 << 31]], 4);
    let source = opened(temp.path(), |_| {}).unwrap();
    assert!(read(source.as_ref(), 0).unwrap_err().to_string().contains("an id above 2147483647"));
}

fn cut(file: &Path, bytes: u64) {
    fs::File::options().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

fn patch(file: &Path, at: usize, byte: u8) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] = byte;
    fs::write(file, bytes).unwrap();
}

#[test]
fn the_digest_follows_names_lengths_and_contents_when_asked() {
    let digest = |documents: &[Vec<u32>], verify| {
        let (temp, data) = folder();
        write_megatron(&data, "a", documents, 8);
        opened(temp.path(), |d| d.verify = verify).unwrap().index().groups[0].digest
    };
    let mut changed = documents();
    changed[0][0] += 1;
    assert_eq!(digest(&documents(), Verify::Size), digest(&changed, Verify::Size));
    assert_ne!(digest(&documents(), Verify::Content), digest(&changed, Verify::Content));
    changed[0].push(4);
    assert_ne!(digest(&documents(), Verify::Size), digest(&changed, Verify::Size));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_are_errors_and_never_panics(at in 0usize..200, byte: u8, cut in 0usize..200, cached: bool) {
        let (temp, data) = folder();
        let name = if cached {
            let place = data.join("c.mixtok");
            let mut writer = cache::Writer::new(&place, Width::U16, 60_000).unwrap();
            documents().iter().for_each(|d| writer.add("g", d).unwrap());
            writer.finish(&place, [0; 32], Vec::new()).unwrap();
            "c.mixtok"
        } else {
            write_megatron(&data, "a", &documents(), 8);
            "a.idx"
        };
        let mut bytes = fs::read(data.join(name)).unwrap();
        let end = bytes.len();
        // Near the tables: at the end of a cache, everywhere in an index.
        let at = if cached && at > 64 { end - (at - 64).min(end) } else { at.min(end - 1) };
        bytes[at] = byte;
        bytes.truncate(end - cut.saturating_sub(100));
        fs::write(data.join(name), bytes).unwrap();
        if let Ok(source) = opened(temp.path(), |_| {}) {
            let numbers: Vec<u32> = source.index().groups.iter().flat_map(|g| g.records.clone()).collect();
            for number in numbers {
                prop_assert!(read(source.as_ref(), number).is_ok());
            }
        }
    }
}

//! Shards and their indexes as nobody should write them: members whose headers lie, kept indexes that somebody else made.

use super::{
    conformance::{item, quiet, write_parquet, write_tar},
    keep, *,
};
use proptest::prelude::*;
use std::{fs, path::Path, sync::Arc};

/// One member of a tar file as bytes: a header of any kind that claims any size, before some blocks.
#[derive(Clone, Debug)]
struct Member {
    kind: u8,
    name: String,
    size: u64,
    content: Vec<u8>,
    /// Whether the checksum fits.
    fits: bool,
}

impl Member {
    fn bytes(&self) -> Vec<u8> {
        let mut header = if self.kind < b'4' { ::tar::Header::new_gnu() } else { ::tar::Header::new_ustar() };
        header.set_entry_type(::tar::EntryType::new(self.kind));
        header.set_size(self.size);
        let name = self.name.as_bytes();
        header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.set_cksum();
        if !self.fits {
            header.as_mut_bytes()[150] ^= 1;
        }
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// Records of extended headers, whose lengths and values may lie.
fn pax() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec!["path", "size", "linkpath", "GNU.sparse.realsize", "mtime", "x", ""]);
    let value = prop_oneof![
        Just("5".to_owned()),
        Just(u64::MAX.to_string()),
        Just("99999999999999999999999".to_owned()),
        Just("-1".to_owned()),
        "[a-z/]{0,20}\\.jpg",
    ];
    let record = (key, value, -3i64..4).prop_map(|(key, value, lie)| {
        let rest = format!(" {key}={value}\n");
        let length = rest.len() as i64 + 2 + lie;
        format!("{length}{rest}").into_bytes()
    });
    prop::collection::vec(record, 0..4).prop_map(|records| records.concat())
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let kinds = prop::sample::select(b"00005xgLKSV12\x00\xff".to_vec());
    let sizes = prop_oneof![
        4 => Just(None),
        1 => prop::sample::select(vec![0, 1, 511, 512, 513, 1 << 20, (1 << 33) - 1, 1 << 40, u64::MAX / 2, u64::MAX])
            .prop_map(Some),
    ];
    let content = prop_oneof![
        pax(),
        prop::collection::vec(any::<u8>(), 0..600),
        "[a-z]{1,3}/[a-z]{1,200}\\.jpg\\x00".prop_map(String::into_bytes),
    ];
    let member = (kinds, "[a-c]{1,2}\\.(jpg|cls|txt)", sizes, content, prop::bool::weighted(0.95)).prop_map(
        |(kind, name, size, content, fits)| {
            let size = size.unwrap_or(content.len() as u64);
            Member { kind, name, size, content, fits }
        },
    );
    prop::collection::vec(member, 0..7)
}

/// Opens and reads all of it: errors are fine.
fn use_up(declaration: &Declaration, root: &Path) -> Result<(), TestCaseError> {
    let Ok(source) = open("pets", declaration, root, &quiet) else { return Ok(()) };
    let most: u64 = fs::read_dir(root).expect("a folder").map(|e| e.unwrap().metadata().unwrap().len()).sum();
    for number in 0..source.index().records.len() as u32 {
        if let Ok(bytes) = source.read(number) {
            prop_assert!(bytes.len() as u64 <= most, "a record is larger than all files");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn members_that_lie_are_errors(members in members(), marks in 0usize..3, cut in prop::option::weighted(0.2, any::<prop::sample::Index>())) {
        let root = tempfile::tempdir().expect("a folder");
        let mut bytes: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
        bytes.resize(bytes.len() + marks * 512, 0);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        fs::write(root.path().join("x.tar"), bytes).expect("written");
        use_up(&Declaration::new(Kind::Tar, "x.tar"), root.path())?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// An index whose hash fits was still not written by us.
    #[test]
    fn kept_indexes_that_lie_are_errors(
        tar: bool,
        numbers in prop::collection::vec(
            prop_oneof![0u64..4, prop::sample::select(vec![u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32, 513])], 1..12),
        texts in prop::collection::vec(prop::option::of("[a-z/.]{0,6}"), 1..4),
        more in 0usize..3,
        only_numbers: bool,
    ) {
        let root = tempfile::tempdir().expect("a folder");
        let (name, kind) = if tar { ("x.tar", Kind::Tar) } else { ("x.parquet", Kind::Parquet) };
        let path = root.path().join(name);
        let items = [item("cat", "a", [1, 2, 3]), item("dog", "b", vec![4; 700]), item("dog", "c", [5])];
        if tar { write_tar(&path, &items) } else { write_parquet(&path, &items, 2) }
        let declaration = Declaration::new(kind, name);
        drop(open("pets", &declaration, root.path(), &quiet).expect("it is valid"));
        let place = root.path().join(format!("{name}{}", keep::EXTENSION));
        keep::lie(&place, &numbers, &texts, more, only_numbers);
        use_up(&declaration, root.path())?;
    }
}

#[test]
fn a_kept_index_with_pages_that_wrap_around_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("x.parquet");
    write_parquet(&path, &[item("cat", "a", [1]), item("dog", "b", [2])], 2);
    let declaration = Declaration::new(Kind::Parquet, "x.parquet");
    let source: Arc<dyn Source> = open("pets", &declaration, root.path(), &quiet).expect("it is valid");
    assert_eq!(source.index().records.len(), 2);
    let place = root.path().join(format!("x.parquet{}", keep::EXTENSION));
    keep::lie(&place, &[u64::MAX, 3], &[None], 0, true);
    let error = open("pets", &declaration, root.path(), &quiet).expect_err("lies").to_string();
    assert!(error.contains("x.parquet"), "{error}");
}

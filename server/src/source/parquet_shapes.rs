//! Parquet files of the shapes that are found in the wild: structs, nulls, numbers, row groups of many pages.

use super::{conformance::quiet, *};
use ::parquet::{
    basic::{Compression, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::{
        properties::{WriterProperties, WriterVersion},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use std::{fs::File, path::Path, sync::Arc};

/// Values of one leaf column with its definition levels (of rows that are null, lower than full).
enum Column {
    Bytes(Vec<ByteArray>, Vec<i16>),
    Int32(Vec<i32>, Vec<i16>),
    Int64(Vec<i64>, Vec<i16>),
}

fn write(path: &Path, schema: &str, properties: WriterProperties, groups: &[Vec<Column>]) {
    let schema = parse_message_type(schema).expect("a schema").into();
    let file = File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, properties.into()).expect("a writer");
    for columns in groups {
        let mut group = writer.next_row_group().expect("a row group");
        for column in columns {
            let mut out = group.next_column().expect("can be written").expect("as many as the schema has");
            let written = match (out.untyped(), column) {
                (ColumnWriter::ByteArrayColumnWriter(w), Column::Bytes(v, d)) => {
                    w.write_batch(v, Some(d), None)
                }
                (ColumnWriter::Int32ColumnWriter(w), Column::Int32(v, d)) => w.write_batch(v, Some(d), None),
                (ColumnWriter::Int64ColumnWriter(w), Column::Int64(v, d)) => w.write_batch(v, Some(d), None),
                _ => panic!("a column of another type than the schema says"),
            };
            written.expect("values");
            out.close().expect("closes");
        }
        group.close().expect("closes");
    }
    writer.close().expect("closes");
}

/// What the rows of [`wild`] hold: bytes of row i, some larger than a block.
fn picture(row: usize) -> Vec<u8> {
    let size = [700_000, 0, 3, 1_500_000, 40_000][row % 5] + row;
    (0..size).map(|at| (at * (row + 3) / 7) as u8).collect()
}

const ROWS: [usize; 3] = [7, 1, 13];

/// The struct of the datasets hub, numbers as labels and groups, some labels null.
fn wild(path: &Path, properties: WriterProperties) {
    let schema = "message m {
        required int64 site;
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int32 label;
    }";
    let mut first = 0;
    let groups = ROWS.map(|rows| {
        let numbers: Vec<usize> = (first..first + rows).collect();
        first += rows;
        let labelled: Vec<i16> = numbers.iter().map(|row| i16::from(row % 4 != 1)).collect();
        vec![
            Column::Int64(numbers.iter().map(|row| (row % 2) as i64).collect(), vec![0; rows]),
            Column::Bytes(numbers.iter().map(|row| picture(*row).into()).collect(), vec![2; rows]),
            Column::Bytes(Vec::new(), vec![1; rows]),
            Column::Int32(
                numbers.iter().filter(|row| *row % 4 != 1).map(|row| (row % 3) as i32).collect(),
                labelled,
            ),
        ]
    });
    write(path, schema, properties, &groups);
}

fn declaration() -> Declaration {
    Declaration {
        label_column: Some("label".into()),
        group_column: Some("site".into()),
        decoded_mib: Some(2), // a few blocks, so that some are driven out
        ..Declaration::new(Kind::Parquet, "x.parquet")
    }
}

#[test]
fn rows_are_read_in_any_order_from_any_encoding() {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let plain =
        WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::SNAPPY);
    let pages = WriterProperties::builder().set_data_page_row_count_limit(2).set_write_batch_size(1);
    for properties in [
        WriterProperties::builder(),
        plain.set_data_page_size_limit(1000),
        pages.set_compression(zstd).set_writer_version(WriterVersion::PARQUET_2_0),
        WriterProperties::builder().set_compression(Compression::GZIP(Default::default())),
        WriterProperties::builder().set_compression(Compression::LZ4_RAW),
    ] {
        let root = tempfile::tempdir().expect("a folder");
        wild(&root.path().join("x.parquet"), properties.build());
        let source = open("s", &declaration(), root.path(), &quiet).expect("fits");
        let index = source.index();
        let rows = ROWS.iter().sum::<usize>();
        assert_eq!(index.records.len(), rows);
        for step in [1, 5, 8, 20] {
            for row in (0..rows).map(|i| i * step % rows) {
                assert!(source.read(row as u32).expect("a row") == picture(row), "row {row}");
            }
        }
        for (row, record) in index.records.iter().enumerate() {
            assert_eq!(record.name, format!("x.parquet/{row:010}"));
            assert_eq!(record.label, if row % 4 == 1 { -1 } else { (row % 3) as i32 });
            assert!(index.groups[row % 2].records.contains(&(row as u32)));
        }
        assert_eq!((index.classes.join(" "), index.groups.len()), ("0 1 2".into(), 2));
        assert!(
            source.notes()[0].starts_with("5 records have no label: x.parquet/0000000001"),
            "{:?}",
            source.notes()
        );
    }
}

#[test]
fn pages_beyond_the_memory_are_read_and_told() {
    let root = tempfile::tempdir().expect("a folder");
    wild(&root.path().join("x.parquet"), WriterProperties::builder().build());
    let small = Declaration { decoded_mib: Some(1), ..declaration() };
    let source = open("s", &small, root.path(), &quiet).expect("fits");
    assert!(source.read(3).expect("a row") == picture(3));
    let note = source.notes().last().expect("a note");
    assert!(
        note.contains("larger than decoded_mib = 1, so every read decodes one whole: x.parquet/"),
        "{note}"
    );
}

#[test]
fn many_threads_read_one_shard() {
    let root = tempfile::tempdir().expect("a folder");
    wild(&root.path().join("x.parquet"), WriterProperties::builder().build());
    let source: Arc<dyn Source> = open("s", &declaration(), root.path(), &quiet).expect("fits");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let source = &source;
            scope.spawn(move || {
                for row in (0..21).map(|i| (i * 4 + thread * 5) % 21) {
                    assert!(source.read(row as u32).expect("a row") == picture(row), "row {row}");
                }
            });
        }
    });
}

#[test]
fn rows_and_columns_that_are_no_pictures() {
    let refused = |schema: &str, columns: Vec<Column>, declaration: &Declaration, wants: &[&str]| {
        let root = tempfile::tempdir().expect("a folder");
        write(&root.path().join("x.parquet"), schema, WriterProperties::default(), &[columns]);
        let error = open("s", declaration, root.path(), &quiet).expect_err("does not fit").to_string();
        wants.iter().for_each(|want| assert!(error.contains(want), "`{error}` does not say `{want}`"));
    };
    let plain = Declaration::new(Kind::Parquet, "x.parquet");
    let bytes = |levels: Vec<i16>| Column::Bytes(vec![vec![1].into(), vec![2].into()], levels);
    let null = bytes(vec![1, 0, 1]);
    refused(
        "message m { optional binary image; }",
        vec![null],
        &plain,
        &["x.parquet: row 1 of row group 0 has no picture"],
    );
    let ints = Column::Int32(vec![1], vec![0]);
    refused(
        "message m { required int32 image; }",
        vec![ints],
        &plain,
        &["column `image` is INT32, want BYTE_ARRAY"],
    );
    let label = Declaration { label_column: Some("y".into()), ..plain.clone() };
    let schema = "message m { required binary image; required binary y; }";
    let odd = Column::Bytes(vec![vec![0xff].into(), vec![2].into()], vec![0; 2]);
    refused(schema, vec![bytes(vec![0; 2]), odd], &label, &["x.parquet: a label or group is no UTF-8"]);
    let group = Declaration { group_column: Some("g".into()), ..plain };
    let schema = "message m { required binary image; optional binary g; }";
    let null = Column::Bytes(vec![vec![b'a'].into()], vec![1, 0]);
    refused(
        schema,
        vec![bytes(vec![0; 2]), null],
        &group,
        &["record `x.parquet/0000000001` has no value in `group_column`"],
    );
}

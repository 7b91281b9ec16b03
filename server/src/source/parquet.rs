//! Parquet shards: one row a record, its picture in a binary column or in the field `bytes` of a struct column.

use super::{
    Index, Source, SourceError,
    declare::{Rules, Verify},
    draft::Built,
    keep::{Member, RowGroup, ShardIndex, shard_index},
    lru::Lru,
    record,
    shard::{Positional, Shard, Shards, find},
    walk::Tally,
};
use ::parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of pictures up to which pages are decoded and kept together, so that tiny pages don't make countless blocks.
const SMALL_PAGE: u64 = 256 << 10;
/// Rows whose values are in memory at once while a shard is indexed.
const BATCH: usize = 32;

/// Parquet shards.
#[derive(Debug)]
pub(super) struct Parquet {
    built: Built,
    shards: Shards<Opened>,
    column: String,
    /// Rows by record number: records of a shard follow each other in row order.
    blocks: Vec<Block>,
    decoded: Lru<Vec<Bytes>>,
}

/// Rows that are decoded together: a page, the least that can be decoded, or some small ones of one row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// First record.
    record: u32,
    /// Rows.
    rows: u32,
    /// Row group in the shard, and its first row there.
    row_group: u32,
    start: u64,
}

/// An open shard.
struct Opened {
    reader: SerializedFileReader<Positional>,
    image: usize,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("image", &self.image).finish_non_exhaustive()
    }
}

impl Parquet {
    /// Finds and indexes the shards.
    pub fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Parquet, SourceError> {
        let (shards, mut notes) = find(rules, &[".parquet"], progress)?;
        let d = rules.declared;
        let column = d.image_column.clone().unwrap_or_else(|| "image".into());
        let rule = format!("parquet {column:?} {:?} {:?}", d.label_column, d.group_column);
        let mut drafts = Vec::new();
        let mut row_groups = Vec::new();
        for (number, shard) in shards.iter().enumerate() {
            progress(drafts.len() as u64, &shard.shown);
            let index = shard_index(rules, shard, &rule, || {
                let file = shard.open()?;
                shard.guarded(|| decoding(shard, || index(rules, shard, file, &column)))
            })?;
            let mut pages = index.row_groups.iter().flat_map(|group| &group.pages);
            let rows = pages.try_fold(0u64, |sum, rows| sum.checked_add(*rows));
            if rows != Some(index.members.len() as u64) {
                return Err(shard.format("its kept index has other rows than its pages"));
            }
            drafts.extend(index.members.into_iter().zip(0u64..).map(|(member, row)| {
                // Leading zeros: by name, a shard's records are in row order.
                Member { name: format!("{row:010}"), offset: row, ..member }.draft(shard, number as u32)
            }));
            notes.extend(index.notes);
            row_groups.push(index.row_groups);
        }
        progress(drafts.len() as u64, &d.path);
        let mut built = Built::new(rules, drafts, Vec::new(), notes)?;
        let blocks = blocks(&built.index, &row_groups);
        let mib = d.decoded_mib.unwrap_or(64);
        built.notes.extend(too_large(&built.index, &blocks, mib));
        let decoded = Lru::new(u64::from(mib) << 20);
        Ok(Parquet { built, shards: Shards::new(shards), column, blocks, decoded })
    }

    fn decode(&self, block: &Block) -> Result<Vec<Bytes>, SourceError> {
        let records = &self.built.index.records[block.record as usize..][..block.rows as usize];
        let file = records[0].file;
        let shard = &self.shards.shards[file as usize];
        let opened = self
            .shards
            .get(file, |shard, file| decoding(shard, || Opened::new(shard, file, &self.column)))?;
        let rows = decoding(shard, || {
            let mut rows = Vec::with_capacity(records.len());
            opened.pictures(shard, block.row_group as usize, block.start, records.len(), |row| {
                rows.push(Bytes::copy_from_slice(row)); // a copy: a slice would keep its whole page in memory
                Ok(())
            })?;
            Ok(rows)
        })?;
        match records.iter().zip(&rows).find(|(record, row)| record.size != row.len() as u64) {
            Some((record, row)) => {
                let what = format!("a row has {} bytes, had {}", row.len(), record.size);
                Err(SourceError::changed(record.name.as_str(), what))
            }
            None => Ok(rows),
        }
    }
}

impl Source for Parquet {
    fn kind(&self) -> &'static str {
        "parquet"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn notes(&self) -> &[String] {
        &self.built.notes
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let record = record(&self.built.index, number)?;
        let shard = &self.shards.shards[record.file as usize];
        let at = self.blocks.partition_point(|block| block.record <= number) - 1; // the first block starts at 0
        let block = &self.blocks[at];
        let rows = shard.guarded(|| {
            self.decoded.get(at as u32, || {
                let rows = self.decode(block)?;
                let bytes = weight(rows.iter().map(|row| row.len() as u64));
                Ok((rows, bytes))
            })
        })?;
        let bytes = rows[(number - block.record) as usize].clone();
        self.built.verify(number, &bytes, &record.name)?;
        Ok(bytes)
    }
}

/// Cuts every row group into blocks; a shard's records are in row order.
fn blocks(index: &Index, row_groups: &[Vec<RowGroup>]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut first = 0usize;
    while let Some(record) = index.records.get(first) {
        for (row_group, group) in row_groups[record.file as usize].iter().enumerate() {
            let (start, mut bytes) = (first, u64::MAX);
            for rows in group.pages.iter().filter(|rows| **rows > 0) {
                let page: u64 =
                    index.records[first..][..*rows as usize].iter().map(|record| record.size).sum();
                match blocks.last_mut() {
                    Some(block) if bytes.saturating_add(page) <= SMALL_PAGE => block.rows += *rows as u32,
                    Some(_) | None => {
                        let (record, start) = (first as u32, (first - start) as u64);
                        blocks.push(Block { record, rows: *rows as u32, row_group: row_group as u32, start });
                        bytes = 0;
                    }
                }
                bytes += page;
                first += *rows as usize;
            }
        }
    }
    blocks
}

/// Bytes that a decoded block takes.
fn weight(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.map(|size| size + 64).sum()
}

fn too_large(index: &Index, blocks: &[Block], mib: u32) -> Option<String> {
    let mut tally = Tally::default();
    for block in blocks {
        let records = &index.records[block.record as usize..][..block.rows as usize];
        if weight(records.iter().map(|record| record.size)) > u64::from(mib) << 20 {
            tally.add(&records[0].name);
        }
    }
    let what = format!("larger than decoded_mib = {mib}, so every read decodes one whole");
    tally.note(&format!("page is {what}"), &format!("pages are {what}"))
}

impl Opened {
    fn new(shard: &Shard, file: Positional, column: &str) -> Result<Opened, SourceError> {
        let reader = SerializedFileReader::new(file).map_err(|error| broken(shard, error))?;
        let nested = format!("{column}.bytes");
        let image = find_column(shard, &reader, column, |path| path == column || path == nested)?;
        let kind = reader.metadata().file_metadata().schema_descr().column(image).physical_type();
        if kind != ::parquet::basic::Type::BYTE_ARRAY {
            return Err(shard.format(format!("column `{column}` is {kind}, want BYTE_ARRAY")));
        }
        Ok(Opened { reader, image })
    }

    fn reader_of(&self, shard: &Shard, row_group: usize, column: usize) -> Result<ColumnReader, SourceError> {
        let group = self.reader.get_row_group(row_group).map_err(|error| broken(shard, error))?;
        group.get_column_reader(column).map_err(|error| broken(shard, error))
    }

    fn full(&self, column: usize) -> i16 {
        self.reader.metadata().file_metadata().schema_descr().column(column).max_def_level()
    }

    /// Rows of each page of the image column of a row group; reads headers only.
    fn pages(&self, shard: &Shard, row_group: usize, rows: u64) -> Result<Vec<u64>, SourceError> {
        let group = self.reader.get_row_group(row_group).map_err(|error| broken(shard, error))?;
        let mut reader = group.get_column_page_reader(self.image).map_err(|error| broken(shard, error))?;
        let mut pages = Vec::new();
        while let Some(page) = reader.peek_next_page().map_err(|error| broken(shard, error))? {
            if !page.is_dict {
                let rows = page.num_rows.or(page.num_levels); // without repetition, every level is a row
                pages.push(rows.unwrap_or_default() as u64);
            }
            reader.skip_next_page().map_err(|error| broken(shard, error))?;
        }
        let sum = pages.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
        if sum != Some(rows) {
            return Err(
                shard.format(format!("the pages of row group {row_group} have {sum:?} rows, want {rows}"))
            );
        }
        Ok(pages)
    }

    /// Hands `rows` pictures from row `start` of a row group to `each`.
    fn pictures(
        &self,
        shard: &Shard,
        row_group: usize,
        start: u64,
        rows: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.reader_of(shard, row_group, self.image)?
        else {
            return Err(shard.format("the image column is no BYTE_ARRAY"));
        };
        let skipped = reader.skip_records(start as usize).map_err(|error| broken(shard, error))?;
        if skipped as u64 != start {
            return Err(
                shard.format(format!("row group {row_group} ends at row {skipped}, want {start} and more"))
            );
        }
        let mut row = start;
        values(shard, reader, self.full(self.image), rows, |value| {
            let picture = value
                .ok_or_else(|| shard.format(format!("row {row} of row group {row_group} has no picture")))?;
            row += 1;
            each(picture.data())
        })
    }

    /// Texts or numbers of a column of one row group.
    fn scalars(
        &self,
        shard: &Shard,
        row_group: usize,
        column: usize,
        rows: usize,
    ) -> Result<Vec<Scalar>, SourceError> {
        use ColumnReader as C;
        let (mut out, full) = (Vec::new(), self.full(column));
        let mut put = |value: Option<Scalar>| {
            out.push(value.unwrap_or(Scalar::None));
            Ok(())
        };
        match self.reader_of(shard, row_group, column)? {
            C::BoolColumnReader(r) => {
                values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(i64::from(*v)))))?
            }
            C::Int32ColumnReader(r) => {
                values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(i64::from(*v)))))?
            }
            C::Int64ColumnReader(r) => values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(*v))))?,
            C::ByteArrayColumnReader(r) => values(shard, r, full, rows, |v| {
                let text = v
                    .map(|v| std::str::from_utf8(v.data()).map(|text| Scalar::Text(text.into())))
                    .transpose();
                put(text.map_err(|_| shard.format("a label or group is no UTF-8"))?)
            })?,
            C::Int96ColumnReader(_)
            | C::FloatColumnReader(_)
            | C::DoubleColumnReader(_)
            | C::FixedLenByteArrayColumnReader(_) => {
                let path =
                    self.reader.metadata().file_metadata().schema_descr().column(column).path().string();
                return Err(shard.format(format!("column `{path}` has neither integers nor texts")));
            }
        }
        Ok(out)
    }
}

/// A label or group in a column.
#[derive(Clone, Debug)]
enum Scalar {
    None,
    Number(i64),
    Text(String),
}

/// Hands `rows` values to `each`, `None` for nulls.
fn values<T: DataType>(
    shard: &Shard,
    mut reader: ColumnReaderImpl<T>,
    full: i16,
    rows: usize,
    mut each: impl FnMut(Option<&T::T>) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut left = rows;
    while left > 0 {
        let (mut levels, mut found) = (Vec::new(), Vec::new());
        let read = reader.read_records(left.min(BATCH), Some(&mut levels), None, &mut found);
        let (records, _, _) = read.map_err(|error| broken(shard, error))?;
        if records == 0 {
            return Err(shard.format(format!("a row group has {left} rows less than its footer says")));
        }
        let mut found = found.iter();
        for row in 0..records.min(left) {
            let null = full > 0 && levels.get(row).is_none_or(|level| *level < full);
            each(if null { None } else { found.next() })?;
        }
        left -= records.min(left);
    }
    Ok(())
}

/// Number of the leaf column whose path fits.
fn find_column(
    shard: &Shard,
    reader: &SerializedFileReader<Positional>,
    name: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<usize, SourceError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let Some(number) = schema.columns().iter().position(|column| fits(&column.path().string())) else {
        let known: Vec<String> =
            schema.columns().iter().map(|column| format!("`{}`", column.path().string())).collect();
        return Err(shard.format(format!("has no column `{name}`, want one of {}", known.join(", "))));
    };
    if schema.column(number).max_rep_level() > 0 {
        return Err(shard.format(format!("column `{name}` holds lists, want one value a row")));
    }
    Ok(number)
}

fn index(
    rules: &Rules<'_>,
    shard: &Shard,
    file: Positional,
    column: &str,
) -> Result<ShardIndex, SourceError> {
    let opened = Opened::new(shard, file, column)?;
    let find = |name: &Option<String>| {
        name.as_ref().map(|name| find_column(shard, &opened.reader, name, |path| path == name)).transpose()
    };
    let (labels, groups) = (find(&rules.declared.label_column)?, find(&rules.declared.group_column)?);
    let mut out = ShardIndex::default();
    for row_group in 0..opened.reader.num_row_groups() {
        let rows = opened.reader.metadata().row_group(row_group).num_rows();
        let rows = usize::try_from(rows)
            .map_err(|_| shard.format(format!("row group {row_group} has {rows} rows")))?;
        let first = out.members.len();
        opened.pictures(shard, row_group, 0, rows, |picture| {
            let mut member = Member { size: picture.len() as u64, ..Member::default() };
            if rules.declared.verify == Verify::Content {
                member.content = blake3::hash(picture).as_bytes().to_vec();
            }
            out.members.push(member);
            Ok(())
        })?;
        for (column, label) in [(labels, true), (groups, false)] {
            let Some(column) = column else { continue };
            let scalars = opened.scalars(shard, row_group, column, rows)?;
            for (member, scalar) in out.members[first..].iter_mut().zip(scalars) {
                match (scalar, label) {
                    (Scalar::None, _) => {}
                    (Scalar::Number(number), true) => member.number = Some(number),
                    (Scalar::Number(number), false) => member.group = Some(number.to_string()),
                    (Scalar::Text(text), true) => member.label = Some(text),
                    (Scalar::Text(text), false) => member.group = Some(text),
                }
            }
        }
        out.row_groups.push(RowGroup { pages: opened.pages(shard, row_group, rows as u64)? });
    }
    Ok(out)
}

fn broken(shard: &Shard, error: ParquetError) -> SourceError {
    if let ParquetError::External(inner) = &error
        && let Some(io) = inner.downcast_ref::<std::io::Error>()
        // The file is as long as it was: what is asked for beyond its end is a wrong place in its footer.
        && io.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return SourceError::io(shard.shown.as_str(), std::io::Error::new(io.kind(), io.to_string()));
    }
    shard.format(format!("is no readable Parquet file: {error}"))
}

/// Runs `read` and turns a panic of the decoder into an error: damaged files must not stop the server.
fn decoding<T>(shard: &Shard, read: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(shard.format("is damaged: its decoder gave up")))
}

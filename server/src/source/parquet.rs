//! Parquet shards: one row a record, its picture in a binary column or in the field `bytes` of a struct column.

use super::{
    Index, Source, SourceError,
    columns::{Opened, Scalar, decoding, find_column},
    declare::{Rules, Verify},
    draft::Built,
    keep::{Member, RowGroup, ShardIndex, shard_index},
    lru::Lru,
    record,
    shard::{Positional, Shard, Shards, find, indexed},
    walk::Tally,
};
use ::parquet::file::reader::FileReader;
use bytes::Bytes;

/// Bytes of pictures up to which pages are decoded and kept together, so that tiny pages don't make countless blocks.
const SMALL_PAGE: u64 = 256 << 10;
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

impl Parquet {
    /// Finds and indexes the shards.
    pub fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Parquet, SourceError> {
        let (shards, mut notes) = find(rules, &[".parquet"], progress)?;
        let d = rules.declared;
        let column = d.image_column.clone().unwrap_or_else(|| "image".into());
        let rule = format!("parquet {column:?} {:?} {:?}", d.label_column, d.group_column);
        let mut drafts = Vec::new();
        let mut row_groups = Vec::new();
        let index = |shard: &Shard| {
            shard_index(rules, shard, &rule, || {
                let file = shard.open()?;
                shard.guarded(|| decoding(shard, || index(rules, shard, file, &column)))
            })
        };
        indexed(&shards, &index, |number, shard, index| {
            progress(drafts.len() as u64, &shard.shown);
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
            Ok(())
        })?;
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

    fn far(&self) -> bool {
        self.shards.shards.first().is_some_and(|shard| shard.object.is_some())
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
                // A kept index may claim any size; reading compares it with the row's.
                let sizes = index.records[first..][..*rows as usize].iter().map(|record| record.size);
                let page = sizes.fold(0, u64::saturating_add);
                match blocks.last_mut() {
                    Some(block) if bytes.saturating_add(page) <= SMALL_PAGE => block.rows += *rows as u32,
                    Some(_) | None => {
                        let (record, start) = (first as u32, (first - start) as u64);
                        blocks.push(Block { record, rows: *rows as u32, row_group: row_group as u32, start });
                        bytes = 0;
                    }
                }
                bytes = bytes.saturating_add(page);
                first += *rows as usize;
            }
        }
    }
    blocks
}

/// Bytes that a decoded block takes.
fn weight(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, |sum, size| sum.saturating_add(size).saturating_add(64))
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

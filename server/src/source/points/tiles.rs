//! Large scenes cut once into blocks, which lie in a file of our own: a block is one positional read.

use super::Scene;
use crate::cloud::{self, Limits, block, tile};
use crate::source::{
    Record, SourceError,
    declare::{Rules, Tile},
    draft::Draft,
    shard::{Positional, Shard, Shards},
    walk::{Stamp, Tally},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::hash_map::RandomState,
    fs::{self, File},
    hash::BuildHasher,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// First bytes of a file of blocks; the number changes with what is cut or how it is written.
const MAGIC: &[u8; 8] = b"MIXTIL1\0";
/// Where the first block begins: after the magic and where the table is.
const BEGIN: u64 = 16;
/// Most points of a scene that is cut.
const MOST_POINTS: u64 = 1 << 28;
/// Most bytes of the table of blocks.
const MOST_TABLE: u64 = 1 << 30;
/// Points of a block when the declaration says nothing.
const MIN_POINTS: u64 = 1024;

/// The files of blocks of a source.
#[derive(Debug)]
pub(super) struct Tiles(Shards<Positional>);

impl Tiles {
    /// The bytes of a block.
    pub fn read(&self, record: &Record) -> Result<Bytes, SourceError> {
        let (number, shard) = (record.file, &self.0.shards[record.file as usize]);
        let file = self.0.get(number, |_, file| Ok(file))?;
        let read = file.range(record.offset, record.size);
        shard.check()?;
        read.map(Bytes::from).map_err(|error| SourceError::io(shard.shown.as_str(), error))
    }
}

/// What stands before the blocks of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    blocks: Vec<Entry>,
    /// Blocks with fewer points than wanted.
    left_out: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Along x and y from 0.
    at: (u32, u32),
    offset: u64,
    size: u64,
    points: u64,
}

/// Cuts every scene that was not cut before; also the blocks as drafts of records.
pub(super) fn open(
    rules: &Rules<'_>,
    scenes: &[Scene],
    notes: &mut Vec<String>,
    progress: &dyn Fn(u64, &str),
) -> Result<(Tiles, Vec<Draft>), SourceError> {
    let Some(declared) = rules.declared.tile else { return Ok((Tiles(Shards::new(Vec::new())), Vec::new())) };
    let folder = rules.path(rules.declared.cache.as_deref().unwrap_or("mixfeed-cache"));
    let (mut shards, mut drafts) = (Vec::new(), Vec::new());
    let (mut small, mut broken) = (0, Tally::default());
    for scene in scenes {
        progress(drafts.len() as u64, &scene.name);
        let place = folder.join(name(rules.name, scene, &declared));
        let table = match read(&place) {
            Ok(table) => table,
            Err(_) => match cut(scene, &declared, &place)? {
                Ok(table) => table,
                Err(why) => {
                    broken.add(&format!("{} ({why})", scene.name));
                    continue;
                }
            },
        };
        let number = shards.len() as u32;
        let shown = place.display().to_string();
        let metadata = fs::metadata(&place).map_err(|error| SourceError::io(shown.as_str(), error))?;
        shards.push(Shard {
            name: scene.name.clone(),
            shown,
            path: place,
            stamp: Stamp::of(&metadata),
            object: None,
        });
        small += table.left_out;
        for Entry { at: (i, j), offset, size, points } in table.blocks {
            let name = format!("{}/{i}_{j}", scene.name);
            let draft = Draft::new(name, number, offset, size);
            drafts.push(Draft { shard: scene.name.len() + 1, points, ..draft });
        }
    }
    notes.extend(
        broken.note("scene cannot be read and has no blocks", "scenes cannot be read and have no blocks"),
    );
    if small > 0 {
        let least = declared.min_points.unwrap_or(MIN_POINTS);
        notes.push(format!("{small} blocks of fewer than {least} points are left out"));
    }
    Ok((Tiles(Shards::new(shards)), drafts))
}

/// Name of the file of a scene's blocks: another one when the scene or the blocks are others.
fn name(source: &str, scene: &Scene, tile: &Tile) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{tile:?}\n{}\n", scene.name).as_bytes());
    for file in &scene.files {
        let Stamp { size, mtime_ns, .. } = file.stamp;
        hasher.update(format!("{}\n{}\n{size} {mtime_ns}\n", file.shown, file.name).as_bytes());
    }
    format!("{source}-{}.mixtiles", &hasher.finalize().to_hex()[..24]).into()
}

/// Cuts a scene into a file of blocks, or says why it cannot be understood. Blocks are written one by one beside their
/// place, then the table; the whole is moved there.
fn cut(
    scene: &Scene,
    declared: &Tile,
    place: &Path,
) -> Result<Result<Table, cloud::CloudError>, SourceError> {
    let bytes = Bytes::from(scene.read()?);
    let tiling = tile::Tiling {
        block: declared.block,
        stride: declared.stride.unwrap_or(declared.block),
        min_points: declared.min_points.unwrap_or(MIN_POINTS),
    };
    let whole = cloud::record(&bytes, &Limits { points: MOST_POINTS });
    drop(bytes);
    let (whole, tiles) = match whole.and_then(|whole| Ok((tile::cut(&whole, &tiling)?, whole))) {
        Ok((tiles, whole)) => (whole, tiles),
        Err(why) => return Ok(Err(why)),
    };
    let shown = place.display().to_string();
    let io = |error| SourceError::io(format!("{shown} (`cache` names another folder)"), error);
    // Another server may be cutting the same scene.
    let part = place.with_extension(format!("part-{:016x}", RandomState::new().hash_one(std::process::id())));
    let written = write(&part, &whole, &tiles).and_then(|table| fs::rename(&part, place).map(|()| table));
    written.map(Ok).inspect_err(|_| drop(fs::remove_file(&part))).map_err(io)
}

fn write(part: &Path, whole: &cloud::Scene, tiles: &tile::Tiles) -> io::Result<Table> {
    fs::create_dir_all(part.parent().unwrap_or(Path::new(".")))?;
    let mut file = BufWriter::new(File::create_new(part)?);
    file.write_all(&[0; BEGIN as usize])?;
    let (mut offset, mut blocks, mut bytes) = (BEGIN, Vec::new(), Vec::new());
    for tile in tiles.tiles() {
        let block = whole.select(tiles.points(tile));
        bytes.clear();
        block::encode(&block, &mut bytes);
        file.write_all(&bytes)?;
        let (size, points) = (bytes.len() as u64, block.len() as u64);
        blocks.push(Entry { at: (tile.i, tile.j), offset, size, points });
        offset += size;
    }
    let table = Table { blocks, left_out: tiles.left_out() };
    serde_json::to_writer(&mut file, &table)?;
    let mut file = file.into_inner()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(MAGIC)?;
    file.write_all(&offset.to_le_bytes())?;
    file.sync_all()?;
    Ok(table)
}

/// The table of a file that was written whole.
fn read(place: &Path) -> io::Result<Table> {
    let mut file = File::open(place)?;
    let mut head = [0; 16];
    file.read_exact(&mut head)?;
    let (magic, rest) = head.split_at(8);
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let at = u64::from_le_bytes(rest.try_into().map_err(|_| wrong("short"))?);
    let len = file.metadata()?.len();
    if magic != MAGIC || len.checked_sub(at).is_none_or(|table| table > MOST_TABLE) {
        return Err(wrong("no file of blocks"));
    }
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let table: Table = serde_json::from_slice(&bytes)?;
    let mut end = BEGIN;
    for entry in &table.blocks {
        let next = end.checked_add(entry.size).filter(|next| entry.offset == end && *next <= at);
        end = next.ok_or_else(|| wrong("blocks out of order"))?;
        // A point takes more than a byte; how many there are is believed until the block is read.
        if entry.points > entry.size {
            return Err(wrong("more points than bytes"));
        }
    }
    if end == at { Ok(table) } else { Err(wrong("blocks do not fill the file")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(blocks: Vec<Entry>, at: u64, bytes: usize) -> io::Result<Table> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("a.mixtiles");
        let table = serde_json::to_vec(&Table { blocks, left_out: 0 }).expect("plain numbers");
        let head = [&MAGIC[..], &at.to_le_bytes(), &vec![7; bytes]].concat();
        fs::write(&place, [head, table].concat()).expect("written");
        read(&place)
    }

    fn entry((offset, size, points): (u64, u64, u64)) -> Entry {
        Entry { at: (0, 0), offset, size, points }
    }

    #[test]
    fn a_table_must_fill_the_file() {
        assert!(written(vec![entry((BEGIN, 40, 3)), entry((BEGIN + 40, 60, 1))], BEGIN + 100, 100).is_ok());
        // Sizes that come round to the right end.
        let round = vec![entry((BEGIN, u64::MAX - 15, 3)), entry((0, BEGIN + 100, 1))];
        assert!(written(round, BEGIN + 100, 100).is_err());
        assert!(written(vec![entry((BEGIN, 100, u64::MAX))], BEGIN + 100, 100).is_err());
    }

    proptest! {
        #[test]
        fn tables_that_lie_are_refused(
            entries in prop::collection::vec((number(), number(), number()), 0..4),
            at in number(), bytes in 0usize..200,
        ) {
            if let Ok(table) = written(entries.into_iter().map(entry).collect(), at, bytes) {
                let sum: u64 = table.blocks.iter().map(|b| b.size).sum();
                prop_assert!(sum <= bytes as u64);
            }
        }
    }

    fn number() -> impl Strategy<Value = u64> {
        let edges = vec![0, BEGIN, BEGIN + 100, 100, u64::MAX, u64::MAX - 15, 1 << 63];
        prop_oneof![prop::sample::select(edges), 0u64..200]
    }
}

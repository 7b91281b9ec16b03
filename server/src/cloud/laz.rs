//! Compressed points of a LAS file. Sizes and counts are checked here, against the bytes that there are, before crate
//! `laz` sees them; chunks are independent and decoded each on its own.

use super::{CloudError, las::Header, las::Piece, read::Cursor};
use laz::{
    DecompressionSelection, LazVlr,
    laszip::ChunkTable,
    record::{LayeredPointRecordDecompressor, RecordDecompressor, SequentialPointRecordDecompressor},
};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Item types of each point format, see the LASzip specification.
const ITEMS: [&[u16]; 11] = [
    &[6],
    &[6, 7],
    &[6, 8],
    &[6, 7, 8],
    &[6, 7, 9],
    &[6, 7, 8, 9],
    &[10],
    &[10, 11],
    &[10, 12],
    &[10, 13],
    &[10, 12, 13],
];
/// Bytes of item types 6 to 13.
const SIZES: [u16; 8] = [20, 8, 6, 29, 30, 6, 8, 29];
/// Layers of item types 10 to 13.
const LAYERS: [u64; 4] = [9, 1, 2, 1];
/// Extra bytes of a record: each costs the decoder up to 10 KB of models.
const MOST_EXTRA: u16 = 1024;
/// Records that are decompressed before they are read.
const BATCH: usize = 512;

/// A run of points that is compressed by itself.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub points: usize,
    bytes: &'a [u8],
}

/// Compressed points of a file.
#[derive(Debug)]
pub(super) struct File<'a> {
    /// In the order of points; their counts add up to the header's.
    pub chunks: Vec<Chunk<'a>>,
    vlr: LazVlr,
    layered: bool,
    record: usize,
}

impl<'a> File<'a> {
    /// Finds the chunks of a file.
    pub(super) fn open(bytes: &'a [u8], header: &Header) -> Result<Self, CloudError> {
        let data = vlr(bytes, header)?;
        let kind = check(data, header)?;
        let vlr = LazVlr::from_buffer(data).map_err(|e| wrong(format!("laszip record: {e}")))?;
        let chunks = match kind {
            Compressor::PointWise => {
                let mut from = Cursor::new("las", bytes);
                from.seek(u64::from(header.begin), "points")?;
                vec![Chunk { points: header.points as usize, bytes: from.rest() }]
            }
            Compressor::Chunked | Compressor::Layered => chunks(bytes, header, &vlr)?,
        };
        let file =
            File { chunks, vlr, layered: kind == Compressor::Layered, record: usize::from(header.record) };
        if file.layered {
            let layers = ITEMS[usize::from(header.format)].iter().map(|&i| LAYERS[usize::from(i - 10)]).sum();
            for (number, chunk) in file.chunks.iter().enumerate() {
                chunk.check_layers(number, header, layers)?;
            }
        }
        Ok(file)
    }

    /// Decompresses one of the chunks.
    pub(super) fn fill(&self, piece: Piece, chunk: &Chunk) -> Result<(), CloudError> {
        let from = io::Cursor::new(chunk.bytes);
        // A damaged stream can drive the decoder out of its tables.
        let done = catch_unwind(AssertUnwindSafe(|| {
            if self.layered {
                self.run(LayeredPointRecordDecompressor::new(from), piece)
            } else {
                self.run(SequentialPointRecordDecompressor::new(from), piece)
            }
        }));
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(wrong(format!("compressed points are damaged: {e}"))),
            Err(_) => Err(wrong("compressed points are damaged".into())),
        }
    }

    fn run<'b>(
        &self,
        mut decoder: impl RecordDecompressor<io::Cursor<&'b [u8]>>,
        mut piece: Piece,
    ) -> laz::Result<()> {
        decoder.set_fields_from(self.vlr.items())?;
        let wanted = DecompressionSelection::xy_returns_channel().decompress_z();
        decoder.set_selection(wanted.decompress_classification().decompress_intensity().decompress_rgb());
        let mut batch = vec![0; self.record * BATCH.min(piece.len())];
        for first in (0..piece.len()).step_by(BATCH) {
            let records = &mut batch[..self.record * BATCH.min(piece.len() - first)];
            decoder.decompress_many(records)?;
            piece.fill(first, records);
        }
        Ok(())
    }
}

impl Chunk<'_> {
    /// A layered chunk is a raw record, its count of points, the sizes of its layers, and these.
    fn check_layers(&self, number: usize, header: &Header, layers: u64) -> Result<(), CloudError> {
        let mut from = Cursor::new("las", self.bytes);
        from.take(u64::from(header.record), "first point of a chunk")?;
        let count = from.u32("points of a chunk")?;
        if count as usize != self.points {
            return Err(wrong(format!("chunk {number} has {count} points, want {}", self.points)));
        }
        let mut sum = 0;
        for _ in 0..layers + u64::from(header.extra()) {
            sum += u64::from(from.u32("size of a layer")?);
        }
        from.take(sum, "layers of a chunk").map(|_| ())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compressor {
    PointWise,
    Chunked,
    Layered,
}

/// Data of the record that describes the compression.
fn vlr<'a>(bytes: &'a [u8], header: &Header) -> Result<&'a [u8], CloudError> {
    let mut from = Cursor::new("las", bytes);
    from.seek(u64::from(header.size), "variable length records")?;
    for _ in 0..header.vlrs {
        let head = from.take(54, "head of a variable length record")?;
        let (size, id) = (u16::from_le_bytes([head[20], head[21]]), u16::from_le_bytes([head[18], head[19]]));
        let data = from.take(u64::from(size), "variable length record")?;
        if id == LazVlr::RECORD_ID && head[2..].starts_with(LazVlr::USER_ID.as_bytes()) {
            return Ok(data);
        }
    }
    Err(wrong("points are compressed, but no record says how".into()))
}

/// Checks that the compressed items are those of the point format.
fn check(data: &[u8], header: &Header) -> Result<Compressor, CloudError> {
    let mut from = Cursor::new("las", data);
    let compressor = from.u16("compressor")?;
    from.seek(32, "items")?;
    let count = from.u16("count of items")?;
    let layered = header.format >= 6;
    let mut want: Vec<(u16, u16)> =
        ITEMS[usize::from(header.format)].iter().map(|&i| (i, SIZES[usize::from(i - 6)])).collect();
    if header.extra() > 0 {
        want.push((if layered { 14 } else { 0 }, header.extra()));
    }
    let mut found = Vec::new();
    for _ in 0..count.min(8) {
        let item = (from.u16("item")?, from.u16("item")?);
        let version = from.u16("version of an item")?;
        let known = if layered { 3..=4 } else { 1..=2 };
        if !known.contains(&version) {
            return Err(wrong(format!("item {} has version {version}, want {known:?}", item.0)));
        }
        found.push(item);
    }
    if found != want || usize::from(count) != want.len() {
        return Err(wrong(format!(
            "{count} compressed items are {found:?}, want {want:?} (type, bytes) of format {} with {} bytes",
            header.format, header.record
        )));
    }
    if header.extra() > MOST_EXTRA {
        return Err(wrong(format!("records have {} extra bytes, want at most {MOST_EXTRA}", header.extra())));
    }
    match (compressor, layered) {
        (1, false) => Ok(Compressor::PointWise),
        (2, false) => Ok(Compressor::Chunked),
        (3, true) => Ok(Compressor::Layered),
        _ => Err(wrong(format!("compressor is {compressor} of point format {}", header.format))),
    }
}

/// The chunks that the table at the end of the points names.
fn chunks<'a>(bytes: &'a [u8], header: &Header, vlr: &LazVlr) -> Result<Vec<Chunk<'a>>, CloudError> {
    let begin = u64::from(header.begin);
    let mut from = Cursor::new("las", bytes);
    from.seek(begin, "points")?;
    let mut table = from.u64("position of the chunk table")?;
    if table as i64 <= begin as i64 {
        // A writer that cannot seek puts it at the end.
        from.seek((bytes.len() as u64).saturating_sub(8), "position of the chunk table")?;
        table = from.u64("position of the chunk table")?;
    }
    if table < begin + 8 {
        return Err(wrong(format!("chunk table begins at byte {table}, want it after the points")));
    }
    from.seek(table, "chunk table")?;
    let mut head = from.clone();
    head.u32("version of the chunk table")?;
    let (count, size) = (u64::from(head.u32("count of chunks")?), u64::from(vlr.chunk_size()));
    let variable = vlr.uses_variable_size_chunks();
    let compressed = &bytes[header.begin as usize + 8..from.at()];
    // A chunk holds at least its first record.
    let room = compressed.len() as u64 / u64::from(header.record);
    if count > room || (!variable && count != header.points.div_ceil(size)) {
        return Err(wrong(format!("has {count} chunks for {} points", header.points)));
    }
    let mut entries = io::Cursor::new(from.rest());
    let entries = catch_unwind(AssertUnwindSafe(|| ChunkTable::read(&mut entries, variable)))
        .map_err(|_| wrong("chunk table is damaged".into()))?
        .map_err(|e| wrong(format!("chunk table is damaged: {e}")))?;
    let mut chunks = Vec::new();
    let (mut from, mut left) = (Cursor::new("las", compressed), header.points);
    for entry in entries.as_ref() {
        let points = if variable { entry.point_count } else { size.min(left) };
        left = left
            .checked_sub(points)
            .ok_or_else(|| wrong("chunks have more points than the header".into()))?;
        let bytes = from.take(entry.byte_count, "chunk")?;
        if points > 0 {
            chunks.push(Chunk { points: points as usize, bytes });
        }
    }
    match left {
        0 => Ok(chunks),
        left => Err(wrong(format!("chunks lack {left} of {} points", header.points))),
    }
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "las", why }
}

//! Where documents lie in files that others wrote.

use super::{Layout, cache};
use crate::source::{
    SourceError,
    declare::{Rules, Width},
    shard::{Positional, Shard},
    walk::Stamp,
};
use std::{
    fs,
    io::{BufReader, Read},
};

/// First bytes of a Megatron index.
const MEGATRON: &[u8; 9] = b"MMIDIDX\x00\x00";
/// Bytes of a Megatron index before its tables: mark, version, type, number of sequences and of document borders.
const MEGATRON_HEAD: usize = 9 + 8 + 1 + 8 + 8;
/// Bytes of a raw file that are looked at at once.
const SCAN: usize = 1 << 20;

/// Layout of a token file: our cache by its ending, Megatron's data when an index lies beside it, otherwise raw ids.
pub(super) fn layout(rules: &Rules<'_>, shard: &Shard) -> Result<Layout, SourceError> {
    let beside = shard.path.with_extension("idx");
    if shard.name.ends_with(cache::EXTENSION) {
        return cache::layout(shard).map(|(_, layout)| layout);
    }
    if beside.is_file() {
        for (field, given) in
            [("eod", rules.declared.eod.is_some()), ("dtype", rules.declared.dtype.is_some())]
        {
            if given {
                return Err(
                    rules.misfit(format!("{field} means nothing to {}, which has an .idx", shard.shown))
                );
            }
        }
        let shown = format!("{}.idx", shard.shown.trim_end_matches(".bin"));
        let io = |error| SourceError::io(shown.as_str(), error);
        let before = Stamp::of(&fs::metadata(&beside).map_err(io)?);
        let index = fs::read(&beside).map_err(io)?;
        if let Some(what) = before.differs(&Stamp::of(&fs::metadata(&beside).map_err(io)?)) {
            return Err(SourceError::changed(shown, what));
        }
        return megatron(&index, &shown, shard);
    }
    raw(shard, rules.declared.dtype.unwrap_or_default(), rules.declared.eod)
}

/// Documents of a Megatron pair: sequences follow each other in the data file, documents are runs of sequences.
fn megatron(index: &[u8], shown: &str, shard: &Shard) -> Result<Layout, SourceError> {
    let fail = |why: String| SourceError::format(shown, why);
    let head = index.get(..MEGATRON_HEAD).filter(|head| head.starts_with(MEGATRON));
    let head = head.ok_or_else(|| fail("is no Megatron index, want MMIDIDX and version 1".into()))?;
    let number =
        |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes of the head"));
    let (version, code, sequences, borders) = (number(9), head[17], number(18), number(26));
    let width = match (version, code) {
        (1, 4) => Width::U32,
        (1, 8) => Width::U16,
        (1, _) => return Err(fail(format!("has ids of type {code}, want 4 (int32) or 8 (uint16)"))),
        _ => return Err(fail(format!("has version {version}, want 1"))),
    };
    let sizes = sequences.checked_mul(12).zip(borders.checked_mul(8)).and_then(|(a, b)| a.checked_add(b));
    let tables = &index[MEGATRON_HEAD..];
    if sizes.is_none_or(|bytes| bytes > tables.len() as u64) {
        let why =
            format!("has {} bytes, too few for {sequences} sequences and {borders} borders", index.len());
        return Err(fail(why));
    }
    // All three fit into what is in memory.
    let (lengths, rest) = tables.split_at(sequences as usize * 4);
    let (pointers, rest) = rest.split_at(sequences as usize * 8);
    let sequence_ends = sequence_ends(lengths, pointers, width).map_err(fail)?;
    let ends = document_ends(&rest[..borders as usize * 8], &sequence_ends).map_err(fail)?;
    let bytes = sequence_ends.last().map_or(0, |end| end.saturating_mul(width.bytes() as u64));
    if bytes != shard.stamp.size {
        return Err(shard.format(format!("has {} bytes, its index wants {bytes}", shard.stamp.size)));
    }
    Ok(Layout { offset: 0, width, ends, own: None, content: None, vocabulary: None })
}

/// Tokens up to each sequence and up to the end, from 0.
fn sequence_ends(lengths: &[u8], pointers: &[u8], width: Width) -> Result<Vec<u64>, String> {
    let pointers = pointers.as_chunks::<8>().0.iter().map(|p| i64::from_le_bytes(*p));
    let lengths = lengths.as_chunks::<4>().0.iter().map(|l| i32::from_le_bytes(*l));
    let (mut ends, mut end) = (vec![0], 0u64);
    for (number, (length, pointer)) in lengths.zip(pointers).enumerate() {
        let expected = end.saturating_mul(width.bytes() as u64);
        let tokens = u64::try_from(length).ok().filter(|_| u64::try_from(pointer) == Ok(expected));
        end += tokens.ok_or_else(|| {
            format!("places sequence {number} of {length} tokens at byte {pointer}, want {expected}")
        })?;
        ends.push(end);
    }
    Ok(ends)
}

/// Tokens up to and including each document; `borders` are numbers of sequences.
fn document_ends(borders: &[u8], sequence_ends: &[u64]) -> Result<Vec<u64>, String> {
    let (mut ends, mut before) = (Vec::new(), None);
    for border in borders.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)) {
        let sequence = usize::try_from(border).ok().filter(|b| *b < sequence_ends.len());
        let legal = |b: &usize| before.map_or(*b == 0, |before| before <= *b);
        let sequence = sequence.filter(legal);
        let sequence =
            sequence.ok_or_else(|| format!("has the document border {border}, want ascending from 0"))?;
        if before.is_some() {
            ends.push(sequence_ends[sequence]);
        }
        before = Some(sequence);
    }
    match before.map(|b| b + 1) == Some(sequence_ends.len()) {
        true => Ok(ends),
        false => Err("has sequences that are in no document".into()),
    }
}

/// Documents of a file of ids and nothing else; `eod` ends each.
fn raw(shard: &Shard, width: Width, eod: Option<u32>) -> Result<Layout, SourceError> {
    let size = shard.stamp.size;
    if !size.is_multiple_of(width.bytes() as u64) {
        return Err(shard.format(format!("has {size} bytes, want a multiple of {} (dtype)", width.bytes())));
    }
    let tokens = size / width.bytes() as u64;
    let (mut ends, largest) = match eod {
        Some(eod) => scan(shard, shard.open()?, width, eod).map(|(ends, largest)| (ends, Some(largest)))?,
        None => (Vec::new(), None),
    };
    if ends.last().copied().unwrap_or(0) < tokens {
        ends.push(tokens);
    }
    let vocabulary = largest.map(|id| u64::from(id) + 1);
    Ok(Layout { offset: 0, width, ends, own: None, content: None, vocabulary })
}

/// Tokens up to and including each `eod`, and the largest id.
fn scan(shard: &Shard, file: Positional, width: Width, eod: u32) -> Result<(Vec<u64>, u32), SourceError> {
    let mut file = BufReader::with_capacity(SCAN, file);
    let mut buffer = vec![0u8; SCAN];
    let (mut ends, mut at, mut largest) = (Vec::new(), 0u64, eod);
    loop {
        let read = read_full(&mut file, &mut buffer).map_err(|e| SourceError::io(shard.shown.as_str(), e))?;
        let bytes = &buffer[..read];
        let mut note = |i: usize, id: u32| {
            largest = largest.max(id);
            if id == eod {
                ends.push(at + i as u64 + 1);
            }
        };
        match width {
            Width::U16 => {
                let ids = bytes.as_chunks::<2>().0.iter().enumerate();
                ids.for_each(|(i, id)| note(i, u32::from(u16::from_le_bytes(*id))));
            }
            Width::U32 => {
                let ids = bytes.as_chunks::<4>().0.iter().enumerate();
                ids.for_each(|(i, id)| note(i, u32::from_le_bytes(*id)));
            }
        }
        at += (read / width.bytes()) as u64;
        if read < buffer.len() {
            return Ok((ends, largest));
        }
    }
}

/// Fills `buffer` unless the file ends.
fn read_full(file: &mut BufReader<impl Read>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read(&mut buffer[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

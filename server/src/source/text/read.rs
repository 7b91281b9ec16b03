//! Documents of text files, one after the other.

use crate::source::{
    SourceError,
    columns::{Opened, Scalar, decoding, find_column},
    declare::{Documents, Rules},
    shard::Shard,
};
use ::parquet::file::reader::FileReader;
use std::io::{BufRead, BufReader, Read};

/// Bytes of one document.
const MAX_DOCUMENT: u64 = 1 << 30;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// A document.
#[derive(Debug)]
pub(super) struct Text {
    /// Its bytes, not empty.
    pub bytes: Vec<u8>,
    /// Value of the group column.
    pub group: Option<String>,
}

/// Takes documents.
pub(super) type Each<'a> = dyn FnMut(Text) -> Result<(), SourceError> + 'a;

/// Hands every document of a file that is not empty to `each`; the format is told by the name's ending.
pub(super) fn documents(rules: &Rules<'_>, shard: &Shard, each: &mut Each<'_>) -> Result<(), SourceError> {
    let (name, packed) = match shard.name.strip_suffix(".zst") {
        Some(name) => (name, true),
        None => (shard.name.as_str(), false),
    };
    if name.ends_with(".parquet") && !packed {
        return decoding(shard, || parquet(rules, shard, each));
    }
    let file = shard.open()?;
    let plain: Box<dyn Read> = match packed {
        true => Box::new(
            zstd::stream::read::Decoder::new(file).map_err(|e| SourceError::io(shard.shown.as_str(), e))?,
        ),
        false => Box::new(file),
    };
    let mut lines = Lines { shard, reader: BufReader::with_capacity(BUFFER, plain), number: 0 };
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
        return json(rules, &mut lines, each);
    }
    if rules.declared.group_column.is_some() {
        return Err(rules
            .misfit(format!("group_column means nothing to {}, want JSON lines or Parquet", shard.shown)));
    }
    match rules.declared.documents.unwrap_or_default() {
        Documents::File => {
            let bytes = lines.all()?;
            if bytes.is_empty() { Ok(()) } else { each(Text { bytes, group: None }) }
        }
        Documents::Line => {
            let mut bytes = Vec::new();
            while lines.next(&mut bytes)? {
                if !bytes.is_empty() {
                    each(Text { bytes: std::mem::take(&mut bytes), group: None })?;
                }
            }
            Ok(())
        }
        Documents::Paragraph => paragraphs(&mut lines, each),
    }
}

/// Lines of a file.
struct Lines<'a> {
    shard: &'a Shard,
    reader: BufReader<Box<dyn Read>>,
    number: u64,
}

impl Lines<'_> {
    /// A decoder's own complaints are about what is in the file; the system's are not.
    fn io(&self, error: std::io::Error) -> SourceError {
        use std::io::ErrorKind::{InvalidData, Other, UnexpectedEof};
        if [InvalidData, Other, UnexpectedEof].contains(&error.kind()) {
            return self.shard.format(format!("cannot be unpacked after line {}: {error}", self.number));
        }
        SourceError::io(self.shard.shown.as_str(), error)
    }

    fn fail(&self, why: impl std::fmt::Display) -> SourceError {
        SourceError::format(format!("{}:{}", self.shard.shown, self.number), why.to_string())
    }

    /// The next line without its end; false when there is none.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, SourceError> {
        line.clear();
        self.number += 1;
        let read = (&mut self.reader).take(MAX_DOCUMENT + 1).read_until(b'\n', line);
        let read = read.map_err(|error| self.io(error))?;
        if read as u64 > MAX_DOCUMENT {
            return Err(self.fail(format!("is longer than {MAX_DOCUMENT} bytes")));
        }
        for end in [b'\n', b'\r'] {
            if line.last() == Some(&end) {
                line.pop();
            }
        }
        Ok(read > 0)
    }

    fn all(&mut self) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| self.io(error))?;
        if read as u64 > MAX_DOCUMENT {
            return Err(self
                .shard
                .format(format!("has more than {MAX_DOCUMENT} bytes, want `documents` in it")));
        }
        Ok(bytes)
    }
}

fn paragraphs(lines: &mut Lines<'_>, each: &mut Each<'_>) -> Result<(), SourceError> {
    let (mut line, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let more = lines.next(&mut line)?;
        if more && line.iter().any(|b| !b.is_ascii_whitespace()) {
            if !bytes.is_empty() {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(&line);
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(lines.fail(format!("ends a paragraph of more than {MAX_DOCUMENT} bytes")));
            }
        } else if !bytes.is_empty() {
            each(Text { bytes: std::mem::take(&mut bytes), group: None })?;
        }
        if !more {
            return Ok(());
        }
    }
}

fn json(rules: &Rules<'_>, lines: &mut Lines<'_>, each: &mut Each<'_>) -> Result<(), SourceError> {
    let field = rules.declared.text_column.as_deref().unwrap_or("text");
    let mut line = Vec::new();
    while lines.next(&mut line)? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut record: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line)
            .map_err(|error| lines.fail(format!("is no JSON object: {error}")))?;
        let group = match &rules.declared.group_column {
            Some(column) => match record.get(column) {
                Some(serde_json::Value::String(group)) if !group.is_empty() => Some(group.clone()),
                Some(serde_json::Value::Number(group)) => Some(group.to_string()),
                _ => return Err(lines.fail(format!("has no text or number in `{column}` (group_column)"))),
            },
            None => None,
        };
        let Some(serde_json::Value::String(text)) = record.remove(field) else {
            return Err(lines.fail(format!("has no text in `{field}` (text_column)")));
        };
        if !text.is_empty() {
            each(Text { bytes: text.into_bytes(), group })?;
        }
    }
    Ok(())
}

fn parquet(rules: &Rules<'_>, shard: &Shard, each: &mut Each<'_>) -> Result<(), SourceError> {
    let column = rules.declared.text_column.as_deref().unwrap_or("text");
    let opened = Opened::new(shard, shard.open()?, column)?;
    let groups = rules.declared.group_column.as_ref();
    let groups =
        groups.map(|name| find_column(shard, &opened.reader, name, |path| path == name)).transpose()?;
    for row_group in 0..opened.reader.num_row_groups() {
        let rows = opened.reader.metadata().row_group(row_group).num_rows();
        let rows = usize::try_from(rows)
            .map_err(|_| shard.format(format!("row group {row_group} has {rows} rows")))?;
        let mut groups = match groups {
            Some(column) => Some(opened.scalars(shard, row_group, column, rows)?.into_iter()),
            None => None,
        };
        opened.pictures(shard, row_group, 0, rows, |bytes| {
            let group = match groups.as_mut().map(Iterator::next) {
                None => None,
                Some(Some(Scalar::Text(group))) if !group.is_empty() => Some(group),
                Some(Some(Scalar::Number(group))) => Some(group.to_string()),
                Some(Some(Scalar::Text(_) | Scalar::None) | None) => {
                    return Err(shard.format(format!("a row of row group {row_group} has no group")));
                }
            };
            if bytes.is_empty() { Ok(()) } else { each(Text { bytes: bytes.to_vec(), group }) }
        })?;
    }
    Ok(())
}

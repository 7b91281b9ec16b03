//! Incremental parser of a gRPC body that carries `BatchPart` messages.
//!
//! It never collects a payload: pieces of `TensorChunk.data` come out as views on the frames they arrived in, whatever
//! the frame borders. Only the small parts are collected, and chunks whose encoder did not write `data` last.

use bytes::{Buf, Bytes};
use mixfeed_proto::{self as v1, MAX_PAYLOAD_BYTES};
use prost::Message;

/// Most bytes of a message that are not payload.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Longest message.
pub(crate) const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + MAX_HEAD_BYTES;

/// A part that is no chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Header(v1::BatchHeader),
    End(v1::BatchEnd),
    GoAway(v1::GoAway),
    EndOfJob(v1::EndOfJob),
}

/// What a call of [`Parser::next`] found.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one at a time, and most are Data
pub(crate) enum Event {
    /// Bytes of a tensor, at most one frame's. A chunk of several frames is several events with running offsets.
    Data { tensor: u32, offset: u64, data: Bytes },
    /// A whole part.
    Part(Part),
}

#[derive(Clone, Copy, Debug)]
enum At {
    Prefix,
    Tag,
    Value(u64),
    Length(u64),
    Skip(usize),
    Collect(u64, usize),
    Data(usize),
}

/// See the module. One per connection; feed it frames in order.
#[derive(Debug)]
pub(crate) struct Parser {
    at: At,
    prefix: ([u8; 5], usize),
    varint: (u64, u32),
    /// Unread bytes of the message.
    message_left: usize,
    /// Unread bytes of the chunk that is being read; counted in `message_left` too.
    chunk_left: Option<usize>,
    part_seen: bool,
    tensor: u32,
    offset: u64,
    data_seen: bool,
    /// Data of a chunk in which more fields follow.
    spilled: Option<Vec<u8>>,
    collected: Vec<u8>,
}

const HEADER: u64 = 1;
const CHUNK: u64 = 2;
const END: u64 = 3;
const GO_AWAY: u64 = 4;
const END_OF_JOB: u64 = 5;

type Result<T> = std::result::Result<T, String>;

impl Default for Parser {
    fn default() -> Self {
        Parser {
            at: At::Prefix,
            prefix: ([0; 5], 0),
            varint: (0, 0),
            message_left: 0,
            chunk_left: None,
            part_seen: false,
            tensor: 0,
            offset: 0,
            data_seen: false,
            spilled: None,
            collected: Vec::new(),
        }
    }
}

impl Parser {
    /// True between two messages.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.at, At::Prefix) && self.prefix.1 == 0
    }

    /// Reads from `input` until something is found; `None` when `input` is used up. After an error the parser must be
    /// dropped.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>> {
        loop {
            let event = match self.at {
                At::Prefix => {
                    if !self.prefix(input)? {
                        return Ok(None);
                    }
                    None
                }
                At::Tag if self.scope() == 0 && self.varint.1 == 0 => self.close_scope(),
                At::Tag | At::Value(_) | At::Length(_) => {
                    let Some(value) = self.varint(input)? else { return Ok(None) };
                    self.number(value)?;
                    None
                }
                At::Skip(0) | At::Data(0) => {
                    self.at = At::Tag;
                    None
                }
                At::Collect(field, 0) => {
                    self.at = At::Tag;
                    Some(Event::Part(self.part(field)?))
                }
                At::Skip(left) | At::Data(left) | At::Collect(_, left) => {
                    let Some(bytes) = self.take(input, left) else { return Ok(None) };
                    self.bytes(bytes, left)?
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// A varint was read where one was wanted.
    fn number(&mut self, value: u64) -> Result<()> {
        match self.at {
            At::Tag => self.tag(value),
            At::Value(field) => self.value(field, value),
            At::Length(field) => self.length(field, value),
            At::Prefix | At::Skip(_) | At::Collect(..) | At::Data(_) => Err("no varint was wanted".into()),
        }
    }

    /// Some of the `left` bytes of a field were read.
    fn bytes(&mut self, bytes: Bytes, left: usize) -> Result<Option<Event>> {
        let left = left - bytes.len();
        match self.at {
            At::Skip(_) => self.at = At::Skip(left),
            At::Collect(field, _) => {
                self.collected.extend_from_slice(&bytes);
                self.at = At::Collect(field, left);
            }
            At::Data(_) => {
                self.at = At::Data(left);
                return self.data(bytes);
            }
            At::Prefix | At::Tag | At::Value(_) | At::Length(_) => return Err("no bytes were wanted".into()),
        }
        Ok(None)
    }

    /// Unread bytes of the innermost message.
    fn scope(&self) -> usize {
        self.chunk_left.unwrap_or(self.message_left)
    }

    fn consume(&mut self, n: usize) {
        self.message_left -= n;
        if let Some(left) = &mut self.chunk_left {
            *left -= n;
        }
    }

    /// Up to `most` bytes of the frame, of a field whose length was checked against its message.
    fn take(&mut self, input: &mut Bytes, most: usize) -> Option<Bytes> {
        let n = most.min(input.len());
        if n == 0 {
            return None;
        }
        self.consume(n);
        Some(input.split_to(n))
    }

    /// Reads the 5 bytes before a message; false when they are not complete.
    fn prefix(&mut self, input: &mut Bytes) -> Result<bool> {
        let (bytes, have) = &mut self.prefix;
        let n = (5 - *have).min(input.len());
        bytes[*have..*have + n].copy_from_slice(&input[..n]);
        input.advance(n);
        *have += n;
        if *have < 5 {
            return Ok(false);
        }
        *have = 0;
        if bytes[0] != 0 {
            return Err(format!("message has compression flag {}, expected 0", bytes[0]));
        }
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(format!("message of {length} bytes, at most {MAX_MESSAGE_BYTES}"));
        }
        self.message_left = length;
        self.part_seen = false;
        self.at = At::Tag;
        Ok(true)
    }

    fn varint(&mut self, input: &mut Bytes) -> Result<Option<u64>> {
        while !input.is_empty() {
            if self.scope() == 0 {
                return Err("field runs past the end of its message".into());
            }
            let byte = input.get_u8();
            self.consume(1);
            let (value, shift) = &mut self.varint;
            if *shift == 63 && byte > 1 {
                return Err("varint is longer than 64 bits".into());
            }
            *value |= u64::from(byte & 0x7f) << *shift;
            *shift += 7;
            if byte < 0x80 {
                let value = *value;
                self.varint = (0, 0);
                return Ok(Some(value));
            }
        }
        if self.scope() == 0 {
            return Err("field runs past the end of its message".into());
        }
        Ok(None)
    }

    /// Leaves a chunk or a message whose bytes are used up.
    fn close_scope(&mut self) -> Option<Event> {
        if self.chunk_left.take().is_none() {
            self.at = At::Prefix;
            return None;
        }
        let data = self.spilled.take().map(Bytes::from);
        // A chunk without data still has to name a tensor that exists, so it is an event too.
        let data = if self.data_seen { data? } else { Bytes::new() };
        Some(Event::Data { tensor: self.tensor, offset: self.offset, data })
    }

    fn tag(&mut self, tag: u64) -> Result<()> {
        let (field, wire) = (tag >> 3, tag & 7);
        if field == 0 || tag > u64::from(u32::MAX) {
            return Err(format!("field tag {tag} is not legal"));
        }
        self.at = match wire {
            0 => At::Value(field),
            1 => self.skip(8)?,
            2 => At::Length(field),
            5 => self.skip(4)?,
            _ => return Err(format!("field {field} has wire type {wire}")),
        };
        let expected = match (self.chunk_left.is_some(), field) {
            (true, 1 | 2) => 0,
            (true, 3) | (false, HEADER..=END_OF_JOB) => 2,
            _ => return Ok(()),
        };
        if wire != expected {
            return Err(format!("field {field} has wire type {wire}, expected {expected}"));
        }
        Ok(())
    }

    fn skip(&self, n: usize) -> Result<At> {
        self.fits(n as u64).map(At::Skip)
    }

    /// Checks the length of a field against what is left of its message.
    fn fits(&self, length: u64) -> Result<usize> {
        let left = self.scope();
        usize::try_from(length)
            .ok()
            .filter(|n| *n <= left)
            .ok_or_else(|| format!("field of {length} bytes in a message with {left} left"))
    }

    fn value(&mut self, field: u64, value: u64) -> Result<()> {
        self.at = At::Tag;
        if self.chunk_left.is_some() && field == 1 {
            self.tensor = u32::try_from(value).map_err(|_| format!("chunk of tensor {value}"))?;
        } else if self.chunk_left.is_some() && field == 2 {
            self.offset = value;
        }
        Ok(())
    }

    fn length(&mut self, field: u64, length: u64) -> Result<()> {
        let length = self.fits(length)?;
        self.at = match (self.chunk_left.is_some(), field) {
            (true, 3) => self.open_data(length)?,
            (false, HEADER..=END_OF_JOB) => {
                if std::mem::replace(&mut self.part_seen, true) {
                    return Err("message with two parts".into());
                }
                if field == CHUNK {
                    self.open_chunk(length);
                    At::Tag
                } else {
                    self.open_part(length)?;
                    At::Collect(field, length)
                }
            }
            _ => At::Skip(length),
        };
        Ok(())
    }

    fn open_chunk(&mut self, length: usize) {
        self.chunk_left = Some(length);
        (self.tensor, self.offset, self.data_seen, self.spilled) = (0, 0, false, None);
    }

    fn open_part(&mut self, length: usize) -> Result<()> {
        if length > MAX_HEAD_BYTES {
            return Err(format!("part of {length} bytes, at most {MAX_HEAD_BYTES}"));
        }
        self.collected.clear();
        Ok(())
    }

    /// `data` that ends its chunk has its final tensor and offset and goes straight through; otherwise they may still
    /// come or change, and the last `data` counts.
    fn open_data(&mut self, length: usize) -> Result<At> {
        if length > MAX_PAYLOAD_BYTES {
            return Err(format!("payload of {length} bytes, at most {MAX_PAYLOAD_BYTES}"));
        }
        let last = self.scope() == length;
        self.spilled = (!last || length == 0).then(Vec::new);
        self.data_seen = true;
        Ok(At::Data(length))
    }

    fn data(&mut self, data: Bytes) -> Result<Option<Event>> {
        if let Some(spilled) = &mut self.spilled {
            spilled.extend_from_slice(&data);
            return Ok(None);
        }
        let (tensor, offset) = (self.tensor, self.offset);
        let next = offset.checked_add(data.len() as u64);
        self.offset = next.ok_or_else(|| format!("chunk at offset {offset} of tensor {tensor}"))?;
        Ok(Some(Event::Data { tensor, offset, data }))
    }

    fn part(&mut self, field: u64) -> Result<Part> {
        let bytes = self.collected.as_slice();
        let part = match field {
            HEADER => v1::BatchHeader::decode(bytes).map(Part::Header),
            END => v1::BatchEnd::decode(bytes).map(Part::End),
            GO_AWAY => v1::GoAway::decode(bytes).map(Part::GoAway),
            END_OF_JOB => v1::EndOfJob::decode(bytes).map(Part::EndOfJob),
            other => return Err(format!("part {other} is not collected")),
        };
        part.map_err(|error| format!("part {field}: {error}"))
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;

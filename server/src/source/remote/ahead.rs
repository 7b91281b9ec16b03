//! An object as a file that is read from the front to the back, with leaps: indexing reads headers and leaps over what
//! they describe.

use super::{Object, wait};
use bytes::Bytes;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of a request after a leap: a header with its neighbours, mostly.
const FIRST: u64 = 8 << 10;
/// Most bytes of a request when one follows the other.
const MOST: u64 = 1 << 20;

/// An object with the bytes that were read of it last.
#[derive(Debug)]
pub(in crate::source) struct Ahead {
    object: Arc<Object>,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    start: u64,
    bytes: Bytes,
    size: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Those of `length` bytes from `from` that are here without a break.
    fn part(&self, from: u64, length: u64) -> Option<Bytes> {
        let inside = self.start <= from && from < self.end();
        inside.then(|| {
            let start = (from - self.start) as usize;
            self.bytes.slice(start..self.bytes.len().min(start.saturating_add(length as usize)))
        })
    }
}

impl Ahead {
    /// Nothing is read yet.
    pub fn new(object: Arc<Object>) -> Ahead {
        Ahead { object, window: Mutex::new(Window { start: 0, bytes: Bytes::new(), size: FIRST }) }
    }

    /// `length` bytes from `from`; more are not read.
    pub fn range(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let here = self.window.lock().unwrap_or_else(PoisonError::into_inner).part(from, length);
        if let Some(part) = here.filter(|part| part.len() as u64 == length) {
            return Ok(part);
        }
        self.fetch(from, length)
    }

    /// Reads some bytes from `from` into `into`, and maybe others that are asked for next; 0 at the end.
    pub fn read(&self, into: &mut [u8], from: u64) -> io::Result<usize> {
        let left = self.object.size().saturating_sub(from);
        if left == 0 || into.is_empty() {
            return Ok(0);
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let part = match window.part(from, into.len() as u64) {
            Some(part) => part,
            None => {
                let follows = (window.end()..window.end() + FIRST).contains(&from) && window.end() > 0;
                window.size = if follows { (window.size * 2).min(MOST) } else { FIRST };
                let size = window.size.min(left);
                window.bytes = self.fetch(from, size)?;
                window.start = from;
                window.bytes.slice(..into.len().min(size as usize))
            }
        };
        into[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }

    fn fetch(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let object = self.object.clone();
        wait(async move { object.range(from, length).await }).map_err(|error| {
            let text = io::Error::other(error.to_string());
            Object::failed(error);
            text
        })
    }
}

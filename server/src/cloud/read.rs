//! A place in bytes from outside: every read is checked and says what it was for.

use super::CloudError;

/// Bytes with a position.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    format: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a file of `format`.
    pub(super) fn new(format: &'static str, bytes: &'a [u8]) -> Self {
        Cursor { format, bytes, at: 0 }
    }

    /// Position.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Moves to byte `at`.
    pub(super) fn seek(&mut self, at: u64, what: &str) -> Result<(), CloudError> {
        match usize::try_from(at).ok().filter(|&at| at <= self.bytes.len()) {
            Some(at) => self.at = at,
            None => {
                let len = self.bytes.len();
                return Err(self.wrong(format!("{what} begins at byte {at}, but there are {len}")));
            }
        }
        Ok(())
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], CloudError> {
        let rest = self.rest();
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.wrong(format!(
                "is cut short: {what} at byte {} has {n} bytes, but {} are left",
                self.at,
                rest.len()
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], CloudError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("take gives as many bytes as it was asked for"))
    }

    /// Next u8.
    pub(super) fn u8(&mut self, what: &str) -> Result<u8, CloudError> {
        self.array(what).map(u8::from_le_bytes)
    }

    /// Next little-endian u16.
    pub(super) fn u16(&mut self, what: &str) -> Result<u16, CloudError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Next little-endian u32.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32, CloudError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Next little-endian u64.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64, CloudError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Next little-endian f64.
    pub(super) fn f64(&mut self, what: &str) -> Result<f64, CloudError> {
        self.array(what).map(f64::from_le_bytes)
    }

    /// An error of this file.
    pub(super) fn wrong(&self, why: String) -> CloudError {
        CloudError::Format { format: self.format, why }
    }
}

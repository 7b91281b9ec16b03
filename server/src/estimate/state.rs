//! State as bytes, bit for bit: little-endian, numbers as they are in memory, lists with their length.

/// Bytes that are no state of this estimator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("saved state: {0}")]
pub struct StateError(pub String);

/// Collects state.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A whole number.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A yes or no.
    pub fn bool(&mut self, value: bool) {
        self.u64(u64::from(value));
    }

    /// A number, NaN included.
    pub fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    /// A list.
    pub fn f64s(&mut self, values: &[f64]) {
        self.u64(values.len() as u64);
        values.iter().for_each(|v| self.f64(*v));
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Reads state back, in the order in which it was written.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over what [`Writer::finish`] gave.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`StateError`] at the end of the bytes.
    pub fn u64(&mut self) -> Result<u64, StateError> {
        let (head, rest) =
            self.0.split_first_chunk::<8>().ok_or_else(|| StateError("ends too early".into()))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// A yes or no.
    ///
    /// # Errors
    /// [`StateError`] at the end, or for another value than 0 and 1.
    pub fn bool(&mut self) -> Result<bool, StateError> {
        match self.u64()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(StateError(format!("holds {other}, want 0 or 1"))),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`StateError`] at the end of the bytes.
    pub fn f64(&mut self) -> Result<f64, StateError> {
        self.u64().map(f64::from_bits)
    }

    /// A list of `len` numbers.
    ///
    /// # Errors
    /// [`StateError`] at the end of the bytes, or for another length.
    pub fn f64s(&mut self, len: usize) -> Result<Vec<f64>, StateError> {
        match self.u64()? {
            found if found == len as u64 => (0..len).map(|_| self.f64()).collect(),
            found => Err(StateError(format!("holds a list of {found} numbers, want {len}"))),
        }
    }

    /// A list of any length up to `most`.
    ///
    /// # Errors
    /// [`StateError`] at the end of the bytes, or for a longer list.
    pub fn some_f64s(&mut self, most: usize) -> Result<Vec<f64>, StateError> {
        match self.u64()? {
            found if found <= most as u64 => (0..found).map(|_| self.f64()).collect(),
            found => Err(StateError(format!("holds a list of {found} numbers, want at most {most}"))),
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`StateError`] when fewer are left.
    pub fn bytes(&mut self) -> Result<&'a [u8], StateError> {
        let len = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(|| StateError("ends too early".into()))?;
        self.0 = rest;
        Ok(head)
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// [`StateError`] when something is.
    pub fn end(&self) -> Result<(), StateError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(StateError(format!("{} bytes are left over", self.0.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_bit_for_bit() {
        let mut out = Writer::default();
        out.u64(7);
        out.f64s(&[f64::NAN, -0.0, 1.5]);
        out.bool(true);
        out.bytes(b"abc");
        let bytes = out.finish();
        let mut input = Reader::new(&bytes);
        assert_eq!(input.u64(), Ok(7));
        let back = input.f64s(3).unwrap();
        assert_eq!(back[0].to_bits(), f64::NAN.to_bits());
        assert_eq!(back[1].to_bits(), (-0.0f64).to_bits());
        assert_eq!(input.bool(), Ok(true));
        assert_eq!(input.bytes(), Ok(&b"abc"[..]));
        assert_eq!(input.end(), Ok(()));
    }

    #[test]
    fn damaged_state_is_an_error() {
        assert!(Reader::new(&[1, 2]).u64().is_err());
        let mut out = Writer::default();
        out.f64s(&[1.0]);
        let bytes = out.finish();
        assert!(Reader::new(&bytes).f64s(2).is_err());
        assert!(Reader::new(&bytes[..9]).f64s(1).is_err());
        assert!(Reader::new(&u64::MAX.to_le_bytes()).bytes().is_err());
        assert!(Reader::new(&5u64.to_le_bytes()).bool().is_err());
    }
}

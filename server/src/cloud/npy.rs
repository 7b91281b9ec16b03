//! NumPy's array files, versions 1 to 3: numbers of one type in one or two dimensions.

use super::{
    CloudError,
    column::{Column, Kind},
    read::Cursor,
};

/// An array of (rows,) or (rows, cols).
#[derive(Clone, Copy, Debug)]
pub(super) struct Array<'a> {
    head: Head,
    data: &'a [u8],
}

/// What the header of a file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Rows: points.
    pub rows: u64,
    /// Numbers of a row; 1 without a second dimension.
    pub cols: u64,
    kind: Kind,
    big: bool,
    fortran: bool,
    begin: usize,
}

impl Head {
    /// Reads the header at the beginning of a file, of which there may be no more than that.
    pub(super) fn read(format: &'static str, bytes: &[u8]) -> Result<Self, CloudError> {
        let mut from = Cursor::new(format, bytes);
        if from.take(6, "magic")? != b"\x93NUMPY" {
            return Err(from.wrong("an array does not begin with \\x93NUMPY".into()));
        }
        let (major, _) = (from.u8("version")?, from.u8("version")?);
        let length = match major {
            1 => u32::from(from.u16("length of the header")?),
            2 | 3 => from.u32("length of the header")?,
            v => return Err(from.wrong(format!("version of an array is {v}, want 1 to 3"))),
        };
        let text = from.take(u64::from(length), "header")?;
        let text = str::from_utf8(text).map_err(|_| from.wrong("header of an array is no text".into()))?;
        let (kind, big) = value(text, "descr")
            .and_then(quoted)
            .and_then(dtype)
            .ok_or_else(|| from.wrong(format!("`descr` of {text:?} is no number of 1 to 8 bytes")))?;
        let fortran = match value(text, "fortran_order") {
            Some(v) if v.starts_with("False") => false,
            Some(v) if v.starts_with("True") => true,
            _ => return Err(from.wrong(format!("`fortran_order` of {text:?} is not True or False"))),
        };
        let (rows, cols) = value(text, "shape")
            .and_then(shape)
            .ok_or_else(|| from.wrong(format!("`shape` of {text:?} has not one or two dimensions")))?;
        Ok(Head { rows, cols, kind, big, fortran, begin: from.at() })
    }

    /// Bytes of the whole file.
    pub(super) fn size(&self) -> Option<u64> {
        let row = self.cols.checked_mul(self.kind.size() as u64)?;
        self.rows.checked_mul(row)?.checked_add(self.begin as u64)
    }
}

impl<'a> Array<'a> {
    /// Reads a file.
    pub(super) fn read(format: &'static str, bytes: &'a [u8]) -> Result<Self, CloudError> {
        let head = Head::read(format, bytes)?;
        if head.size() != Some(bytes.len() as u64) {
            return Err(CloudError::Format {
                format,
                why: format!(
                    "an array of {} x {} numbers of {} bytes has {} bytes after its header",
                    head.rows,
                    head.cols,
                    head.kind.size(),
                    bytes.len() - head.begin
                ),
            });
        }
        Ok(Array { head, data: &bytes[head.begin..] })
    }

    /// Rows.
    pub(super) fn rows(&self) -> u64 {
        self.head.rows
    }

    /// Numbers of a row.
    pub(super) fn cols(&self) -> u64 {
        self.head.cols
    }

    /// Column number `col`.
    pub(super) fn column(&self, col: usize) -> Column<'a> {
        let (rows, cols, size) = (self.head.rows as usize, self.head.cols as usize, self.head.kind.size());
        let (first, stride) = if self.head.fortran { (col * rows, 1) } else { (col, cols) };
        Column::packed(self.data, self.head.kind, self.head.big, first * size, stride * size, rows)
            .expect("the size of the file was compared with its shape")
    }
}

/// What follows `'key':` in a header.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let at = [format!("'{key}'"), format!("\"{key}\"")].iter().find_map(|k| Some(text.find(k)? + k.len()))?;
    Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
}

fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    text[1..].split_once(quote).map(|(inside, _)| inside)
}

fn dtype(text: &str) -> Option<(Kind, bool)> {
    let big = text.starts_with('>');
    let kind = match text.trim_start_matches(['<', '>', '|', '=']) {
        "b1" | "u1" => Kind::U8,
        "i1" => Kind::I8,
        "i2" => Kind::I16,
        "u2" => Kind::U16,
        "i4" => Kind::I32,
        "u4" => Kind::U32,
        "i8" => Kind::I64,
        "u8" => Kind::U64,
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return None,
    };
    Some((kind, big))
}

fn shape(text: &str) -> Option<(u64, u64)> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let mut sizes = inside.split(',').map(str::trim).filter(|s| !s.is_empty());
    let rows = sizes.next()?.parse().ok()?;
    let cols = sizes.next().map_or(Ok(1), str::parse).ok()?;
    sizes.next().is_none().then_some((rows, cols))
}

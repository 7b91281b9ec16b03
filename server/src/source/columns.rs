//! Columns of one Parquet shard: the picture column by pages and rows, labels and groups as texts or numbers.

use super::{
    SourceError,
    shard::{Positional, Shard},
};
use ::parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rows whose values are in memory at once while a shard is indexed.
const BATCH: usize = 32;

/// An open shard.
pub(super) struct Opened {
    /// Its footer and pages.
    pub reader: SerializedFileReader<Positional>,
    image: usize,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("image", &self.image).finish_non_exhaustive()
    }
}

impl Opened {
    /// Reads the footer and finds the image column.
    pub fn new(shard: &Shard, file: Positional, column: &str) -> Result<Opened, SourceError> {
        let reader = SerializedFileReader::new(file).map_err(|error| broken(shard, error))?;
        let nested = format!("{column}.bytes");
        let image = find_column(shard, &reader, column, |path| path == column || path == nested)?;
        let kind = reader.metadata().file_metadata().schema_descr().column(image).physical_type();
        if kind != ::parquet::basic::Type::BYTE_ARRAY {
            return Err(shard.format(format!("column `{column}` is {kind}, want BYTE_ARRAY")));
        }
        Ok(Opened { reader, image })
    }

    fn reader_of(&self, shard: &Shard, row_group: usize, column: usize) -> Result<ColumnReader, SourceError> {
        let group = self.reader.get_row_group(row_group).map_err(|error| broken(shard, error))?;
        group.get_column_reader(column).map_err(|error| broken(shard, error))
    }

    fn full(&self, column: usize) -> i16 {
        self.reader.metadata().file_metadata().schema_descr().column(column).max_def_level()
    }

    /// Rows of each page of the image column of a row group; reads headers only.
    pub fn pages(&self, shard: &Shard, row_group: usize, rows: u64) -> Result<Vec<u64>, SourceError> {
        let group = self.reader.get_row_group(row_group).map_err(|error| broken(shard, error))?;
        let mut reader = group.get_column_page_reader(self.image).map_err(|error| broken(shard, error))?;
        let mut pages = Vec::new();
        while let Some(page) = reader.peek_next_page().map_err(|error| broken(shard, error))? {
            if !page.is_dict {
                let rows = page.num_rows.or(page.num_levels); // without repetition, every level is a row
                pages.push(rows.unwrap_or_default() as u64);
            }
            reader.skip_next_page().map_err(|error| broken(shard, error))?;
        }
        let sum = pages.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
        if sum != Some(rows) {
            return Err(
                shard.format(format!("the pages of row group {row_group} have {sum:?} rows, want {rows}"))
            );
        }
        Ok(pages)
    }

    /// Hands `rows` pictures from row `start` of a row group to `each`.
    pub fn pictures(
        &self,
        shard: &Shard,
        row_group: usize,
        start: u64,
        rows: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.reader_of(shard, row_group, self.image)?
        else {
            return Err(shard.format("the image column is no BYTE_ARRAY"));
        };
        let skipped = reader.skip_records(start as usize).map_err(|error| broken(shard, error))?;
        if skipped as u64 != start {
            return Err(
                shard.format(format!("row group {row_group} ends at row {skipped}, want {start} and more"))
            );
        }
        let mut row = start;
        values(shard, reader, self.full(self.image), rows, |value| {
            let picture = value
                .ok_or_else(|| shard.format(format!("row {row} of row group {row_group} has no picture")))?;
            row += 1;
            each(picture.data())
        })
    }

    /// Texts or numbers of a column of one row group.
    pub fn scalars(
        &self,
        shard: &Shard,
        row_group: usize,
        column: usize,
        rows: usize,
    ) -> Result<Vec<Scalar>, SourceError> {
        use ColumnReader as C;
        let (mut out, full) = (Vec::new(), self.full(column));
        let mut put = |value: Option<Scalar>| {
            out.push(value.unwrap_or(Scalar::None));
            Ok(())
        };
        match self.reader_of(shard, row_group, column)? {
            C::BoolColumnReader(r) => {
                values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(i64::from(*v)))))?
            }
            C::Int32ColumnReader(r) => {
                values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(i64::from(*v)))))?
            }
            C::Int64ColumnReader(r) => values(shard, r, full, rows, |v| put(v.map(|v| Scalar::Number(*v))))?,
            C::ByteArrayColumnReader(r) => values(shard, r, full, rows, |v| {
                let text = v
                    .map(|v| std::str::from_utf8(v.data()).map(|text| Scalar::Text(text.into())))
                    .transpose();
                put(text.map_err(|_| shard.format("a label or group is no UTF-8"))?)
            })?,
            C::Int96ColumnReader(_)
            | C::FloatColumnReader(_)
            | C::DoubleColumnReader(_)
            | C::FixedLenByteArrayColumnReader(_) => {
                let path =
                    self.reader.metadata().file_metadata().schema_descr().column(column).path().string();
                return Err(shard.format(format!("column `{path}` has neither integers nor texts")));
            }
        }
        Ok(out)
    }
}

/// A label or group in a column.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    None,
    Number(i64),
    Text(String),
}

/// Hands `rows` values to `each`, `None` for nulls.
fn values<T: DataType>(
    shard: &Shard,
    mut reader: ColumnReaderImpl<T>,
    full: i16,
    rows: usize,
    mut each: impl FnMut(Option<&T::T>) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let mut left = rows;
    while left > 0 {
        let (mut levels, mut found) = (Vec::new(), Vec::new());
        let read = reader.read_records(left.min(BATCH), Some(&mut levels), None, &mut found);
        let (records, _, _) = read.map_err(|error| broken(shard, error))?;
        if records == 0 {
            return Err(shard.format(format!("a row group has {left} rows less than its footer says")));
        }
        let mut found = found.iter();
        for row in 0..records.min(left) {
            let null = full > 0 && levels.get(row).is_none_or(|level| *level < full);
            each(if null { None } else { found.next() })?;
        }
        left -= records.min(left);
    }
    Ok(())
}

/// Number of the leaf column whose path fits.
pub(super) fn find_column(
    shard: &Shard,
    reader: &SerializedFileReader<Positional>,
    name: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<usize, SourceError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let Some(number) = schema.columns().iter().position(|column| fits(&column.path().string())) else {
        let known: Vec<String> =
            schema.columns().iter().map(|column| format!("`{}`", column.path().string())).collect();
        return Err(shard.format(format!("has no column `{name}`, want one of {}", known.join(", "))));
    };
    if schema.column(number).max_rep_level() > 0 {
        return Err(shard.format(format!("column `{name}` holds lists, want one value a row")));
    }
    Ok(number)
}

fn broken(shard: &Shard, error: ParquetError) -> SourceError {
    if let ParquetError::External(inner) = &error
        && let Some(io) = inner.downcast_ref::<std::io::Error>()
        // The file is as long as it was: what is asked for beyond its end is a wrong place in its footer.
        && io.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return SourceError::io(shard.shown.as_str(), std::io::Error::new(io.kind(), io.to_string()));
    }
    shard.format(format!("is no readable Parquet file: {error}"))
}

/// Runs `read` and turns a panic of the decoder into an error: damaged files must not stop the server.
pub(super) fn decoding<T>(
    shard: &Shard,
    read: impl FnOnce() -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(shard.format("is damaged: its decoder gave up")))
}

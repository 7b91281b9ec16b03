//! Tables as text: a point a line, numbers between blanks, commas or semicolons; lines that begin with # are comments.

use super::{
    CloudError, Limits, Scene, arrays,
    column::{Column, Kind},
};

/// Decodes a table of 3, 6, 7 or 8 columns, see [`arrays::table`].
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Scene, CloudError> {
    let text = str::from_utf8(bytes).map_err(|e| wrong(format!("is no text: {e}")))?;
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let points = lines().count();
    limits.allow(points as u64)?;
    let width = lines().next().map_or(0, |line| fields(line).count());
    if !(3..=8).contains(&width) {
        return Err(wrong(format!("the first line has {width} numbers, want 3 to 8")));
    }
    let mut columns: Vec<Vec<f64>> = (0..width).map(|_| Vec::with_capacity(points)).collect();
    for (point, line) in lines().enumerate() {
        let mut found = 0;
        for (at, field) in fields(line).enumerate() {
            let value: f64 =
                field.parse().map_err(|_| wrong(format!("number {at} of point {point} is {field:?}")))?;
            if let Some(column) = columns.get_mut(at) {
                column.push(value);
            }
            found += 1;
        }
        if found != width {
            return Err(wrong(format!("point {point} has {found} numbers, want {width}")));
        }
    }
    let columns: Vec<Column> = columns.into_iter().map(|v| Column::values(Kind::F64, v)).collect();
    arrays::table("text", &columns)
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_ascii_whitespace() || c == ',' || c == ';').filter(|f| !f.is_empty())
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "text", why }
}

//! One column of numbers as files hold them: any scalar type, either byte order, any stride.

use super::CloudError;

/// A scalar type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Kind::I8 | Kind::U8 => 1,
            Kind::I16 | Kind::U16 | Kind::F16 => 2,
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
        }
    }

    /// Whether it holds fractions.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::F32 | Kind::F64)
    }
}

/// Numbers of one column. 64-bit integers beyond 2^53 are rounded, and nothing that is built of them may be so large.
#[derive(Debug)]
pub(super) struct Column<'a> {
    kind: Kind,
    len: usize,
    cells: Cells<'a>,
}

#[derive(Debug)]
enum Cells<'a> {
    Packed { bytes: &'a [u8], big: bool, stride: usize },
    Values(Vec<f64>),
}

impl<'a> Column<'a> {
    /// `len` numbers, the first at byte `first`, each `stride` bytes after the one before. None when they do not fit.
    pub(super) fn packed(
        bytes: &'a [u8],
        kind: Kind,
        big: bool,
        first: usize,
        stride: usize,
        len: usize,
    ) -> Option<Self> {
        let bytes = bytes.get(first..)?;
        if len > 0 {
            let end = (len - 1).checked_mul(stride)?.checked_add(kind.size())?;
            if end > bytes.len() || stride < kind.size() {
                return None;
            }
        }
        Some(Column { kind, len, cells: Cells::Packed { bytes, big, stride } })
    }

    /// Numbers that were read from text; `kind` is what the file says they are.
    pub(super) fn values(kind: Kind, values: Vec<f64>) -> Self {
        Column { kind, len: values.len(), cells: Cells::Values(values) }
    }

    /// Numbers in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first number, 0 when there is none.
    pub(super) fn first(&self) -> f64 {
        let mut first = None;
        self.each(|_, v| first = first.or(Some(v)));
        first.unwrap_or(0.0)
    }

    /// The bytes of each number when they are i32, little-endian and without gaps, as most labels are.
    fn whole(&self) -> Option<&'a [[u8; 4]]> {
        match &self.cells {
            Cells::Packed { bytes, big: false, stride: 4 } if self.kind == Kind::I32 => {
                bytes.as_chunks().0.get(..self.len)
            }
            Cells::Packed { .. } | Cells::Values(_) => None,
        }
    }

    /// Calls `put` with each position and number.
    fn each(&self, mut put: impl FnMut(usize, f64)) {
        match &self.cells {
            Cells::Values(values) => values.iter().enumerate().for_each(|(at, &v)| put(at, v)),
            Cells::Packed { bytes, big, stride } => {
                macro_rules! walk {
                    ($n:literal, $value:expr) => {
                        walk(bytes, *stride, self.len, *big, $value, put)
                    };
                }
                match self.kind {
                    Kind::I8 => walk!(1, |b| f64::from(i8::from_le_bytes(b))),
                    Kind::U8 => walk!(1, |b: [u8; 1]| f64::from(b[0])),
                    Kind::I16 => walk!(2, |b| f64::from(i16::from_le_bytes(b))),
                    Kind::U16 => walk!(2, |b| f64::from(u16::from_le_bytes(b))),
                    Kind::I32 => walk!(4, |b| f64::from(i32::from_le_bytes(b))),
                    Kind::U32 => walk!(4, |b| f64::from(u32::from_le_bytes(b))),
                    Kind::I64 => walk!(8, |b| i64::from_le_bytes(b) as f64),
                    Kind::U64 => walk!(8, |b| u64::from_le_bytes(b) as f64),
                    Kind::F16 => walk!(2, |b| half(u16::from_le_bytes(b))),
                    Kind::F32 => walk!(4, |b| f64::from(f32::from_le_bytes(b))),
                    Kind::F64 => walk!(8, f64::from_le_bytes),
                }
            }
        }
    }
}

/// One loop per type, so that the type is not asked for at each number.
fn walk<const N: usize>(
    bytes: &[u8],
    stride: usize,
    len: usize,
    big: bool,
    value: impl Fn([u8; N]) -> f64,
    mut put: impl FnMut(usize, f64),
) {
    let cells = bytes.chunks(stride.max(1)).take(len).filter_map(|c| c.first_chunk::<N>());
    if big {
        cells.enumerate().for_each(|(at, cell)| {
            let mut cell = *cell;
            cell.reverse();
            put(at, value(cell));
        });
    } else {
        cells.enumerate().for_each(|(at, cell)| put(at, value(*cell)));
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction / f64::from(1 << 24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * f64::powi(2.0, exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The bytes of three columns of `kind` that lie side by side, little-endian and without gaps, as most arrays are.
fn rows<'a>(columns: [&Column<'a>; 3], kind: Kind) -> Option<&'a [u8]> {
    let size = kind.size();
    let Cells::Packed { bytes: whole, .. } = &columns[0].cells else { return None };
    for (number, column) in columns.iter().enumerate() {
        let Cells::Packed { bytes, big: false, stride } = &column.cells else { return None };
        let beside = whole.get(number * size..).is_some_and(|own| own.as_ptr() == bytes.as_ptr());
        if column.kind != kind || *stride != 3 * size || !beside {
            return None;
        }
    }
    whole.get(..columns[0].len * 3 * size)
}

/// Coordinates of three columns.
pub(super) fn coord(columns: [&Column; 3]) -> Result<Vec<[f64; 3]>, CloudError> {
    if let Some(bytes) = rows(columns, Kind::F64) {
        return threes(bytes.as_chunks().0);
    }
    let mut out = vec![[0.0; 3]; columns[0].len()];
    for (axis, column) in columns.iter().enumerate() {
        column.each(|at, v| out[at][axis] = v);
    }
    finite(&out)?;
    Ok(out)
}

/// Coordinates of points one after the other.
pub(super) fn threes(points: &[[u8; 24]]) -> Result<Vec<[f64; 3]>, CloudError> {
    /// Points that are looked at while they are still in the first-level cache.
    const TOGETHER: usize = 256;
    let number = |at: &[u8; 24]| std::array::from_fn(|axis| f64::from_le_bytes(at.as_chunks().0[axis]));
    let (mut out, mut clean): (Vec<[f64; 3]>, _) = (Vec::with_capacity(points.len()), true);
    for points in points.chunks(TOGETHER) {
        let begin = out.len();
        out.extend(points.iter().map(number));
        clean &= is_finite(&out[begin..]);
    }
    if !clean {
        finite(&out)?;
    }
    Ok(out)
}

/// Whether all are numbers. Without a branch per number: they are compared many at once.
fn is_finite(coord: &[[f64; 3]]) -> bool {
    coord.as_flattened().iter().fold(true, |all, v| all & (v.abs() < f64::INFINITY))
}

/// Refuses coordinates that are no numbers.
pub(super) fn finite(coord: &[[f64; 3]]) -> Result<(), CloudError> {
    if is_finite(coord) {
        return Ok(());
    }
    for (point, c) in coord.iter().enumerate() {
        for (field, v) in ["x", "y", "z"].into_iter().zip(c) {
            if !v.is_finite() {
                return Err(CloudError::NotFinite { field, point: point as u64, value: v.to_string() });
            }
        }
    }
    Ok(())
}

/// Normals of three columns.
pub(super) fn normal(columns: [&Column; 3]) -> Result<Vec<[f32; 3]>, CloudError> {
    let mut out = vec![[0.0; 3]; columns[0].len()];
    for (axis, column) in columns.iter().enumerate() {
        column.each(|at, v| out[at][axis] = v as f32);
    }
    finite_f32("normal", out.as_flattened(), 3)?;
    Ok(out)
}

/// One number per point.
pub(super) fn intensity(column: &Column) -> Result<Vec<f32>, CloudError> {
    let mut out = vec![0.0; column.len()];
    column.each(|at, v| out[at] = v as f32);
    finite_f32("intensity", &out, 1)?;
    Ok(out)
}

/// Refuses numbers that are none (or too large for an f32); a point has `width` of them.
pub(super) fn finite_f32(field: &'static str, values: &[f32], width: usize) -> Result<(), CloudError> {
    // Most have no such number, and are compared many at once.
    if values.iter().fold(true, |all, v| all & (v.abs() < f32::INFINITY)) {
        return Ok(());
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            Err(CloudError::NotFinite { field, point: (at / width) as u64, value: values[at].to_string() })
        }
    }
}

/// Colours of three columns. Fractions when all are in 0..=1 and the type is a float; 0..=255 otherwise, rounded; 16-bit
/// unsigned integers beyond 255 are divided by 257.
pub(super) fn color(format: &'static str, columns: [&Column; 3]) -> Result<Vec<[u8; 3]>, CloudError> {
    if let Some(bytes) = rows(columns, Kind::U8) {
        return Ok(bytes.as_chunks().0.to_vec());
    }
    let (mut low, mut high, mut whole) = (0.0_f64, 0.0_f64, 0.0_f64);
    for column in columns {
        column.each(|_, v| {
            (low, high) = (low.min(v), high.max(v));
            whole += v * 0.0; // NaN stays
        });
    }
    let float = columns.iter().any(|c| c.kind.is_float());
    let wide = columns.iter().all(|c| c.kind == Kind::U16);
    let scale = match high {
        h if float && h <= 1.0 => 255.0,
        h if h <= 255.0 => 1.0,
        _ if wide => 1.0 / 257.0,
        _ => f64::NAN,
    };
    if low < 0.0 || scale.is_nan() || whole != 0.0 {
        let found = if low < 0.0 { low } else { high + whole };
        return Err(CloudError::Format {
            format,
            why: format!("a colour is {found}, want 0 to 255, fractions of 1, or 16 bits unsigned"),
        });
    }
    let mut out = vec![[0; 3]; columns[0].len()];
    for (channel, column) in columns.iter().enumerate() {
        column.each(|at, v| out[at][channel] = (v * scale).round() as u8);
    }
    Ok(out)
}

/// Whole numbers of 32 bits.
pub(super) fn label(
    format: &'static str,
    name: &'static str,
    column: &Column,
) -> Result<Vec<i32>, CloudError> {
    if let Some(cells) = column.whole() {
        return Ok(cells.iter().map(|cell| i32::from_le_bytes(*cell)).collect());
    }
    let mut out = vec![0; column.len()];
    let mut bad = None;
    column.each(|at, v| {
        out[at] = v as i32;
        if f64::from(out[at]) != v && bad.is_none() {
            bad = Some((at, v));
        }
    });
    match bad {
        None => Ok(out),
        Some((at, v)) => Err(CloudError::Format {
            format,
            why: format!("{name} of point {at} is {v}, want a whole number of 32 bits"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_ieee() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 5.960_464_477_539_063e-8), (0x7bff, 65504.0)];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert_eq!(half(0xfc00), f64::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn colours_are_told_by_type_and_range() {
        let three = |kind, v: [f64; 2]| {
            let c = Column::values(kind, v.to_vec());
            color("ply", [&c, &c, &c]).map(|c| [c[0][0], c[1][0]])
        };
        assert_eq!(three(Kind::F32, [0.5, 1.0]).unwrap(), [128, 255]);
        assert_eq!(three(Kind::F32, [0.6, 254.5]).unwrap(), [1, 255]);
        assert_eq!(three(Kind::U8, [1.0, 0.0]).unwrap(), [1, 0]);
        assert_eq!(three(Kind::U16, [257.0, 65535.0]).unwrap(), [1, 255]);
        assert_eq!(three(Kind::U16, [3.0, 255.0]).unwrap(), [3, 255]);
        for bad in [[256.0, 0.0], [-0.1, 0.0], [f64::NAN, 0.0], [0.0, f64::INFINITY]] {
            assert!(three(Kind::F64, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_whole() {
        let of = |v: f64| label("npy", "segment", &Column::values(Kind::F64, vec![0.0, v]));
        assert_eq!(of(-1.0).unwrap(), [0, -1]);
        for bad in [1.5, 2_147_483_648.0, f64::NAN, -3e9] {
            assert!(of(bad).unwrap_err().to_string().contains("segment of point 1"), "{bad}");
        }
    }

    #[test]
    fn infinite_coordinates_are_named() {
        let (good, bad) =
            (Column::values(Kind::F64, vec![1e300; 2]), Column::values(Kind::F64, vec![0.0, -f64::INFINITY]));
        assert_eq!(coord([&good, &good, &good]).unwrap(), [[1e300; 3]; 2]);
        let error = coord([&good, &bad, &good]).unwrap_err();
        assert_eq!(error.to_string(), "y of point 1 is -inf, want a finite number");
    }
}

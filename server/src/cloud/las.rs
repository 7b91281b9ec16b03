//! LAS 1.0 to 1.4 (ASPRS), compressed (LAZ) or not. Coordinates, intensity, classification and colour are read; every
//! point is, whatever its withheld, synthetic or overlap flags say.

use super::{CloudError, Limits, Scene, column, laz, read::Cursor};
use rayon::prelude::*;

/// Bytes of a record of each point format, without extra bytes.
const RECORD: [u16; 11] = [20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67];
/// Where a record's red, green and blue begin; 0 for none.
const COLOR: [usize; 11] = [0, 0, 20, 28, 0, 28, 0, 30, 30, 0, 30];
/// Points of a piece of an uncompressed file that one thread converts.
const PIECE: usize = 1 << 16;

/// What a LAS header says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Point format, 0..=10.
    pub format: u8,
    /// Points are compressed.
    pub compressed: bool,
    /// Bytes of a record.
    pub record: u16,
    /// Points.
    pub points: u64,
    /// First byte of points.
    pub begin: u32,
    /// Bytes of the header.
    pub size: u16,
    /// Variable length records between header and points.
    pub vlrs: u32,
    scale: [f64; 3],
    offset: [f64; 3],
}

impl Header {
    fn check(&self, from: &Cursor) -> Result<(), CloudError> {
        let Header { format, record, scale, offset, .. } = self;
        let Some(want) = RECORD.get(usize::from(*format)) else {
            return Err(from.wrong(format!("point format is {format}, want 0 to 10")));
        };
        if record < want {
            return Err(
                from.wrong(format!("records have {record} bytes, want at least {want} of format {format}"))
            );
        }
        if !scale.iter().chain(offset).all(|v| v.is_finite()) || scale.contains(&0.0) {
            return Err(from.wrong(format!(
                "scale is {scale:?} and offset {offset:?}, want finite numbers and no scale 0"
            )));
        }
        Ok(())
    }

    /// Bytes of a record beyond its point format.
    pub(super) fn extra(&self) -> u16 {
        self.record - RECORD[usize::from(self.format)]
    }
}

/// Reads and checks a header.
pub(super) fn header(bytes: &[u8]) -> Result<Header, CloudError> {
    let mut from = Cursor::new("las", bytes);
    if from.take(4, "signature")? != b"LASF" {
        return Err(from.wrong("does not begin with LASF".into()));
    }
    from.seek(24, "version")?;
    let version = (from.u8("version")?, from.u8("version")?);
    from.seek(94, "header size")?;
    let (size, begin) = (from.u16("header size")?, from.u32("offset to points")?);
    let (vlrs, format) = (from.u32("count of records")?, from.u8("point format")?);
    let (record, legacy) = (from.u16("record length")?, from.u32("count of points")?);
    from.seek(131, "scale")?;
    let mut numbers = [0.0; 6];
    for v in &mut numbers {
        *v = from.f64("scale and offset")?;
    }
    let least = if version >= (1, 4) { 375 } else { 227 };
    if version.0 != 1 || version.1 > 4 {
        return Err(from.wrong(format!("version is {}.{}, want 1.0 to 1.4", version.0, version.1)));
    }
    if size < least || begin < u32::from(size) {
        return Err(from.wrong(format!("header has {size} bytes and points begin at {begin}, want {least}")));
    }
    let points = if version.1 < 4 { u64::from(legacy) } else { count_1_4(&mut from, legacy)? };
    let header = Header {
        format: format & 0x7f,
        compressed: format & 0x80 != 0,
        record,
        points,
        begin,
        size,
        vlrs,
        scale: [numbers[0], numbers[1], numbers[2]],
        offset: [numbers[3], numbers[4], numbers[5]],
    };
    header.check(&from)?;
    Ok(header)
}

/// Points of a 1.4 file: the wide count, which an old count that is not 0 must equal.
fn count_1_4(from: &mut Cursor, legacy: u32) -> Result<u64, CloudError> {
    from.seek(247, "count of points")?;
    let points = from.u64("count of points")?;
    match u64::from(legacy) {
        0 => Ok(points),
        old if old == points || points == 0 => Ok(old),
        old => Err(from.wrong(format!("has {points} points and {old} in the old count"))),
    }
}

/// Columns as they are filled.
#[derive(Debug)]
struct Columns {
    coord: Vec<[f64; 3]>,
    intensity: Vec<f32>,
    segment: Vec<i32>,
    color: Vec<[u16; 3]>,
}

/// A run of points of the columns.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    header: &'a Header,
    coord: &'a mut [[f64; 3]],
    intensity: &'a mut [f32],
    segment: &'a mut [i32],
    color: &'a mut [[u16; 3]],
}

impl Piece<'_> {
    /// Points.
    pub(super) fn len(&self) -> usize {
        self.coord.len()
    }

    /// Fills points from number `first` on from whole records; what does not fit is left.
    pub(super) fn fill(&mut self, first: usize, records: &[u8]) {
        let header = self.header;
        let records = records.chunks_exact(usize::from(header.record));
        let points = self.coord[first..].iter_mut().zip(&mut self.intensity[first..]);
        for ((r, (coord, intensity)), segment) in records.clone().zip(points).zip(&mut self.segment[first..])
        {
            let at = |i: usize| i32::from_le_bytes([r[i], r[i + 1], r[i + 2], r[i + 3]]);
            for (axis, c) in coord.iter_mut().enumerate() {
                *c = f64::from(at(4 * axis)) * header.scale[axis] + header.offset[axis];
            }
            *intensity = f32::from(u16::from_le_bytes([r[12], r[13]]));
            *segment = i32::from(if header.format < 6 { r[15] & 31 } else { r[16] });
        }
        let begin = COLOR[usize::from(header.format)];
        if begin > 0 {
            for (color, r) in self.color[first..].iter_mut().zip(records) {
                *color =
                    std::array::from_fn(|c| u16::from_le_bytes([r[begin + 2 * c], r[begin + 2 * c + 1]]));
            }
        }
    }
}

/// Points that a compressed byte may stand for; real tiles have a third of one.
const MOST_PER_BYTE: u64 = 64;

/// Decodes a file.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Scene, CloudError> {
    let header = header(bytes)?;
    limits.allow(header.points)?;
    let points = header.points as usize;
    if header.compressed {
        let file = laz::File::open(bytes, &header)?;
        plausible(&header, bytes.len())?;
        let mut columns = Columns::new(&header, points);
        let counts: Vec<usize> = file.chunks.iter().map(|c| c.points).collect();
        let pieces = columns.pieces(&header, &counts);
        pieces.into_par_iter().zip(&file.chunks).try_for_each(|(piece, chunk)| file.fill(piece, chunk))?;
        columns.scene(&header)
    } else {
        let mut from = Cursor::new("las", bytes);
        from.seek(u64::from(header.begin), "points")?;
        let length = usize::from(header.record);
        let records = from.take(header.points.saturating_mul(length as u64), "points")?;
        let mut columns = Columns::new(&header, points);
        let counts: Vec<usize> = (0..points).step_by(PIECE).map(|at| PIECE.min(points - at)).collect();
        let pieces = columns.pieces(&header, &counts);
        let records = records.par_chunks(PIECE * length);
        pieces.into_par_iter().zip(records).for_each(|(mut piece, records)| piece.fill(0, records));
        columns.scene(&header)
    }
}

/// Refuses counts that no file of `bytes` holds, before anything is allocated by them: a chunk's own count is as much a
/// claim as the header's.
fn plausible(header: &Header, bytes: usize) -> Result<(), CloudError> {
    let most = (bytes as u64).saturating_mul(MOST_PER_BYTE);
    if header.points <= most {
        return Ok(());
    }
    let why = format!("has {} points in {bytes} bytes, want at most {MOST_PER_BYTE} a byte", header.points);
    Err(CloudError::Format { format: "las", why })
}

impl Columns {
    fn new(header: &Header, points: usize) -> Self {
        let colored = COLOR[usize::from(header.format)] > 0;
        Columns {
            coord: vec![[0.0; 3]; points],
            intensity: vec![0.0; points],
            segment: vec![0; points],
            color: vec![[0; 3]; if colored { points } else { 0 }],
        }
    }

    /// The columns cut into runs of `counts` points.
    fn pieces<'a>(&'a mut self, header: &'a Header, counts: &[usize]) -> Vec<Piece<'a>> {
        let (mut coord, mut intensity) = (&mut self.coord[..], &mut self.intensity[..]);
        let (mut segment, mut color) = (&mut self.segment[..], &mut self.color[..]);
        let mut pieces = Vec::with_capacity(counts.len());
        for &n in counts {
            let colors = n.min(color.len());
            pieces.push(Piece {
                header,
                coord: coord.split_off_mut(..n).expect("counts add up to the points"),
                intensity: intensity.split_off_mut(..n).expect("counts add up to the points"),
                segment: segment.split_off_mut(..n).expect("counts add up to the points"),
                color: color.split_off_mut(..colors).expect("not more than there are"),
            });
        }
        pieces
    }

    fn scene(self, header: &Header) -> Result<Scene, CloudError> {
        column::finite(&self.coord)?;
        let colored = COLOR[usize::from(header.format)] > 0;
        Ok(Scene {
            coord: self.coord,
            color: colored.then(|| bytes_of(&self.color)),
            normal: None,
            intensity: Some(self.intensity),
            segment: Some(self.segment),
            instance: None,
        })
    }
}

/// 16-bit colours, or 8-bit ones that were stored as they are: then none is beyond 255.
fn bytes_of(color: &[[u16; 3]]) -> Vec<[u8; 3]> {
    let high = color.as_flattened().iter().copied().max().unwrap_or(0);
    let divisor = if high > 255 { 257 } else { 1 };
    color.iter().map(|c| c.map(|v| ((u32::from(v) + divisor / 2) / divisor) as u8)).collect()
}

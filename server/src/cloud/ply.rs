//! PLY: the element `vertex`, by names of its properties; everything else is passed over.

use super::{
    CloudError, Limits, Scene,
    column::{self, Column, Kind},
    ply_header::{self, Body, Element, Header, Property},
    read::Cursor,
};
use std::borrow::Cow;

/// Names of properties that mean the same, the first that is there counts. A name of three means x, y, z or r, g, b.
const COORD: [&[&str]; 3] = [&["x"], &["y"], &["z"]];
const COLOR: [&[&str]; 3] =
    [&["red", "r", "diffuse_red"], &["green", "g", "diffuse_green"], &["blue", "b", "diffuse_blue"]];
const NORMAL: [&[&str]; 3] = [&["nx", "normal_x"], &["ny", "normal_y"], &["nz", "normal_z"]];
const INTENSITY: &[&str] = &["intensity", "reflectance", "scalar_intensity", "scalar_reflectance"];
const SEGMENT: &[&str] = &[
    "segment",
    "class",
    "label",
    "semantic",
    "classification",
    "segment_index",
    "scalar_label",
    "scalar_class",
    "scalar_classification",
];
const INSTANCE: &[&str] = &["instance", "instance_id", "scalar_instance"];

/// Points, from the header.
pub(super) fn peek(bytes: &[u8]) -> Result<u64, CloudError> {
    Ok(ply_header::read(bytes)?.vertex.count)
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Scene, CloudError> {
    let header = ply_header::read(bytes)?;
    limits.allow(header.vertex.count)?;
    let body = &bytes[header.begin..];
    match header.body {
        Body::Ascii => ascii(&header, body),
        Body::Binary { big } => binary(&header, body, big),
    }
}

fn ascii(header: &Header, body: &[u8]) -> Result<Scene, CloudError> {
    let mut words = body.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let mut next = || -> Result<f64, CloudError> {
        let word = words.next().ok_or_else(|| wrong("is cut short: numbers are missing".into()))?;
        let number = str::from_utf8(word).ok().and_then(|w| w.parse().ok());
        number.ok_or_else(|| wrong(format!("{:?} is no number", String::from_utf8_lossy(word))))
    };
    let mut walk = |element: &Element, columns: &mut [Vec<f64>]| {
        // Elements without properties take no room, and their count no time.
        let count = if element.properties.is_empty() { 0 } else { element.count };
        for _ in 0..count {
            for (at, property) in element.properties.iter().enumerate() {
                let number = next()?;
                match property {
                    Property::Scalar { .. } => columns.get_mut(at).into_iter().for_each(|c| c.push(number)),
                    Property::List { .. } => {
                        for _ in 0..items(number)? {
                            next()?;
                        }
                    }
                }
            }
        }
        Ok(())
    };
    for element in &header.before {
        walk(element, &mut [])?;
    }
    let vertex = &header.vertex;
    room(vertex, 2 * vertex.properties.len(), body.len() + 1)?;
    let mut columns: Vec<Vec<f64>> =
        vertex.properties.iter().map(|_| Vec::with_capacity(vertex.count as usize)).collect();
    walk(vertex, &mut columns)?;
    if words.next().is_none() && !body.last().is_some_and(u8::is_ascii_whitespace) {
        return Err(wrong("is cut short: the last line has no end".into()));
    }
    let mut columns: Vec<Option<Vec<f64>>> = columns.into_iter().map(Some).collect();
    scene(vertex, |at, kind| columns[at].take().map(|values| Column::values(kind, values)))
}

fn binary(header: &Header, body: &[u8], big: bool) -> Result<Scene, CloudError> {
    let mut from = Cursor::new("ply", body);
    for element in &header.before {
        packed(&mut from, element, big, false)?;
    }
    let vertex = &header.vertex;
    room(vertex, vertex.least(), from.rest().len())?;
    let (stride, records) = packed(&mut from, vertex, big, true)?;
    let mut firsts = Vec::new();
    let mut first = 0;
    for property in &vertex.properties {
        firsts.push(first);
        if let Property::Scalar { kind, .. } = property {
            first += kind.size();
        }
    }
    let count = vertex.count as usize;
    scene(vertex, |at, kind| Column::packed(&records, kind, big, firsts[at], stride, count))
}

/// The scalars of every element, `stride` bytes each: as they stand, or copied (if `keep`) from between lists.
fn packed<'a>(
    from: &mut Cursor<'a>,
    element: &Element,
    big: bool,
    keep: bool,
) -> Result<(usize, Cow<'a, [u8]>), CloudError> {
    let stride = element.properties.iter().map(|p| match p {
        Property::Scalar { kind, .. } => kind.size(),
        Property::List { .. } => 0,
    });
    let stride: usize = stride.sum();
    if element.is_fixed() {
        let size = element.count.saturating_mul(stride as u64);
        return Ok((stride, Cow::Borrowed(from.take(size, "elements")?)));
    }
    let mut out = Vec::with_capacity(if keep { stride * element.count as usize } else { 0 });
    for _ in 0..element.count {
        for property in &element.properties {
            match property {
                Property::Scalar { kind, .. } => {
                    let number = from.take(kind.size() as u64, "element")?;
                    if keep {
                        out.extend_from_slice(number);
                    }
                }
                Property::List { count, item } => {
                    let cell = from.take(count.size() as u64, "length of a list")?;
                    let number = Column::packed(cell, *count, big, 0, count.size(), 1).map(|c| c.first());
                    from.take(items(number.unwrap_or(0.0))? * item.size() as u64, "list")?;
                }
            }
        }
    }
    Ok((stride, Cow::Owned(out)))
}

/// Items of a list that says that it has `number`.
fn items(number: f64) -> Result<u64, CloudError> {
    if number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0 {
        Ok(number as u64)
    } else {
        Err(wrong(format!("a list has {number} items")))
    }
}

/// Refuses a count that `bytes` cannot hold, before anything is allocated for it.
fn room(vertex: &Element, least: usize, bytes: usize) -> Result<(), CloudError> {
    if vertex.count.saturating_mul(least as u64) > bytes as u64 {
        return Err(wrong(format!("is cut short: {bytes} bytes are too few for {} points", vertex.count)));
    }
    Ok(())
}

/// A scene of the columns that `column` gives by number of property, each at most once.
fn scene<'a>(
    vertex: &Element,
    mut column: impl FnMut(usize, Kind) -> Option<Column<'a>>,
) -> Result<Scene, CloudError> {
    let mut one = |names: &[&str]| {
        let mut found = names.iter().filter_map(|want| {
            vertex.properties.iter().enumerate().find_map(|(at, property)| match property {
                Property::Scalar { name, kind } if name == want => Some((at, *kind)),
                Property::Scalar { .. } | Property::List { .. } => None,
            })
        });
        found.next().and_then(|(at, kind)| column(at, kind))
    };
    let mut three = |names: [&[&str]; 3]| match names.map(&mut one) {
        [Some(a), Some(b), Some(c)] => Ok(Some([a, b, c])),
        [None, None, None] => Ok(None),
        _ => Err(wrong(format!("a vertex has some of {}, {}, {}", names[0][0], names[1][0], names[2][0]))),
    };
    let coord = three(COORD)?.ok_or_else(|| wrong("a vertex has no x, y, z".into()))?;
    let (color, normal) = (three(COLOR)?, three(NORMAL)?);
    Ok(Scene {
        coord: column::coord(coord.each_ref())?,
        color: color.map(|c| column::color("ply", c.each_ref())).transpose()?,
        normal: normal.map(|c| column::normal(c.each_ref())).transpose()?,
        intensity: one(INTENSITY).map(|c| column::intensity(&c)).transpose()?,
        segment: one(SEGMENT).map(|c| column::label("ply", "segment", &c)).transpose()?,
        instance: one(INSTANCE).map(|c| column::label("ply", "instance", &c)).transpose()?,
    })
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "ply", why }
}

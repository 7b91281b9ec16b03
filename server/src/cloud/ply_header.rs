//! Headers of PLY files.

use super::{CloudError, column::Kind};

/// A header is shorter than this.
const LONGEST: usize = 1 << 16;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Ascii,
    Binary { big: bool },
}

/// A property of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Scalar {
        name: String,
        kind: Kind,
    },
    /// As many items as a count before them says.
    List {
        count: Kind,
        item: Kind,
    },
}

/// A kind of element: "vertex", "face".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub name: String,
    pub count: u64,
    pub properties: Vec<Property>,
}

impl Element {
    /// Bytes that one takes at least in a binary body, lists being empty.
    pub(super) fn least(&self) -> usize {
        let least = |p: &Property| match p {
            Property::Scalar { kind, .. } => kind.size(),
            Property::List { count, .. } => count.size(),
        };
        self.properties.iter().map(least).sum()
    }

    /// Whether all take the same.
    pub(super) fn is_fixed(&self) -> bool {
        self.properties.iter().all(|p| matches!(p, Property::Scalar { .. }))
    }
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub body: Body,
    /// Elements before the vertices.
    pub before: Vec<Element>,
    pub vertex: Element,
    /// First byte of the body.
    pub begin: usize,
}

/// Reads a header.
pub(super) fn read(bytes: &[u8]) -> Result<Header, CloudError> {
    let head = &bytes[..bytes.len().min(LONGEST)];
    let (mut at, mut body, mut elements) = (0, None, Vec::<Element>::new());
    loop {
        let length = head[at..]
            .iter()
            .position(|&b| b == b'\n')
            .ok_or_else(|| wrong("header has no line end_header: cut short?".into()))?;
        let line = str::from_utf8(&head[at..at + length]).map_err(|_| wrong("header is no text".into()))?;
        let first = at == 0;
        at += length + 1;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match *words {
            ["ply"] if first => {}
            _ if first => return Err(wrong("does not begin with a line ply".into())),
            ["end_header"] => break,
            ["comment" | "obj_info", ..] | [] => {}
            ["format", name, _] if body.is_none() => body = Some(format(name)?),
            ["element", name, count] => elements.push(Element {
                name: name.to_owned(),
                count: count.parse().map_err(|_| unknown(line))?,
                properties: Vec::new(),
            }),
            ["property", ref property @ ..] => {
                let property = self::property(property).ok_or_else(|| unknown(line))?;
                elements.last_mut().ok_or_else(|| unknown(line))?.properties.push(property);
            }
            _ => return Err(unknown(line)),
        }
    }
    let body = body.ok_or_else(|| wrong("header names no format".into()))?;
    let vertex = elements
        .iter()
        .position(|e| e.name == "vertex")
        .ok_or_else(|| wrong("has no element vertex".into()))?;
    elements.truncate(vertex + 1);
    let vertex = elements.pop().expect("it was found");
    Ok(Header { body, before: elements, vertex, begin: at })
}

fn format(name: &str) -> Result<Body, CloudError> {
    match name {
        "ascii" => Ok(Body::Ascii),
        "binary_little_endian" => Ok(Body::Binary { big: false }),
        "binary_big_endian" => Ok(Body::Binary { big: true }),
        _ => Err(wrong(format!("format is {name}, want ascii, binary_little_endian or binary_big_endian"))),
    }
}

fn property(words: &[&str]) -> Option<Property> {
    match words {
        ["list", count, item, _] => {
            let count = kind(count).filter(|k| !k.is_float())?;
            Some(Property::List { count, item: kind(item)? })
        }
        [type_, name] => Some(Property::Scalar { name: name.to_ascii_lowercase(), kind: kind(type_)? }),
        _ => None,
    }
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "char" | "int8" => Kind::I8,
        "uchar" | "uint8" => Kind::U8,
        "short" | "int16" => Kind::I16,
        "ushort" | "uint16" => Kind::U16,
        "int" | "int32" => Kind::I32,
        "uint" | "uint32" => Kind::U32,
        "int64" | "long" => Kind::I64,
        "uint64" | "ulong" => Kind::U64,
        "float" | "float32" => Kind::F32,
        "double" | "float64" => Kind::F64,
        _ => return None,
    })
}

fn unknown(line: &str) -> CloudError {
    wrong(format!("line {line:?} of the header is not understood"))
}

fn wrong(why: String) -> CloudError {
    CloudError::Format { format: "ply", why }
}

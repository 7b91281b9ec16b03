//! Arrays to scenes, by their names: folders of `.npy`, `.npz`, and tables of columns.

use super::{
    CloudError, Limits, Scene,
    column::{self, Column},
    npy::Array,
};

/// What an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Coord,
    Color,
    Normal,
    Intensity,
    Segment,
    Instance,
}

/// Names of arrays; where several of a role are there, the first in this order counts.
const NAMES: &[(&str, Role)] = &[
    ("coord", Role::Coord),
    ("coords", Role::Coord),
    ("xyz", Role::Coord),
    ("points", Role::Coord),
    ("color", Role::Color),
    ("colors", Role::Color),
    ("rgb", Role::Color),
    ("normal", Role::Normal),
    ("normals", Role::Normal),
    ("strength", Role::Intensity),
    ("intensity", Role::Intensity),
    ("reflectance", Role::Intensity),
    ("segment", Role::Segment),
    ("segment20", Role::Segment),
    ("segment200", Role::Segment),
    ("label", Role::Segment),
    ("labels", Role::Segment),
    ("semantic", Role::Segment),
    ("instance", Role::Instance),
    ("instances", Role::Instance),
];

const ATTRIBUTES: [Role; 5] = [Role::Color, Role::Normal, Role::Intensity, Role::Segment, Role::Instance];

/// Whether a folder's array of this name (without `.npy`) is part of its scene.
pub fn is_known(stem: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == stem)
}

/// The array of `role` among `arrays`, with its name.
fn find<T>(arrays: &[(String, T)], role: Role) -> Option<&(String, T)> {
    let names = NAMES.iter().filter(|(_, r)| *r == role);
    names.filter_map(|(name, _)| arrays.iter().find(|(stem, _)| stem == name)).next()
}

/// The array that has the coordinates: the one named so, or one that is alone and is not named as something else.
pub(super) fn coord<'n, T>(
    format: &'static str,
    arrays: &'n [(String, T)],
) -> Result<&'n (String, T), CloudError> {
    let named = |name: &str| NAMES.iter().any(|(known, _)| *known == name);
    match (find(arrays, Role::Coord), arrays) {
        (Some(found), _) => Ok(found),
        (None, [alone]) if !named(&alone.0) => Ok(alone),
        _ => {
            let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
            let why = format!("has arrays {names:?} and none of coord, coords, xyz, points");
            Err(CloudError::Format { format, why })
        }
    }
}

/// The arrays that make the scene, by their names without folders and endings: coordinates first.
pub(super) fn used<'n, T>(
    format: &'static str,
    arrays: &'n [(String, T)],
) -> Result<Vec<&'n (String, T)>, CloudError> {
    let mut used = vec![coord(format, arrays)?];
    used.extend(ATTRIBUTES.iter().filter_map(|&role| find(arrays, role)));
    Ok(used)
}

/// A scene of named arrays. An array alone may hold everything, see [`table`].
pub(super) fn scene(
    format: &'static str,
    arrays: &[(String, Array)],
    limits: &Limits,
) -> Result<Scene, CloudError> {
    let (name, xyz) = coord(format, arrays)?;
    limits.allow(xyz.rows())?;
    if xyz.cols() != 3 && ATTRIBUTES.iter().all(|&role| find(arrays, role).is_none()) {
        // Up to one more than any table has, so that a hostile width costs nothing.
        let columns: Vec<Column> = (0..xyz.cols().min(9) as usize).map(|c| xyz.column(c)).collect();
        return table(format, &columns);
    }
    let get = |role, width| match find(arrays, role) {
        None => Ok(None),
        Some((name, array)) => shaped(format, name, array, xyz.rows(), width).map(|()| Some(array)),
    };
    shaped(format, name, xyz, xyz.rows(), 3)?;
    let (color, normal, intensity) = (get(Role::Color, 3)?, get(Role::Normal, 3)?, get(Role::Intensity, 1)?);
    let (segment, instance) = (get(Role::Segment, 1)?, get(Role::Instance, 1)?);
    Ok(Scene {
        coord: three(xyz, column::coord)?,
        color: color.map(|a| three(a, |c| column::color(format, c))).transpose()?,
        normal: normal.map(|a| three(a, column::normal)).transpose()?,
        intensity: intensity.map(|a| column::intensity(&a.column(0))).transpose()?,
        segment: segment.map(|a| column::label(format, "segment", &a.column(0))).transpose()?,
        instance: instance.map(|a| column::label(format, "instance", &a.column(0))).transpose()?,
    })
}

fn three<T>(
    array: &Array,
    of: impl Fn([&Column; 3]) -> Result<Vec<T>, CloudError>,
) -> Result<Vec<T>, CloudError> {
    of([&array.column(0), &array.column(1), &array.column(2)])
}

fn shaped(format: &'static str, name: &str, array: &Array, rows: u64, cols: u64) -> Result<(), CloudError> {
    if (array.rows(), array.cols()) == (rows, cols) {
        return Ok(());
    }
    let why = format!("{name} is {} x {}, want {rows} x {cols}", array.rows(), array.cols());
    Err(CloudError::Format { format, why })
}

/// A scene of 3, 6, 7 or 8 columns: `x y z [r g b [label [instance]]]`, as S3DIS and its kin are kept.
pub(super) fn table(format: &'static str, columns: &[Column]) -> Result<Scene, CloudError> {
    let [x, y, z, rest @ ..] = columns else {
        return Err(width(format, columns.len()));
    };
    let mut scene = Scene::default();
    match rest {
        [] => {}
        [r, g, b, labels @ ..] if labels.len() <= 2 => {
            scene.color = Some(column::color(format, [r, g, b])?);
            scene.segment = labels.first().map(|c| column::label(format, "label", c)).transpose()?;
            scene.instance = labels.get(1).map(|c| column::label(format, "instance", c)).transpose()?;
        }
        _ => return Err(width(format, columns.len())),
    }
    scene.coord = column::coord([x, y, z])?;
    Ok(scene)
}

fn width(format: &'static str, found: usize) -> CloudError {
    let why = format!("has {found} columns, want x y z, r g b, label, instance: 3, 6, 7 or 8");
    CloudError::Format { format, why }
}

//! Scenes of points for people: what was mixed and what came out of it, in an oblique view from above.
//!
//! One camera serves all panels of an example ([`camera`]), so that a point of a part and the same point of the union
//! lie at the same place. Nearer points hide farther ones and creases are darkened ([`surface`]), which shows shape
//! whatever the colours mean ([`palette`]). [`page`] puts panels, captions and the list of classes on a page.

mod camera;
mod page;
mod palette;
mod surface;

#[cfg(test)]
mod tests;

use super::{Picture, PictureError};
use camera::Camera;
pub use palette::asprs;
use surface::Surface;

/// Points of one scene. Every attribute has as many entries as there are points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cloud<'a> {
    /// x, y, z in any unit, z upwards. Points with a coordinate that is not finite are not drawn.
    pub coord: &'a [[f32; 3]],
    /// Class of each point.
    pub class: Option<&'a [i32]>,
    /// Red, green, blue of each point.
    pub color: Option<&'a [[u8; 3]]>,
}

/// One of the scenes that were mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part<'a> {
    /// What it is called, best a file name.
    pub name: &'a str,
    /// Its points as they entered the mix.
    pub cloud: Cloud<'a>,
}

/// One row of a batch: its parts and their union, all in the coordinates of the union.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Example<'a> {
    /// Heading, may be empty.
    pub title: &'a str,
    /// Scene 0, scene 1 and so on.
    pub parts: &'a [Part<'a>],
    /// What the trainer gets.
    pub union: Cloud<'a>,
    /// Number of the part that each point of the union is from.
    pub origin: &'a [u8],
}

/// What classes are called. It decides their colours too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassNames<'a> {
    /// Those of survey tiles, see [`asprs`].
    Asprs,
    /// Class and name; a class that is not listed goes by its number.
    Own(&'a [(i32, String)]),
}

/// Meaning of the colours of all panels but the one by origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Class; by height where there is none.
    Class,
    /// Red, green, blue as stored; by class where there are none.
    Color,
}

/// A page of examples, each with one panel per part, one of the union, and one of the union by origin.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneSheet<'a> {
    /// Heading of the page.
    pub title: &'a str,
    /// Smaller text below it, may be empty.
    pub subtitle: &'a str,
    /// From top to bottom.
    pub examples: &'a [Example<'a>],
    /// Names of classes.
    pub names: ClassNames<'a>,
    /// Meaning of the colours.
    pub paint: Paint,
}

impl SceneSheet<'_> {
    /// Renders the sheet as an RGB PNG; the same bytes for the same points in the same order.
    ///
    /// # Errors
    /// [`PictureError`]: attributes that do not match their points, or more than [`MAX_PIXELS`](super::MAX_PIXELS).
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        for (number, example) in self.examples.iter().enumerate() {
            for part in example.parts {
                part.cloud.check(|| format!("`{}` of example {number}", part.name))?;
            }
            example.union.check(|| format!("the union of example {number}"))?;
            let (found, points) = (example.origin.len(), example.union.coord.len());
            if found != points {
                let what = format!("the union of example {number}");
                return Err(PictureError::Points { what, field: "origin", found, points });
            }
        }
        page::Plan::new(self).paint()?.png()
    }
}

/// Renders one scene, `height` x `width` pixels (both >= 1), without any text.
///
/// # Errors
/// [`PictureError`]: attributes that do not match their points, or more than [`MAX_PIXELS`](super::MAX_PIXELS).
pub fn picture(
    cloud: Cloud,
    names: ClassNames,
    paint: Paint,
    (height, width): (u32, u32),
) -> Result<Picture, PictureError> {
    cloud.check(|| "the scene".to_owned())?;
    let (height, width) = (height.max(1), width.max(1));
    if u64::from(height) * u64::from(width) > super::MAX_PIXELS {
        return Err(PictureError::TooLarge { height: height.into(), width: width.into() });
    }
    let camera = Camera::new([cloud], height as usize, width as usize);
    Ok(panel(cloud, &colors(cloud, names, paint), camera.as_ref(), (height, width)))
}

impl Cloud<'_> {
    fn check(&self, what: impl Fn() -> String) -> Result<(), PictureError> {
        let points = self.coord.len();
        let lengths = [("class", self.class.map(<[i32]>::len)), ("color", self.color.map(<[[u8; 3]]>::len))];
        for (field, found) in lengths {
            if let Some(found) = found.filter(|found| *found != points) {
                return Err(PictureError::Points { what: what(), field, found, points });
            }
        }
        Ok(())
    }
}

/// Colours of the points before light and shade.
fn colors(cloud: Cloud, names: ClassNames, paint: Paint) -> Vec<[u8; 3]> {
    match (paint, cloud.class, cloud.color) {
        (Paint::Color, _, Some(color)) => color.to_vec(),
        (_, Some(class), _) => class.iter().map(|class| palette::class(*class, names)).collect(),
        (_, None, _) => vec![palette::PLAIN; cloud.coord.len()],
    }
}

/// Draws points with their colours. Without a camera there is nothing to be seen but the ground of the picture.
fn panel(cloud: Cloud, colors: &[[u8; 3]], camera: Option<&Camera>, (height, width): (u32, u32)) -> Picture {
    let mut surface = Surface::new(height as usize, width as usize);
    if let Some(camera) = camera {
        camera.floor(|from, to| surface.line(from, to));
        surface.points(cloud.coord, colors, camera);
    }
    Picture { height, width, rgb: surface.finish() }
}

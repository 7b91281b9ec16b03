//! What may happen to one scene, and the limits within which it stays finite.

use std::f64::consts::PI;

/// A normal variate cut to `-clip..=clip`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClippedNormal {
    /// Standard deviation before the cut, 0 to 1e6.
    pub sigma: f64,
    /// Largest absolute value, 0 to 1e6.
    pub clip: f64,
}

/// Everything that may happen to one scene. Lengths are in the unit of its coordinates, angles in radians.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneRule {
    /// Subtract the mean first, and again after the transforms (without `keep_offset`). Without it coordinates keep
    /// their origin and are rounded to f32, which is half a unit at ten million.
    pub centre: bool,
    /// Add, per axis, half of a value uniform between the smallest and the largest coordinate.
    pub shift: bool,
    /// Probabilities of mirroring x and y.
    pub flip: [f64; 2],
    /// Passes of elastic distortion as (granularity, magnitude): granularity 1e-6 to 1e9, magnitude 0 to 1e6.
    pub elastic: Vec<(f64, f64)>,
    /// Probability that a scene gets all passes.
    pub elastic_p: f64,
    /// Smallest and largest factor, drawn per axis; 1e-3 to 1e3.
    pub scale: (f64, f64),
    /// Smallest and largest angle about z; -100 to 100.
    pub rotate: (f64, f64),
    /// Smallest and largest angle about y and x, drawn on their own; -100 to 100.
    pub tilt: (f64, f64),
    /// Offset of each coordinate of each point.
    pub jitter: Option<ClippedNormal>,
    /// b: 255 times a value uniform in -b..b is added to colours; 0 to 10.
    pub brightness: f64,
    /// c: colours are multiplied by a value uniform in 1 - c..1 + c; 0 to 10.
    pub contrast: f64,
    /// s: a whole number uniform in -s..=s is added to each channel; 0 to 255.
    pub colour_shift: u32,
    /// Probability that a channel becomes 0, for each of the three on its own.
    pub channel_drop: f64,
    /// Offset of each channel of each point, in units of 0..=255.
    pub colour_jitter: Option<ClippedNormal>,
    /// Probability that a scene loses points.
    pub dropout: f64,
    /// Share of the points that it loses then, 0 to 1; one point always stays.
    pub dropout_fraction: f64,
    /// Points of a scene, >= 1; of a larger one the nearest to a centre stay.
    pub max_points: Option<u32>,
    /// The centre as a share of the point numbers, 0 <= c < 1; `None` draws it.
    pub crop_centre: Option<f64>,
    /// compat: mirror as `max - c`, which moves the origin, as the reference does.
    pub flip_translates: bool,
    /// compat: do not centre again after the transforms, and shift right after the first centring, as the reference.
    pub keep_offset: bool,
}

impl SceneRule {
    /// The reference's rule for rooms in metres (Mix3D, Nekrasov et al. 2021), its two quirks off.
    pub fn mix3d() -> SceneRule {
        SceneRule {
            shift: true,
            flip: [0.5, 0.5],
            elastic: vec![(0.2, 0.4), (0.8, 1.6)],
            elastic_p: 0.95,
            scale: (0.9, 1.1),
            rotate: (-PI, PI),
            tilt: (-PI / 24.0, PI / 24.0),
            brightness: 0.2,
            contrast: 0.2,
            colour_shift: 20,
            ..SceneRule::still()
        }
    }

    /// Nothing but centring.
    pub fn still() -> SceneRule {
        SceneRule {
            centre: true,
            shift: false,
            flip: [0.0; 2],
            elastic: Vec::new(),
            elastic_p: 0.0,
            scale: (1.0, 1.0),
            rotate: (0.0, 0.0),
            tilt: (0.0, 0.0),
            jitter: None,
            brightness: 0.0,
            contrast: 0.0,
            colour_shift: 0,
            channel_drop: 0.0,
            colour_jitter: None,
            dropout: 0.0,
            dropout_fraction: 0.0,
            max_points: None,
            crop_centre: None,
            flip_translates: false,
            keep_offset: false,
        }
    }

    /// The rule of an eval set: nothing random. A scene over `max_points` keeps those nearest to its middle point.
    pub fn plain(&self) -> SceneRule {
        SceneRule {
            centre: self.centre,
            max_points: self.max_points,
            crop_centre: Some(0.5),
            ..SceneRule::still()
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`RuleError`] of the first field that leaves its range.
    pub fn check(&self) -> Result<(), RuleError> {
        let pair = |field, (low, high): (f64, f64), least, most| {
            within(field, low, least, most)?;
            within(field, high, low, most)
        };
        for p in self.flip {
            within("flip", p, 0.0, 1.0)?;
        }
        for (granularity, magnitude) in &self.elastic {
            within("elastic granularity", *granularity, 1e-6, 1e9)?;
            within("elastic magnitude", *magnitude, 0.0, 1e6)?;
        }
        pair("scale", self.scale, 1e-3, 1e3)?;
        pair("rotate", self.rotate, -100.0, 100.0)?;
        pair("tilt", self.tilt, -100.0, 100.0)?;
        for (field, value, most) in [
            ("elastic_p", self.elastic_p, 1.0),
            ("brightness", self.brightness, 10.0),
            ("contrast", self.contrast, 10.0),
            ("colour_shift", f64::from(self.colour_shift), 255.0),
            ("channel_drop", self.channel_drop, 1.0),
            ("dropout", self.dropout, 1.0),
            ("dropout_fraction", self.dropout_fraction, 1.0),
        ] {
            within(field, value, 0.0, most)?;
        }
        for (field, noise) in [("jitter", self.jitter), ("colour_jitter", self.colour_jitter)] {
            for value in noise.iter().flat_map(|n| [n.sigma, n.clip]) {
                within(field, value, 0.0, 1e6)?;
            }
        }
        within("crop_centre", self.crop_centre.unwrap_or(0.0), 0.0, 1.0 - f64::EPSILON)?;
        within("max_points", f64::from(self.max_points.unwrap_or(1)), 1.0, f64::from(u32::MAX))
    }
}

/// A field of a rule outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}, want {least} to {most}")]
pub struct RuleError {
    /// Field of [`SceneRule`].
    pub field: &'static str,
    /// As found.
    pub value: f64,
    /// Smallest legal value.
    pub least: f64,
    /// Largest legal value.
    pub most: f64,
}

fn within(field: &'static str, value: f64, least: f64, most: f64) -> Result<(), RuleError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(RuleError { field, value, least, most }) }
}

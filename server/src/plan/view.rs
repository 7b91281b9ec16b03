//! How one picture becomes one row before mixing: crop, flips, colour, erasing. Names and laws are torchvision's.

use super::Rect;
use crate::batch::{Crop, Peek, Turn};
use crate::rng::{Draw, Rng, Stream};

/// Crop of the upright picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CropRule {
    /// torchvision RandomResizedCrop: area share and log-uniform width / height.
    RandomResized {
        /// Smallest and largest share of the area.
        scale: (f64, f64),
        /// Smallest and largest width / height.
        ratio: (f64, f64),
    },
    /// torchvision Resize (shorter side to `resize`) and CenterCrop in one resampling: the crop is a rectangle of the
    /// source, so its offset is not rounded to a pixel of the resized picture.
    Centre {
        /// Shorter side after the resize, in pixels; `None`, or one too small to cover the output (torchvision pads
        /// with black): the smallest that covers it.
        resize: Option<u32>,
    },
}

/// torchvision ColorJitter ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JitterRule {
    /// Brightness, contrast, saturation: factors from `[max(0, 1 - x), 1 + x]`.
    pub factors: [f64; 3],
    /// Hue shift from `[-hue, hue]`, in turns.
    pub hue: f64,
}

/// torchvision RandomErasing with a constant value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EraseRule {
    /// Probability.
    pub p: f64,
    /// Smallest and largest share of the area.
    pub scale: (f64, f64),
    /// Smallest and largest height / width.
    pub ratio: (f64, f64),
    /// Red, green, blue.
    pub value: [u8; 3],
}

/// Everything that may happen to one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewRule {
    /// Output rows.
    pub height: u32,
    /// Output columns.
    pub width: u32,
    /// Crop.
    pub crop: CropRule,
    /// Probability of a left-right mirror.
    pub flip_x: f64,
    /// Probability of a top-bottom mirror.
    pub flip_y: f64,
    /// Colour jitter.
    pub jitter: Option<JitterRule>,
    /// Random erasing.
    pub erase: Option<EraseRule>,
    /// Apply the EXIF orientation first.
    pub exif: bool,
}

/// A colour change, in order of application.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colour {
    /// Multiply.
    Brightness(f32),
    /// Blend with the mean of the grey picture.
    Contrast(f32),
    /// Blend with the grey picture.
    Saturation(f32),
    /// Turn the hue, in turns.
    Hue(f32),
}

/// What is done to one picture: drawn here, executed in `decode` (crop) and `exec` (the rest).
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Crop in *stored* pixels.
    pub crop: Crop,
    /// Rows and columns of the decoded crop before the turn.
    pub size: (u32, u32),
    /// From stored to shown.
    pub turn: Turn,
    /// Colour changes in order.
    pub colour: Vec<Colour>,
    /// Box to fill, in output pixels, and its value.
    pub erase: Option<(Rect, [u8; 3])>,
}

/// Draws the view of the picture at `slot` of `step`.
pub fn draw(rule: &ViewRule, peek: &Peek, stream: &Stream, step: u64, slot: u64) -> View {
    let at = |draw| stream.at(draw, step, slot);
    let upright = if rule.exif { Turn::upright(peek.orientation) } else { Turn::default() };
    let (high, wide) = if upright.transpose { (peek.width, peek.height) } else { (peek.height, peek.width) };
    let shown = match rule.crop {
        CropRule::RandomResized { scale, ratio } => {
            random_resized(high, wide, scale, ratio, &mut at(Draw::Warp))
        }
        CropRule::Centre { resize } => centre(high, wide, rule.height, rule.width, resize),
    };
    let mut flips = at(Draw::Flip);
    let turn = upright.mirrored(flips.chance(rule.flip_x), flips.chance(rule.flip_y));
    let size = if turn.transpose { (rule.width, rule.height) } else { (rule.height, rule.width) };
    View {
        crop: stored(shown, upright, high, wide),
        size,
        turn,
        colour: rule.jitter.map_or(Vec::new(), |j| jitter(&j, &mut at(Draw::Colour))),
        erase: rule.erase.and_then(|e| erase(&e, rule.height, rule.width, &mut at(Draw::Erase))),
    }
}

/// The view of an eval set: shorter side covers the output, centre crop, nothing random.
pub fn plain(rule: &ViewRule) -> ViewRule {
    let crop = match rule.crop {
        CropRule::Centre { resize } => CropRule::Centre { resize },
        CropRule::RandomResized { .. } => CropRule::Centre { resize: None },
    };
    ViewRule { crop, flip_x: 0.0, flip_y: 0.0, jitter: None, erase: None, ..*rule }
}

/// Maps a crop of the shown picture (`high` x `wide`) back to stored pixels.
fn stored(shown: Crop, turn: Turn, high: u32, wide: u32) -> Crop {
    let y = if turn.mirror_y { f64::from(high) - shown.y - shown.height } else { shown.y };
    let x = if turn.mirror_x { f64::from(wide) - shown.x - shown.width } else { shown.x };
    if turn.transpose {
        return Crop { y: x, x: y, height: shown.width, width: shown.height };
    }
    Crop { y, x, ..shown }
}

/// In whole source pixels. Ten tries, then the largest centred crop of a legal aspect, as torchvision.
fn random_resized(high: u32, wide: u32, scale: (f64, f64), ratio: (f64, f64), rng: &mut Rng) -> Crop {
    let (h, w) = (f64::from(high), f64::from(wide));
    let (low, up) = (libm::log(ratio.0), libm::log(ratio.1));
    for _ in 0..10 {
        let area = h * w * rng.range(scale.0, scale.1);
        let aspect = libm::exp(rng.range(low, up));
        let width = libm::rint(libm::sqrt(area * aspect));
        let height = libm::rint(libm::sqrt(area / aspect));
        if width >= 1.0 && width <= w && height >= 1.0 && height <= h {
            let y = rng.below((h - height) as u64 + 1) as f64;
            let x = rng.below((w - width) as u64 + 1) as f64;
            return Crop { y, x, height, width };
        }
    }
    let (mut height, mut width) = (h, w);
    if w / h < ratio.0 {
        height = libm::rint(w / ratio.0).clamp(1.0, h);
    } else if w / h > ratio.1 {
        width = libm::rint(h * ratio.1).clamp(1.0, w);
    }
    Crop { y: ((h - height) / 2.0).floor(), x: ((w - width) / 2.0).floor(), height, width }
}

fn centre(high: u32, wide: u32, out_h: u32, out_w: u32, resize: Option<u32>) -> Crop {
    let (h, w, oh, ow) = (f64::from(high), f64::from(wide), f64::from(out_h), f64::from(out_w));
    let cover = (oh / h).max(ow / w);
    let scale = resize.map_or(cover, |short| (f64::from(short) / h.min(w)).max(cover));
    // Rounding of the quotients must not leave the picture.
    let (height, width) = ((oh / scale).min(h), (ow / scale).min(w));
    Crop { y: (h - height) / 2.0, x: (w - width) / 2.0, height, width }
}

fn jitter(rule: &JitterRule, rng: &mut Rng) -> Vec<Colour> {
    let factors = rule.factors.map(|x| rng.range((1.0 - x).max(0.0), 1.0 + x) as f32);
    let hue = rng.range(-rule.hue, rule.hue) as f32;
    let all = [
        (rule.factors[0] > 0.0).then_some(Colour::Brightness(factors[0])),
        (rule.factors[1] > 0.0).then_some(Colour::Contrast(factors[1])),
        (rule.factors[2] > 0.0).then_some(Colour::Saturation(factors[2])),
        (rule.hue > 0.0).then_some(Colour::Hue(hue)),
    ];
    rng.permutation(4).into_iter().filter_map(|i| all[i as usize]).collect()
}

fn erase(rule: &EraseRule, high: u32, wide: u32, rng: &mut Rng) -> Option<(Rect, [u8; 3])> {
    if !rng.chance(rule.p) {
        return None;
    }
    let (low, up) = (libm::log(rule.ratio.0), libm::log(rule.ratio.1));
    for _ in 0..10 {
        let area = f64::from(high) * f64::from(wide) * rng.range(rule.scale.0, rule.scale.1);
        let aspect = libm::exp(rng.range(low, up));
        let (h, w) = (libm::rint(libm::sqrt(area * aspect)), libm::rint(libm::sqrt(area / aspect)));
        if h >= 1.0 && w >= 1.0 && h < f64::from(high) && w < f64::from(wide) {
            let (h, w) = (h as u32, w as u32);
            let y0 = rng.below(u64::from(high - h) + 1) as u32;
            let x0 = rng.below(u64::from(wide - w) + 1) as u32;
            return Some((Rect { y0, y1: y0 + h, x0, x1: x0 + w }, rule.value));
        }
    }
    None
}

#[cfg(test)]
mod tests;

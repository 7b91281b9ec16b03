//! The image half of a job: what is done with one picture, and how rows are mixed.

use super::{JobError, JobGroup, MAX_BATCH, Numerics, check::Check, mix};
use crate::batch::{Dtype, Layout, Raster};
use crate::decode::Limits;
use crate::exec::{
    Format,
    mixer::{Mixer, Mixers},
};
use crate::plan::block::{Granularity, MixRule};
use crate::plan::fields::Bank;
use crate::plan::view::{self, CropRule, EraseRule, JitterRule, ViewRule};
use crate::plan::{Policy, image, recipe};
use crate::rng::Stream;
use mixfeed_proto as v1;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Largest side of an output image.
const MAX_SIDE: u32 = 8_192;
/// Dense labels of one step in bytes: they are collected before they are sent.
const MAX_DENSE_BYTES: u64 = 64 << 20;
/// Words of plans of one step in bytes: beyond this mixed rows are the smaller answer.
const MAX_RECIPE_BYTES: u64 = 64 << 20;

/// How pictures become rows.
#[derive(Debug)]
pub struct Image {
    /// One picture.
    pub view: ViewRule,
    /// Mixing.
    pub mix: MixRule,
    /// Mixers by the number that plans name.
    pub mixers: Vec<Arc<Mixer>>,
    /// Rules that rows are mixed by.
    pub numerics: Numerics,
    /// Output.
    pub format: Format,
    /// Labels.
    pub labels: LabelRule,
    /// What is sent of pictures.
    pub delivery: Delivery,
    /// Limits of one record.
    pub limits: Limits,
    /// Share of bad records above which the feed fails.
    pub max_bad_fraction: f64,
    /// Draws of mixing.
    pub mix_stream: Stream,
    /// Draws of views.
    pub view_stream: Stream,
    /// Random fields.
    pub fields: Bank,
    /// Encoded size of a record in bytes, on average.
    pub mean_record_bytes: u64,
    /// Records decoded and refused so far, for `max_bad_fraction`.
    pub tally: Tally,
}

/// How labels are delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelRule {
    /// As (n, classes) instead of pairs.
    pub dense: bool,
    /// Label smoothing.
    pub smoothing: f64,
}

/// What is sent of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Mixed rows.
    Mixed,
    /// Clean rows, and what is to be done with them in so many words per row.
    Recipe(usize),
    /// Both.
    Both(usize),
}

impl Delivery {
    /// Whether mixed rows are sent.
    pub fn mixed(self) -> bool {
        !matches!(self, Delivery::Recipe(_))
    }

    /// Words of a row's plan, when clean rows and plans are sent.
    pub fn words(self) -> Option<usize> {
        match self {
            Delivery::Mixed => None,
            Delivery::Recipe(words) | Delivery::Both(words) => Some(words),
        }
    }
}

/// Counts of decoded and refused records.
#[derive(Debug, Default)]
pub struct Tally {
    seen: AtomicU64,
    bad: AtomicU64,
}

/// Records after which the share of bad ones means something; a limit of 0 needs none.
const TALLY_MIN: u64 = 200;

impl Tally {
    /// Counts records; returns (seen, bad) when more than `limit` of them were bad.
    pub fn add(&self, seen: u64, bad: u64, limit: f64) -> Result<(), (u64, u64)> {
        let seen = self.seen.fetch_add(seen, Ordering::Relaxed) + seen;
        let bad = self.bad.fetch_add(bad, Ordering::Relaxed) + bad;
        let counts = limit == 0.0 || seen >= TALLY_MIN;
        if counts && bad as f64 > limit * seen as f64 { Err((seen, bad)) } else { Ok(()) }
    }
}

impl Image {
    /// Bytes of one output image.
    pub fn bytes(&self) -> usize {
        self.format.raster.len() * self.format.dtype.size()
    }

    /// Whether clean rows are needed on the host, whoever mixes: mixers look at them, and recipes send them.
    pub fn keeps_clean(&self) -> bool {
        !self.mixers.is_empty() || self.delivery.words().is_some()
    }

    /// Bytes of the mask of one image while it is made by a mixer; 0 for jobs without.
    pub fn mask_bytes(&self) -> usize {
        let pixels = self.format.raster.height * self.format.raster.width;
        if self.mixers.is_empty() { 0 } else { pixels * size_of::<f32>() }
    }

    /// Bytes that are sent of `slots` slots that become `rows` rows: mixed rows, then clean ones and the words of plans.
    pub fn sent(&self, slots: usize, rows: usize) -> (usize, usize) {
        let mixed = if self.delivery.mixed() { rows * self.bytes() } else { 0 };
        let clean = |words| slots * self.format.raster.len() + rows * recipe::bytes(words);
        (mixed, self.delivery.words().map_or(0, clean))
    }

    /// Shape of one image on the wire.
    pub fn shape(&self) -> [u64; 3] {
        let Raster { height, width, planes, step } = self.format.raster;
        let (h, w) = (height as u64, width as u64);
        if planes == 1 { [h, w, step as u64] } else { [planes as u64, h, w] }
    }

    /// The same without chance and mixing, for eval sets.
    pub(super) fn plain(&self, seed: u64) -> Image {
        let none =
            MixRule { members: Vec::new(), granularity: Granularity::Elem, clean: 0.0, ..self.mix.clone() };
        Image {
            view: view::plain(&self.view),
            mix: none,
            mixers: Vec::new(),
            numerics: self.numerics,
            format: self.format.clone(),
            labels: LabelRule { smoothing: 0.0, ..self.labels },
            delivery: Delivery::Mixed,
            limits: self.limits,
            max_bad_fraction: self.max_bad_fraction,
            mix_stream: self.mix_stream.clone(),
            view_stream: self.view_stream.clone(),
            fields: Bank::new(seed, self.view.height, self.view.width),
            mean_record_bytes: self.mean_record_bytes,
            tally: Tally::default(),
        }
    }
}

/// Resolves what a spec says about pictures; fills in defaults.
///
/// # Errors
/// [`JobError::Unsupported`]; misfits go to `check`.
pub(super) fn resolve(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    numerics: Numerics,
    (groups, classes): (&[JobGroup], usize),
    mixers: &Mixers,
) -> Result<Image, JobError> {
    if !cfg!(feature = "libtorch") && names_mixer(spec) {
        let what = "a policy with a mixer (`learned`) needs the feature `libtorch`, which";
        return Err(JobError::Unsupported(what.into()));
    }
    let view = view(check, spec);
    let mut output = spec.output.unwrap_or_default();
    let (format, dense) = output_rule(check, &mut output, spec.image.as_ref())?;
    spec.output = Some(output);
    check.ensure(!dense || classes > 0, "output.labels", || "is dense, but no group has classes".into());
    dense_fits(check, "output.labels", dense, spec.global_batch.clamp(1, MAX_BATCH), classes);
    let policies: Vec<&dyn Policy> = image::all().collect();
    let mix::Mixing { rule: mix, smoothing, mixers } =
        mix::resolve(check, spec, &mix::Known { policies: &policies, mixers });
    check.ensure(mixers.is_empty() || numerics != Numerics::Cpu, "numerics", || {
        "is `cpu-1`, but mixers are run by libtorch, whose bits differ between processors; want `torch-1` or `tolerant`".into()
    });
    let delivery = delivery(check, &output, &format, &mix, spec.global_batch.clamp(1, MAX_BATCH));
    check.ensure(mixers.is_empty() || delivery.words().is_none(), "output.delivery", || {
        "sends plans, but masks of mixers are made where rows are mixed; want mixed".into()
    });
    let limits = limits(check, spec);
    let max_bad = *spec.max_bad_fraction.get_or_insert(0.01);
    check.within("max_bad_fraction", max_bad, 0.0, 1.0);
    Ok(Image {
        fields: Bank::new(spec.seed, view.height, view.width),
        mix_stream: Stream::new(spec.seed, "mix"),
        view_stream: Stream::new(spec.seed, "view"),
        labels: LabelRule { dense, smoothing },
        delivery,
        max_bad_fraction: max_bad,
        mean_record_bytes: mean_record_bytes(groups),
        tally: Tally::default(),
        view,
        mix,
        mixers,
        numerics,
        format,
        limits,
    })
}

/// What is sent of pictures. Clean rows are bytes, so a job that sends nothing else has no other dtype.
fn delivery(
    check: &mut Check,
    output: &v1::OutputSpec,
    format: &Format,
    mix: &MixRule,
    batch: u32,
) -> Delivery {
    let Raster { height, width, .. } = format.raster;
    let words = recipe::words(&mix.members, height as u32, width as u32);
    let delivery = match output.delivery() {
        v1::Delivery::Unspecified | v1::Delivery::Mixed => return Delivery::Mixed,
        v1::Delivery::Recipe => Delivery::Recipe(words),
        v1::Delivery::Both => Delivery::Both(words),
    };
    let bytes = u64::from(batch) * words as u64 * 4;
    check.ensure(bytes <= MAX_RECIPE_BYTES, "output.delivery", || {
        format!(
            "needs {bytes} bytes of plans a step, want at most {MAX_RECIPE_BYTES}; use hard masks or mixed"
        )
    });
    check.ensure(delivery.mixed() || format.dtype == Dtype::U8, "output.dtype", || {
        "is a float type, but a recipe's rows are u8; want u8, or delivery mixed or both".into()
    });
    delivery
}

/// Whether a policy of the spec is mixed by a network of the operator.
pub(super) fn names_mixer(spec: &v1::JobSpec) -> bool {
    let policies = spec.mix.iter().flat_map(|mix| &mix.policies);
    policies.filter_map(|given| image::by_name(&given.name)).any(|policy| policy.mixer().is_some())
}

/// Dense labels are collected before they are sent: they must be small.
pub(super) fn dense_fits(check: &mut Check, field: &str, dense: bool, batch: u32, classes: usize) {
    let bytes = u64::from(batch) * classes as u64 * 4;
    check.ensure(!dense || bytes <= MAX_DENSE_BYTES, field, || {
        format!("needs {bytes} bytes of dense labels a step, want at most {MAX_DENSE_BYTES}; use pair labels")
    });
}

fn view(check: &mut Check, spec: &mut v1::JobSpec) -> ViewRule {
    let mut image = spec.image.clone().unwrap_or_default();
    for (field, side) in [("image.height", image.height), ("image.width", image.width)] {
        check.ensure((1..=MAX_SIDE).contains(&side), field, || format!("is {side}, want 1..={MAX_SIDE}"));
    }
    check.ensure(
        image.random_resized_crop.is_none() || image.resize_center_crop.is_none(),
        "image.resize_center_crop",
        || "excludes random_resized_crop, want one of them".into(),
    );
    let crop = match &mut image.random_resized_crop {
        Some(crop) => CropRule::RandomResized {
            scale: check.range("image.random_resized_crop.scale", &mut crop.scale, (0.08, 1.0), 1.0),
            ratio: check.range("image.random_resized_crop.ratio", &mut crop.ratio, (0.75, 4.0 / 3.0), 1e3),
        },
        None => {
            let resize = image.resize_center_crop.get_or_insert_default().resize;
            CropRule::Centre { resize: (resize > 0).then_some(resize) }
        }
    };
    let rule = ViewRule {
        height: image.height.clamp(1, MAX_SIDE),
        width: image.width.clamp(1, MAX_SIDE),
        crop,
        flip_x: check.within("image.horizontal_flip", image.horizontal_flip, 0.0, 1.0),
        flip_y: check.within("image.vertical_flip", image.vertical_flip, 0.0, 1.0),
        jitter: image.color_jitter.as_ref().map(|j| jitter(check, j)),
        erase: image.random_erasing.as_mut().map(|e| erase(check, e)),
        exif: image.exif_orientation,
    };
    spec.image = Some(image);
    rule
}

fn jitter(check: &mut Check, given: &v1::ColorJitter) -> JitterRule {
    let mut factor = |name: &str, x: f64| check.within(&format!("image.color_jitter.{name}"), x, 0.0, 1e3);
    let factors = [
        factor("brightness", given.brightness),
        factor("contrast", given.contrast),
        factor("saturation", given.saturation),
    ];
    JitterRule { factors, hue: check.within("image.color_jitter.hue", given.hue, 0.0, 0.5) }
}

fn erase(check: &mut Check, given: &mut v1::RandomErasing) -> EraseRule {
    if given.value.is_empty() {
        given.value = vec![0, 0, 0];
    }
    let value = match given.value[..] {
        [r, g, b] if r.max(g).max(b) <= 255 => [r as u8, g as u8, b as u8],
        _ => {
            let why = format!("is {:?}, want three numbers of 0..=255", given.value);
            check.fail("image.random_erasing.value", why);
            [0; 3]
        }
    };
    let p = *given.p.get_or_insert(0.5);
    EraseRule {
        p: check.within("image.random_erasing.p", p, 0.0, 1.0),
        scale: check.range("image.random_erasing.scale", &mut given.scale, (0.02, 0.33), 1.0),
        ratio: check.range("image.random_erasing.ratio", &mut given.ratio, (0.3, 3.3), 1e3),
        value,
    }
}

fn output_rule(
    check: &mut Check,
    output: &mut v1::OutputSpec,
    image: Option<&v1::ImageSpec>,
) -> Result<(Format, bool), JobError> {
    use v1::{Dtype as D, ImageLayout, LabelLayout};
    let dtype = match check.known("output.dtype", output.dtype) {
        D::Unspecified | D::U8 => (D::U8, Dtype::U8),
        D::F16 => (D::F16, Dtype::F16),
        D::Bf16 => (D::Bf16, Dtype::Bf16),
        D::F32 => (D::F32, Dtype::F32),
        D::F64 | D::I32 | D::I64 | D::U32 | D::U64 | D::U16 => {
            check.fail("output.dtype", "is no pixel type, want u8, f16, bf16 or f32");
            (D::U8, Dtype::U8)
        }
    };
    output.set_dtype(dtype.0);
    let layout = match check.known("output.layout", output.layout) {
        ImageLayout::Unspecified | ImageLayout::Nchw => (ImageLayout::Nchw, Layout::Nchw),
        ImageLayout::Nhwc => (ImageLayout::Nhwc, Layout::Nhwc),
    };
    output.set_layout(layout.0);
    let dense = match check.known("output.labels", output.labels) {
        LabelLayout::Unspecified | LabelLayout::Pair => false,
        LabelLayout::Dense => true,
        other @ (LabelLayout::Pair2
        | LabelLayout::Kway
        | LabelLayout::Map
        | LabelLayout::Boxes
        | LabelLayout::Reg
        | LabelLayout::Points) => {
            return Err(JobError::Unsupported(format!("label layout {}", other.as_str_name())));
        }
    };
    output.set_labels(if dense { LabelLayout::Dense } else { LabelLayout::Pair });
    match check.known("output.delivery", output.delivery) {
        v1::Delivery::Unspecified | v1::Delivery::Mixed => output.set_delivery(v1::Delivery::Mixed),
        known @ (v1::Delivery::Recipe | v1::Delivery::Both) => output.set_delivery(known),
    }
    let image = image.cloned().unwrap_or_default();
    let side = |s: u32| s.clamp(1, MAX_SIDE) as usize;
    let raster = Raster::new(side(image.height), side(image.width), layout.1);
    let normalize = image.normalize.as_ref().and_then(|n| normalize(check, n, dtype.1));
    Ok((Format { raster, dtype: dtype.1, normalize }, dense))
}

fn normalize(check: &mut Check, given: &v1::Normalize, dtype: Dtype) -> Option<([f32; 3], [f32; 3])> {
    check.ensure(dtype != Dtype::U8, "image.normalize", || "needs a float dtype, output.dtype is u8".into());
    let three =
        |values: &[f64]| <[f64; 3]>::try_from(values).ok().filter(|v| v.iter().all(|x| x.is_finite()));
    let (mean, std) = (three(&given.mean), three(&given.std).filter(|s| s.iter().all(|x| *x as f32 > 0.0)));
    check.ensure(mean.is_some(), "image.normalize.mean", || "want three finite numbers".into());
    check.ensure(std.is_some(), "image.normalize.std", || "want three finite numbers above 0".into());
    Some((mean?.map(|x| x as f32), std?.map(|x| x as f32)))
}

fn limits(check: &mut Check, spec: &mut v1::JobSpec) -> Limits {
    let limits = spec.limits.get_or_insert_default();
    if limits.max_pixels == 0 {
        limits.max_pixels = 100_000_000;
    }
    if limits.max_record_bytes == 0 {
        limits.max_record_bytes = 64 << 20;
    }
    check.ensure(limits.max_points == 0, "limits.max_points", || "is of scenes, the job has `image`".into());
    check.ensure(limits.max_pixels <= 1 << 30, "limits.max_pixels", || {
        format!("is {}, want at most 2^30", limits.max_pixels)
    });
    check.ensure(limits.max_record_bytes <= 1 << 30, "limits.max_record_bytes", || {
        format!("is {}, want at most 2^30", limits.max_record_bytes)
    });
    Limits { max_pixels: limits.max_pixels, max_bytes: limits.max_record_bytes }
}

/// Encoded size of a record in bytes, on average.
pub(super) fn mean_record_bytes(groups: &[JobGroup]) -> u64 {
    let of = |g: &JobGroup| {
        let records = &g.source.index().records;
        (0..g.records()).filter_map(|i| records.get(g.record(i) as usize)).map(|r| r.size).sum::<u64>()
    };
    groups.iter().map(of).sum::<u64>() / groups.iter().map(JobGroup::records).sum::<u64>().max(1)
}

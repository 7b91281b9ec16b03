//! From a spec to a job: every field checked, every default filled in, the digest taken.

use super::check::Check;
use super::{Feed, Job, JobError, JobGroup, LabelRule, NUMERICS, Order, Tally, groups, hex, mix};
use crate::batch::{Dtype, Layout, Raster};
use crate::decode::Limits;
use crate::exec::Format;
use crate::mixture::{Costs, Entry, EntryKind, LastBatch, Sequence, Weights};
use crate::plan::fields::Bank;
use crate::plan::view::{CropRule, EraseRule, JitterRule, ViewRule};
use crate::rng::Stream;
use crate::source::Source;
use mixfeed_proto as v1;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// Largest global batch.
pub const MAX_BATCH: u32 = 65_536;
/// Largest side of an output image.
const MAX_SIDE: u32 = 8_192;
/// Dense labels of one step in bytes: they are collected before they are sent.
const MAX_DENSE_BYTES: u64 = 64 << 20;
/// Slots of a pairing block when the spec says nothing: small enough to slice over many ranks.
const MIX_BLOCK: u32 = 32;

/// Resolves `spec` into a job called `name`, its records taken from `sources`.
///
/// # Errors
/// [`JobError`], every misfit of the spec at once.
pub fn resolve(
    name: &str,
    mut spec: v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
) -> Result<Job, JobError> {
    let mut check = Check::default();
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    check.ensure((1..=128).contains(&name.len()) && name.chars().all(legal), "job", || {
        format!("is `{name}`, want 1 to 128 characters of A-Z a-z 0-9 . _ -")
    });
    if spec.numerics.is_empty() {
        spec.numerics = NUMERICS.into();
    }
    if spec.numerics != NUMERICS {
        return Err(JobError::Numerics { asked: spec.numerics });
    }
    let (groups, classes) = groups::resolve(&mut check, &mut spec, sources)?;
    let batch = batch(&mut check, &mut spec);
    let view = view(&mut check, &mut spec);
    let mut output = spec.output.unwrap_or_default();
    let (format, dense) = output_rule(&mut check, &mut output, spec.image.as_ref())?;
    spec.output = Some(output);
    check.ensure(!dense || !classes.is_empty(), "output.labels", || {
        "is dense, but no group has classes".into()
    });
    dense_fits(&mut check, "output.labels", dense, batch, classes.len());
    let (mix, smoothing) = mix::resolve(&mut check, &mut spec);
    let limits = limits(&mut check, &mut spec);
    let max_bad = *spec.max_bad_fraction.get_or_insert(0.01);
    check.within("max_bad_fraction", max_bad, 0.0, 1.0);
    let last = last_batch(&mut check, &mut spec);
    let rules = groups::rules(&mut check, &mut spec, &groups);
    check.finish()?;
    let weights = groups.iter().map(|g| g.weight as f64).collect::<Vec<_>>();
    let weights = Weights::normalise(&weights).expect("checked with the groups");
    let empty = Sequence::new(spec.seed, rules, Costs::Equal, u64::from(batch), last, spec.max_steps);
    let (kind, until_step) = (EntryKind::Main, None);
    let sequence = empty
        .append(Entry { seq: 1, from_step: 0, until_step, kind, weights, mixture_id: 1 })
        .expect("one weight per group, and nobody leaves before the first step");
    if sequence.end().is_some_and(|end| end.steps == 0) {
        let mut check = Check::default();
        let why =
            "ends the job before its first step: there are fewer rows than one batch, want partial or pad";
        check.fail("last_batch", why);
        check.finish()?;
    }
    let digest = digest(&spec, &groups);
    let feed = Feed {
        fields: Bank::new(spec.seed, view.height, view.width),
        mix_stream: Stream::new(spec.seed, "mix"),
        view_stream: Stream::new(spec.seed, "view"),
        order: Order::Train(Box::new(sequence)),
        mix_block: u64::from(spec.mix_block.min(batch)),
        labels: LabelRule { dense, smoothing },
        max_bad_fraction: max_bad,
        mean_record_bytes: mean_record_bytes(&groups),
        tally: Tally::default(),
        groups,
        classes,
        view,
        mix,
        format,
        limits,
    };
    Ok(Job { name: name.into(), spec, digest, feed: Arc::new(feed), closed: watch::channel(false).0 })
}

/// Dense labels are collected before they are sent: they must be small.
pub(super) fn dense_fits(check: &mut Check, field: &str, dense: bool, batch: u32, classes: usize) {
    let bytes = u64::from(batch) * classes as u64 * 4;
    check.ensure(!dense || bytes <= MAX_DENSE_BYTES, field, || {
        format!("needs {bytes} bytes of dense labels a step, want at most {MAX_DENSE_BYTES}; use pair labels")
    });
}

fn batch(check: &mut Check, spec: &mut v1::JobSpec) -> u32 {
    let batch = spec.global_batch;
    check.ensure((1..=MAX_BATCH).contains(&batch), "global_batch", || {
        format!("is {batch}, want 1..={MAX_BATCH}")
    });
    if spec.mix_block == 0 {
        spec.mix_block = MIX_BLOCK;
    }
    let block = spec.mix_block;
    check.ensure(block <= MAX_BATCH, "mix_block", || format!("is {block}, want 1..={MAX_BATCH}"));
    check.ensure(batch <= block || batch.is_multiple_of(block), "global_batch", || {
        format!("is {batch}, want a multiple of mix_block ({block}), or at most that")
    });
    batch.clamp(1, MAX_BATCH)
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
    use v1::{Delivery, Dtype as D, ImageLayout, LabelLayout};
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
        Delivery::Unspecified | Delivery::Mixed => output.set_delivery(Delivery::Mixed),
        other @ (Delivery::Recipe | Delivery::Both) => {
            return Err(JobError::Unsupported(format!("delivery {}", other.as_str_name())));
        }
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
    check.ensure(limits.max_pixels <= 1 << 30, "limits.max_pixels", || {
        format!("is {}, want at most 2^30", limits.max_pixels)
    });
    check.ensure(limits.max_record_bytes <= 1 << 30, "limits.max_record_bytes", || {
        format!("is {}, want at most 2^30", limits.max_record_bytes)
    });
    Limits { max_pixels: limits.max_pixels, max_bytes: limits.max_record_bytes }
}

fn last_batch(check: &mut Check, spec: &mut v1::JobSpec) -> LastBatch {
    use v1::LastBatch as L;
    let (wire, last) = match check.known("last_batch", spec.last_batch) {
        L::Unspecified | L::Drop => (L::Drop, LastBatch::Drop),
        L::Partial => (L::Partial, LastBatch::Partial),
        L::Pad => (L::Pad, LastBatch::Pad),
    };
    spec.set_last_batch(wire);
    last
}

fn mean_record_bytes(groups: &[JobGroup]) -> u64 {
    let of = |g: &JobGroup| {
        let index = g.source.index();
        index.groups[g.group].records.iter().map(|r| index.records[*r as usize].size).sum::<u64>()
    };
    groups.iter().map(of).sum::<u64>() / groups.iter().map(JobGroup::len).sum::<u64>().max(1)
}

/// Hash of the resolved spec's canonical encoding (fields in order, maps sorted) and every group's index digest.
fn digest(spec: &v1::JobSpec, groups: &[JobGroup]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prost::Message::encode_to_vec(spec));
    for group in groups {
        let index = group.source.index();
        hasher.update(&index.groups[group.group].digest);
        hasher.update(index.classes.join("\0").as_bytes());
    }
    let digest = *hasher.finalize().as_bytes();
    tracing::debug!(digest = hex(&digest), "job resolved");
    digest
}

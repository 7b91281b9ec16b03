//! From a spec to a job: every field checked, every default filled in, the digest taken.

use super::{Feed, Job, JobError, JobGroup, LabelRule, NUMERICS, Order, Tally, hex};
use crate::batch::{Dtype, Layout, Raster, SampleId};
use crate::decode::Limits;
use crate::exec::Format;
use crate::mixture::{Exhaustion, GroupRule, LastBatch, Sequence, Weights};
use crate::plan::block::{Granularity, Member, MixRule, Pairing, Warmup};
use crate::plan::view::{self, CropRule, EraseRule, JitterRule, ViewRule};
use crate::plan::{Args, fields::Bank, image};
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

/// A field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path in the spec, "image.height".
    pub field: String,
    /// What is there and what is wanted.
    pub why: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.field, self.why)
    }
}

/// Collects what does not fit, so that a user sees everything at once.
#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    fn fail(&mut self, field: &str, why: impl Into<String>) {
        self.0.push(Violation { field: field.into(), why: why.into() });
    }

    fn ensure(&mut self, fits: bool, field: &str, why: impl FnOnce() -> String) {
        if !fits {
            self.fail(field, why());
        }
    }

    /// `value` when it is within `low..=high`, else `low` and a violation.
    fn within(&mut self, field: &str, value: f64, low: f64, high: f64) -> f64 {
        if (low..=high).contains(&value) {
            return value;
        }
        self.fail(field, format!("is {value}, want {low}..={high}"));
        low
    }

    /// A range given as two numbers, or `default` when none are.
    fn range(&mut self, field: &str, given: &mut Vec<f64>, default: (f64, f64), most: f64) -> (f64, f64) {
        if given.is_empty() {
            *given = vec![default.0, default.1];
        }
        match given[..] {
            [low, high] if low > 0.0 && low <= high && high <= most => (low, high),
            _ => {
                self.fail(field, format!("is {given:?}, want two ascending numbers above 0 up to {most}"));
                default
            }
        }
    }
}

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
    let (groups, classes) = groups(&mut check, &mut spec, sources)?;
    let batch = batch(&mut check, &mut spec);
    let view = view(&mut check, &mut spec);
    let mut output = spec.output.unwrap_or_default();
    let (format, dense) = output_rule(&mut check, &mut output, spec.image.as_ref())?;
    spec.output = Some(output);
    check.ensure(!dense || !classes.is_empty(), "output.labels", || {
        "is dense, but no group has classes".into()
    });
    let dense_bytes = u64::from(batch) * classes.len() as u64 * 4;
    check.ensure(!dense || dense_bytes <= MAX_DENSE_BYTES, "output.labels", || {
        format!("is dense: a step's labels would take {dense_bytes} bytes, want at most {MAX_DENSE_BYTES}; use pair")
    });
    let (mix, smoothing) = mix(&mut check, &mut spec);
    let limits = limits(&mut check, &mut spec);
    let max_bad = *spec.max_bad_fraction.get_or_insert(0.01);
    check.within("max_bad_fraction", max_bad, 0.0, 1.0);
    let last = last_batch(&mut spec);
    let rules = group_rules(&mut check, &spec, &groups);
    if !check.0.is_empty() {
        return Err(JobError::Invalid(check.0));
    }
    let weights = groups.iter().map(|g| g.weight as f64).collect::<Vec<_>>();
    let weights = Weights::normalise(&weights).expect("checked with the groups");
    let sequence = Sequence::new(spec.seed, rules, weights, u64::from(batch), last, spec.max_steps);
    let digest = digest(&spec, &groups);
    let feed = Feed {
        fields: Bank::new(spec.seed, view.height, view.width),
        mix_stream: Stream::new(spec.seed, "mix"),
        view_stream: Stream::new(spec.seed, "view"),
        order: Order::Train(Box::new(sequence)),
        mix_block: u64::from(spec.mix_block.min(batch)),
        labels: LabelRule { dense, smoothing },
        max_bad_fraction: max_bad,
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

/// See [`Job::eval`].
pub(super) fn eval(job: &Job, group: &str, batch: u32, pad: bool) -> Result<Feed, JobError> {
    let feed = &job.feed;
    let wanted =
        |name: &str| name == group || name.split_once('/').is_some_and(|(source, _)| source == group);
    let chosen: Vec<u32> =
        (0..feed.groups.len() as u32).filter(|&g| wanted(&feed.groups[g as usize].name)).collect();
    if chosen.is_empty() {
        let known = feed.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(JobError::Unknown { what: "group", name: group.into(), known });
    }
    if !(1..=MAX_BATCH).contains(&batch) {
        let why = format!("is {batch}, want 1..={MAX_BATCH}");
        return Err(JobError::Invalid(vec![Violation { field: "batch".into(), why }]));
    }
    let all = |g: u32| (0..feed.groups[g as usize].len()).map(move |index| SampleId { group: g, index });
    let copy = |g: &JobGroup| JobGroup {
        name: g.name.clone(),
        source: g.source.clone(),
        classes: g.classes.clone(),
        ..*g
    };
    let none =
        MixRule { members: Vec::new(), granularity: Granularity::Elem, clean: 0.0, ..feed.mix.clone() };
    Ok(Feed {
        groups: feed.groups.iter().map(copy).collect(),
        classes: feed.classes.clone(),
        order: Order::Eval {
            records: chosen.into_iter().flat_map(all).collect(),
            batch: u64::from(batch),
            pad,
        },
        mix_block: u64::from(job.spec.mix_block.min(batch)),
        view: view::plain(&feed.view),
        mix: none,
        format: feed.format.clone(),
        labels: LabelRule { smoothing: 0.0, ..feed.labels },
        limits: feed.limits,
        max_bad_fraction: feed.max_bad_fraction,
        mix_stream: feed.mix_stream.clone(),
        view_stream: feed.view_stream.clone(),
        fields: Bank::new(job.spec.seed, feed.view.height, feed.view.width),
        tally: Tally::default(),
    })
}

/// The groups of the spec, "SOURCE" expanded, and the class names of all of them.
fn groups(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
) -> Result<(Vec<JobGroup>, Vec<String>), JobError> {
    check.ensure(!spec.groups.is_empty(), "groups", || "is empty, want at least one".into());
    let given = spec.groups.iter().filter(|g| g.weight.is_some()).count();
    check.ensure(given == 0 || given == spec.groups.len(), "groups.weight", || {
        format!("is given for {given} of {} entries, want all or none", spec.groups.len())
    });
    let (mut out, mut classes, mut raw, mut expanded) =
        (Vec::new(), Vec::<String>::new(), Vec::new(), Vec::new());
    for entry in &spec.groups {
        let (source_name, group_name) = match entry.group.split_once('/') {
            Some((source, group)) => (source, Some(group)),
            None => (entry.group.as_str(), None),
        };
        let source = sources.get(source_name).ok_or_else(|| JobError::Unknown {
            what: "source",
            name: source_name.into(),
            known: sources.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let index = source.index();
        let chosen: Vec<usize> = (0..index.groups.len())
            .filter(|&g| group_name.is_none_or(|n| index.groups[g].name == n))
            .collect();
        if chosen.is_empty() {
            let known = index.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(JobError::Unknown { what: "group", name: entry.group.clone(), known });
        }
        let map = class_map(&index.classes, &mut classes);
        let total: usize = chosen.iter().map(|&g| index.groups[g].records.len()).sum();
        for g in chosen {
            let group = &index.groups[g];
            let name = format!("{source_name}/{}", group.name);
            if group.records.is_empty() && group_name.is_none() {
                continue; // an empty class of a source has nothing to serve; `check` lists it
            }
            check.ensure(!group.records.is_empty(), "groups.group", || format!("`{name}` has no record"));
            check.ensure(!out.iter().any(|o: &JobGroup| o.name == name), "groups.group", || {
                format!("`{name}` is named twice")
            });
            let share = group.records.len() as f64 / total.max(1) as f64;
            raw.push(entry.weight.map_or(group.records.len() as f64, |w| w * share));
            expanded.push(v1::GroupSpec {
                group: name.clone(),
                weight: raw.last().copied(),
                ..entry.clone()
            });
            let classes = map.clone();
            out.push(JobGroup { name, source: source.clone(), group: g, classes, weight: 0 });
        }
    }
    match Weights::normalise(&raw) {
        Ok(weights) => out.iter_mut().zip(weights.shares()).for_each(|(g, w)| g.weight = *w),
        Err(error) if !spec.groups.is_empty() => check.fail("groups.weight", error.to_string()),
        Err(_) => {}
    }
    spec.groups = expanded;
    Ok((out, classes))
}

/// Job's number of each class of a source; classes of equal name are one class.
fn class_map(of_source: &[String], all: &mut Vec<String>) -> Arc<[i32]> {
    let number = |class: &String| {
        let at = all.iter().position(|c| c == class).unwrap_or_else(|| {
            all.push(class.clone());
            all.len() - 1
        });
        at as i32
    };
    of_source.iter().map(number).collect()
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
    let dtype = match output.dtype() {
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
    let layout = match output.layout() {
        ImageLayout::Unspecified | ImageLayout::Nchw => (ImageLayout::Nchw, Layout::Nchw),
        ImageLayout::Nhwc => (ImageLayout::Nhwc, Layout::Nhwc),
    };
    output.set_layout(layout.0);
    let dense = match output.labels() {
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
    match output.delivery() {
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

fn mix(check: &mut Check, spec: &mut v1::JobSpec) -> (MixRule, f64) {
    use v1::{Granularity as G, Pairing as P, Warmup as W};
    let mut given = spec.mix.clone().unwrap_or_default();
    let granularity = match given.granularity() {
        G::Unspecified | G::Elem => (G::Elem, Granularity::Elem),
        G::Batch => (G::Batch, Granularity::Batch),
        G::Pair => (G::Pair, Granularity::Pair),
        G::Half => (G::Half, Granularity::Half),
    };
    given.set_granularity(granularity.0);
    let needs_pairs = matches!(granularity.1, Granularity::Pair | Granularity::Half);
    let pairing = match given.pairing() {
        P::Unspecified if needs_pairs => (P::Flip, Pairing::Flip),
        P::Unspecified | P::Perm => (P::Perm, Pairing::Perm),
        P::Flip => (P::Flip, Pairing::Flip),
        P::Roll1 => (P::Roll1, Pairing::Roll1),
        P::Derange => (P::Derange, Pairing::Derange),
        P::SameClass => (P::SameClass, Pairing::SameClass),
        P::DifferentClass => (P::DifferentClass, Pairing::DifferentClass),
    };
    given.set_pairing(pairing.0);
    check.ensure(!needs_pairs || pairing.1 == Pairing::Flip, "mix.pairing", || {
        "must be flip with granularity pair and half, whose rows are each other's partner".into()
    });
    let choose = if given.choose() == v1::Choose::Row { v1::Choose::Row } else { v1::Choose::Batch };
    given.set_choose(choose);
    let gate = *given.gate_prob.get_or_insert(1.0);
    let schedule = given.schedule.unwrap_or_default();
    let warmup = match schedule.warmup() {
        W::Unspecified => None,
        W::Linear => Some(Warmup::Linear),
        W::Cosine => Some(Warmup::Cosine),
    };
    let length = check.within("mix.schedule.warmup_epochs", schedule.warmup_epochs, 0.0, 1e9);
    let off = check.within("mix.schedule.off_after_epoch", schedule.off_after_epoch, 0.0, 1e9);
    let smoothing = given.smoothing;
    check.ensure((0.0..1.0).contains(&smoothing), "mix.smoothing", || format!("is {smoothing}, want 0..<1"));
    let rule = MixRule {
        members: members(check, &mut given.policies),
        granularity: granularity.1,
        pairing: pairing.1,
        choose_per_row: choose == v1::Choose::Row,
        gate: check.within("mix.gate_prob", gate, 0.0, 1.0),
        clean: check.within("mix.clean_fraction", given.clean_fraction, 0.0, 1.0),
        warmup: warmup.map(|shape| (shape, length)),
        off_after: (off > 0.0).then_some(off),
    };
    spec.mix = Some(given);
    (rule, smoothing)
}

fn members(check: &mut Check, policies: &mut [v1::PolicySpec]) -> Vec<Member> {
    let mut out = Vec::new();
    for (i, given) in policies.iter_mut().enumerate() {
        let field = format!("mix.policies[{i}]");
        let Some(policy) = image::by_name(&given.name) else {
            let known = image::POLICIES.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
            check.fail(&format!("{field}.name"), format!("is `{}`, want one of {known}", given.name));
            continue;
        };
        let share = *given.weight.get_or_insert(1.0);
        check.within(&format!("{field}.weight"), share, 0.0, 1e12);
        match Args::resolve(policy, &given.params, &given.options) {
            Ok(args) => {
                given.params = args.numbers().map(|(n, v)| (n.into(), v)).collect();
                given.options = args.words().map(|(n, v)| (n.into(), v.into())).collect();
                out.push(Member { policy, args, share });
            }
            Err(error) => check.fail(&field, error.to_string()),
        }
    }
    let sum: f64 = out.iter().map(|m| m.share).sum();
    check.ensure(out.is_empty() || sum > 0.0, "mix.policies.weight", || "all are zero".into());
    out.iter_mut().for_each(|m| m.share /= sum);
    out
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
    Limits { max_pixels: limits.max_pixels, max_bytes: limits.max_record_bytes }
}

fn last_batch(spec: &mut v1::JobSpec) -> LastBatch {
    use v1::LastBatch as L;
    let (wire, last) = match spec.last_batch() {
        L::Unspecified | L::Drop => (L::Drop, LastBatch::Drop),
        L::Partial => (L::Partial, LastBatch::Partial),
        L::Pad => (L::Pad, LastBatch::Pad),
    };
    spec.set_last_batch(wire);
    last
}

fn group_rules(check: &mut Check, spec: &v1::JobSpec, groups: &[JobGroup]) -> Vec<GroupRule> {
    use v1::Exhaustion as E;
    let rule = |(given, group): (&v1::GroupSpec, &JobGroup)| {
        let records = group.len();
        let exhaustion = match given.exhaustion() {
            E::Unspecified | E::Repeat => Exhaustion::Repeat,
            E::StopFirst => Exhaustion::StopFirst,
            E::StopLast => Exhaustion::StopLast,
            E::Drop => Exhaustion::Leave { after: records },
            E::Cap => {
                let epochs = given.cap_epochs;
                check.ensure(epochs > 0.0 && epochs <= 1e9, "groups.cap_epochs", || {
                    format!("is {epochs} for `{}`, want a number above 0 up to 1e9", group.name)
                });
                Exhaustion::Leave { after: ((records as f64 * epochs) as u64).max(1) }
            }
        };
        GroupRule { records, exhaustion }
    };
    spec.groups.iter().zip(groups).map(rule).collect()
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

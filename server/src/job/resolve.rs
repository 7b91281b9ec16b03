//! From a spec to a job: every field checked, every default filled in, the digest taken.

use super::check::Check;
use super::{
    Feed, Job, JobError, JobGroup, Order, Pipeline, TORCH,
    groups::{self, Expanded},
    held::{self, Held},
    hex, learn, numerics, pictures, points, tokens,
};
use crate::exec::mixer::Mixers;
use crate::keeper::{Keeper, Live, Rules};
use crate::mixture::{Costs, Entry, EntryKind, LastBatch, Sequence, Weights};
use crate::source::Source;
use crate::store;
use mixfeed_proto as v1;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// Largest global batch.
pub const MAX_BATCH: u32 = 65_536;
/// Slots of a pairing block when the spec says nothing: small enough to slice over many ranks.
const MIX_BLOCK: u32 = 32;

/// A job that was checked but not opened: its mixture's state was not looked for.
#[derive(Debug)]
pub struct Draft {
    /// Name.
    pub name: String,
    /// Digest of the resolved spec and the index digests.
    pub digest: [u8; 32],
    spec: v1::JobSpec,
    /// Its training batches, under the spec's weights.
    pub feed: Feed,
    held: Option<Held>,
    rules: Rules,
    sequence: Sequence,
    live: Arc<Live>,
}

impl Draft {
    /// Opens it, going on from what `store` holds of it.
    ///
    /// # Errors
    /// [`JobError::Keeper`] when the store fails, or holds what this build would not have written.
    pub fn open(self, store: &store::Shared) -> Result<Job, JobError> {
        let Draft { name, digest, spec, feed, held, rules, sequence, live } = self;
        let keeper = Keeper::open(&name, &hex(&digest), Arc::new(rules), sequence, live, store.clone())?;
        let (feed, keeper) = (Arc::new(feed), Arc::new(keeper));
        Ok(Job { name, spec, digest, feed, held, keeper, closed: watch::channel(false).0 })
    }
}

/// Resolves `spec` into a job called `name`, its records taken from `sources`; no policy of it has a mixer.
///
/// # Errors
/// [`JobError`], every misfit of the spec at once.
pub fn resolve(
    name: &str,
    spec: v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
) -> Result<Draft, JobError> {
    resolve_with(name, spec, sources, &Mixers::new())
}

/// As [`resolve`], for a job whose policies may have one of `mixers`.
///
/// # Errors
/// [`JobError`], every misfit of the spec at once.
pub fn resolve_with(
    name: &str,
    mut spec: v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
    mixers: &Mixers,
) -> Result<Draft, JobError> {
    let mut check = Check::default();
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    check.ensure((1..=128).contains(&name.len()) && name.chars().all(legal), "job", || {
        format!("is `{name}`, want 1 to 128 characters of A-Z a-z 0-9 . _ -")
    });
    // Whether a device is there is looked at where jobs are opened: a file can be checked anywhere.
    let device = spec.numerics == TORCH;
    let numerics = numerics::settle(&mut spec, device)?;
    one_pipeline(&mut check, &spec);
    let Expanded { mut groups, classes, entries } = groups::expand(&mut check, &mut spec, sources)?;
    let mut held = held::split(&mut check, &mut spec, &mut groups);
    let batch = batch(&mut check, &mut spec);
    let pipeline = match (spec.tokens.is_some(), spec.points.is_some()) {
        (true, _) => Pipeline::Tokens(tokens::resolve(&mut check, &mut spec, &mut groups, &mut held)),
        (_, true) => Pipeline::Points(Box::new(points::resolve(&mut check, &mut spec, numerics, &groups))),
        (false, false) => {
            let groups = (&groups[..], classes.len());
            let image = pictures::resolve(&mut check, &mut spec, numerics, groups, mixers)?;
            Pipeline::Image(Box::new(image))
        }
    };
    groups::weigh(&mut check, &mut spec, &mut groups, &entries, &pipeline);
    let last = last_batch(&mut check, &mut spec);
    let exhaustion = groups::rules(&mut check, &mut spec, &groups);
    let weights = groups.iter().map(|g| g.weight as f64).collect::<Vec<_>>();
    let Ok(weights) = Weights::normalise(&weights) else {
        // No group, or none with weight: noted with the groups.
        return Err(check.finish().err().unwrap_or_else(|| JobError::Invalid(Vec::new())));
    };
    let held = held.map(|parts| Held::new(&spec, parts, &pipeline));
    let facts = learn::Facts {
        initial: weights.clone(),
        sizes: groups.iter().enumerate().map(|(g, group)| pipeline.epoch(g, group) as f64).collect(),
        log_vocabulary: log_vocabulary(&groups),
        eval_digest: held.as_ref().map_or(Vec::new(), |held| held.digest.to_vec()),
    };
    let rules = learn::resolve(&mut check, &mut spec, &groups, facts);
    check.finish()?;
    let costs = || match &pipeline {
        Pipeline::Tokens(tokens) if tokens.ragged() => Costs::Varying(Arc::new(tokens.costs())),
        Pipeline::Tokens(_) | Pipeline::Image(_) | Pipeline::Points(_) => Costs::Equal,
    };
    let rows = u64::from(batch);
    let sequence = || Sequence::new(spec.seed, exhaustion.clone(), costs(), rows, last, spec.max_steps);
    let given =
        Entry { seq: 1, from_step: 0, until_step: None, kind: EntryKind::Main, weights, mixture_id: 1 };
    let whole = sequence().append(given).expect("one entry from step 0 on");
    if whole.end().is_some_and(|end| end.steps == 0) {
        let mut check = Check::default();
        let why =
            "ends the job before its first step: there are fewer rows than one batch, want partial or pad";
        check.fail("last_batch", why);
        check.finish()?;
    }
    let digest = digest(&spec, &groups, &pipeline);
    let live = Arc::new(Live::new(Arc::new(whole)));
    let mix_block = u64::from(spec.mix_block.min(batch));
    let order = Order::Train(live.clone());
    let sequence = sequence();
    let feed = Feed { job: name.into(), groups, classes, order, mix_block, pipeline };
    Ok(Draft { name: name.into(), digest, spec, feed, held, rules, sequence, live })
}

/// Loss of a uniform guess over the ids of all groups, in nats; `None` unless every group knows its ids.
fn log_vocabulary(groups: &[JobGroup]) -> Option<f64> {
    let of = |group: &JobGroup| group.source.tokens().and_then(|corpus| corpus.vocabulary());
    let known: Option<Vec<u64>> = groups.iter().map(of).collect();
    known.and_then(|all| all.into_iter().max()).map(|ids| libm::log(ids as f64))
}

/// A job shows pictures, documents or scenes.
fn one_pipeline(check: &mut Check, spec: &v1::JobSpec) {
    let (tokens, points) = (spec.tokens.is_some(), spec.points.is_some());
    let excluded = [
        ("image", spec.image.is_some(), tokens || points),
        ("mix", spec.mix.is_some(), tokens),
        ("output", spec.output.is_some(), tokens || points),
        ("limits", spec.limits.is_some(), tokens),
        ("max_bad_fraction", spec.max_bad_fraction.is_some(), tokens),
        ("points", points, tokens),
    ];
    for (field, given, excluded) in excluded {
        let pipeline = if tokens { "tokens" } else { "points" };
        check.ensure(!excluded || !given, field, || format!("means nothing to a job with `{pipeline}`"));
    }
    check.ensure(tokens || points || spec.image.is_some(), "image", || {
        "is missing, want `image`, `tokens` or `points`".into()
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

/// Hash of the resolved spec's canonical encoding (fields in order, maps sorted), every group's index digest, how its
/// documents are packed, and the mixers.
fn digest(spec: &v1::JobSpec, groups: &[JobGroup], pipeline: &Pipeline) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prost::Message::encode_to_vec(spec));
    for group in groups {
        let index = group.source.index();
        hasher.update(&index.groups[group.group].digest);
        hasher.update(index.classes.join("\0").as_bytes());
    }
    match pipeline {
        Pipeline::Tokens(tokens) => tokens.tables.iter().for_each(|table| {
            hasher.update(&table.digest());
        }),
        Pipeline::Image(image) => image.mixers.iter().for_each(|mixer| {
            hasher.update(&mixer.digest());
        }),
        Pipeline::Points(_) => {}
    }
    let digest = *hasher.finalize().as_bytes();
    tracing::debug!(digest = hex(&digest), "job resolved");
    digest
}

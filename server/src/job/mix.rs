//! The mixing of a spec.

use super::check::Check;
use super::known_names;
use crate::exec::mixer::{Mixer, Mixers};
use crate::plan::block::{Granularity, Member, MixRule, Pairing, Warmup};
use crate::plan::{Args, Policy};
use mixfeed_proto as v1;
use std::sync::Arc;

/// Most policies of a job.
const MAX_POLICIES: usize = 64;

/// What a spec may name.
pub(super) struct Known<'a> {
    pub(super) policies: &'a [&'static dyn Policy],
    pub(super) mixers: &'a Mixers,
}

/// What a spec says about mixing.
pub(super) struct Mixing {
    pub(super) rule: MixRule,
    /// Label smoothing.
    pub(super) smoothing: f64,
    /// Mixers by the number that policies have as an argument.
    pub(super) mixers: Vec<Arc<Mixer>>,
}

/// How rows are mixed; fills in defaults.
pub(super) fn resolve(check: &mut Check, spec: &mut v1::JobSpec, known: &Known<'_>) -> Mixing {
    use v1::{Granularity as G, Pairing as P, Warmup as W};
    let mut given = spec.mix.clone().unwrap_or_default();
    let granularity = match check.known("mix.granularity", given.granularity) {
        G::Unspecified | G::Elem => (G::Elem, Granularity::Elem),
        G::Batch => (G::Batch, Granularity::Batch),
        G::Pair => (G::Pair, Granularity::Pair),
        G::Half => (G::Half, Granularity::Half),
    };
    given.set_granularity(granularity.0);
    let needs_pairs = matches!(granularity.1, Granularity::Pair | Granularity::Half);
    let pairing = match check.known("mix.pairing", given.pairing) {
        P::Unspecified if needs_pairs => (P::Flip, Pairing::Flip),
        P::Unspecified | P::Perm => (P::Perm, Pairing::Perm),
        P::Flip => (P::Flip, Pairing::Flip),
        P::Consecutive => (P::Consecutive, Pairing::Consecutive),
        P::Roll1 => (P::Roll1, Pairing::Roll1),
        P::Derange => (P::Derange, Pairing::Derange),
        P::SameClass => (P::SameClass, Pairing::SameClass),
        P::DifferentClass => (P::DifferentClass, Pairing::DifferentClass),
    };
    given.set_pairing(pairing.0);
    let pairs = matches!(pairing.1, Pairing::Flip | Pairing::Consecutive);
    check.ensure(!needs_pairs || pairs, "mix.pairing", || {
        "must be flip or consecutive with granularity pair and half, whose rows are each other's partner"
            .into()
    });
    let choose = match check.known("mix.choose", given.choose) {
        v1::Choose::Unspecified | v1::Choose::Batch => v1::Choose::Batch,
        v1::Choose::Row => v1::Choose::Row,
    };
    given.set_choose(choose);
    let gate = *given.gate_prob.get_or_insert(1.0);
    let schedule = given.schedule.unwrap_or_default();
    let warmup = match check.known("mix.schedule.warmup", schedule.warmup) {
        W::Unspecified => None,
        W::Linear => Some(Warmup::Linear),
        W::Cosine => Some(Warmup::Cosine),
    };
    let length = check.within("mix.schedule.warmup_epochs", schedule.warmup_epochs, 0.0, 1e9);
    let off = check.within("mix.schedule.off_after_epoch", schedule.off_after_epoch, 0.0, 1e9);
    let smoothing = given.smoothing;
    check.ensure((0.0..1.0).contains(&smoothing), "mix.smoothing", || format!("is {smoothing}, want 0..<1"));
    let (members, mixers) = members(check, &mut given.policies, known);
    let rule = MixRule {
        members,
        granularity: granularity.1,
        pairing: pairing.1,
        choose_per_row: choose == v1::Choose::Row,
        gate: check.within("mix.gate_prob", gate, 0.0, 1.0),
        clean: check.within("mix.clean_fraction", given.clean_fraction, 0.0, 1.0),
        warmup: warmup.map(|shape| (shape, length)),
        off_after: (off > 0.0).then_some(off),
    };
    spec.mix = Some(given);
    Mixing { rule, smoothing, mixers }
}

fn members(
    check: &mut Check,
    policies: &mut [v1::PolicySpec],
    known: &Known<'_>,
) -> (Vec<Member>, Vec<Arc<Mixer>>) {
    let registry = known.policies;
    let (mut out, mut mixers) = (Vec::new(), Vec::new());
    check.ensure(policies.len() <= MAX_POLICIES, "mix.policies", || {
        format!("are {}, want at most {MAX_POLICIES}", policies.len())
    });
    for (i, given) in policies.iter_mut().enumerate() {
        let field = format!("mix.policies[{i}]");
        let Some(policy) = registry.iter().copied().find(|p| p.name() == given.name) else {
            let known = registry.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
            check.fail(&format!("{field}.name"), format!("is `{}`, want one of {known}", given.name));
            continue;
        };
        let share = *given.weight.get_or_insert(1.0);
        check.within(&format!("{field}.weight"), share, 0.0, 1e12);
        let mixer = policy.mixer().map(|option| (option, given.options.remove(option)));
        match Args::resolve(&policy.declared(), &given.params, &given.options) {
            Ok(args) => {
                given.params = args.numbers().map(|(n, v)| (n.into(), v)).collect();
                given.options = args.words().map(|(n, v)| (n.into(), v.into())).collect();
                let args = match mixer {
                    None => args,
                    Some((option, name)) => {
                        let Some(mixer) = mixer_of(check, &format!("{field}.{option}"), name, known) else {
                            continue;
                        };
                        given.options.insert(option.into(), mixer.name().into());
                        numbered(args, mixer, &mut mixers)
                    }
                };
                out.push(Member { policy, args, share });
            }
            Err(error) => check.fail(&field, error.to_string()),
        }
    }
    let sum: f64 = out.iter().map(|m| m.share).sum();
    check.ensure(out.is_empty() || sum > 0.0, "mix.policies.weight", || "all are zero".into());
    out.iter_mut().for_each(|m| m.share /= sum);
    (out, mixers)
}

/// The mixer that a policy names.
fn mixer_of(check: &mut Check, field: &str, name: Option<String>, known: &Known<'_>) -> Option<Arc<Mixer>> {
    let found = name.as_ref().and_then(|name| known.mixers.get(name)).cloned();
    check.ensure(found.is_some(), field, || {
        let is = name.map_or("is missing".into(), |name| format!("is `{name}`"));
        match known.mixers.is_empty() {
            true => format!("{is}, and this server has no mixer: its operator declares them"),
            false => format!("{is}, want one of {}", known_names(known.mixers.keys().map(String::as_str))),
        }
    });
    found
}

/// `args` with the number of `mixer` among the job's, which it joins if it is new.
fn numbered(args: Args, mixer: Arc<Mixer>, mixers: &mut Vec<Arc<Mixer>>) -> Args {
    let interval = f64::from(u8::from(mixer.is_interval()));
    let number = mixers.iter().position(|other| other.name() == mixer.name()).unwrap_or_else(|| {
        mixers.push(mixer);
        mixers.len() - 1
    });
    args.with("mixer", number as f64).with("interval", interval)
}

//! Groups of a spec: "SOURCE" expanded, class names joined, exhaustion rules.

use super::{JobError, JobGroup, Pipeline, check::Check, known_names};
use crate::mixture::{Exhaustion, GroupRule, Weights};
use crate::source::Source;
use mixfeed_proto as v1;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Most groups of a job; a description of more would not fit into a message.
const MAX_GROUPS: usize = 8_192;

/// Most groups that may leave: each departure keeps a table of all groups.
const MAX_LEAVING: usize = 1_024;

/// The groups of a spec.
pub(super) struct Expanded {
    /// Groups in order, without weights.
    pub groups: Vec<JobGroup>,
    /// Class names of the job.
    pub classes: Vec<String>,
    /// Number of the entry that each group came from.
    pub entries: Vec<usize>,
}

/// Expands the groups of `spec` in place.
///
/// # Errors
/// [`JobError::Unknown`] for a source or group that there is not, [`JobError::Invalid`] at once when there are too many
/// or one is named twice: going on would cost more than it tells.
pub(super) fn expand(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
) -> Result<Expanded, JobError> {
    check.ensure(!spec.groups.is_empty(), "groups", || "is empty, want at least one".into());
    let weighted = spec.groups.iter().filter(|g| g.weight.is_some()).count();
    check.ensure(weighted == 0 || weighted == spec.groups.len(), "groups.weight", || {
        format!("is given for {weighted} of {} entries, want all or none", spec.groups.len())
    });
    let mut expansion =
        Expansion { sources, known: BTreeMap::new(), classes: Classes::default(), out: Vec::new() };
    let wanted = match (spec.tokens.is_some(), spec.points.is_some()) {
        (true, _) => ("documents", "tokens"),
        (_, true) => ("scenes", "points"),
        (false, false) => ("pictures", "image"),
    };
    let (mut entries, mut expanded, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, entry) in spec.groups.iter().enumerate() {
        for group in expansion.expand(entry)? {
            if !seen.insert(group.name.clone()) || seen.len() > MAX_GROUPS {
                let twice = format!("`{}` is named twice", group.name);
                let many = format!("are more than {MAX_GROUPS}");
                check.fail("groups.group", if seen.len() > MAX_GROUPS { many } else { twice });
                return std::mem::take(check).finish().map(|()| unreachable!("a misfit was just noted"));
            }
            check.ensure(!group.is_empty(), "groups.group", || format!("`{}` has no record", group.name));
            let (has, (want, pipeline)) = (holds(&*group.source), wanted);
            check.ensure(has == want, "groups.group", || {
                format!("`{}` has {has}, want {want} with `{pipeline}`", group.name)
            });
            expanded.push(v1::GroupSpec { group: group.name.clone(), ..entry.clone() });
            entries.push(number);
            expansion.out.push(group);
        }
    }
    spec.groups = expanded;
    Ok(Expanded { groups: expansion.out, classes: expansion.classes.names, entries })
}

/// Sets the weight of every group: what its entry says, shared by size among the groups of one entry; by size alone when
/// no entry says anything. `entries` are those of [`Expanded`].
pub(super) fn weigh(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    groups: &mut [JobGroup],
    entries: &[usize],
    pipeline: &Pipeline,
) {
    let sizes: Vec<u64> = groups.iter().enumerate().map(|(g, group)| pipeline.size(g, group)).collect();
    let mut totals: BTreeMap<usize, u64> = BTreeMap::new();
    entries.iter().zip(&sizes).for_each(|(entry, size)| *totals.entry(*entry).or_default() += size);
    let mut raw = Vec::with_capacity(groups.len());
    for ((given, entry), size) in spec.groups.iter_mut().zip(entries).zip(&sizes) {
        let share = *size as f64 / totals[entry].max(1) as f64;
        let weight = given.weight.map_or(*size as f64, |w| w * share);
        raw.push(weight);
        given.weight = Some(weight);
    }
    match Weights::normalise(&raw) {
        Ok(weights) => groups.iter_mut().zip(weights.shares()).for_each(|(g, w)| g.weight = *w),
        Err(error) if !groups.is_empty() => check.fail("groups.weight", error.to_string()),
        Err(_) => {}
    }
}

/// What the records of a source are.
fn holds(source: &dyn Source) -> &'static str {
    match (source.tokens().is_some(), source.scenes()) {
        (true, _) => "documents",
        (_, true) => "scenes",
        (false, false) => "pictures",
    }
}

/// What is known of a source while a spec is expanded.
struct Known {
    source: Arc<dyn Source>,
    /// Index of each group by name.
    groups: HashMap<String, usize>,
    /// Job's number of each of its classes.
    classes: Arc<[i32]>,
}

struct Expansion<'a> {
    sources: &'a BTreeMap<String, Arc<dyn Source>>,
    known: BTreeMap<String, Known>,
    classes: Classes,
    out: Vec<JobGroup>,
}

impl Expansion<'_> {
    /// The groups that an entry names.
    fn expand(&mut self, entry: &v1::GroupSpec) -> Result<Vec<JobGroup>, JobError> {
        let (source_name, group_name) = match entry.group.split_once('/') {
            Some((source, group)) => (source, Some(group)),
            None => (entry.group.as_str(), None),
        };
        let Known { source, groups, classes } = self.known(source_name)?;
        let index = source.index();
        let chosen: Vec<usize> = match group_name {
            // An empty class of a source has nothing to serve; `check` lists it.
            None => (0..index.groups.len()).filter(|g| !index.groups[*g].records.is_empty()).collect(),
            Some(name) => groups.get(name).copied().into_iter().collect(),
        };
        if chosen.is_empty() {
            return Err(JobError::Unknown {
                what: "group",
                name: entry.group.clone(),
                known: known_names(index.groups.iter().map(|g| g.name.as_str())),
            });
        }
        let group = |g: usize| {
            let name = format!("{source_name}/{}", index.groups[g].name);
            let (source, classes) = (source.clone(), classes.clone());
            JobGroup { name, source, group: g, classes, weight: 0, chosen: None, rows: None }
        };
        Ok(chosen.into_iter().map(group).collect())
    }

    fn known(&mut self, name: &str) -> Result<&Known, JobError> {
        if !self.known.contains_key(name) {
            let source = self.sources.get(name).cloned().ok_or_else(|| JobError::Unknown {
                what: "source",
                name: name.into(),
                known: known_names(self.sources.keys().map(String::as_str)),
            })?;
            let groups = source.index().groups.iter().enumerate().map(|(i, g)| (g.name.clone(), i)).collect();
            let classes = source.index().classes.iter().map(|c| self.classes.number(c)).collect();
            self.known.insert(name.into(), Known { source, groups, classes });
        }
        Ok(&self.known[name])
    }
}

/// Class names of a job; classes of equal name are one class, whatever source they come from.
#[derive(Default)]
struct Classes {
    names: Vec<String>,
    numbers: HashMap<String, i32>,
}

impl Classes {
    fn number(&mut self, class: &str) -> i32 {
        if let Some(number) = self.numbers.get(class) {
            return *number;
        }
        let number = self.names.len() as i32;
        self.names.push(class.into());
        self.numbers.insert(class.into(), number);
        number
    }
}

/// What happens to each group when its records were all served; fills in defaults.
pub(super) fn rules(check: &mut Check, spec: &mut v1::JobSpec, groups: &[JobGroup]) -> Vec<GroupRule> {
    let mut rule = |(given, group): (&mut v1::GroupSpec, &JobGroup)| {
        let records = group.len();
        let (wire, exhaustion) = match check.known("groups.exhaustion", given.exhaustion) {
            v1::Exhaustion::Unspecified | v1::Exhaustion::Repeat => {
                (v1::Exhaustion::Repeat, Exhaustion::Repeat)
            }
            v1::Exhaustion::StopFirst => (v1::Exhaustion::StopFirst, Exhaustion::StopFirst),
            v1::Exhaustion::StopLast => (v1::Exhaustion::StopLast, Exhaustion::StopLast),
            v1::Exhaustion::Drop => (v1::Exhaustion::Drop, Exhaustion::Leave { after: records }),
            v1::Exhaustion::Cap => {
                let epochs = given.cap_epochs;
                check.ensure(epochs > 0.0 && epochs <= 1e9, "groups.cap_epochs", || {
                    format!("is {epochs} for `{}`, want a number above 0 up to 1e9", group.name)
                });
                let after = ((records as f64 * epochs) as u64).max(1);
                (v1::Exhaustion::Cap, Exhaustion::Leave { after })
            }
        };
        given.set_exhaustion(wire);
        if wire != v1::Exhaustion::Cap {
            given.cap_epochs = 0.0; // means nothing here, so it must not make another digest
        }
        GroupRule { records, exhaustion }
    };
    let rules: Vec<GroupRule> = spec.groups.iter_mut().zip(groups).map(&mut rule).collect();
    let leaving = rules.iter().filter(|r| matches!(r.exhaustion, Exhaustion::Leave { .. })).count();
    check.ensure(leaving <= MAX_LEAVING, "groups.exhaustion", || {
        format!("is drop or cap for {leaving} groups, want at most {MAX_LEAVING}")
    });
    rules
}

//! Groups: every record in exactly one.

use super::{
    SourceError,
    declare::{GroupBy, Rules},
    draft::Draft,
    label::open_text,
};
use globset::{GlobBuilder, GlobSetBuilder};
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
};

/// Numbers of each group's records, ascending, by group name. Groups that are named but have no record stay.
pub(super) fn group(
    rules: &Rules<'_>,
    drafts: &[Draft],
    labels: &[i32],
    classes: &[String],
) -> Result<BTreeMap<String, Vec<u32>>, SourceError> {
    let mut groups = BTreeMap::new();
    match &rules.groups {
        GroupBy::Class => {
            classes.iter().for_each(|class| drop(groups.insert(class.clone(), Vec::new())));
            let class =
                |number: usize| usize::try_from(labels[number]).ok().map(|label| classes[label].as_str());
            let why = "has no label, want one (in a folder source: FOLDER/CLASS/PICTURE) or other `groups`";
            collect(&mut groups, drafts, |number, draft| {
                class(number).ok_or_else(|| rules.misfit(format!("record `{}` {why}", draft.name)))
            })?;
        }
        GroupBy::Folder => collect(&mut groups, drafts, |_, draft| {
            Ok(draft.inner().rsplit_once('/').map_or(".", |(folder, _)| folder))
        })?,
        GroupBy::Shard => collect(&mut groups, drafts, |_, draft| Ok(draft.shard_name()))?,
        GroupBy::One => collect(&mut groups, drafts, |_, _| Ok("all"))?,
        GroupBy::Column => collect(&mut groups, drafts, |_, draft| {
            let missing = || rules.misfit(format!("record `{}` has no value in `group_column`", draft.name));
            draft.group.as_deref().filter(|group| !group.is_empty()).ok_or_else(missing)
        })?,
        GroupBy::Pattern(patterns) => by_pattern(rules, drafts, patterns, &mut groups)?,
        GroupBy::List(lists) => by_list(rules, drafts, lists, &mut groups)?,
    }
    Ok(groups)
}

fn collect<'a>(
    groups: &mut BTreeMap<String, Vec<u32>>,
    drafts: &'a [Draft],
    name: impl Fn(usize, &'a Draft) -> Result<&'a str, SourceError>,
) -> Result<(), SourceError> {
    for (number, draft) in drafts.iter().enumerate() {
        let name = name(number, draft)?;
        match groups.get_mut(name) {
            Some(numbers) => numbers.push(number as u32),
            None => drop(groups.insert(name.into(), vec![number as u32])),
        }
    }
    Ok(())
}

fn by_pattern(
    rules: &Rules<'_>,
    drafts: &[Draft],
    patterns: &BTreeMap<String, String>,
    groups: &mut BTreeMap<String, Vec<u32>>,
) -> Result<(), SourceError> {
    let mut set = GlobSetBuilder::new();
    for (name, pattern) in patterns {
        let glob = GlobBuilder::new(pattern).build();
        set.add(glob.map_err(|error| rules.misfit(format!("groups.pattern.{name}: {error}")))?);
        groups.insert(name.clone(), Vec::new());
    }
    let set = set.build().map_err(|error| rules.misfit(format!("groups.pattern: {error}")))?;
    let names: Vec<&str> = patterns.keys().map(String::as_str).collect();
    collect(groups, drafts, |_, draft| match set.matches(&draft.name)[..] {
        [one] => Ok(names[one]),
        [] => {
            Err(rules
                .misfit(format!("record `{}` matches no pattern of `groups.pattern`, want one", draft.name)))
        }
        [a, b, ..] => {
            let (a, b) = (names[a], names[b]);
            Err(rules
                .misfit(format!("record `{}` matches the patterns of `{a}` and `{b}`, want one", draft.name)))
        }
    })
}

fn by_list(
    rules: &Rules<'_>,
    drafts: &[Draft],
    lists: &BTreeMap<String, String>,
    groups: &mut BTreeMap<String, Vec<u32>>,
) -> Result<(), SourceError> {
    let numbers: HashMap<&str, usize> =
        drafts.iter().enumerate().map(|(i, d)| (d.name.as_str(), i)).collect();
    let mut owner: Vec<Option<&str>> = vec![None; drafts.len()];
    for (group, shown) in lists {
        groups.insert(group.clone(), Vec::new());
        for (line, text) in BufReader::new(open_text(&rules.path(shown), shown)?).lines().enumerate() {
            let fail = |why: String| SourceError::format(format!("{shown}:{}", line + 1), why);
            let text = text.map_err(|error| fail(error.to_string()))?;
            let name = text.trim();
            if name.is_empty() {
                continue;
            }
            let number =
                *numbers.get(name).ok_or_else(|| fail(format!("names `{name}`, which is no record")))?;
            if let Some(other) = owner[number].replace(group) {
                return Err(fail(format!("names `{name}`, which is already in group `{other}`")));
            }
        }
    }
    let why = "is in no list of `groups.list`, want each record in one";
    collect(groups, drafts, |number, draft| {
        owner[number].ok_or_else(|| rules.misfit(format!("record `{}` {why}", draft.name)))
    })
}

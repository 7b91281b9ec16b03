//! Labels: from a CSV file, and from numbers or names to classes.

use super::{
    SourceError,
    declare::Rules,
    draft::{Draft, Label},
    walk::Stamp,
};
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    path::Path,
};

/// Classes that integer labels may span.
const MAX_CLASSES: i64 = 1 << 20;
/// Bytes of a CSV file or a list of names.
const MAX_TEXT: u64 = 1 << 32;

/// Opens a text file that the operator named `shown`.
pub(super) fn open_text(path: &Path, shown: &str) -> Result<File, SourceError> {
    let file = File::open(path).map_err(|error| SourceError::io(shown, error))?;
    let metadata = file.metadata().map_err(|error| SourceError::io(shown, error))?;
    let size = Stamp::of(&metadata).size;
    if !metadata.is_file() || size > MAX_TEXT {
        return Err(SourceError::format(
            shown,
            format!("has {size} bytes, want a text file of at most {MAX_TEXT}"),
        ));
    }
    Ok(file)
}

/// Labels records by the rows of `labels_csv`. A row for a record that is not there is an error; a record without a
/// row has no label.
pub(super) fn from_csv(rules: &Rules<'_>, drafts: &mut [Draft]) -> Result<(), SourceError> {
    let shown = rules.declared.labels_csv.as_deref().unwrap_or_default();
    let file = open_text(&rules.path(shown), shown)?;
    let numbers: HashMap<String, usize> =
        drafts.iter().enumerate().map(|(i, d)| (d.name.clone(), i)).collect();
    let mut seen = vec![0u64; drafts.len()];
    let mut columns = None;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
    let mut row = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        let fail = |why: String| SourceError::format(format!("{shown}:{line}"), why);
        if !reader.read_record(&mut row).map_err(|error| fail(error.to_string()))? {
            return Ok(());
        }
        let line = row.position().map_or(line, csv::Position::line);
        let fail = |why: String| SourceError::format(format!("{shown}:{line}"), why);
        let (name, label, width) = match columns {
            Some(columns) => columns,
            None => {
                let header = header(&row);
                let columns = columns.insert(header.unwrap_or((0, 1, 2)));
                if header.is_some() {
                    continue;
                }
                *columns
            }
        };
        if row.len() != width {
            let why = "record name and label, or what a header names";
            return Err(fail(format!("has {} columns, want {width}: {why}", row.len())));
        }
        let (name, label) = (row[name].trim(), row[label].trim());
        if label.is_empty() {
            return Err(fail(format!("has no label for `{name}`, want a number or a class name")));
        }
        let number =
            *numbers.get(name).ok_or_else(|| fail(format!("labels `{name}`, which is no record")))?;
        if seen[number] > 0 {
            return Err(fail(format!("labels `{name}` again, line {} did before", seen[number])));
        }
        seen[number] = line.max(1);
        drafts[number].label = Label::Text(label.into());
    }
}

/// Columns of record name and label, and the number of columns, when `row` is a header.
fn header(row: &csv::StringRecord) -> Option<(usize, usize, usize)> {
    let find = |names: &[&str]| {
        row.iter().position(|cell| names.iter().any(|n| n.eq_ignore_ascii_case(cell.trim())))
    };
    let name = find(&["record", "name", "file", "filename", "path", "image"])?;
    Some((name, find(&["label", "class"])?, row.len()))
}

/// Number of every record's class (-1: none) and the class names. `extra` are names of classes without a record.
pub(super) fn number(
    rules: &Rules<'_>,
    drafts: &[Draft],
    extra: Vec<String>,
) -> Result<(Vec<i32>, Vec<String>), SourceError> {
    let integers = drafts.iter().all(|draft| match &draft.label {
        Label::None | Label::Index(_) => true,
        Label::Text(text) => text.parse::<i64>().is_ok(),
        Label::Name(_) => false,
    });
    match &rules.declared.classes {
        Some(given) => {
            let known: HashMap<&str, i32> =
                given.iter().enumerate().map(|(i, n)| (n.as_str(), i as i32)).collect();
            if let Some(name) = extra.iter().find(|name| !known.contains_key(name.as_str())) {
                return Err(rules.misfit(format!("folder `{name}` is no class of `classes`")));
            }
            // Texts are names if all are; only then numbers, so that a class called "3" is possible.
            let named = drafts.iter().all(|draft| match &draft.label {
                Label::Text(text) => known.contains_key(text.as_str()),
                Label::None | Label::Index(_) | Label::Name(_) => true,
            });
            let labels = numbered(rules, drafts, &known, integers && !named, given.len() as i64)?;
            Ok((labels, given.clone()))
        }
        None if integers && extra.is_empty() => {
            let labels = numbered(rules, drafts, &HashMap::new(), true, MAX_CLASSES)?;
            let classes = labels.iter().max().map_or(0, |max| max + 1);
            Ok((labels, (0..classes).map(|class| class.to_string()).collect()))
        }
        None => {
            let mut names: BTreeSet<&str> = extra.iter().map(String::as_str).collect();
            for draft in drafts {
                match &draft.label {
                    Label::Text(name) | Label::Name(name) => drop(names.insert(name)),
                    Label::Index(n) if *n >= 0 => {
                        let why = format!(
                            "record `{}` has the label {n}, others have names; want one kind",
                            draft.name
                        );
                        return Err(rules.misfit(why));
                    }
                    Label::Index(_) | Label::None => {}
                }
            }
            let known: HashMap<&str, i32> = names.iter().enumerate().map(|(i, n)| (*n, i as i32)).collect();
            let labels = numbered(rules, drafts, &known, false, known.len() as i64)?;
            Ok((labels, names.into_iter().map(String::from).collect()))
        }
    }
}

/// Class of every record: by name from `known`, or by number below `count` (texts only if `integers`).
fn numbered(
    rules: &Rules<'_>,
    drafts: &[Draft],
    known: &HashMap<&str, i32>,
    integers: bool,
    count: i64,
) -> Result<Vec<i32>, SourceError> {
    let one = |draft: &Draft| {
        let wrong = |label: &str, want: String| {
            Err(rules.misfit(format!("record `{}` has the label `{label}`, want {want}", draft.name)))
        };
        let below = |n: i64| match n {
            -1 => Ok(-1),
            n if (0..count).contains(&n) => Ok(n as i32),
            n => wrong(&n.to_string(), format!("0..{count}, or -1 for none")),
        };
        match &draft.label {
            Label::None => Ok(-1),
            Label::Index(n) => below(*n),
            Label::Text(text) if integers => {
                text.parse().map_or_else(|_| wrong(text, "an integer".into()), below)
            }
            Label::Text(name) | Label::Name(name) => match known.get(name.as_str()) {
                Some(class) => Ok(*class),
                None => wrong(name, "a name or number of `classes`".into()),
            },
        }
    };
    drafts.iter().map(one).collect()
}

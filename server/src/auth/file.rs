//! Token files.

use super::{Quota, Token, Usage, Verb, secret};
use crate::size::Size;
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use toml::{Spanned, value::Datetime};

/// Most tokens of a file: each presented secret is compared with all of them.
const MAX_TOKENS: usize = 1_000;
/// Largest file.
const MAX_BYTES: u64 = 1 << 20;
/// Characters of a name.
const MAX_NAME: usize = 64;

/// A token file that can't be used. No secret and no hash is in the message.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read token file `{}`: {error}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is no TOML, or has unknown keys or values of another type.
    #[error("token file `{}`, line {line}: {why}", path.display())]
    Parse {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// A value that does not fit.
    #[error("token file `{}`, line {line}: `{key}` {why}", path.display())]
    Value {
        /// File.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// Key with its tables, "tokens.vit.hash".
        key: String,
        /// What is there and what is wanted.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tokens: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: Spanned<String>,
    jobs: Spanned<Vec<String>>,
    verbs: Spanned<Vec<Verb>>,
    max_streams: Option<u64>,
    max_bytes: Option<Size>,
    max_jobs: Option<u64>,
    expires: Option<Spanned<Datetime>>,
}

/// What does not fit: where, which key, why.
type Misfit = (usize, &'static str, String);

/// Reads and checks `path`.
pub(super) fn load(path: &Path) -> Result<Vec<Token>, TokensError> {
    let failed = |error| TokensError::Read { path: path.to_owned(), error };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_BYTES {
        return Err(failed(std::io::Error::other(format!("has {size} bytes, want at most {MAX_BYTES}"))));
    }
    parse(&std::fs::read_to_string(path).map_err(failed)?, path)
}

/// As [`load`] from text; `path` names it in errors.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<Token>, TokensError> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let value = |line, key: String, why| TokensError::Value { path: path.to_owned(), line, key, why };
    // The parser's own text quotes the line, which may hold a secret.
    let file: File = toml::from_str(text).map_err(|error| TokensError::Parse {
        path: path.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        why: secret::redact(error.message()),
    })?;
    let count = file.tokens.len();
    if !(1..=MAX_TOKENS).contains(&count) {
        let why = format!("has {count} tokens, want 1..={MAX_TOKENS}: without any, nobody could call");
        return Err(value(1, "tokens".into(), why));
    }
    let mut tokens: Vec<Token> = Vec::with_capacity(count);
    for (name, entry) in file.tokens {
        let hash_at = line(entry.hash.span().start);
        let token = token(&name, entry)
            .map_err(|(at, key, why)| value(line(at), format!("tokens.{name}{key}"), why))?;
        if let Some(twin) = tokens.iter().find(|t| t.hash == token.hash) {
            let why = format!("is that of `{}` too, want a secret of its own", twin.name);
            return Err(value(hash_at, format!("tokens.{name}.hash"), why));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn token(name: &str, entry: Entry) -> Result<Token, Misfit> {
    let at = entry.hash.span().start;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(legal) {
        return Err((at, "", format!("is no name, want 1 to {MAX_NAME} of a-z, A-Z, 0-9, `-`, `_`, `.`")));
    }
    let wrong = "is no hash, want \"blake3:\" and 64 hexadecimal digits, as `mixfeed token` prints it";
    let hash = secret::parse_hash(entry.hash.get_ref()).ok_or((at, ".hash", wrong.to_owned()))?;
    if entry.verbs.get_ref().is_empty() {
        let all = Verb::ALL.map(Verb::name).join(", ");
        return Err((entry.verbs.span().start, ".verbs", format!("is empty, want some of {all}")));
    }
    let jobs = patterns(entry.jobs.get_ref());
    let jobs = jobs.map_err(|why| (entry.jobs.span().start, ".jobs", secret::redact(&why)))?;
    let expires = entry.expires.map(|given| {
        let wrong = "wants a date, or a date with time and offset, from 1970 on: 2027-01-31T12:00:00Z";
        instant(given.get_ref()).ok_or((given.span().start, ".expires", wrong.to_owned()))
    });
    Ok(Token {
        name: name.into(),
        hash,
        every_job: entry.jobs.get_ref().iter().any(|pattern| pattern == "*"),
        jobs,
        verbs: entry.verbs.into_inner(),
        quota: Quota { streams: entry.max_streams, bytes: entry.max_bytes, jobs: entry.max_jobs },
        expires: expires.transpose()?,
        usage: Arc::new(Usage::default()),
    })
}

fn patterns(given: &[String]) -> Result<GlobSet, String> {
    if given.is_empty() {
        return Err("is empty, want patterns such as \"vit-*\"; \"*\" is every job".into());
    }
    let mut set = GlobSetBuilder::new();
    for pattern in given {
        set.add(Glob::new(pattern).map_err(|e| format!("has `{pattern}`: {}", e.kind()))?);
    }
    set.build().map_err(|e| e.kind().to_string())
}

/// Midnight UTC when there is a date only.
fn instant(given: &Datetime) -> Option<SystemTime> {
    let date = given.date?;
    let (hours, minutes, seconds) = match given.time {
        None => (0, 0, 0),
        Some(time) => (time.hour, time.minute, time.second.unwrap_or(0)),
    };
    let offset = match (given.time, given.offset) {
        (None, None) | (Some(_), Some(toml::value::Offset::Z)) => 0,
        (Some(_), Some(toml::value::Offset::Custom { minutes })) => i64::from(minutes),
        (Some(_), None) | (None, Some(_)) => return None,
    };
    let days = days(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = days * 1440 + i64::from(hours) * 60 + i64::from(minutes) - offset;
    let seconds = u64::try_from(minutes * 60 + i64::from(seconds)).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(more: &str) -> String {
        let hash = secret::Secret::new().unwrap().hash();
        format!("[tokens.vit]\nhash = \"{hash}\"\n{more}")
    }

    fn error(text: &str) -> String {
        parse(text, Path::new("tokens.toml")).expect_err("wrong").to_string()
    }

    #[test]
    fn a_whole_token_is_read() {
        let text = block(
            "jobs = [\"vit-*\", \"demo\"]\nverbs = [\"pull\", \"report\"]\nmax_streams = 8\n\
             max_bytes = \"4GiB\"\nmax_jobs = 2\nexpires = 2027-01-31T12:00:00+02:00\n",
        );
        let [token] = &parse(&text, Path::new("t")).unwrap()[..] else { panic!("one token") };
        assert_eq!((token.name.as_str(), &token.verbs[..]), ("vit", &[Verb::Pull, Verb::Report][..]));
        assert_eq!(token.quota, Quota { streams: Some(8), bytes: Some(Size(4 << 30)), jobs: Some(2) });
        assert!(
            token.jobs.is_match("vit-large") && token.jobs.is_match("demo") && !token.jobs.is_match("demo2")
        );
        let expires = token.expires.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(expires.as_secs(), 1_801_389_600);
        assert!(!token.every_job);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (date, number) in [((1970, 1, 1), 0), ((2000, 3, 1), 11_017), ((2024, 2, 29), 19_782)] {
            assert_eq!(days(date.0, date.1, date.2), number, "{date:?}");
        }
    }

    #[test]
    fn errors_name_file_line_and_key_and_never_a_secret() {
        let good = "jobs = [\"*\"]\nverbs = [\"pull\"]\n";
        let secret = secret::Secret::new().unwrap();
        let pasted = format!("[tokens.vit]\nhash = \"{}\"\n{good}", secret.reveal());
        let jobs = block(&format!("jobs = \"{}\"\nverbs = [\"pull\"]\n", secret.reveal()));
        let broken = format!("[tokens.vit]\nhash = {}\n", secret.reveal());
        let twice = block(good);
        let twice = format!("{twice}{}", twice.replace("tokens.vit", "tokens.zoo"));
        for (text, wants) in [
            (pasted, vec!["tokens.toml", "line 2", "`tokens.vit.hash` is no hash"]),
            (jobs, vec!["line 3", "invalid type"]),
            (broken, vec!["line 2"]),
            (twice, vec!["line 6", "`tokens.zoo.hash` is that of `vit` too"]),
            (String::new(), vec!["line 1", "has 0 tokens"]),
            (block("jobs = []\nverbs = [\"pull\"]\n"), vec!["line 3", "`tokens.vit.jobs` is empty"]),
            (block("jobs = [\"a[\"]\nverbs = [\"pull\"]\n"), vec!["line 3", "has `a[`"]),
            (block("jobs = [\"*\"]\nverbs = []\n"), vec!["line 4", "some of pull, report, admin"]),
            (block("jobs = [\"*\"]\nverbs = [\"push\"]\n"), vec!["line 4", "push"]),
            (block(&format!("{good}expires = 12:00:00\n")), vec!["line 5", "`tokens.vit.expires`"]),
            (block(&format!("{good}max_stream = 1\n")), vec!["line 5", "max_stream"]),
            (block(&format!("{good}max_bytes = \"1 pound\"\n")), vec!["line 5", "no size"]),
            (block(good).replace("[tokens.vit]", "[tokens.\"v t\"]"), vec!["line 2", "is no name"]),
            (block("verbs = [\"pull\"]\n"), vec!["jobs"]),
        ] {
            let said = error(&text);
            assert!(wants.iter().all(|want| said.contains(want)), "{wants:?}: {said}");
            assert!(!said.contains(&secret.reveal()[3..]), "{said}");
        }
    }
}

//! From a request's target to what is asked for.

/// Bytes of a target: a job's name has at most 128 characters.
const MAX_TARGET: usize = 2_048;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Open to everybody.
    Metrics,
    /// Open to everybody.
    Health,
    /// Looks of pages.
    Style,
    /// Picture of a tab.
    Icon,
    /// The page of all jobs.
    Overview,
    /// The page of a job.
    Job(String),
    /// Rows of its last batch as PNG; of a step that is kept.
    Batch(String, Option<u64>),
    /// Its mixture as SVG.
    Plot(String),
    /// Nothing is there.
    Missing,
    /// Longer than anything that is there.
    TooLong,
}

impl Route {
    /// Of a path and its query.
    pub fn of(path: &str, query: Option<&str>) -> Route {
        if path.len() + query.map_or(0, str::len) > MAX_TARGET {
            return Route::TooLong;
        }
        match path {
            "/metrics" => return Route::Metrics,
            "/healthz" => return Route::Health,
            "/page.css" => return Route::Style,
            "/icon.svg" => return Route::Icon,
            "/" => return Route::Overview,
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/jobs/") else { return Route::Missing };
        let (name, what) = rest.split_once('/').map_or((rest, None), |(name, what)| (name, Some(what)));
        let Some(name) = unquoted(name).filter(|name| !name.is_empty()) else { return Route::Missing };
        match what {
            None => Route::Job(name),
            Some("batch.png") => Route::Batch(name, step(query)),
            Some("mixture.svg") => Route::Plot(name),
            Some(_) => Route::Missing,
        }
    }

    /// Whether anybody may ask.
    pub fn is_open(&self) -> bool {
        matches!(self, Route::Metrics | Route::Health)
    }
}

fn step(query: Option<&str>) -> Option<u64> {
    query?.split('&').find_map(|part| part.strip_prefix("step="))?.parse().ok()
}

/// A part of a path as text; `None` for what is no text.
fn unquoted(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                (high * 16 + low) as u8 // two hexadecimal digits
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::page::quoted;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_lead_where_they_say() {
        let of = |path| Route::of(path, None);
        assert_eq!(
            [of("/"), of("/metrics"), of("/healthz")],
            [Route::Overview, Route::Metrics, Route::Health]
        );
        assert_eq!(of("/jobs/a%20b"), Route::Job("a b".into()));
        assert_eq!(of("/jobs/a/mixture.svg"), Route::Plot("a".into()));
        assert_eq!(Route::of("/jobs/a/batch.png", Some("x&step=7")), Route::Batch("a".into(), Some(7)));
        assert_eq!(Route::of("/jobs/a/batch.png", Some("step=x")), Route::Batch("a".into(), None));
        for nothing in
            ["/jobs", "/jobs/", "/jobs/a/b", "/jobs/a/batch.png/x", "/jobs/%f", "/jobs/%ff", "/x", "//"]
        {
            assert_eq!(of(nothing), Route::Missing, "{nothing}");
        }
        assert_eq!(of(&format!("/jobs/{}", "a".repeat(3_000))), Route::TooLong);
        assert_eq!(Route::of("/", Some(&"a".repeat(3_000))), Route::TooLong);
    }

    proptest! {
        #[test]
        fn any_name_is_found_again(name in ".{1,128}") {
            prop_assume!(quoted(&name).len() < 2_000);
            prop_assert_eq!(Route::of(&format!("/jobs/{}", quoted(&name)), None), Route::Job(name));
        }

        #[test]
        fn any_target_is_something(path in ".{0,300}", query in ".{0,60}") {
            Route::of(&path, Some(&query));
        }
    }
}

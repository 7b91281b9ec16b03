//! URLs of objects: taking them apart, several written as one, and what of them may be shown.

use reqwest::Url;

/// Objects that one pattern may stand for.
const MOST: usize = 1_000_000;

/// True for paths that are URLs of a store.
pub(in crate::source) fn is_url(path: &str) -> bool {
    ["s3://", "http://", "https://"].iter().any(|scheme| path.starts_with(scheme))
}

/// An object's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `s3://BUCKET/KEY`; the key is as it is, not percent-encoded.
    Bucket(String, String),
    /// `http(s)://HOST/PATH?QUERY`.
    Web(Box<Url>),
}

impl Address {
    /// Takes `text` apart.
    pub fn parse(text: &str) -> Result<Address, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            let letters = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            if bucket.is_empty() || !bucket.chars().all(letters) {
                return Err(format!("`{}` names no bucket, want `s3://BUCKET/...`", shown(text)));
            }
            return Ok(Address::Bucket(bucket.into(), key.trim_end_matches('/').into()));
        }
        let url = Url::parse(text).map_err(|error| format!("`{}` is no URL: {error}", shown(text)))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("`{}` is no URL of a store, want s3://, https:// or http://", shown(text)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not even its start is shown: that is where the password is.
            return Err("a URL holds a name or password, want none: other people read this file".into());
        }
        Ok(Address::Web(Box::new(url)))
    }
}

/// `text` without what may be secret: a query (signatures of presigned URLs) and names and passwords before the host.
pub(super) fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}{path}", if rest.contains('/') { "/" } else { "" })
}

/// Every text that `pattern` stands for: `{000..099}` counts, with leading zeros when an end has them, `{a,b}` lists.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.into()]) };
    let wrong = |why: &str| Err(format!("`{}` {why}, want `{{000..099}}` or `{{a,b}}`", shown(pattern)));
    let Some(close) = pattern[open..].find('}').map(|close| open + close) else {
        return wrong("has `{` without `}`");
    };
    let (head, inside, tail) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let Some(choices) = choices(inside) else {
        return wrong(&format!("has `{{{inside}}}`, which is no list or has over {MOST} members"));
    };
    let tails = expand(tail)?;
    if choices.len().saturating_mul(tails.len()) > MOST {
        return wrong(&format!("stands for more than {MOST} objects"));
    }
    Ok(choices.iter().flat_map(|c| tails.iter().map(move |tail| format!("{head}{c}{tail}"))).collect())
}

fn choices(inside: &str) -> Option<Vec<String>> {
    if inside.contains('{') {
        return None;
    }
    let Some((from, to)) = inside.split_once("..") else {
        return inside.contains(',').then(|| inside.split(',').map(String::from).collect());
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(from) || !digits(to) {
        return None;
    }
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
    let (first, last): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let count = last.checked_sub(first)?.checked_add(1)?;
    (count <= MOST as u64).then(|| (first..=last).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_count_and_list() {
        let all = expand("a/s-{008..011}.tar").expect("a pattern");
        assert_eq!(all, ["a/s-008.tar", "a/s-009.tar", "a/s-010.tar", "a/s-011.tar"]);
        assert_eq!(expand("{9..11}").expect("a pattern"), ["9", "10", "11"]);
        assert_eq!(expand("{a,b}-{0..1}").expect("a pattern"), ["a-0", "a-1", "b-0", "b-1"]);
        assert_eq!(expand("plain").expect("none"), ["plain"]);
        for wrong in
            ["{", "{}", "{a}", "{3..1}", "{a..b}", "{0..99999999}", "{0..9999}{0..9999}", "{{a,b},c}"]
        {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let signed = "https://eve:hunter2@host:8/a/b.tar?X-Amz-Signature=deadbeef#x";
        assert_eq!(shown(signed), "https://host:8/a/b.tar");
        assert_eq!(shown("s3://bucket"), "s3://bucket");
        for secret in [
            signed,
            "https://eve:hunter2@host/{a",
            "ftp://x:hunter2@host/a?sig=hunter2",
            "https://:hunter2@/",
        ] {
            let errors = [Address::parse(secret).err(), expand(&format!("{secret}{{")).err()];
            assert!(
                errors.iter().flatten().all(|e| !e.contains("hunter2") && !e.contains("dead")),
                "{errors:?}"
            );
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let bucket = |b: &str, k: &str| Ok(Address::Bucket(b.into(), k.into()));
        assert_eq!(Address::parse("s3://b-1/a b/c/"), bucket("b-1", "a b/c"));
        assert_eq!(Address::parse("s3://b"), bucket("b", ""));
        for wrong in ["s3://", "s3:///key", "s3://b?c/key", "http://", "https://a:b@host/x", "file:///x"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(Address::parse("http://host/x?y=z"), Ok(Address::Web(_))));
    }
}

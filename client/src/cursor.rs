//! Position in a job's sequence.

use mixfeed_proto as v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Position after a batch, for the trainer's checkpoint. Opaque: keep it, hand it back through
/// [`Start::Cursor`](crate::Start). Any serde format takes it; as JSON it stays below 4 KB.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor(pub(crate) v1::Cursor);

impl Cursor {
    /// First step not yet received.
    pub fn next_step(&self) -> u64 {
        self.0.next_step
    }

    /// Branch of the mixture log that it is on.
    pub fn branch(&self) -> u64 {
        self.0.branch
    }

    /// Job it was made for.
    pub fn job(&self) -> &str {
        &self.0.job
    }
}

/// Longest job name of the contract; longer ones in a stored cursor are not ours.
const MAX_JOB: usize = 128;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    version: u32,
    job: String,
    digest: String,
    branch: u64,
    next_step: u64,
    mixture_seq: u64,
    crc: u32,
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let v1::Cursor { job, digest, branch, next_step, mixture_seq, crc } = self.0.clone();
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Fields { version: 1, job, digest, branch, next_step, mixture_seq, crc }.serialize(out)
    }
}

impl<'a> Deserialize<'a> for Cursor {
    fn deserialize<D: Deserializer<'a>>(input: D) -> Result<Self, D::Error> {
        let Fields { version, job, digest, branch, next_step, mixture_seq, crc } =
            Fields::deserialize(input)?;
        if version != 1 {
            return Err(D::Error::custom(format!("cursor has version {version}, expected 1")));
        }
        if job.len() > MAX_JOB {
            return Err(D::Error::custom(format!("`job` has {} characters, at most {MAX_JOB}", job.len())));
        }
        let bytes = digest.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return Err(D::Error::custom("`digest` is not 64 hexadecimal digits"));
        }
        let nibble = |c: u8| char::from(c).to_digit(16).unwrap_or_default() as u8;
        let digest = bytes.chunks_exact(2).map(|p| nibble(p[0]) << 4 | nibble(p[1])).collect();
        Ok(Cursor(v1::Cursor { job, digest, branch, next_step, mixture_seq, crc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor(v1::Cursor {
            job: "vit".into(),
            digest: (0..32).map(|i| i * 7).collect(),
            branch: 3,
            next_step: u64::MAX,
            mixture_seq: 9,
            crc: 0xdead_beef,
        })
    }

    #[test]
    fn comes_back_from_json() {
        let text = serde_json::to_string(&cursor()).expect("plain fields");
        assert!(text.len() < 4096);
        assert_eq!(serde_json::from_str::<Cursor>(&text).expect("own text"), cursor());
    }

    #[test]
    fn foreign_text_is_refused_by_field() {
        let text = serde_json::to_string(&cursor()).expect("plain fields");
        for (from, to, word) in [
            ("\"version\":1", "\"version\":2", "version"),
            ("\"digest\":\"00", "\"digest\":\"zz", "digest"),
            ("\"digest\":\"00", "\"digest\":\"0", "digest"),
            ("\"branch\":3", "\"branch\":-3", "-3"),
            ("\"branch\"", "\"brunch\"", "brunch"),
        ] {
            let bad = text.replace(from, to);
            assert_ne!(bad, text);
            let error = serde_json::from_str::<Cursor>(&bad).expect_err("changed").to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn bent_text_is_refused_or_a_cursor(
            at in proptest::prelude::any::<proptest::sample::Index>(),
            more in "\\PC{0,5}",
            skip in 0usize..5,
        ) {
            let text = serde_json::to_string(&cursor()).expect("plain fields");
            let at = at.index(text.len());
            let bent = [&text[..at], &more, &text[(at + skip).min(text.len())..]].concat();
            if let Ok(cursor) = serde_json::from_str::<Cursor>(&bent) {
                proptest::prop_assert_eq!(cursor.0.digest.len(), 32);
            }
        }
    }
}

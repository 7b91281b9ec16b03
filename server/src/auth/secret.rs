//! Secrets: made here, shown once, kept as hashes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, io};
use tokio_rustls::rustls::crypto::ring;

/// What a secret begins with, so that people and scanners know one when they see it.
pub const PREFIX: &str = "mf_";
/// Bytes of chance in a secret.
const BYTES: usize = 32;

/// A token's secret. Its `Debug` does not show it.
pub struct Secret(String);

impl Secret {
    /// 256 bits of chance.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> io::Result<Secret> {
        let mut bytes = [0; BYTES];
        let filled = ring::default_provider().secure_random.fill(&mut bytes);
        filled.map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Secret(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text that is sent. To be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `hash` of a token file: "blake3:" and 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        format!("blake3:{}", blake3::hash(self.0.as_bytes()).to_hex())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// The hash that "blake3:HEX" says.
pub fn parse_hash(text: &str) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(text.strip_prefix("blake3:")?).ok()
}

/// `text` without anything that looks like a secret: people paste them where hashes belong.
pub fn redact(text: &str) -> String {
    let mut parts = text.split(PREFIX);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        out.push_str(PREFIX);
        out.push_str("...");
        out.push_str(rest);
    }
    out
}

/// The secret of an `authorization` header: "Bearer SECRET".
pub fn bearer(header: &str) -> Option<&str> {
    scheme(header, "bearer")
}

/// The password of an `authorization` header as browsers send it: "Basic BASE64(NAME:PASSWORD)".
pub fn password(header: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(scheme(header, "basic")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

fn scheme<'a>(header: &'a str, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_hash_and_hide() {
        let (a, b) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert_ne!(a.reveal(), b.reveal());
        assert_eq!((a.reveal().len(), &a.reveal()[..3]), (46, PREFIX));
        assert_eq!(parse_hash(&a.hash()), Some(blake3::hash(a.reveal().as_bytes())));
        assert!(!format!("{a:?}").contains(&a.reveal()[3..]));
        for wrong in ["", "blake3:", "blake3:12", "sha256:00", a.reveal()] {
            assert_eq!(parse_hash(wrong), None, "{wrong}");
        }
        let text = format!("invalid type: string \"{}\", want a list, not {}", a.reveal(), b.reveal());
        assert_eq!(redact(&text), "invalid type: string \"mf_...\", want a list, not mf_...");
    }

    #[test]
    fn headers_carry_secrets_in_two_ways() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
        assert_eq!(password("Basic YWRtaW46czpjcmV0"), Some("s:cret".into()));
        for wrong in ["Basic", "Basic ???", "Basic YWRtaW4=", "Bearer YWRtaW46eA=="] {
            assert_eq!(password(wrong), None, "{wrong}");
        }
    }
}

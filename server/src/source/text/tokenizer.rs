//! From text to ids: bytes, OpenAI's encodings, and tokenizer files of Hugging Face.

use crate::source::{
    SourceError,
    declare::{Rules, Width},
};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tiktoken_rs::CoreBPE;

/// Names that need no file.
const NAMES: &str = "bytes, r50k_base, p50k_base, cl100k_base, o200k_base, file:PATH";
/// Bytes of a tokenizer file.
const MAX_FILE: u64 = 256 << 20;

/// Makes ids of text. The same text gives the same ids, whatever was encoded before.
pub(super) struct Tokenizer {
    /// What it is, for the digest of what it made.
    pub identity: String,
    /// Type that holds its ids.
    pub width: Width,
    /// Ids that it can make, the end of a document included.
    pub vocabulary: u64,
    kind: Kind,
}

enum Kind {
    Bytes,
    Tiktoken(&'static CoreBPE),
    File(Box<tokenizers::Tokenizer>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer that the declaration names; its ids and `eod` fit the width.
    pub fn open(rules: &Rules<'_>) -> Result<Tokenizer, SourceError> {
        let name = rules.declared.tokenizer.as_deref().unwrap_or_default();
        let (kind, identity, largest) = match name.strip_prefix("file:") {
            Some(path) => file(rules, path)?,
            None => {
                let (kind, largest) = match name {
                    "bytes" => (Kind::Bytes, 255),
                    "r50k_base" => (Kind::Tiktoken(tiktoken_rs::r50k_base_singleton()), 50_256),
                    "p50k_base" => (Kind::Tiktoken(tiktoken_rs::p50k_base_singleton()), 50_280),
                    "cl100k_base" => (Kind::Tiktoken(tiktoken_rs::cl100k_base_singleton()), 100_276),
                    "o200k_base" => (Kind::Tiktoken(tiktoken_rs::o200k_base_singleton()), 200_018),
                    other => return Err(rules.misfit(format!("tokenizer is `{other}`, want one of {NAMES}"))),
                };
                (kind, name.to_owned(), largest)
            }
        };
        let largest = largest.max(rules.declared.eod.unwrap_or(0));
        let width = if largest <= u32::from(u16::MAX) { Width::U16 } else { Width::U32 };
        Ok(Tokenizer { identity, width, vocabulary: u64::from(largest) + 1, kind })
    }

    /// Ids of `text`; a sentence when it is not what the tokenizer takes.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, String> {
        if let Kind::Bytes = self.kind {
            return Ok(text.iter().map(|byte| u32::from(*byte)).collect());
        }
        let text =
            std::str::from_utf8(text).map_err(|e| format!("is no UTF-8 after byte {}", e.valid_up_to()))?;
        // Vocabularies are data of others: what trips over them must not stop the server.
        let encoded = catch_unwind(AssertUnwindSafe(|| match &self.kind {
            Kind::Bytes => Ok(Vec::new()),
            Kind::Tiktoken(bpe) => Ok(bpe.encode_ordinary(text)),
            Kind::File(file) => match file.encode_fast(text, false) {
                Ok(encoding) => Ok(encoding.get_ids().to_vec()),
                Err(error) => Err(format!("cannot be tokenised: {error}")),
            },
        }));
        encoded.unwrap_or_else(|_| Err("cannot be tokenised: the tokenizer gave up".into()))
    }
}

/// A Hugging Face tokenizer file: what would make its ids depend on chance or other texts is refused or turned off.
fn file(rules: &Rules<'_>, path: &str) -> Result<(Kind, String, u32), SourceError> {
    let io = |error| SourceError::io(path, error);
    let wrong = |why: String| SourceError::format(path, why);
    let place = rules.path(path);
    let size = fs::metadata(&place).map_err(io)?.len();
    if size > MAX_FILE {
        return Err(wrong(format!("has {size} bytes, want at most {MAX_FILE}")));
    }
    let bytes = fs::read(&place).map_err(io)?;
    let parsed: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    if parsed.pointer("/model/dropout").is_some_and(|dropout| dropout.as_f64().unwrap_or(0.0) != 0.0) {
        return Err(wrong("has model.dropout, want none: ids must not depend on chance".into()));
    }
    let parsed = catch_unwind(|| tokenizers::Tokenizer::from_bytes(&bytes));
    let parsed = parsed.unwrap_or_else(|_| Err("the parser gave up".into()));
    let mut file = parsed.map_err(|error| wrong(format!("is no tokenizer: {error}")))?;
    file.with_padding(None);
    file.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
    let largest = file.get_vocab(true).into_values().max().unwrap_or(0);
    if largest > i32::MAX as u32 {
        return Err(wrong(format!("has the id {largest}, want at most 2147483647")));
    }
    Ok((Kind::File(Box::new(file)), format!("file {}", blake3::hash(&bytes).to_hex()), largest))
}

//! Documents to rows of tokens: a table made once per (documents, row length, rule), the same on every machine.
//!
//! A table knows lengths only. Documents are named by their position in their group; they are packed in an order keyed by
//! their number alone, so that every seed, server and restart has the same rows. Shuffling rows is the mixture's affair.

mod fit;

use crate::rng::{Draw, Stream};

/// How documents become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// End to end, cut every row length.
    Concat,
    /// No document is cut unless it is longer than a row ("Fewer Truncations Improve Language Modeling", 2024).
    BestFit,
    /// One document, or piece of a longer one, per row.
    Document,
}

/// A document as packing sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its position in its group.
    pub position: u32,
    /// Its tokens; documents of 0 are in no row.
    pub tokens: u64,
}

/// Consecutive tokens of one document in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position of the document in its group.
    pub position: u32,
    /// Tokens, >= 1.
    pub tokens: u32,
    /// First of them in the document.
    pub from: u64,
}

/// Which pieces make which row.
#[derive(Debug)]
pub struct Table {
    seq_len: u32,
    rows: u64,
    tokens: u64,
    left: u64,
    most_pieces: u32,
    all_pieces: u64,
    body: Body,
    digest: [u8; 32],
}

#[derive(Debug)]
enum Body {
    /// Documents in packing order, their tokens up to and including each, and the document that each row begins with (a
    /// binary search for it took 3 us of cache misses).
    Concat { order: Vec<u32>, ends: Vec<u64>, first: Vec<u32> },
    /// Pieces row by row; row r has `starts[r]..starts[r + 1]`.
    Pieces { pieces: Vec<Piece>, starts: Vec<u64> },
}

impl Table {
    /// Packs `documents`. `keep_rest` keeps the last row of [`Rule::Concat`] even when it is not full.
    ///
    /// `seq_len` is 1..=2^20; `documents` are in ascending order of position.
    pub fn new(rule: Rule, seq_len: u32, documents: &[Document], keep_rest: bool) -> Table {
        let mut order: Vec<Document> = documents.iter().copied().filter(|d| d.tokens > 0).collect();
        Stream::new(0, "pack").at(Draw::Order, 0, 0).shuffle(&mut order);
        let total: u64 = order.iter().map(|d| d.tokens).sum();
        let row = u64::from(seq_len);
        let (body, left) = match rule {
            Rule::Concat => (concat(&order, seq_len), if keep_rest { 0 } else { total % row }),
            Rule::BestFit => (fit::best_fit(&order, seq_len), 0),
            Rule::Document => (documents_alone(&order, seq_len), 0),
        };
        let rows = match &body {
            Body::Concat { .. } => (total - left).div_ceil(row),
            Body::Pieces { starts, .. } => starts.len() as u64 - 1,
        };
        let digest = digest(rule, seq_len, rows, &body);
        let mut table =
            Table { seq_len, rows, tokens: total - left, left, most_pieces: 0, all_pieces: 0, body, digest };
        for pieces in (0..rows).map(|row| table.pieces(row)).collect::<Vec<_>>() {
            table.most_pieces = table.most_pieces.max(pieces);
            table.all_pieces += u64::from(pieces);
        }
        table
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Tokens in all rows.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens at the end that fill no row and are in none ([`Rule::Concat`]).
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Most pieces of a row.
    pub fn most_pieces(&self) -> u32 {
        self.most_pieces
    }

    /// Pieces of all rows.
    pub fn all_pieces(&self) -> u64 {
        self.all_pieces
    }

    /// Digest of rule, row length and every piece, 32 bytes.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Pieces of row `row` < [`Table::rows`].
    pub fn pieces(&self, row: u64) -> u32 {
        match &self.body {
            Body::Concat { ends, first, .. } => {
                let (first, to) = (first[row as usize] as usize, self.span(row).1);
                ends[first..].iter().take_while(|end| **end < to).count() as u32 + 1
            }
            Body::Pieces { starts, .. } => (starts[row as usize + 1] - starts[row as usize]) as u32,
        }
    }

    /// Tokens of row `row` < [`Table::rows`], 1..=seq_len.
    pub fn row_tokens(&self, row: u64) -> u32 {
        match &self.body {
            Body::Concat { .. } => {
                let (from, to) = self.span(row);
                (to - from) as u32
            }
            Body::Pieces { .. } => self.stored(row).iter().map(|p| p.tokens).sum(),
        }
    }

    /// Adds the pieces of row `row` < [`Table::rows`], at least one, in order to `pieces`.
    pub fn row(&self, row: u64, pieces: &mut Vec<Piece>) {
        let Body::Concat { order, ends, first } = &self.body else { return pieces.extend(self.stored(row)) };
        let (mut at, to) = self.span(row);
        let mut document = first[row as usize] as usize;
        while at < to {
            let begin = if document == 0 { 0 } else { ends[document - 1] };
            let tokens = (ends[document].min(to) - at) as u32;
            pieces.push(Piece { position: order[document], tokens, from: at - begin });
            at += u64::from(tokens);
            document += 1;
        }
    }

    fn stored(&self, row: u64) -> &[Piece] {
        match &self.body {
            Body::Concat { .. } => &[],
            Body::Pieces { pieces, starts } => {
                &pieces[starts[row as usize] as usize..starts[row as usize + 1] as usize]
            }
        }
    }

    /// Tokens of a row of concatenated documents.
    fn span(&self, row: u64) -> (u64, u64) {
        let from = row * u64::from(self.seq_len);
        (from, (from + u64::from(self.seq_len)).min(self.tokens))
    }
}

fn concat(order: &[Document], seq_len: u32) -> Body {
    let (mut ends, mut first) = (Vec::with_capacity(order.len()), Vec::new());
    let (mut end, mut row) = (0, 0);
    for (number, document) in order.iter().enumerate() {
        end += document.tokens;
        ends.push(end);
        while row < end {
            first.push(number as u32);
            row += u64::from(seq_len);
        }
    }
    Body::Concat { order: order.iter().map(|d| d.position).collect(), ends, first }
}

fn documents_alone(order: &[Document], seq_len: u32) -> Body {
    let pieces: Vec<Piece> = order.iter().flat_map(|d| cut(d, seq_len)).collect();
    Body::Pieces { starts: (0..=pieces.len() as u64).collect(), pieces }
}

/// A document in pieces of `seq_len`, the last one shorter.
fn cut(document: &Document, seq_len: u32) -> impl Iterator<Item = Piece> + use<> {
    let (Document { position, tokens }, row) = (*document, u64::from(seq_len));
    (0..tokens.div_ceil(row)).map(move |i| {
        let from = i * row;
        Piece { position, tokens: (tokens - from).min(row) as u32, from }
    })
}

fn digest(rule: Rule, seq_len: u32, rows: u64, body: &Body) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(match rule {
        Rule::Concat => b"mixfeed pack 1 concat\n",
        Rule::BestFit => b"mixfeed pack 1 bestfit\n",
        Rule::Document => b"mixfeed pack 1 document\n",
    });
    hasher.update(&seq_len.to_le_bytes());
    hasher.update(&rows.to_le_bytes());
    match body {
        Body::Concat { order, ends, .. } => order.iter().zip(ends).for_each(|(position, end)| {
            hasher.update(&position.to_le_bytes());
            hasher.update(&end.to_le_bytes());
        }),
        Body::Pieces { pieces, starts } => {
            starts.iter().for_each(|start| {
                hasher.update(&start.to_le_bytes());
            });
            pieces.iter().for_each(|piece| {
                hasher.update(&piece.position.to_le_bytes());
                hasher.update(&piece.tokens.to_le_bytes());
                hasher.update(&piece.from.to_le_bytes());
            });
        }
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn documents(lengths: &[u64]) -> Vec<Document> {
        let document = |(i, tokens): (usize, &u64)| Document { position: i as u32 * 3, tokens: *tokens };
        lengths.iter().enumerate().map(document).collect()
    }

    fn pieces(table: &Table, row: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        table.row(row, &mut pieces);
        pieces
    }

    fn rule() -> impl Strategy<Value = Rule> {
        prop::sample::select(vec![Rule::Concat, Rule::BestFit, Rule::Document])
    }

    proptest! {
        #[test]
        fn every_token_is_in_one_row(lengths in prop::collection::vec(0u64..70, 0..60), seq_len in 1u32..40,
                                     rule in rule(), keep: bool) {
            let given = documents(&lengths);
            let table = Table::new(rule, seq_len, &given, keep);
            let mut seen: BTreeMap<(u32, u64), u32> = BTreeMap::new();
            for row in 0..table.rows() {
                let pieces = pieces(&table, row);
                let tokens: u32 = pieces.iter().map(|p| p.tokens).sum();
                prop_assert!((1..=seq_len).contains(&tokens) && pieces.iter().all(|p| p.tokens > 0));
                prop_assert_eq!((tokens, pieces.len() as u32), (table.row_tokens(row), table.pieces(row)));
                prop_assert!(table.pieces(row) <= table.most_pieces());
                for p in pieces {
                    (0..u64::from(p.tokens)).for_each(|t| *seen.entry((p.position, p.from + t)).or_default() += 1);
                }
            }
            prop_assert!(seen.values().all(|n| *n == 1), "a token is in two rows");
            let total: u64 = lengths.iter().sum();
            prop_assert_eq!(seen.len() as u64, table.tokens());
            prop_assert_eq!(total - table.tokens(), table.left());
            prop_assert!(table.left() < u64::from(seq_len) && (rule == Rule::Concat || table.left() == 0));
            prop_assert!(!keep || table.left() == 0);
            let whole = |(p, t): &(u32, u64)| given.iter().any(|d| d.position == *p && *t < d.tokens);
            prop_assert!(seen.keys().all(whole), "a token that no document has");
        }

        #[test]
        fn only_documents_longer_than_a_row_are_cut(lengths in prop::collection::vec(1u64..70, 1..60), seq_len in 1u32..40) {
            for rule in [Rule::BestFit, Rule::Document] {
                let given = documents(&lengths);
                let table = Table::new(rule, seq_len, &given, false);
                let mut pieces: BTreeMap<u32, Vec<Piece>> = BTreeMap::new();
                (0..table.rows()).flat_map(|r| super::tests::pieces(&table, r)).for_each(|p| pieces.entry(p.position).or_default().push(p));
                for document in given {
                    prop_assert_eq!(pieces[&document.position].len() as u64, document.tokens.div_ceil(u64::from(seq_len)));
                }
            }
        }
    }

    #[test]
    fn tables_are_pinned() {
        let given = documents(&[5, 12, 0, 3, 8, 31, 1, 2]);
        let digests = [Rule::Concat, Rule::BestFit, Rule::Document].map(|rule| {
            let digest = Table::new(rule, 8, &given, false).digest();
            digest[..4].iter().map(|b| format!("{b:02x}")).collect::<String>()
        });
        assert_eq!(digests, PINNED, "a change needs a new number in the digest's prefix");
    }
    const PINNED: [&str; 3] = ["220f65ae", "ccbe15af", "283ec465"];

    #[test]
    fn concat_counts_what_fills_no_row() {
        let table = Table::new(Rule::Concat, 8, &documents(&[5, 12, 3]), false);
        assert_eq!((table.rows(), table.tokens(), table.left()), (2, 16, 4));
        let kept = Table::new(Rule::Concat, 8, &documents(&[5, 12, 3]), true);
        assert_eq!((kept.rows(), kept.tokens(), kept.row_tokens(2)), (3, 20, 4));
        let none = Table::new(Rule::Concat, 8, &[], true);
        assert_eq!((none.rows(), none.tokens(), none.left()), (0, 0, 0));
    }
}

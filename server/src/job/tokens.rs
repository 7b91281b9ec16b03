//! The token half of a job: how documents become rows and what is sent of them.

use super::{JobGroup, check::Check, held::Parts};
use crate::batch::SampleId;
use crate::mixture::ItemCost;
use crate::pack::{Document, Piece, Rule, Table};
use mixfeed_proto as v1;
use std::sync::Arc;

/// Longest row in tokens.
const MAX_SEQ_LEN: u32 = 1 << 20;

/// How documents become rows.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Tokens of a row, 1..=2^20.
    pub seq_len: u32,
    /// How documents become rows.
    pub rule: Rule,
    /// Also send the position of each token in its piece.
    pub position_ids: bool,
    /// Also send the number of each token's piece.
    pub segment_ids: bool,
    /// Also send where pieces begin.
    pub cu_seqlens: bool,
    /// Also send the next token of the piece.
    pub labels: bool,
    /// Id in places without token.
    pub pad_id: i32,
    /// Rows of each group.
    pub tables: Vec<Arc<Table>>,
}

impl Tokens {
    /// Whether rows have lengths of their own.
    pub fn ragged(&self) -> bool {
        self.rule == Rule::Document
    }

    /// The same over other tables.
    pub(super) fn of(&self, tables: &[Arc<Table>]) -> Tokens {
        Tokens { tables: tables.to_vec(), ..self.clone() }
    }

    /// Tokens of a row that are no padding, 1..=seq_len.
    pub fn row_tokens(&self, id: SampleId) -> u32 {
        self.tables[id.group as usize].row_tokens(id.index)
    }

    /// Pieces of documents in a row.
    pub fn pieces(&self, id: SampleId) -> u32 {
        self.tables[id.group as usize].pieces(id.index)
    }

    /// Adds the pieces themselves to `pieces`.
    pub fn row(&self, id: SampleId, pieces: &mut Vec<Piece>) {
        self.tables[id.group as usize].row(id.index, pieces);
    }

    /// What the mixture charges for rows of lengths of their own.
    pub(super) fn costs(&self) -> RowTokens {
        RowTokens(self.tables.clone())
    }

    /// Most pieces of any row.
    pub fn most_pieces(&self) -> u32 {
        self.tables.iter().map(|table| table.most_pieces()).max().unwrap_or(0)
    }
}

/// Tokens of each row.
#[derive(Debug)]
pub(super) struct RowTokens(Vec<Arc<Table>>);

impl ItemCost for RowTokens {
    fn cost(&self, group: u32, index: u64) -> u64 {
        u64::from(self.0[group as usize].row_tokens(index))
    }
}

/// Resolves what a spec says about tokens, fills in defaults and packs every group, the held-out halves too.
pub(super) fn resolve(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    groups: &mut [JobGroup],
    held: &mut Option<Parts>,
) -> Tokens {
    let given = spec.tokens.get_or_insert_default();
    let len = given.seq_len;
    check.ensure((1..=MAX_SEQ_LEN).contains(&len), "tokens.seq_len", || {
        format!("is {len}, want 1..={MAX_SEQ_LEN}")
    });
    let (packing, rule) = match check.known("tokens.packing", given.packing) {
        v1::Packing::Unspecified | v1::Packing::Concat => (v1::Packing::Concat, Rule::Concat),
        v1::Packing::BestFit => (v1::Packing::BestFit, Rule::BestFit),
        v1::Packing::Document => (v1::Packing::Document, Rule::Document),
    };
    given.set_packing(packing);
    let pad_id = i32::try_from(given.pad_id).unwrap_or_else(|_| {
        check.fail("tokens.pad_id", format!("is {}, want 0..=2147483647", given.pad_id));
        0
    });
    let seq_len = len.clamp(1, MAX_SEQ_LEN);
    let tables = pack(groups, rule, seq_len, false);
    for (group, table) in groups.iter().zip(&tables) {
        check.ensure(table.rows() > 0, "tokens.seq_len", || {
            format!("leaves no row of `{}`, which has {} tokens; want at most that", group.name, table.left())
        });
        if table.left() > 0 {
            tracing::info!(group = group.name, tokens = table.left(), "tokens at the end fill no row");
        }
    }
    if let Some(parts) = held {
        parts.tables = pack(&mut parts.groups, rule, seq_len, true);
        for (group, table) in parts.groups.iter().zip(&parts.tables) {
            check.ensure(table.rows() > 0, "held_out", || {
                format!("holds only empty documents of `{}`, want a larger fraction", group.name)
            });
        }
    }
    Tokens {
        seq_len,
        rule,
        position_ids: given.position_ids,
        segment_ids: given.segment_ids,
        cu_seqlens: given.cu_seqlens,
        labels: given.labels,
        pad_id,
        tables,
    }
}

/// Packs every group and tells it its rows.
fn pack(groups: &mut [JobGroup], rule: Rule, seq_len: u32, keep_rest: bool) -> Vec<Arc<Table>> {
    let one = |group: &mut JobGroup| {
        let tokens = |position| group.source.tokens().map_or(0, |corpus| corpus.len(group.at(position)));
        let documents: Vec<Document> =
            group.positions().map(|position| Document { position, tokens: tokens(position) }).collect();
        let table = Arc::new(Table::new(rule, seq_len, &documents, keep_rest));
        group.rows = Some(table.rows());
        table
    };
    groups.iter_mut().map(one).collect()
}

//! Rows of token ids of a batch.

use crate::{Batch, Error, TensorView};
use std::fmt;

/// Rows of token ids, equally long and padded, or ragged with one document a row.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    batch: &'a Batch,
    ids: &'a [i32],
    rows: Rows<'a>,
}

#[derive(Clone, Copy)]
enum Rows<'a> {
    /// Rows, tokens of each.
    Equal(usize, usize),
    /// Where each row begins, and the end.
    Ragged(&'a [i64]),
}

impl fmt::Debug for Tokens<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tokens").field("rows", &self.len()).field("ids", &self.ids.len()).finish()
    }
}

impl<'a> Tokens<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Result<Self, Error> {
        let view = batch.wanted("input_ids")?;
        let ids = view.as_i32()?;
        let rows = match (view.offsets, view.shape) {
            (Some(offsets), [tokens]) => Rows::Ragged(offsets_of(batch, offsets, *tokens)?),
            (None, [rows, tokens]) => Rows::Equal(*rows, *tokens),
            _ => return Err(view.is_not("of shape (n, seq_len), or (tokens) with offsets")),
        };
        Ok(Tokens { batch, ids, rows })
    }

    /// Rows.
    pub fn len(&self) -> usize {
        match self.rows {
            Rows::Equal(rows, _) => rows,
            Rows::Ragged(offsets) => offsets.len() - 1, // checked: at least one
        }
    }

    /// True when the batch has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and tokens of each; `None` when rows have lengths of their own.
    pub fn shape(&self) -> Option<(usize, usize)> {
        match self.rows {
            Rows::Equal(rows, tokens) => Some((rows, tokens)),
            Rows::Ragged(_) => None,
        }
    }

    /// Ids of all rows, one after the other.
    pub fn input_ids(&self) -> &'a [i32] {
        self.ids
    }

    /// Ids of row `row`, padding included; `None` beyond the last row.
    pub fn row(&self, row: usize) -> Option<&'a [i32]> {
        self.slice(self.ids, row)
    }

    /// 1 where a token counts, 0 where there is none; `None` for ragged rows, which have no padding.
    pub fn loss_mask(&self) -> Result<Option<&'a [u8]>, Error> {
        self.optional("loss_mask", |view| view.as_u8())
    }

    /// Position of each token in its document's piece, if the job asked for it.
    pub fn position_ids(&self) -> Result<Option<&'a [i32]>, Error> {
        self.optional("position_ids", |view| view.as_i32())
    }

    /// Number of each token's piece in its row from 1, 0 without token, if the job asked for it.
    pub fn segment_ids(&self) -> Result<Option<&'a [i32]>, Error> {
        self.optional("segment_ids", |view| view.as_i32())
    }

    /// The next token of the same piece, -100 where there is none, if the job asked for it.
    pub fn labels(&self) -> Result<Option<&'a [i32]>, Error> {
        self.optional("labels", |view| view.as_i32())
    }

    /// Begin of every piece of row `row` and the row's end, if the job asked for it.
    pub fn cu_seqlens(&self, row: usize) -> Result<Option<&'a [i32]>, Error> {
        let Some(view) = self.batch.tensor("cu_seqlens") else { return Ok(None) };
        let (cuts, shape) = (view.as_i32()?, view.shape);
        let name = view.offsets.ok_or_else(|| view.is_not("with offsets"))?;
        let offsets = offsets_of(self.batch, name, shape.first().copied().unwrap_or_default())?;
        Ok(Tokens { rows: Rows::Ragged(offsets), ..*self }.slice(cuts, row))
    }

    fn optional<T>(
        &self,
        name: &str,
        cast: impl Fn(TensorView<'a>) -> Result<&'a [T], Error>,
    ) -> Result<Option<&'a [T]>, Error> {
        self.batch.tensor(name).map(cast).transpose()
    }

    fn slice<T>(&self, values: &'a [T], row: usize) -> Option<&'a [T]> {
        match self.rows {
            Rows::Equal(rows, tokens) if row < rows => values.get(row * tokens..(row + 1) * tokens),
            Rows::Ragged(offsets) => {
                let (from, to) = (*offsets.get(row)?, *offsets.get(row + 1)?);
                values.get(from as usize..to as usize)
            }
            Rows::Equal(..) => None,
        }
    }
}

/// Offsets from 0 to `values`, ascending.
fn offsets_of<'a>(batch: &'a Batch, name: &str, values: usize) -> Result<&'a [i64], Error> {
    let view = batch.wanted(name)?;
    let offsets = view.as_i64()?;
    let ends = offsets.first() == Some(&0) && offsets.last() == i64::try_from(values).ok().as_ref();
    if ends && offsets.is_sorted() {
        Ok(offsets)
    } else {
        Err(view.is_not("ascending from 0 to the number of values"))
    }
}

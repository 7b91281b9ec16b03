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
            (Some(offsets), [tokens]) => Rows::Ragged(batch.offsets(offsets, *tokens)?),
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
        let offsets = self.batch.offsets(name, shape.first().copied().unwrap_or_default())?;
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

#[cfg(test)]
mod tests {
    use crate::{
        Dtype,
        batch::tests_support::{batch, i32s, i64s},
    };

    #[test]
    fn rows_of_equal_length_are_sliced_by_their_shape() {
        let batch = batch(&[
            ("input_ids", Dtype::I32, &[2, 3], None, i32s(&[1, 2, 3, 4, 5, 0])),
            ("loss_mask", Dtype::U8, &[2, 3], None, vec![1, 1, 1, 1, 1, 0]),
            ("cu_seqlens", Dtype::I32, &[5], Some("cuts"), i32s(&[0, 2, 3, 0, 2])),
            ("cuts", Dtype::I64, &[3], None, i64s(&[0, 3, 5])),
        ]);
        let tokens = batch.tokens().expect("tokens");
        assert_eq!((tokens.shape(), tokens.len(), tokens.is_empty()), (Some((2, 3)), 2, false));
        assert_eq!(tokens.row(1), Some(&[4, 5, 0][..]));
        assert_eq!(tokens.row(2), None);
        assert_eq!(tokens.loss_mask(), Ok(Some(&[1, 1, 1, 1, 1, 0][..])));
        assert_eq!(tokens.cu_seqlens(0), Ok(Some(&[0, 2, 3][..])));
        assert_eq!(tokens.cu_seqlens(1), Ok(Some(&[0, 2][..])));
        assert_eq!(
            (tokens.labels(), tokens.position_ids(), tokens.segment_ids()),
            (Ok(None), Ok(None), Ok(None))
        );
    }

    #[test]
    fn ragged_rows_follow_offsets_that_fit() {
        let of = |offsets: &[i64]| {
            batch(&[
                ("input_ids", Dtype::I32, &[4], Some("at"), i32s(&[1, 2, 3, 4])),
                ("at", Dtype::I64, &[3], None, i64s(offsets)),
            ])
        };
        let good = of(&[0, 1, 4]);
        let tokens = good.tokens().expect("tokens");
        assert_eq!((tokens.shape(), tokens.len(), tokens.input_ids()), (None, 2, &[1, 2, 3, 4][..]));
        assert_eq!(
            (tokens.row(0), tokens.row(1), tokens.row(2)),
            (Some(&[1][..]), Some(&[2, 3, 4][..]), None)
        );
        for wrong in [[0, 5, 4], [1, 2, 4], [0, 1, 3], [0, -1, 4]] {
            let error = of(&wrong).tokens().expect_err("offsets that do not fit").to_string();
            assert!(error.contains("`at`") && error.contains("ascending"), "{error}");
        }
        let pictures = batch(&[("image", Dtype::U8, &[1], None, vec![0])]);
        assert!(pictures.tokens().expect_err("no tokens").to_string().contains("`input_ids` is absent"));
    }
}

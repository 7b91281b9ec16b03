//! Labels of mixed rows: sparse pairs, or dense rows with smoothing applied before mixing.

use crate::plan::Row;

/// A label that does not fit the classes of the job.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("label of row {row} of the block is {label}, want -1..{classes}")]
pub struct LabelError {
    /// Row of the block.
    pub row: u32,
    /// Its label.
    pub label: i32,
    /// Classes of the job.
    pub classes: usize,
}

/// Appends the pairs of `rows`: to `class` (n, 2) i32, the labels of base and partner (-1: no label), to `weight`
/// (n, 2) f32 their weights `own` and `1 - own`, the latter from the f64 value. Little-endian.
///
/// `labels`: one per row of the block, which the rows of the plan index.
pub fn sparse(rows: &[Row], labels: &[i32], class: &mut Vec<u8>, weight: &mut Vec<u8>) {
    for row in rows {
        for of in [row.base, row.partner] {
            class.extend(labels[of as usize].to_le_bytes());
        }
        for of in [row.own as f32, (1.0 - row.own) as f32] {
            weight.extend(of.to_le_bytes());
        }
    }
}

/// Appends to `out` the targets of `rows`, (n, classes) f32 little-endian: `own * a + (1 - own) * b`, where `a` and `b`
/// are `1 - eps + eps / classes` at the label and `eps / classes` elsewhere (`eps` = `smoothing`, 0..1), as timm does.
/// A row without a label (-1) adds nothing, so that the target's sum shows how much of the row is labelled.
///
/// # Errors
/// [`LabelError`] for the first label outside `-1..classes`; `out` is then unchanged.
pub fn dense(
    rows: &[Row],
    labels: &[i32],
    smoothing: f64,
    classes: usize,
    out: &mut Vec<u8>,
) -> Result<(), LabelError> {
    let legal = |label: i32| label == -1 || usize::try_from(label).is_ok_and(|label| label < classes);
    for row in rows.iter().flat_map(|row| [row.base, row.partner]) {
        let label = labels[row as usize];
        if !legal(label) {
            return Err(LabelError { row, label, classes });
        }
    }
    let off = smoothing / classes as f64;
    let (on, off) = ((1.0 - smoothing + off) as f32, off as f32);
    for row in rows {
        let (a, b) = (labels[row.base as usize], labels[row.partner as usize]);
        let (own, rest) = (row.own as f32, (1.0 - row.own) as f32);
        let target = |label: i32, class: usize| match usize::try_from(label) {
            Ok(label) if label == class => on,
            Ok(_) => off,
            Err(_) => 0.0,
        };
        for class in 0..classes {
            out.extend((target(a, class) * own + target(b, class) * rest).to_le_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(base: u32, partner: u32, own: f64) -> Row {
        Row { base, partner, ops: Vec::new(), policy: None, sampled: own, own, flags: 0 }
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn pairs_carry_both_labels_and_a_precise_rest() {
        let (mut class, mut weight) = (Vec::new(), Vec::new());
        sparse(&[row(0, 1, 0.25), row(2, 0, 1.0 - 1e-9)], &[7, -1, 3], &mut class, &mut weight);
        assert_eq!(class, [7i32, -1, 3, 7].map(i32::to_le_bytes).concat());
        assert_eq!(floats(&weight), [0.25, 0.75, 1.0, 1e-9]);
    }

    #[test]
    fn dense_rows_are_smoothed_before_mixing() {
        let mut out = Vec::new();
        dense(&[row(0, 1, 0.75), row(1, 1, 1.0)], &[2, 0], 0.3, 3, &mut out).expect("labels fit");
        // on 0.8, off 0.1: 0.1 * 3/4 + 0.8 / 4 = 0.275, off stays 0.1, 0.8 * 3/4 + 0.1 / 4 = 0.625.
        for (got, want) in floats(&out).iter().zip([0.275, 0.1, 0.625, 0.8, 0.1, 0.1]) {
            assert!((got - want).abs() < 1e-7, "{got} is not {want}");
        }
    }

    #[test]
    fn a_row_without_label_adds_nothing_and_a_foreign_label_is_named() {
        let mut out = Vec::new();
        dense(&[row(0, 1, 0.75)], &[1, -1], 0.0, 2, &mut out).expect("labels fit");
        assert_eq!(floats(&out), [0.0, 0.75]);
        let error = dense(&[row(0, 1, 0.5)], &[1, 2], 0.0, 2, &mut out).expect_err("class 2 of 2");
        assert_eq!(error.to_string(), "label of row 1 of the block is 2, want -1..2");
        assert_eq!(out.len(), 8, "unchanged");
    }
}

//! Parameters that several policies declare.

use crate::args::{Choice, Param};

/// `alpha` of Beta(alpha, alpha), shared by most policies.
pub const fn alpha(default: f64) -> Param {
    Param { name: "alpha", default, min: 1e-3, max: 100.0, doc: "lambda ~ Beta(alpha, alpha)" }
}

/// Where the label weight comes from, shared by the policies with a mask.
pub const LAM_FROM: Choice = Choice {
    name: "lam_from",
    values: &["area", "sampled"],
    doc: "label weight: share of the base in the mask actually used, or lambda as drawn",
};

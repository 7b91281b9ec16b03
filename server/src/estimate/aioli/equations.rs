//! What each group does to the losses, given what probes served: directly when they are regular, by least squares else.

use super::super::solve::Ridge;
use super::direct::Direct;
use std::borrow::Cow;

/// Pull towards what is known, as a part of the mean square share: decides only directions without evidence.
const RIDGE: f64 = 1e-6;

/// Probes, ready for any number of losses.
#[derive(Debug)]
pub(super) enum Equations {
    /// Regular probes, whose effects follow in O(probes) per loss. The same effects as those of least squares, which have
    /// nothing left over here.
    Direct(Direct),
    /// Least squares over (steps x shares), O(groups^3) once and O(groups^2) per loss.
    Least(Ridge),
}

impl Equations {
    /// Of probes with these realised shares of `groups` groups, steps and probed groups.
    pub fn new(shares: &[Cow<'_, [f64]>], steps: &[f64], probed: &[usize], groups: usize) -> Self {
        match Direct::new(shares, steps, probed, groups) {
            Some(direct) => Equations::Direct(direct),
            None => Equations::least(shares, steps, groups),
        }
    }

    /// Least squares in any case.
    pub fn least(shares: &[Cow<'_, [f64]>], steps: &[f64], groups: usize) -> Self {
        let rows = shares.iter().zip(steps).map(|(x, s)| x.iter().map(|x| s * x).collect()).collect();
        Equations::Least(Ridge::new(rows, groups, RIDGE))
    }

    /// Effects per step (groups, sides) of drops (probes, sides), given what is `known` of them: all row-major. What
    /// is not finite leaves what is known.
    pub fn solve(&self, right: &[f64], known: &[f64], sides: usize) -> Vec<f64> {
        match self {
            Equations::Direct(direct) => {
                let mut solved = direct.solve(right, sides);
                for k in 0..sides {
                    let side = || (k..known.len()).step_by(sides);
                    if side().any(|at| !solved[at].is_finite()) {
                        side().for_each(|at| solved[at] = known[at]);
                    }
                }
                solved
            }
            Equations::Least(ridge) => ridge.solve(right, known, sides),
        }
    }
}

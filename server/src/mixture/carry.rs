//! What goes from one entry of the log to the next: items served and credit.

use super::{Exhaustion, GroupRule, weights::ONE};
use std::sync::Arc;

/// Where a sequence stands after some items.
#[derive(Clone, Debug, PartialEq)]
pub struct Carry {
    /// Items of the job so far.
    pub items: u64,
    /// Items of each group so far.
    pub counts: Arc<[u64]>,
    /// What each group is owed by the entries in charge of the main mixture, in units of 2^-32 items (or cost); sums
    /// to zero.
    pub credit: Arc<[i128]>,
}

impl Carry {
    /// The start of a job.
    pub fn start(groups: usize) -> Carry {
        Carry { items: 0, counts: vec![0; groups].into(), credit: vec![0; groups].into() }
    }

    /// Whether group `g` has left.
    pub fn left(&self, rules: &[GroupRule], g: usize) -> bool {
        room(&rules[g], self.counts[g]) == Some(0)
    }
}

/// Items that a group may still get after `served` of them; `None` without limit.
pub fn room(rule: &GroupRule, served: u64) -> Option<u64> {
    match rule.exhaustion {
        Exhaustion::Leave { after } => Some(after.saturating_sub(served)),
        Exhaustion::Repeat | Exhaustion::StopFirst | Exhaustion::StopLast => None,
    }
}

/// `credit` under new `shares` (summing to 2^32): credit of groups that get nothing from now on moves to the others in
/// proportion, the remainder to the last, so that the sum stays what it was.
pub fn settle(credit: &[i128], shares: &[u64]) -> Arc<[i128]> {
    let mut credit = credit.to_vec();
    let orphaned: i128 = (0..shares.len()).filter(|&j| shares[j] == 0).map(|j| credit[j]).sum();
    let mut left = orphaned;
    for (own, share) in credit.iter_mut().zip(shares) {
        if *share == 0 {
            *own = 0;
        } else {
            let part = orphaned * i128::from(*share) / i128::from(ONE);
            *own += part;
            left -= part;
        }
    }
    if let Some(last) = shares.iter().rposition(|w| *w > 0) {
        credit[last] += left;
    }
    credit.into()
}

//! Items whose cost varies, by integer credits.
//!
//! Each item goes to the group with the largest `c_j + W_j` among those with W_j > 0, ties to the lowest index; its cost
//! l is then charged: `c_j += W_j * l` for all, `c_j* -= 2^32 * l` for its group. Less than a millionth of an item is a
//! tie: the rounding of weights to 2^-32 shall not decide one (.5, .3, .2 has one at its fifth item). Shares of cost
//! hold whatever records cost, but there is no closed form: states are kept every 1,024 steps, and the next one is walked to.

use super::carry::{Carry, room, settle};
use super::piece::{Stop, awaited};
use super::sequence::Rules;
use super::{Exhaustion, GroupRule, Permutation, Slot, Weights, weights::ONE};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Credits that differ by no more are equal: 2^-20 of an item of cost 1.
const TIE: i128 = 1 << 12;
/// Steps between states that are kept.
const EVERY: u64 = 1_024;
/// Bytes of states that an entry may keep; beyond it every other one goes.
const MOST_BYTES: usize = 32 << 20;
/// States kept where readers have been: going on costs one step.
const RECENT: usize = 16;

/// What a record costs, for groups that share out cost (tokens) instead of items.
pub trait ItemCost: Send + Sync + std::fmt::Debug {
    /// Cost of the `index`-th record of `group`; taken as 1 when it is 0, and as 2^32 - 1 when it is more.
    fn cost(&self, group: u32, index: u64) -> u64;
}

/// The items of a main entry.
#[derive(Debug)]
pub struct Ledger {
    start: State,
    main: Arc<[u64]>,
    kept: Mutex<Kept>,
    stop: OnceLock<Stop>,
}

#[derive(Clone, Debug)]
struct State {
    items: u64,
    counts: Vec<u64>,
    credit: Vec<i128>,
    shares: Arc<[u64]>,
}

/// States by items: `marks[i]` stands `(i + 1) * every` items after the start.
#[derive(Debug)]
struct Kept {
    every: u64,
    marks: Vec<State>,
    recent: VecDeque<State>,
}

impl Ledger {
    /// The items from `carry` on, of `shares` (of groups that are left); `main` are the entry's weights.
    pub fn new(carry: &Carry, shares: Arc<[u64]>, main: Arc<[u64]>, batch: u64) -> Ledger {
        let credit = settle(&carry.credit, &shares).to_vec();
        let start = State { items: carry.items, counts: carry.counts.to_vec(), credit, shares };
        let kept = Kept { every: EVERY * batch, marks: Vec::new(), recent: VecDeque::new() };
        Ledger { start, main, kept: Mutex::new(kept), stop: OnceLock::new() }
    }

    /// Where the job stands after `items`, at most those that it has.
    pub fn carry(&self, rules: &Rules, items: u64) -> Carry {
        let state = self.seek(rules, items);
        Carry { items: state.items, counts: state.counts.into(), credit: state.credit.into() }
    }

    /// The end of the job, if it is certain after `items`.
    pub fn stop_by(&self, rules: &Rules, items: u64) -> Option<Stop> {
        if self.stop.get().is_none() && rules.groups.iter().any(GroupRule::may_end) {
            self.seek(rules, items);
        }
        self.stop.get().copied().filter(|stop| stop.decided <= items)
    }

    fn seek(&self, rules: &Rules, items: u64) -> State {
        // Whole states only are ever pushed, so a panic elsewhere leaves the lists sound.
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock().nearest(self.start.items, items).unwrap_or_else(|| self.start.clone());
        let stop = self.walk(rules, &mut state, items, |state| lock().mark(self.start.items, state));
        match stop {
            Some(stop) => {
                self.stop.get_or_init(|| stop);
            }
            None => lock().remember(&state),
        }
        state
    }

    /// Goes on to `to` items, or to the end of the job.
    fn walk(&self, rules: &Rules, state: &mut State, to: u64, mark: impl Fn(&State)) -> Option<Stop> {
        let waits: Vec<usize> =
            (0..rules.groups.len()).filter(|&g| awaited(&rules.groups[g], self.main[g])).collect();
        let used = |state: &State, g: usize| state.counts[g] >= rules.groups[g].records;
        let all_used = |state: &State| !waits.is_empty() && waits.iter().all(|&g| used(state, g));
        let mut orders = vec![None; rules.groups.len()];
        loop {
            let here = Stop { items: state.items, decided: state.items };
            // True of a later state only if it was true of the one before the last item.
            if all_used(state) {
                return Some(here);
            }
            if state.items >= to {
                return None;
            }
            let g = state.next();
            let rule = &rules.groups[g];
            if rule.exhaustion == Exhaustion::StopFirst && used(state, g) {
                return Some(Stop { decided: state.items + 1, ..here });
            }
            state.charge(g, rules.cost(Slot { group: g as u32, k: state.counts[g] }, &mut orders[g]));
            if room(rule, state.counts[g]) == Some(0) {
                let Some(weights) = Weights::without(&state.shares, |other| other == g) else {
                    return Some(Stop { items: state.items, decided: state.items });
                };
                state.credit = settle(&state.credit, weights.shares()).to_vec();
                state.shares = weights.shared();
            }
            if (state.items - self.start.items).is_multiple_of(EVERY * rules.batch) {
                mark(state);
            }
        }
    }
}

impl State {
    /// The group of the next item.
    fn next(&self) -> usize {
        let open = || (0..self.shares.len()).filter(|&j| self.shares[j] > 0);
        let owed = |j: usize| self.credit[j] + i128::from(self.shares[j]);
        let most = open().map(owed).max().expect("shares sum to 2^32");
        open().find(|&j| owed(j) >= most - TIE).expect("one of them has the most")
    }

    fn charge(&mut self, g: usize, cost: i128) {
        self.credit.iter_mut().zip(&*self.shares).for_each(|(c, w)| *c += i128::from(*w) * cost);
        self.credit[g] -= i128::from(ONE) * cost;
        self.counts[g] += 1;
        self.items += 1;
    }
}

impl Kept {
    /// The state nearest before `items`.
    fn nearest(&self, start: u64, items: u64) -> Option<State> {
        let marked = (items.saturating_sub(start) / self.every) as usize;
        let mark = marked.min(self.marks.len()).checked_sub(1).map(|i| &self.marks[i]);
        let recent = self.recent.iter().filter(|s| s.items <= items);
        recent.chain(mark).max_by_key(|s| s.items).cloned()
    }

    /// Keeps `state` if it is the next mark.
    fn mark(&mut self, start: u64, state: &State) {
        if state.items - start != (self.marks.len() as u64 + 1) * self.every {
            return;
        }
        self.marks.push(state.clone());
        let bytes = state.counts.len() * (size_of::<u64>() + size_of::<i128>());
        if self.marks.len() * bytes > MOST_BYTES {
            let mut n = 0u64;
            self.marks.retain(|_| {
                n += 1;
                n.is_multiple_of(2)
            });
            self.every *= 2;
        }
    }

    fn remember(&mut self, state: &State) {
        self.recent.retain(|s| s.items != state.items);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(state.clone());
    }
}

/// The order of one epoch of a group, kept while it lasts.
pub type Order = Option<(u64, Permutation)>;

//! Windows of equal-cost items and where they end: by a group that leaves or by the end of the job.

use super::carry::{Carry, room};
use super::window::{FAR, Window};
use super::{Exhaustion, GroupRule, Weights};
use std::sync::{Arc, Mutex, PoisonError};

/// The end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stop {
    /// Items of the job.
    pub items: u64,
    /// Items after which this is certain: `items`, or one more where it takes the next one to tell.
    pub decided: u64,
}

/// A window with where it ends.
#[derive(Debug)]
pub struct Piece {
    /// Its items.
    pub window: Window,
    /// Item of the job after which a group leaves; `u64::MAX` when none does.
    until: u64,
    /// The end of the job, if it is not after `until`.
    stop: Option<Stop>,
}

impl Piece {
    /// A window of the main mixture; `main` are the weights in charge, before groups left.
    fn new(window: Window, rules: &[GroupRule], main: &[u64]) -> Piece {
        let departure = departure(&window, rules);
        let until = departure.map_or(u64::MAX, |(items, _)| items);
        let alone = |g: usize| (0..rules.len()).all(|j| j == g || window.shares[j] == 0);
        let all_left = departure.filter(|(_, g)| alone(*g)).map(|_| Stop { items: until, decided: until });
        let stops = stop(&window, rules, main).into_iter().chain(all_left);
        let stop = stops.min().filter(|stop| stop.decided <= until);
        Piece { window, until, stop }
    }

    /// A window of exactly `counts`. The job ends with it when nobody of it or of the `main` mixture is left then,
    /// whether or not they could fill it.
    pub fn probe(carry: &Carry, counts: Vec<u64>, rules: &[GroupRule], main: &[u64]) -> Piece {
        let end = carry.items.saturating_add(counts.iter().sum());
        let named = (0..rules.len()).filter(|&g| counts[g] > 0 || main[g] > 0);
        let left = |g: usize| room(&rules[g], carry.counts[g] + counts[g]) == Some(0);
        let all_left = named.into_iter().all(left).then_some(Stop { items: end, decided: end });
        let window = Window::exact(carry, counts);
        let stop = stop(&window, rules, main).into_iter().chain(all_left).min();
        Piece { window, until: u64::MAX, stop }
    }

    /// The end of the job, if it is certain after `items`.
    pub fn stop_by(&self, items: u64) -> Option<Stop> {
        self.stop.filter(|stop| stop.decided <= items)
    }

    /// What follows when a group has left; `None` when nobody leaves, or all have.
    fn next(&self, rules: &[GroupRule], main: &[u64]) -> Option<Piece> {
        if self.until == u64::MAX {
            return None;
        }
        let carry = self.window.carry(self.until - self.window.start);
        let weights = Weights::without(&self.window.shares, |g| carry.left(rules, g))?;
        Some(Piece::new(Window::follow(&carry, weights.shared()), rules, main))
    }
}

/// The windows of a main entry, one more each time a group leaves; found when they are asked for.
#[derive(Debug)]
pub struct Pieces {
    first: Arc<Piece>,
    more: Mutex<Vec<Arc<Piece>>>,
}

impl Pieces {
    /// The windows from `carry` on, of `shares` (of groups that are left); `main` are the entry's weights.
    pub fn new(carry: &Carry, shares: Arc<[u64]>, rules: &[GroupRule], main: &[u64]) -> Pieces {
        let first = Arc::new(Piece::new(Window::follow(carry, shares), rules, main));
        Pieces { first, more: Mutex::default() }
    }

    /// The window that holds the job's item number `items`, and the end of the job if it is certain by then.
    pub fn at(&self, items: u64, rules: &[GroupRule], main: &[u64]) -> (Arc<Piece>, Option<Stop>) {
        let mut piece = self.first.clone();
        let mut stop = piece.stop_by(items);
        if piece.until > items {
            return (piece, stop);
        }
        // Only whole pieces are ever pushed, so a panic elsewhere leaves the list sound.
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 0.. {
            if piece.until > items {
                break;
            }
            if n == more.len() {
                let Some(next) = piece.next(rules, main) else { break };
                more.push(Arc::new(next));
            }
            piece = more[n].clone();
            stop = stop.or(piece.stop_by(items));
        }
        (piece, stop)
    }
}

/// The first departure from a window: item of the job after which it is, and the group.
fn departure(window: &Window, rules: &[GroupRule]) -> Option<(u64, usize)> {
    let leave = |g: usize| {
        let left = room(&rules[g], window.before[g]).filter(|c| *c < FAR && window.shares[g] > 0)?;
        Some((g, left))
    };
    // Comparing thresholds is cheap; a position costs a pass over all groups.
    let next = (0..rules.len()).filter_map(leave).min_by(|a, b| window.earlier(a.0, a.1, b.0, b.1));
    let (g, left) = next?;
    Some((window.start.saturating_add(window.position(g, left)?), g))
}

/// Where `stop_first` and `stop_last` groups would end the job if this window went on.
fn stop(window: &Window, rules: &[GroupRule], main: &[u64]) -> Option<Stop> {
    let at = |(g, c): (usize, u64)| Some(window.start.saturating_add(window.position(g, c)?));
    let first = (0..rules.len()).filter_map(|g| repeats(window, &rules[g], g));
    let first = at_first(window, first).and_then(at).map(|at| Stop { items: at - 1, decided: at });
    let unused = |g: usize| rules[g].records.saturating_sub(window.before[g]);
    // A group of weight zero is never used up, so it cannot end the job or hold it up either.
    let waits: Vec<usize> = (0..rules.len()).filter(|&g| awaited(&rules[g], main[g])).collect();
    let pending = || waits.iter().copied().filter(|&g| unused(g) > 0).map(|g| (g, unused(g)));
    let last = if waits.is_empty() || pending().any(|(g, _)| window.shares[g] == 0) {
        None
    } else {
        match pending().max_by(|a, b| window.earlier(a.0, a.1, b.0, b.1)) {
            Some(latest) => at(latest),
            None => Some(window.start),
        }
    };
    first.into_iter().chain(last.map(|at| Stop { items: at, decided: at })).min()
}

/// Whether the job waits for a group with this main weight to be used up.
pub fn awaited(rule: &GroupRule, weight: u64) -> bool {
    rule.exhaustion == Exhaustion::StopLast && weight > 0
}

/// The item of this window with which a `stop_first` group would repeat.
fn repeats(window: &Window, rule: &GroupRule, g: usize) -> Option<(usize, u64)> {
    let stops = rule.exhaustion == Exhaustion::StopFirst && window.shares[g] > 0;
    stops.then(|| (g, (rule.records + 1).saturating_sub(window.before[g]).max(1)))
}

fn at_first(window: &Window, items: impl Iterator<Item = (usize, u64)>) -> Option<(usize, u64)> {
    items.min_by(|a, b| window.earlier(a.0, a.1, b.0, b.1))
}

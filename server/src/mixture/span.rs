//! An entry at work: its items, from where the log before it stopped.

use super::carry::{Carry, room};
use super::ledger::Ledger;
use super::piece::{Piece, Pieces, Stop};
use super::probe::feasible;
use super::sequence::Rules;
use super::{Costs, Entry, EntryError, EntryKind, Weights};
use std::sync::Arc;

/// An entry with where the job stood when it began.
#[derive(Debug)]
pub struct Span {
    /// The entry.
    pub entry: Entry,
    /// Where the job stood.
    start: Carry,
    /// Weights of the main mixture: this entry's, or those in charge before a probe.
    main: Arc<[u64]>,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    Main(Pieces),
    Varying(Box<Ledger>),
    Probe(Box<Piece>),
}

impl Span {
    /// `entry` after a log that brought the job to `start`; `main` are the weights in charge so far.
    ///
    /// # Errors
    /// [`EntryError::AllLeft`].
    pub fn open(rules: &Rules, entry: Entry, start: Carry, main: Arc<[u64]>) -> Result<Span, EntryError> {
        let all_left = EntryError::AllLeft { from: entry.from_step };
        let (main, plan) = match &entry.kind {
            EntryKind::Main => {
                let main = entry.weights.shared();
                let plan = Span::main(rules, &main, &start).ok_or(all_left)?;
                (main, plan)
            }
            EntryKind::Probe { counts } => {
                let plan = Span::probe(rules, counts, &start, &main).ok_or(all_left)?;
                (main, plan)
            }
        };
        Ok(Span { entry, start, main, plan })
    }

    /// `None` when nobody of `main` is left.
    fn main(rules: &Rules, main: &Arc<[u64]>, start: &Carry) -> Option<Plan> {
        let gone = |g: usize| main[g] > 0 && start.left(&rules.groups, g);
        let shares =
            if (0..main.len()).any(gone) { Weights::without(main, gone)?.shared() } else { main.clone() };
        Some(match rules.costs {
            Costs::Equal => Plan::Main(Pieces::new(start, shares, &rules.groups, main)),
            Costs::Varying(_) => {
                Plan::Varying(Box::new(Ledger::new(start, shares, main.clone(), rules.batch)))
            }
        })
    }

    /// `None` when nobody is left to probe.
    fn probe(rules: &Rules, counts: &[u64], start: &Carry, main: &[u64]) -> Option<Plan> {
        let rooms: Vec<Option<u64>> =
            rules.groups.iter().zip(&*start.counts).map(|(rule, served)| room(rule, *served)).collect();
        let served = feasible(counts, &rooms, main);
        let somebody = served.iter().any(|c| *c > 0);
        let piece = || Piece::probe(start, served, &rules.groups, main);
        somebody.then(|| Plan::Probe(Box::new(piece())))
    }

    /// Items per group after `items` of the job, which must be this entry's.
    pub fn counts(&self, rules: &Rules, items: u64) -> Arc<[u64]> {
        match &self.plan {
            Plan::Main(pieces) => {
                let window = &pieces.at(items, &rules.groups, &self.main).0.window;
                window.total(items - window.start)
            }
            Plan::Varying(ledger) => ledger.carry(rules, items).counts,
            Plan::Probe(piece) => piece.window.total(items - piece.window.start),
        }
    }

    /// Where the job stands after `items`, which must be this entry's. A probe leaves credits as they were.
    pub fn carry(&self, rules: &Rules, items: u64) -> Carry {
        match &self.plan {
            Plan::Main(pieces) => {
                let window = &pieces.at(items, &rules.groups, &self.main).0.window;
                window.carry(items - window.start)
            }
            Plan::Varying(ledger) => ledger.carry(rules, items),
            Plan::Probe(_) => {
                Carry { items, counts: self.counts(rules, items), credit: self.start.credit.clone() }
            }
        }
    }

    /// Weights of the main mixture while it governs.
    pub fn weights(&self) -> Arc<[u64]> {
        self.main.clone()
    }

    /// The end of the job, if it is certain after `items` and this entry's.
    pub fn stop_by(&self, rules: &Rules, items: u64) -> Option<Stop> {
        match &self.plan {
            Plan::Main(pieces) => pieces.at(items, &rules.groups, &self.main).1,
            Plan::Varying(ledger) => ledger.stop_by(rules, items),
            Plan::Probe(piece) => piece.stop_by(items),
        }
    }

    /// Whether finding the end of an endless entry would mean walking to it.
    pub fn must_walk(&self) -> bool {
        matches!(self.plan, Plan::Varying(_))
    }
}

//! The estimator: rounds of probes and main windows, and what is kept between them.

use super::super::{
    Directive, Estimator, FOREVER, Reader, Seen, Setup, StateError, Verdict, Want, When, Window, WindowKind,
    Writer, eg,
};
use super::config::Config;
use super::evidence::{Edge, REMEMBERED, Segment, Usual, segments};
use super::graph::{Graph, column_sums, normalised};
use super::signal::{relative, signal};
use crate::rng::{Draw, Stream};

/// Graphs with more entries than this stay out of the facts.
const GRAPH_IN_FACTS: usize = 1024;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prior = 0,
    Probe = 1,
    Main = 2,
}

/// Everything that is learnt; saved as a whole.
#[derive(Clone, Debug, PartialEq)]
struct State {
    phase: Phase,
    /// Probe blocks begun.
    round: u64,
    /// Step at which the windows announced so far end with an evaluation.
    announced: Option<u64>,
    /// Rounds in a row without evidence.
    stale: u64,
    /// Whether any round was used.
    learnt: bool,
    log_weights: Vec<f64>,
    /// Where the smoothing rule starts from each round: equal, the prior, or an operator's.
    base: Vec<f64>,
    prior: Vec<f64>,
    graph: Graph,
    /// Smoothed normalised graph (tasks, groups), or smoothed relative gains; empty before the first round.
    smooth: Vec<f64>,
    edge: Edge,
    usual: Usual,
}

/// Aioli at work.
#[derive(Debug)]
pub(super) struct Learner {
    config: Config,
    setup: Setup,
    orders: Stream,
    state: State,
}

impl Learner {
    /// Before the first step.
    pub fn new(config: Config, setup: Setup) -> Self {
        let m = setup.groups;
        let base = if config.from_prior { eg::logs(&config.prior) } else { vec![0.0; m] };
        let state = State {
            phase: if config.prior_steps > 0 { Phase::Prior } else { Phase::Probe },
            round: 0,
            announced: None,
            stale: 0,
            learnt: false,
            log_weights: base.clone(),
            base,
            prior: config.prior.clone(),
            graph: Graph::unknown(m, setup.tasks),
            smooth: Vec::new(),
            edge: None,
            usual: Usual { drops: vec![Vec::new(); m] },
        };
        Learner { config, orders: Stream::new(setup.seed, "estimate/aioli"), setup, state }
    }

    /// Groups in the order in which they are probed.
    fn order(&self, sweep: u32) -> Vec<usize> {
        let mirrored = self.config.counterbalanced && sweep % 2 == 1;
        let drawn = if mirrored { sweep - 1 } else { sweep };
        let mut rng = self.orders.at(Draw::Probe, self.state.round, u64::from(drawn));
        let mut order: Vec<usize> =
            rng.permutation(self.setup.groups).into_iter().map(|j| j as usize).collect();
        if mirrored {
            order.reverse();
        }
        order
    }

    /// The probe block that begins at `step`.
    fn probes(&self, step: u64) -> Vec<Window> {
        let (config, m) = (&self.config, self.setup.groups);
        let mut windows = Vec::new();
        for sweep in 0..config.sweeps {
            for group in self.order(sweep) {
                let mut wants = vec![(When::After, Want::Eval)];
                if windows.is_empty() && self.state.announced != Some(step) {
                    wants.insert(0, (When::Before, Want::Eval));
                }
                let (kind, shares) = (WindowKind::Probe { group, sweep }, config.probe(group, m));
                windows.push(Window { kind, steps: config.probe_steps, shares, wants });
            }
        }
        windows
    }

    /// Whether a probe block from `step` on would leave nothing of the job to use it in.
    fn too_late(&self, step: u64) -> bool {
        let end = step.saturating_add(self.config.block(self.setup.groups));
        self.setup.max_steps > 0 && end >= self.setup.max_steps
    }

    /// Whether there is nothing (more) to learn.
    fn settled(&self) -> bool {
        self.setup.groups == 1 || (self.config.once && self.state.learnt)
    }

    /// Learns from a round's probes; the numbers that it came to.
    fn learn(&mut self, mut segments: Vec<Segment>) -> Option<Vec<(&'static str, Vec<f64>)>> {
        let arrived = segments.len();
        let spikes = self.state.usual.sift(&mut segments, &self.setup);
        let n = self.setup.tasks;
        let live: Vec<bool> = (0..n).map(|i| segments.iter().all(|s| s.drop[i].is_finite())).collect();
        let masked: Vec<f64> = (0..n).filter(|i| !live[*i]).map(|i| i as f64).collect();
        if !segments.iter().any(|s| s.own) || (!masked.is_empty() && 2 * masked.len() >= n) {
            return None;
        }
        let start: Vec<f64> =
            segments[0].before.iter().zip(&live).map(|(l, live)| if *live { *l } else { f64::NAN }).collect();
        let weights = self.setup.task_weights(&start);
        let own = self.config.diagonal.then_some(self.setup.own_task.as_slice());
        let effects = self.state.graph.learn(&segments, &live, own);
        let sums = column_sums(&effects, &weights);
        let signal = signal(&segments, &sums, &weights);
        let gains = if self.config.relative {
            self.smoothed(relative(&sums, signal.shrinkage), &[])
        } else {
            let smoothed = self.smoothed(normalised(&effects, &live), &live);
            column_sums(&smoothed, &weights)
        };
        if !self.step(&gains) {
            return None;
        }
        let mut facts = vec![
            ("colsum", sums),
            ("lambda_js", vec![signal.shrinkage]),
            ("gain", gains),
            ("masked_tasks", masked),
            ("segments", vec![arrived as f64, spikes as f64]),
        ];
        if !signal.errors.is_empty() {
            facts.push(("se", signal.errors));
        }
        if effects.len() <= GRAPH_IN_FACTS {
            facts.push(("graph", effects));
        }
        Some(facts)
    }

    /// `fresh` blended with what went before, when the rule smooths; rows of tasks that are not `live` keep the old value.
    fn smoothed(&mut self, fresh: Vec<f64>, live: &[bool]) -> Vec<f64> {
        let Some(gamma) = self.config.ema else { return fresh };
        let m = self.setup.groups;
        if self.state.smooth.is_empty() {
            self.state.smooth = fresh;
        } else {
            for (at, (old, new)) in self.state.smooth.iter_mut().zip(&fresh).enumerate() {
                if live.get(at / m).copied().unwrap_or(true) {
                    *old = (1.0 - gamma) * new + gamma * *old;
                }
            }
        }
        self.state.smooth.clone()
    }

    /// One exponentiated gradient step.
    fn step(&mut self, gains: &[f64]) -> bool {
        if self.config.ema.is_none() {
            return eg::step(&mut self.state.log_weights, gains, self.config.eta);
        }
        let mut moved = self.state.base.clone();
        let done = eg::step(&mut moved, gains, self.config.eta);
        if done {
            self.state.log_weights = moved;
        }
        done
    }
}

impl Estimator for Learner {
    fn directive(&mut self, step: u64) -> Directive {
        let eval = vec![(When::After, Want::Eval)];
        let (shares, kind) = (self.shares(), WindowKind::Main);
        let main = |steps, wants| Window { kind, steps, shares, wants };
        let config = &self.config;
        let (window, next) = match self.state.phase {
            _ if self.settled() => (main(FOREVER, Vec::new()), self.state.phase),
            Phase::Prior => (main(config.prior_steps, eval), Phase::Probe),
            Phase::Probe if self.too_late(step) => (main(FOREVER, Vec::new()), Phase::Probe),
            Phase::Probe => {
                let windows = self.probes(step);
                self.state.announced = Some(step.saturating_add(config.block(self.setup.groups)));
                self.state.round += 1;
                self.state.phase = Phase::Main;
                return Directive { windows, barrier: true };
            }
            Phase::Main => {
                let steps = config.round_steps - config.block(self.setup.groups);
                let last = self.too_late(step.saturating_add(steps));
                (if last { main(FOREVER, Vec::new()) } else { main(steps, eval) }, Phase::Probe)
            }
        };
        self.state.phase = next;
        self.state.announced = (!window.wants.is_empty()).then(|| step.saturating_add(window.steps));
        Directive { windows: vec![window], barrier: false }
    }

    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        let segments = segments(seen, &mut self.state.edge, &self.setup);
        if self.settled() {
            return Verdict { used: true, facts: Vec::new() };
        }
        let probed = seen.iter().any(|s| matches!(s.window.kind, WindowKind::Probe { .. }));
        if !probed {
            // Main windows carry no evidence of their own: after two rounds without they don't hide the third.
            return Verdict { used: self.state.stale < 2, facts: Vec::new() };
        }
        match self.learn(segments) {
            Some(facts) => {
                (self.state.stale, self.state.learnt) = (0, true);
                Verdict { used: true, facts }
            }
            None => {
                self.state.stale += 1;
                Verdict { used: false, facts: Vec::new() }
            }
        }
    }

    fn shares(&self) -> Vec<f64> {
        let priming = self.config.prior_steps > 0 && self.state.round == 0 && !self.state.learnt;
        if priming { self.state.prior.clone() } else { eg::softmax(&self.state.log_weights) }
    }

    fn steer(&mut self, shares: &[f64]) {
        let sum: f64 = shares.iter().sum();
        let legal = shares.len() == self.setup.groups && shares.iter().all(|s| s.is_finite() && *s >= 0.0);
        if legal && sum > 0.0 {
            self.state.log_weights = eg::logs(shares);
            self.state.base = self.state.log_weights.clone();
            self.state.prior = eg::proportional(shares);
        }
    }

    fn save(&self, out: &mut Writer) {
        let state = &self.state;
        out.u64(state.phase as u64);
        out.u64(state.round);
        out.bool(state.announced.is_some());
        out.u64(state.announced.unwrap_or(0));
        out.u64(state.stale);
        out.bool(state.learnt);
        for list in [&state.log_weights, &state.base, &state.prior, &state.graph.effects, &state.smooth] {
            out.f64s(list);
        }
        let (step, losses) = state.edge.clone().unwrap_or_default();
        out.u64(step);
        out.f64s(&losses);
        state.usual.drops.iter().for_each(|drops| out.f64s(drops));
    }

    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (m, n) = (self.setup.groups, self.setup.tasks);
        let phase = match input.u64()? {
            0 => Phase::Prior,
            1 => Phase::Probe,
            2 => Phase::Main,
            other => return Err(StateError(format!("holds phase {other}, want 0..=2"))),
        };
        let round = input.u64()?;
        let (is_announced, announced) = (input.bool()?, input.u64()?);
        let (stale, learnt) = (input.u64()?, input.bool()?);
        let (log_weights, base, prior) = (input.f64s(m)?, input.f64s(m)?, input.f64s(m)?);
        let graph = Graph { groups: m, effects: input.f64s(n * m)? };
        let full = if self.config.relative { m } else { n * m };
        let smooth = none_or(input.some_f64s(full)?, full)?;
        let step = input.u64()?;
        let losses = none_or(input.some_f64s(n)?, n)?;
        let edge = (!losses.is_empty()).then_some((step, losses));
        let drops = (0..m).map(|_| input.some_f64s(REMEMBERED)).collect::<Result<_, _>>()?;
        let announced = is_announced.then_some(announced);
        let usual = Usual { drops };
        self.state = State {
            phase,
            round,
            announced,
            stale,
            learnt,
            log_weights,
            base,
            prior,
            graph,
            smooth,
            edge,
            usual,
        };
        Ok(())
    }
}

/// A list that is empty or has `len` entries.
fn none_or(list: Vec<f64>, len: usize) -> Result<Vec<f64>, StateError> {
    match list.len() {
        0 => Ok(list),
        found if found == len => Ok(list),
        found => Err(StateError(format!("holds a list of {found} numbers, want none or {len}"))),
    }
}

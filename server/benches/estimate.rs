//! Updates of the mixture: what an estimator takes from evidence that is complete to the next directive. No service,
//! no store. `cargo bench --bench estimate`.
//!
//! ```text
//! estimator_64_ms        64 groups, 64 tasks: the slowest method; ADO with a fit of every group, TiKMiX-D with its program
//! estimator_tikmix_m_ms  the same for TiKMiX-M, whose search runs once per stage
//! estimator_lsq_128_ms   Aioli's least squares over the probes of 128 groups, one of which was served otherwise than planned
//! estimator_1000_ms      1,000 groups: the slowest of the methods that solve no system, Aioli with regular probes among them
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

use mixfeed_server::args::Args;
use mixfeed_server::estimate::{
    Estimator, METHODS, Method, Reduced, Seen, Setup, Vectors, Want, When, Window, by_name, hamilton,
};
use mixfeed_server::rng::{Draw, Rng, Stream};
use std::{collections::BTreeMap, time::Instant};

/// Numbers in a sketch, the default of the specification.
const SKETCH: usize = 4096;
/// Updates measured per method.
const UPDATES: usize = 9;
/// Methods that solve no system of equations, Aioli when its probes are regular.
const CLOSED: &[&str] = &["aioli", "doge", "doremi", "odm", "pike", "skill_it"];

fn setup(groups: usize, tasks: usize) -> Setup {
    Setup {
        groups,
        tasks,
        own_task: (0..groups).map(|j| (j < tasks).then_some(j)).collect(),
        objective: vec![1.0 / tasks as f64; tasks],
        perplexity: false,
        initial: vec![1.0 / groups as f64; groups],
        sizes: vec![1e9; groups],
        batch: 1024,
        max_steps: 1_000_000,
        seed: 1,
        log_vocabulary: Some(11.0),
    }
}

fn begin(method: &dyn Method, setup: &Setup) -> Box<dyn Estimator> {
    let mut numbers = BTreeMap::new();
    if method.name() == "ado" {
        // Every update has a fit: the worst case.
        numbers = BTreeMap::from([("refit".to_owned(), 16.0)]);
    }
    let mut vectors = Vectors::new();
    if method.name() == "schedule" {
        vectors.insert("starts".into(), vec![0.0]);
        vectors.insert("shares".into(), vec![1.0; setup.groups]);
    }
    let args = Args::resolve(&method.declared(), &numbers, &BTreeMap::new()).unwrap();
    method.start(setup, &args, &vectors).unwrap()
}

/// A trainer that reports what it is asked.
struct Trainer {
    rng: Rng,
    groups: usize,
    tasks: usize,
    step: u64,
    losses: Vec<f64>,
    /// Whether the first window of a directive gets a row of another group.
    stray: bool,
}

impl Trainer {
    fn new(setup: &Setup, stray: bool) -> Self {
        let rng = Stream::new(1, "bench/estimate").at(Draw::PrivateA, 0, 0);
        let (groups, tasks, losses) = (setup.groups, setup.tasks, vec![5.0; setup.tasks]);
        Trainer { rng, groups, tasks, step: 0, losses, stray }
    }

    fn numbers(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| 0.5 + self.rng.uniform()).collect()
    }

    fn reports(&mut self, want: Want, to_step: u64, candidates: usize) -> Vec<Reduced> {
        let (m, n) = (self.groups, self.tasks);
        let values = match want {
            Want::Eval => return Vec::new(),
            Want::Sketch => SKETCH,
            Want::Influence => n * m,
            Want::Candidates => candidates,
            Want::Train | Want::Excess | Want::Dots | Want::GradientStats => m,
        };
        let owners = if want == Want::Sketch { n + m } else { 1 };
        let counted = matches!(want, Want::Train | Want::Excess);
        let decline = 1.0 + 2.0 / (to_step as f64).powf(0.3);
        let one = |at: usize| {
            let scale = if counted { 1000.0 * decline } else { 1.0 };
            let values = self.numbers(values).iter().map(|v| scale * (1.0 + 0.1 * v)).collect();
            let (held_out, owner) = (at < n, if at < n { at } else { at - n });
            let counts = if counted { vec![1000.0; m] } else { Vec::new() };
            Reduced { want, to_step, values, counts, more: self.numbers(m), lr: 5e-4, owner, held_out }
        };
        (0..owners).map(one).collect()
    }

    fn follow(&mut self, windows: &[Window], candidates: usize) -> Vec<Seen> {
        let mut seen: Vec<Seen> = windows.iter().map(|w| self.train(w, candidates)).collect();
        if self.stray {
            seen[0].rows[0] += 1;
        }
        seen
    }

    fn train(&mut self, window: &Window, candidates: usize) -> Seen {
        let window = Window { steps: window.steps.min(16), ..window.clone() };
        let (from_step, steps, before) = (self.step, window.steps, self.losses.clone());
        for loss in &mut self.losses {
            *loss -= 1e-4 * self.rng.uniform();
        }
        let mut reports = Vec::new();
        for (when, want) in &window.wants {
            let each = if *when == When::EachStep { steps } else { 1 };
            for nth in 1..=each {
                reports.extend(self.reports(*want, self.step + steps - each + nth, candidates));
            }
        }
        self.step += steps;
        let rows = hamilton::hamilton(1024 * steps, &window.shares);
        Seen {
            window,
            from_step,
            steps,
            rows,
            before: Some(before),
            after: Some(self.losses.clone()),
            reports,
        }
    }
}

/// Milliseconds of observe and directive: the upper quartile, since every other update of some methods is a short one.
fn update(method: &dyn Method, groups: usize, tasks: usize, stray: bool) -> f64 {
    let setup = setup(groups, tasks);
    let mut estimator = begin(method, &setup);
    let mut trainer = Trainer::new(&setup, stray);
    let mut directive = estimator.directive(0);
    // ADO wants a history before it fits.
    let ahead = if method.name() == "ado" { 200 } else { 1 };
    let mut times = Vec::new();
    for round in 0..ahead + UPDATES {
        let candidates = estimator.candidates().len();
        let seen = trainer.follow(&directive.windows, candidates);
        let start = Instant::now();
        std::hint::black_box(estimator.observe(&seen));
        directive = estimator.directive(trainer.step);
        if round >= ahead {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let ms = times[times.len() * 3 / 4];
    println!("{:<14} {groups:>5} groups {tasks:>3} tasks {ms:>10.3} ms", method.name());
    ms
}

fn line(bench: &str, ms: f64, slowest: &str) {
    println!(r#"{{"bench": "{bench}", "value": {ms:.3}, "unit": "ms", "method": "{slowest}"}}"#);
}

/// The slowest of these methods.
fn slowest<'a>(
    methods: impl Iterator<Item = &'a &'static dyn Method>,
    groups: usize,
    tasks: usize,
) -> (f64, &'static str) {
    let times = methods.map(|m| (update(*m, groups, tasks, false), m.name()));
    times.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

fn main() {
    let (ms, name) = slowest(METHODS.iter().filter(|m| m.name() != "tikmix_m"), 64, 64);
    line("estimator_64_ms", ms, name);
    let (ms, name) = slowest(METHODS.iter().filter(|m| m.name() == "tikmix_m"), 64, 64);
    line("estimator_tikmix_m_ms", ms, name);
    if let Some(aioli) = by_name("aioli") {
        line("estimator_lsq_128_ms", update(aioli, 128, 128, true), "aioli");
    }
    let (ms, name) = slowest(METHODS.iter().filter(|m| CLOSED.contains(&m.name())), 1000, 8);
    line("estimator_1000_ms", ms, name);
}

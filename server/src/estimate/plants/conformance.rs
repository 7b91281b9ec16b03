//! What every method must do, whatever it is: run over the registry.

use super::{arguments, setup};
use crate::estimate::{
    Directive, Estimator, METHODS, Method, Reader, Reduced, Seen, Setup, Vectors, Want, When, Window,
    WindowKind, Writer, hamilton,
};
use crate::rng::{Draw, Rng, Stream};

/// Methods that draw mixtures group by group: relabelling the groups gives other draws.
const DRAWS_BY_GROUP: &[&str] = &["tikmix_m", "regmix"];

/// Every kind of report but evaluations.
const REPORTS: [Want; 7] = [
    Want::Train,
    Want::Excess,
    Want::Dots,
    Want::GradientStats,
    Want::Influence,
    Want::Sketch,
    Want::Candidates,
];

/// Lists that a method can't start without.
fn vectors(method: &dyn Method, groups: usize) -> Vectors {
    let mut vectors = Vectors::new();
    if method.name() == "schedule" {
        vectors.insert("starts".into(), vec![0.0, 300.0]);
        vectors.insert("shares".into(), vec![1.0; 2 * groups]);
    }
    vectors
}

/// The method at work with its defaults.
fn begin(method: &dyn Method, setup: &Setup) -> Box<dyn Estimator> {
    let args = arguments(method.name(), &[], &[]);
    match method.start(setup, &args, &vectors(method, setup.groups)) {
        Ok(estimator) => estimator,
        Err(error) => panic!("{error}: say in `vectors` what it can't start without"),
    }
}

/// Random but possible evidence.
struct World {
    rng: Rng,
    groups: usize,
    tasks: usize,
    losses: Vec<f64>,
}

impl World {
    fn new(setup: &Setup, case: u64) -> Self {
        let rng = Stream::new(case, "test/conformance").at(Draw::PrivateA, 0, 0);
        World { rng, groups: setup.groups, tasks: setup.tasks, losses: vec![4.0; setup.tasks] }
    }

    fn numbers(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| 0.5 + self.rng.uniform()).collect()
    }

    fn report(&mut self, want: Want, to_step: u64, candidates: usize) -> Vec<Reduced> {
        let (m, n) = (self.groups, self.tasks);
        let blank = Reduced {
            want,
            to_step,
            values: Vec::new(),
            counts: Vec::new(),
            more: Vec::new(),
            lr: 5e-4,
            owner: 0,
            held_out: false,
        };
        let counted = |world: &mut World| {
            let (means, counts) = (world.numbers(m), vec![1000.0; m]);
            Reduced { values: means.iter().map(|v| 3000.0 * v).collect(), counts, ..blank.clone() }
        };
        match want {
            Want::Eval => Vec::new(),
            Want::Train | Want::Excess => vec![counted(self)],
            Want::Dots => vec![Reduced { values: self.numbers(m), more: self.numbers(1), ..blank }],
            Want::GradientStats => vec![Reduced { values: self.numbers(m), more: self.numbers(m), ..blank }],
            Want::Influence => vec![Reduced { values: self.numbers(n * m), counts: vec![1e6], ..blank }],
            Want::Candidates => vec![Reduced { values: self.numbers(candidates), ..blank }],
            Want::Sketch => (0..n + m)
                .map(|at| {
                    let held_out = at < n;
                    let owner = if held_out { at } else { at - n };
                    Reduced { values: self.numbers(16), owner, held_out, ..blank.clone() }
                })
                .collect(),
        }
    }

    /// What becomes of a directive; windows without end last for 40 steps.
    fn serve(&mut self, directive: &Directive, from: u64, estimator: &dyn Estimator) -> (Vec<Seen>, u64) {
        let mut step = from;
        let mut seen = Vec::new();
        for window in &directive.windows {
            let steps = window.steps.min(40);
            let before = self.losses.clone();
            self.losses.iter_mut().for_each(|l| *l -= 1e-3 * steps as f64 * self.rng.uniform());
            let mut reports = Vec::new();
            for want in REPORTS {
                let asked = |when: When| window.wants.contains(&(when, want));
                let each = if asked(When::EachStep) { steps } else { 1 };
                let candidates = estimator.candidates().len();
                for nth in 1..=each {
                    reports.extend(self.report(want, step + steps - each + nth, candidates));
                }
            }
            seen.push(Seen {
                window: Window { steps, ..window.clone() },
                from_step: step,
                steps,
                rows: hamilton::hamilton(steps * 512, &window.shares),
                before: Some(before),
                after: Some(self.losses.clone()),
                reports,
            });
            step += steps;
        }
        (seen, step)
    }

    /// A number that is none, or none of the kind.
    fn bad(&mut self) -> f64 {
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, f64::MAX, f64::MIN_POSITIVE]
            [self.rng.below(7) as usize]
    }

    /// Spoils a list: a bad number, another length, nothing.
    fn spoil(&mut self, list: &mut Vec<f64>) {
        match self.rng.below(5) {
            0 => list.clear(),
            1 => list.push(1.0),
            2 => list.truncate(1),
            _ => {
                let (at, bad) = (self.rng.below(list.len() as u64) as usize, self.bad());
                if let Some(value) = list.get_mut(at) {
                    *value = bad;
                }
            }
        }
    }

    /// Spoils evidence in a few of all possible ways.
    fn corrupt(&mut self, seen: &mut Vec<Seen>) {
        for one in seen.iter_mut() {
            match self.rng.below(9) {
                0 => one.before = None,
                1 => one.after = None,
                2 => one.rows.clear(),
                3 => one.rows.push(7),
                4 => one.steps = 0,
                5 => one.window.kind = WindowKind::Probe { group: self.groups + 3, sweep: 0 },
                6 => one.window.shares.clear(),
                7 => one.reports.clear(),
                _ => one.rows.iter_mut().for_each(|r| *r = 0),
            }
            for list in [&mut one.before, &mut one.after].into_iter().flatten() {
                if self.rng.chance(0.5) {
                    self.spoil(list);
                }
            }
            for report in &mut one.reports {
                for list in [&mut report.values, &mut report.counts, &mut report.more] {
                    if self.rng.chance(0.4) {
                        self.spoil(list);
                    }
                }
                report.lr = if self.rng.chance(0.3) { self.bad() } else { report.lr };
                report.owner = if self.rng.chance(0.2) { 1000 } else { report.owner };
            }
        }
        if self.rng.chance(0.2) {
            seen.clear();
        }
    }
}

/// That shares are shares.
fn check(shares: &[f64], groups: usize, name: &str) {
    let sum: f64 = shares.iter().sum();
    let legal = shares.len() == groups && shares.iter().all(|s| s.is_finite() && *s >= 0.0);
    assert!(legal && (sum - 1.0).abs() < 1e-9, "{name}: {shares:?}");
}

fn saved(estimator: &dyn Estimator) -> Vec<u8> {
    let mut out = Writer::default();
    estimator.save(&mut out);
    out.finish()
}

fn bits(shares: &[f64]) -> Vec<u64> {
    shares.iter().map(|s| s.to_bits()).collect()
}

#[test]
fn names_and_arguments_are_in_order() {
    for (at, method) in METHODS.iter().enumerate() {
        let name = method.name();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(METHODS[..at].iter().all(|m| m.name() != name), "{name} twice");
        assert!(!method.summary().is_empty() && !method.paper().is_empty(), "{name}");
        for p in method.params() {
            assert!((p.min..=p.max).contains(&p.default) && !p.doc.is_empty(), "{name}: {}", p.name);
        }
        assert!(method.choices().iter().all(|c| !c.values.is_empty() && !c.doc.is_empty()), "{name}");
        assert!(method.vectors().iter().all(|v| !v.doc.is_empty()), "{name}");
    }
}

#[test]
fn state_saved_at_any_point_goes_on_bit_for_bit() {
    for method in METHODS {
        for case in 0..6u64 {
            let job = Setup { max_steps: 4000, ..setup(2 + case as usize % 3, 2 + case as usize % 3) };
            let mut world = World::new(&job, case);
            // Between a directive and its evidence too: the keeper may stop there.
            let (cut, late) = (world.rng.below(8), world.rng.chance(0.5));
            let copy = |first: &dyn Estimator| {
                let mut copy = begin(*method, &job);
                copy.restore(&mut Reader::new(&saved(first))).expect("its own state");
                assert_eq!(saved(&*copy), saved(first), "{}", method.name());
                copy
            };
            let mut first = begin(*method, &job);
            let mut second: Option<Box<dyn Estimator>> = None;
            let mut step = 0;
            for round in 0..10 {
                if round == cut && !late {
                    second = Some(copy(&*first));
                }
                let directive = first.directive(step);
                if let Some(second) = &mut second {
                    assert_eq!(second.directive(step), directive, "{}, round {round}", method.name());
                }
                if round == cut && late {
                    second = Some(copy(&*first));
                }
                let (seen, end) = world.serve(&directive, step, &*first);
                let verdict = first.observe(&seen);
                check(&first.shares(), job.groups, method.name());
                if let Some(second) = &mut second {
                    assert_eq!(
                        format!("{:?}", second.observe(&seen)),
                        format!("{verdict:?}"),
                        "{}",
                        method.name()
                    );
                    assert_eq!(bits(&second.shares()), bits(&first.shares()), "{}", method.name());
                    assert_eq!(saved(&**second), saved(&*first), "{}", method.name());
                }
                if world.rng.chance(0.2) {
                    let by: Vec<f64> = world.numbers(job.groups);
                    let sum: f64 = by.iter().sum();
                    let by: Vec<f64> = by.iter().map(|s| s / sum).collect();
                    first.steer(&by);
                    second.iter_mut().for_each(|s| s.steer(&by));
                }
                step = end;
            }
        }
    }
}

#[test]
fn damaged_state_is_refused_and_changes_nothing() {
    for method in METHODS {
        let job = setup(3, 3);
        let mut world = World::new(&job, 7);
        let mut e = begin(*method, &job);
        let directive = e.directive(0);
        let (seen, _) = world.serve(&directive, 0, &*e);
        e.observe(&seen);
        let state = saved(&*e);
        let mut fresh = begin(*method, &job);
        let before = saved(&*fresh);
        for end in (0..state.len()).step_by(1 + state.len() / 64) {
            assert!(
                fresh.restore(&mut Reader::new(&state[..end])).is_err(),
                "{}: {end} bytes",
                method.name()
            );
            assert_eq!(saved(&*fresh), before, "{}: {end} bytes", method.name());
        }
    }
}

#[test]
fn hostile_evidence_never_panics_and_never_enters_the_shares() {
    for method in METHODS {
        for case in 0..40u64 {
            let (m, n) = (1 + case as usize % 4, 1 + case as usize % 3);
            let job = setup(m, n);
            let mut world = World::new(&job, 100 + case);
            let mut e = begin(*method, &job);
            let mut step = 0;
            for _ in 0..8 {
                let directive = e.directive(step);
                directive.windows.iter().for_each(|w| check(&w.shares, m, method.name()));
                let (mut seen, end) = world.serve(&directive, step, &*e);
                if world.rng.chance(0.8) {
                    world.corrupt(&mut seen);
                }
                e.observe(&seen);
                check(&e.shares(), m, method.name());
                step = end;
            }
            e.observe(&[]);
            check(&e.shares(), m, method.name());
        }
    }
}

#[test]
fn one_group_gets_everything() {
    for method in METHODS {
        let job = setup(1, 1);
        let mut world = World::new(&job, 3);
        let mut e = begin(*method, &job);
        let mut step = 0;
        for _ in 0..4 {
            let directive = e.directive(step);
            let (seen, end) = world.serve(&directive, step, &*e);
            e.observe(&seen);
            assert_eq!(e.shares(), [1.0], "{}", method.name());
            step = end;
        }
    }
}

/// Evidence about the same groups in the order `by`: entry j is the old group `by[j]`.
fn relabelled(seen: &[Seen], by: &[usize], tasks: usize) -> Vec<Seen> {
    let m = by.len();
    let list = |values: &[f64]| -> Vec<f64> {
        match values.len() {
            n if n == m => by.iter().map(|j| values[*j]).collect(),
            n if n == tasks * m => values.chunks(m).flat_map(|row| by.iter().map(|j| row[*j])).collect(),
            _ => values.to_vec(),
        }
    };
    let new = |old: usize| by.iter().position(|j| *j == old).unwrap_or(old);
    seen.iter()
        .map(|one| {
            let mut one = one.clone();
            one.window.shares = list(&one.window.shares);
            one.rows = by.iter().map(|j| one.rows[*j]).collect();
            if let WindowKind::Probe { group, sweep } = one.window.kind {
                one.window.kind = WindowKind::Probe { group: new(group), sweep };
            }
            for report in &mut one.reports {
                if report.want == Want::Sketch {
                    report.owner = if report.held_out { report.owner } else { new(report.owner) };
                } else {
                    report.values = list(&report.values);
                    report.counts = list(&report.counts);
                    report.more = list(&report.more);
                }
            }
            one
        })
        .collect()
}

#[test]
fn groups_are_nothing_but_names() {
    let by = [2usize, 0, 3, 1];
    for method in METHODS.iter().filter(|m| !DRAWS_BY_GROUP.contains(&m.name())) {
        // Five tasks: a list per task is none per group.
        let old = Setup { sizes: vec![1e4, 1e5, 2e6, 3e3], initial: vec![0.4, 0.3, 0.2, 0.1], ..setup(4, 5) };
        let list = |values: &[f64]| by.iter().map(|j| values[*j]).collect::<Vec<_>>();
        let new = Setup {
            sizes: list(&old.sizes),
            initial: list(&old.initial),
            own_task: by.iter().map(|j| old.own_task[*j]).collect(),
            ..old.clone()
        };
        let (mut a, mut b) = (begin(*method, &old), begin(*method, &new));
        let mut world = World::new(&old, 11);
        let mut step = 0;
        for round in 0..6 {
            // Evidence is that of the first one's windows: the order in which the second one would probe is another.
            let directive = a.directive(step);
            b.directive(step);
            let (seen, end) = world.serve(&directive, step, &*a);
            a.observe(&seen);
            b.observe(&relabelled(&seen, &by, 5));
            let (want, found) = (list(&a.shares()), b.shares());
            let near = want.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near, "{}, round {round}: {found:?}, want {want:?}", method.name());
            step = end;
        }
    }
}

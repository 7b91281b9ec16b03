//! Skill-It: shares by a graph of what helps what, times the losses that are left.

use super::eg::softmax;
use super::{
    Directive, Estimator, Method, MethodError, Reader, Seen, Setup, StateError, VectorInfo, Vectors,
};
use super::{Verdict, Want, When, Window, WindowKind, Writer};
use crate::args::{Args, Param};
use std::collections::VecDeque;

/// The method.
#[derive(Debug)]
pub struct SkillIt;

impl Method for SkillIt {
    fn name(&self) -> &'static str {
        "skill_it"
    }
    fn paper(&self) -> &'static str {
        "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models (2023)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2307.14430"
    }
    fn summary(&self) -> &'static str {
        "exponential weights of a given graph (group helps task) times the last held-out losses"
    }
    fn params(&self) -> &'static [Param] {
        &[
            Param {
                name: "min_window",
                default: 500.0,
                min: 1.0,
                max: 1e9,
                doc: "steps between changes of the weights",
            },
            Param { name: "eta", default: 0.2, min: 0.0, max: 1e3, doc: "step size" },
            Param { name: "evals", default: 3.0, min: 1.0, max: 1000.0, doc: "evaluations that are summed" },
        ]
    }
    fn vectors(&self) -> &'static [VectorInfo] {
        &[VectorInfo {
            name: "graph",
            doc: "groups x tasks, row-major, rows are training groups: part of the task's loss that training on the group \
                  alone took away; may be negative; default: 1 for a group's own task",
        }]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Eval)]
    }
    fn start(
        &self,
        setup: &Setup,
        args: &Args,
        vectors: &Vectors,
    ) -> Result<Box<dyn Estimator>, MethodError> {
        let graph = match vectors.get("graph") {
            Some(given) => self.legal(given, setup)?,
            None => (0..setup.groups)
                .flat_map(|j| (0..setup.tasks).map(move |i| (j, i)))
                .map(|(j, i)| f64::from(u8::from(setup.own_task[j] == Some(i))))
                .collect(),
        };
        let mut worker = Worker {
            setup: setup.clone(),
            graph,
            window: args.number("min_window") as u64,
            eta: args.number("eta"),
            evals: args.number("evals") as usize,
            losses: VecDeque::new(),
            shares: Vec::new(),
        };
        worker.shares = worker.solve();
        Ok(Box::new(worker))
    }
}

impl SkillIt {
    fn legal(&self, graph: &[f64], setup: &Setup) -> Result<Vec<f64>, MethodError> {
        let wrong = |why| MethodError::Vector { method: self.name(), name: "graph".into(), why };
        let (groups, tasks) = (setup.groups, setup.tasks);
        if graph.len() != groups * tasks {
            let (found, want) = (graph.len(), groups * tasks);
            return Err(wrong(format!("has {found} entries, want {want} ({groups} groups x {tasks} tasks)")));
        }
        match graph.iter().find(|a| !a.is_finite()) {
            Some(bad) => Err(wrong(format!("holds {bad}, want finite numbers"))),
            None => Ok(graph.to_vec()),
        }
    }
}

#[derive(Debug)]
struct Worker {
    setup: Setup,
    graph: Vec<f64>,
    window: u64,
    eta: f64,
    evals: usize,
    /// The last evaluations, oldest first; NaN for tasks without a loss.
    losses: VecDeque<Vec<f64>>,
    shares: Vec<f64>,
}

impl Worker {
    /// p_j in proportion to exp(eta sum_k n q_k A_jk sum of the last losses of k); losses of 1 before the first.
    fn solve(&self) -> Vec<f64> {
        let tasks = self.setup.tasks;
        let mut drive = vec![0.0; tasks];
        let ones = vec![1.0; tasks];
        let known = self.losses.iter();
        for losses in known.chain(self.losses.is_empty().then_some(&ones)) {
            let weights = self.setup.task_weights(losses);
            for (i, d) in drive.iter_mut().enumerate().filter(|(i, _)| losses[*i].is_finite()) {
                *d += tasks as f64 * weights[i] * losses[i];
            }
        }
        let score = |row: &[f64]| self.eta * row.iter().zip(&drive).map(|(a, d)| a * d).sum::<f64>();
        let scores: Vec<f64> = self.graph.chunks(tasks.max(1)).map(score).collect();
        softmax(&scores)
    }
}

impl Estimator for Worker {
    fn directive(&mut self, _: u64) -> Directive {
        let wants = vec![(When::After, Want::Eval)];
        let shares = self.shares.clone();
        let window = Window { kind: WindowKind::Main, steps: self.window, shares, wants };
        Directive { windows: vec![window], barrier: true }
    }
    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        let mut used = false;
        for losses in seen.iter().filter_map(|s| s.after.as_ref()) {
            if losses.len() == self.setup.tasks && losses.iter().any(|l| l.is_finite()) {
                self.losses.push_back(losses.clone());
                used = true;
            }
        }
        if !used {
            return Verdict::default();
        }
        while self.losses.len() > self.evals {
            self.losses.pop_front();
        }
        self.shares = self.solve();
        Verdict { used, facts: vec![("evals", vec![self.losses.len() as f64])] }
    }
    fn shares(&self) -> Vec<f64> {
        self.shares.clone()
    }
    /// The next evaluation sets the shares anew: nothing accumulates here.
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
        out.u64(self.losses.len() as u64);
        self.losses.iter().for_each(|l| out.f64s(l));
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let shares = input.f64s(self.setup.groups)?;
        let count = input.u64()?;
        if count > self.evals as u64 {
            return Err(StateError(format!("holds {count} evaluations, want at most {}", self.evals)));
        }
        let losses = (0..count).map(|_| input.f64s(self.setup.tasks)).collect::<Result<_, _>>()?;
        (self.shares, self.losses) = (shares, losses);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::fold::evidence::seen;
    use crate::estimate::plants::{arguments, setup, start};

    fn with(
        graph: &[f64],
        numbers: &[(&str, f64)],
        setup: &Setup,
    ) -> Result<Box<dyn Estimator>, MethodError> {
        let vectors = Vectors::from([("graph".to_owned(), graph.to_vec())]);
        SkillIt.start(setup, &arguments("skill_it", numbers, &[]), &vectors)
    }

    fn evaluated(losses: &[f64]) -> Vec<Seen> {
        seen(&[0.5; 2], Vec::new()).into_iter().map(|s| Seen { after: Some(losses.to_vec()), ..s }).collect()
    }

    fn close(got: &[f64], scores: &[f64]) {
        let raw: Vec<f64> = scores.iter().map(|s| libm::exp(*s)).collect();
        let sum: f64 = raw.iter().sum();
        assert!(got.iter().zip(&raw).all(|(g, r)| (g - r / sum).abs() < 1e-12), "{got:?} {scores:?}");
    }

    #[test]
    fn rows_of_the_graph_are_training_groups() {
        // Group 0 helps both tasks, group 1 its own a little.
        let mut e = with(&[0.5, 0.4, 0.0, 0.1], &[("eta", 0.5)], &setup(2, 2)).unwrap();
        close(&e.shares(), &[0.5 * 0.9, 0.5 * 0.1]);
        assert!(e.observe(&evaluated(&[3.0, 2.0])).used);
        close(&e.shares(), &[0.5 * (0.5 * 3.0 + 0.4 * 2.0), 0.5 * 0.1 * 2.0]);
    }

    #[test]
    fn the_last_three_evaluations_are_summed_without_a_graph_by_loss() {
        let mut e = start("skill_it", &[], &[], &setup(2, 2));
        close(&e.shares(), &[0.2, 0.2]);
        for losses in [[9.0, 9.0], [3.0, 1.0], [2.0, 1.0], [1.0, 1.0]] {
            assert!(e.observe(&evaluated(&losses)).used);
        }
        close(&e.shares(), &[0.2 * 6.0, 0.2 * 3.0]);
        assert!(!e.observe(&evaluated(&[f64::NAN, f64::NAN])).used);
        assert!(!e.observe(&evaluated(&[1.0])).used);
        e.observe(&evaluated(&[f64::NAN, 1.0]));
        close(&e.shares(), &[0.2 * 3.0, 0.2 * (1.0 + 1.0 + 2.0)]);
    }

    #[test]
    fn a_wrong_graph_is_refused() {
        let said = |graph: &[f64]| with(graph, &[], &setup(2, 3)).expect_err("a wrong graph").to_string();
        assert_eq!(
            said(&[0.0; 4]),
            "vector `graph` of estimator `skill_it` has 4 entries, want 6 (2 groups x 3 tasks)"
        );
        assert!(said(&[0.0, 0.0, 0.0, 0.0, 0.0, f64::NAN]).contains("want finite numbers"));
        assert!(with(&[-0.5; 6], &[], &setup(2, 3)).is_ok(), "training on one may harm another");
    }
}

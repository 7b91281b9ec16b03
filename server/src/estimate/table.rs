//! The registry as a Markdown table.

use super::{METHODS, Method, Want, When};
use std::fmt::Write as _;

impl Want {
    /// Name in tables, "EVAL", as `ReportKind` of the contract has it.
    pub fn name(self) -> &'static str {
        match self {
            Want::Eval => "EVAL",
            Want::Train => "TRAIN",
            Want::Excess => "EXCESS",
            Want::Dots => "DOTS",
            Want::GradientStats => "GRADIENT_STATS",
            Want::Influence => "INFLUENCE",
            Want::Sketch => "SKETCH",
            Want::Candidates => "CANDIDATES",
        }
    }
}

impl When {
    /// Words for tables: "before", "after", "each step".
    pub fn name(self) -> &'static str {
        match self {
            When::Before => "before",
            When::After => "after",
            When::EachStep => "each step",
        }
    }
}

/// What a method lives on: kinds in the order of their first mention, each with its times: "EVAL (before, after)".
pub fn wanted(method: &dyn Method) -> Vec<String> {
    let mut kinds: Vec<(Want, Vec<&str>)> = Vec::new();
    for (when, want) in method.wants() {
        match kinds.iter_mut().find(|(kind, _)| kind == want) {
            Some((_, times)) => times.push(when.name()),
            None => kinds.push((*want, vec![when.name()])),
        }
    }
    kinds.iter().map(|(kind, times)| format!("{} ({})", kind.name(), times.join(", "))).collect()
}

/// The Markdown table of all methods: parameters as `name` = default (min..=max), options with the default first, lists
/// by name.
pub fn table() -> String {
    let mut out =
        String::from("| estimator | what it does | reports | parameters | options and lists | paper |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for method in METHODS {
        let number = |p: &crate::args::Param| format!("`{}` = {} ({}..={})", p.name, p.default, p.min, p.max);
        let numbers: Vec<String> = method.params().iter().map(number).collect();
        let word = |c: &crate::args::Choice| format!("`{}` = {}", c.name, c.values.join(", "));
        let mut words: Vec<String> = method.choices().iter().map(word).collect();
        words.extend(method.vectors().iter().map(|v| format!("`{}`: {}", v.name, v.doc)));
        let (numbers, words, reports) =
            (numbers.join("<br>"), words.join("<br>"), wanted(*method).join("<br>"));
        let paper = match method.url() {
            "" => method.paper().to_owned(),
            url => format!("[{}]({url})", method.paper()),
        };
        let (name, summary) = (method.name(), method.summary());
        let cells = [&format!("`{name}`"), summary, &reports, &numbers, &words, &paper].map(cell);
        writeln!(out, "| {} |", cells.join(" | ")).expect("a string takes every write");
    }
    out
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_one_line_of_six_cells() {
        let table = table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines.len(), METHODS.len());
        for (line, method) in lines.iter().zip(METHODS) {
            assert!(line.starts_with(&format!("| `{}` |", method.name())), "{line}");
            assert_eq!(line.replace("\\|", "").matches('|').count(), 7, "{line}");
            for p in method.params() {
                assert!(line.contains(&format!("`{}` = {}", p.name, p.default)), "{line}");
            }
        }
    }

    #[test]
    fn a_bar_in_a_text_stays_in_its_cell() {
        assert_eq!(cell("a | b"), "a \\| b");
    }
}

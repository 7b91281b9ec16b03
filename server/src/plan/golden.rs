//! Golden digests of plans: every policy, granularity and option, odd rasters and odd blocks.
//!
//! Plans are part of a job's bytes. A digest that changes means that jobs of the same spec would be served other bytes:
//! that needs a new numerics number, and then `UPDATE_GOLDEN=1` rewrites the file.

use super::block::{self, Granularity, Member, MixRule, Pairing, Place};
use super::fields::{Bank, Spectrum};
use super::view::{self, CropRule, EraseRule, JitterRule, View, ViewRule};
use super::{Args, Policy, image, points};
use crate::batch::{Format, Peek};
use crate::rng::Stream;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/plans.txt");
const GOLDEN: &str = include_str!("../../tests/golden/plans.txt");
const SEED: u64 = 2024;

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}

/// Bytes of the plans of two blocks of `n` rows in three steps.
fn plans(rule: &MixRule, size: (u32, u32), n: usize) -> Vec<u8> {
    let (stream, fields) = (Stream::new(SEED, "mix"), Bank::new(SEED, size.0, size.1));
    let labels: Vec<i32> = (0..n as i32).map(|i| i * i % 5 - 1).collect();
    let mut out = Vec::new();
    for (step, slot) in [(0, 0), (0, n as u64), (7, 0), (1 << 40, 0)] {
        let place = Place { stream: &stream, fields: &fields, step, epoch: 1.0, slot, size };
        block::block(rule, &place, &labels).rows.iter().for_each(|row| row.encode(&mut out));
    }
    out
}

fn rule(policy: &'static dyn Policy, words: &BTreeMap<String, String>) -> MixRule {
    let args = Args::resolve(&policy.declared(), &BTreeMap::new(), words).expect("legal");
    MixRule {
        members: vec![Member { policy, args, share: 1.0 }],
        granularity: Granularity::Elem,
        pairing: Pairing::Flip,
        choose_per_row: false,
        gate: 0.9,
        clean: 0.1,
        warmup: None,
        off_after: None,
    }
}

fn policy_lines(out: &mut String) {
    for policy in image::POLICIES {
        for granularity in [Granularity::Batch, Granularity::Pair, Granularity::Elem, Granularity::Half] {
            for (size, n) in [((1, 7), 1), ((5, 3), 4), ((37, 24), 7), ((33, 65), 9)] {
                let rule = MixRule { granularity, ..rule(*policy, &BTreeMap::new()) };
                let (name, (h, w)) = (policy.name(), size);
                let digest = digest(&plans(&rule, size, n));
                writeln!(out, "plan {name} {granularity:?} {h}x{w} rows={n} {digest}").expect("a string");
            }
        }
        for choice in policy.choices() {
            for value in &choice.values[1..] {
                let words = BTreeMap::from([(choice.name.to_string(), value.to_string())]);
                let digest = digest(&plans(&rule(*policy, &words), (37, 24), 7));
                writeln!(out, "plan {} {}={value} 37x24 rows=7 {digest}", policy.name(), choice.name)
                    .expect("a string");
            }
        }
    }
}

/// Policies of point clouds, which see no raster: every granularity, odd blocks and blocks of one.
fn point_lines(out: &mut String) {
    for policy in points::POLICIES {
        for granularity in [Granularity::Batch, Granularity::Pair, Granularity::Elem, Granularity::Half] {
            for (pairing, n) in [(Pairing::Consecutive, 1), (Pairing::Consecutive, 9), (Pairing::Derange, 31)]
            {
                let rule = MixRule { granularity, pairing, ..rule(*policy, &BTreeMap::new()) };
                let digest = digest(&plans(&rule, (1, 1), n));
                writeln!(out, "points {} {granularity:?} {pairing:?} rows={n} {digest}", policy.name())
                    .expect("a string");
            }
        }
    }
}

fn block_lines(out: &mut String) {
    let none = BTreeMap::new();
    let both = ["mixup", "cutmix"].map(|name| image::by_name(name).expect("registered"));
    let members = both.map(|policy| Member { share: 0.5, ..rule(policy, &none).members.remove(0) });
    for pairing in [
        Pairing::Flip,
        Pairing::Roll1,
        Pairing::Perm,
        Pairing::Derange,
        Pairing::SameClass,
        Pairing::DifferentClass,
        Pairing::Consecutive,
    ] {
        for choose_per_row in [false, true] {
            let rule = MixRule { members: members.to_vec(), pairing, choose_per_row, ..rule(both[0], &none) };
            let digest = digest(&plans(&rule, (37, 24), 31));
            writeln!(out, "block {pairing:?} choose_per_row={choose_per_row} {digest}").expect("a string");
        }
    }
}

fn field_lines(out: &mut String) {
    for (height, width) in [(1, 7), (5, 3), (37, 24), (33, 65), (224, 224)] {
        let bank = Bank::new(SEED, height, width);
        for spectrum in [Spectrum::Paper { decay: 3.0 }, Spectrum::Compat { decay: 3.0 }] {
            let field = bank.field(spectrum, bank.ids() as u32 - 1);
            let bytes: Vec<u8> = field.ranks.iter().flat_map(|r| r.to_le_bytes()).collect();
            writeln!(out, "field {spectrum:?} {height}x{width} {}", digest(&bytes)).expect("a string");
        }
    }
}

fn view_bytes(view: &View, out: &mut Vec<u8>) {
    let View { crop, size, turn, colour, erase } = view;
    for edge in [crop.y, crop.x, crop.height, crop.width] {
        out.extend(edge.to_bits().to_le_bytes());
    }
    // Shortest round-trip digits: as exact as the bits.
    out.extend(format!("{size:?} {turn:?} {colour:?} {erase:?}").bytes());
}

fn view_lines(out: &mut String) {
    let stream = Stream::new(SEED, "view");
    let random = CropRule::RandomResized { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) };
    for (name, crop) in [("random", random), ("centre", CropRule::Centre { resize: Some(40) })] {
        let jitter = Some(JitterRule { factors: [0.4; 3], hue: 0.1 });
        let erase = Some(EraseRule { p: 0.5, scale: (0.02, 0.33), ratio: (0.3, 3.3), value: [1, 2, 3] });
        let rule =
            ViewRule { height: 37, width: 24, crop, flip_x: 0.5, flip_y: 0.25, jitter, erase, exif: true };
        let mut bytes = Vec::new();
        for orientation in 1..=8 {
            let peek = Peek { format: Format::Jpeg, height: 91, width: 50, orientation };
            (0..9).for_each(|slot| view_bytes(&view::draw(&rule, &peek, &stream, 5, slot), &mut bytes));
        }
        writeln!(out, "view {name} {}", digest(&bytes)).expect("a string");
    }
}

#[test]
fn plans_have_not_changed() {
    let mut now = String::new();
    policy_lines(&mut now);
    point_lines(&mut now);
    block_lines(&mut now);
    field_lines(&mut now);
    view_lines(&mut now);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
        std::fs::write(FILE, &now).expect("the golden file is writable");
        return;
    }
    let changed: Vec<String> = GOLDEN
        .lines()
        .filter(|line| !now.lines().any(|l| l == *line))
        .map(|line| format!("- {line}"))
        .chain(now.lines().filter(|line| !GOLDEN.lines().any(|l| l == *line)).map(|line| format!("+ {line}")))
        .collect();
    assert!(
        changed.is_empty(),
        "plans changed: jobs of the same spec would be served other bytes. That needs a new numerics number (`job::\
         NUMERICS`), after that UPDATE_GOLDEN=1 rewrites the file; a mere addition needs only the rewrite.\n{}",
        changed.join("\n")
    );
}

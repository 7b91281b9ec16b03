use super::*;
use crate::plan::{Op, image};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn member(name: &str, share: f64) -> Member {
    let policy = image::by_name(name).expect("registered");
    let args =
        Args::resolve(&policy.declared(), &BTreeMap::new(), &BTreeMap::new()).expect("defaults are legal");
    Member { policy, args, share }
}

fn rule(granularity: Granularity, pairing: Pairing) -> MixRule {
    MixRule {
        members: vec![member("mixup", 1.0)],
        granularity,
        pairing,
        choose_per_row: false,
        gate: 1.0,
        clean: 0.0,
        warmup: None,
        off_after: None,
    }
}

fn plan_at(rule: &MixRule, step: u64, slot: u64, epoch: f64, labels: &[i32]) -> Vec<Row> {
    let (stream, fields) = (Stream::new(11, "mix"), fields::Bank::new(11, 6, 10));
    let place = Place { stream: &stream, fields: &fields, step, epoch, slot, size: (6, 10) };
    block(rule, &place, labels).rows
}

fn plan(rule: &MixRule, labels: &[i32]) -> Vec<Row> {
    plan_at(rule, 3, 32, 0.0, labels)
}

fn partners_of(pairing: Pairing, step: u64, labels: &[i32]) -> Vec<Option<usize>> {
    let (stream, fields) = (Stream::new(11, "mix"), fields::Bank::new(11, 6, 10));
    let place = Place { stream: &stream, fields: &fields, step, epoch: 0.0, slot: 0, size: (6, 10) };
    partners(pairing, &place, labels)
}

const GRANULARITIES: [Granularity; 4] =
    [Granularity::Batch, Granularity::Pair, Granularity::Elem, Granularity::Half];
const PAIRINGS: [Pairing; 7] = [
    Pairing::Flip,
    Pairing::Consecutive,
    Pairing::Roll1,
    Pairing::Perm,
    Pairing::Derange,
    Pairing::SameClass,
    Pairing::DifferentClass,
];

proptest! {
    #[test]
    fn every_block_is_consistent(
        labels in proptest::collection::vec(-1..4, 0..10),
        g in 0usize..4, p in 0usize..7, step in 0u64..1000, gate in 0.0..1.0, clean in 0.0..1.0,
    ) {
        let rule = MixRule { gate, clean, ..rule(GRANULARITIES[g], PAIRINGS[p]) };
        let rows = plan_at(&rule, step, 64, 0.0, &labels);
        prop_assert_eq!(rows.len(), rule.rows_of(labels.len()));
        for (i, row) in rows.iter().enumerate() {
            let i = rule.base_of(i);
            prop_assert_eq!(row.base as usize, i);
            prop_assert!((row.partner as usize) < labels.len());
            prop_assert!((0.0..=1.0).contains(&row.own));
            let (own, partner) = (labels[i], labels[row.partner as usize]);
            let has = |flag| row.flags & flag != 0;
            prop_assert_eq!(has(flags::IDENTITY), row.ops.is_empty());
            prop_assert!(!row.ops.is_empty() || row.own == 1.0);
            prop_assert!(!has(flags::NO_PARTNER) || row.policy.is_none());
            if row.policy.is_some() {
                prop_assert_eq!(has(flags::SELF_PAIR), row.base == row.partner);
                prop_assert_eq!(has(flags::SAME_CLASS), own >= 0 && own == partner);
                prop_assert!(PAIRINGS[p] != Pairing::SameClass || has(flags::SAME_CLASS) && row.partner != row.base);
                prop_assert!(PAIRINGS[p] != Pairing::DifferentClass || own >= 0 && partner >= 0 && own != partner);
            }
        }
    }
}

#[test]
fn pairings_have_their_published_form() {
    let some = |v: &[usize]| v.iter().map(|p| Some(*p)).collect::<Vec<_>>();
    assert_eq!(partners_of(Pairing::Flip, 0, &[0; 5]), some(&[4, 3, 2, 1, 0]));
    assert_eq!(partners_of(Pairing::Consecutive, 0, &[0; 5]), some(&[1, 0, 3, 2, 4]));
    assert_eq!(partners_of(Pairing::Consecutive, 0, &[0; 2]), some(&[1, 0]));
    assert_eq!(partners_of(Pairing::Roll1, 0, &[0; 5]), some(&[4, 0, 1, 2, 3]));
    for pairing in [Pairing::Perm, Pairing::Derange] {
        let seen: BTreeSet<_> = partners_of(pairing, 0, &[0; 9]).into_iter().collect();
        assert_eq!(seen.len(), 9, "a bijection");
    }
    for pairing in PAIRINGS {
        assert_eq!(partners_of(pairing, 0, &[]), []);
    }
}

#[test]
fn half_of_a_consecutive_block_is_its_even_rows() {
    let rows = plan(&rule(Granularity::Half, Pairing::Consecutive), &[0; 5]);
    let met: Vec<_> = rows.iter().map(|r| (r.base, r.partner, r.ops.len())).collect();
    assert_eq!(met, [(0, 1, 1), (2, 3, 1), (4, 4, 0)]);
    assert_eq!(rows[2].flags, flags::SELF_PAIR | flags::SAME_CLASS | flags::IDENTITY);
    // Draws belong to slots: the same row of the whole block has the same lambda.
    let whole = plan(&rule(Granularity::Elem, Pairing::Consecutive), &[0; 5]);
    assert_eq!(rows[1], whole[2]);
    let pair = plan(&rule(Granularity::Pair, Pairing::Consecutive), &[0; 5]);
    assert_eq!(pair[2].sampled, pair[3].sampled);
    assert_ne!(pair[1].sampled, pair[2].sampled);
    assert!(plan(&rule(Granularity::Half, Pairing::Consecutive), &[]).is_empty());
}

#[test]
fn a_policy_of_many_scenes_follows_the_partners_of_the_block() {
    let policy = crate::plan::points::by_name("mix3d").expect("registered");
    let scenes = BTreeMap::from([("scenes".to_string(), 3.0)]);
    let args = Args::resolve(&policy.declared(), &scenes, &BTreeMap::new()).expect("legal");
    let members = vec![Member { policy, args, share: 1.0 }];
    let of = |granularity, pairing, labels: &[i32]| {
        plan(&MixRule { members: members.clone(), ..rule(granularity, pairing) }, labels)
    };
    let scenes = |rows: Vec<Row>| -> Vec<Vec<u32>> {
        let of = |row: Row| match &row.ops[..] {
            [] => vec![],
            [Op::Union { scenes }] => scenes.clone(),
            more => panic!("{more:?}"),
        };
        rows.into_iter().map(of).collect()
    };
    let roll = of(Granularity::Elem, Pairing::Roll1, &[0; 4]);
    assert!(roll.iter().all(|r| r.own == 1.0 && r.flags & flags::IDENTITY == 0));
    assert_eq!(scenes(roll), [[3, 2], [0, 3], [1, 0], [2, 1]]);
    assert_eq!(scenes(of(Granularity::Half, Pairing::Consecutive, &[0; 5])), [vec![1], vec![3], vec![]]);
    let alone = of(Granularity::Elem, Pairing::SameClass, &[0, 1, 0]);
    assert_eq!(scenes(alone), [vec![2], vec![], vec![0]], "a row without partner stays alone");
}

#[test]
fn a_row_that_is_its_own_partner_is_returned_with_weight_one() {
    for granularity in GRANULARITIES {
        for rows in [plan(&rule(granularity, Pairing::Flip), &[3; 5])[2..3].to_vec(), {
            plan(&rule(granularity, Pairing::Derange), &[3])
        }] {
            let [row] = &rows[..] else { panic!("one row: {rows:?}") };
            assert_eq!((row.base, row.own, row.ops.len()), (row.partner, 1.0, 0));
            assert_eq!(row.flags, flags::SELF_PAIR | flags::SAME_CLASS | flags::IDENTITY);
            assert_eq!(row.policy, Some(0));
        }
    }
    let unlabelled = plan(&rule(Granularity::Elem, Pairing::Flip), &[-1]);
    assert_eq!(unlabelled[0].flags, flags::SELF_PAIR | flags::IDENTITY, "no class is no same class");
}

#[test]
fn derangements_are_uniform_and_large_ones_end() {
    // The 9 derangements of 4 rows, 9000 draws: chi-square with 8 degrees of freedom exceeds 31.8 with 1e-4.
    let mut seen = BTreeMap::new();
    for step in 0..9000 {
        let order = partners_of(Pairing::Derange, step, &[0; 4]);
        assert!(order.iter().enumerate().all(|(i, p)| *p != Some(i)));
        *seen.entry(order).or_insert(0u32) += 1;
    }
    assert_eq!(seen.len(), 9);
    let chi: f64 = seen.values().map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi < 31.8, "{chi}: {seen:?}");
    let large = partners_of(Pairing::Derange, 0, &vec![0; 65_536]);
    assert!(large.iter().enumerate().all(|(i, p)| *p != Some(i)));
    assert_eq!(partners_of(Pairing::Derange, 0, &[0, 0]), [Some(1), Some(0)]);
}

#[test]
fn class_pairings_reach_every_legal_row_and_no_other() {
    let labels = [2, -1, 0, 2, 1, 2, -1, 0];
    for (pairing, same) in [(Pairing::SameClass, true), (Pairing::DifferentClass, false)] {
        let mut seen = vec![BTreeSet::new(); labels.len()];
        // 400 draws miss one of at most 5 legal rows with 5 * 0.8^400.
        for step in 0..400 {
            for (i, p) in partners_of(pairing, step, &labels).into_iter().enumerate() {
                seen[i].extend(p);
            }
        }
        for (i, seen) in seen.iter().enumerate() {
            let fits =
                |j: &usize| *j != i && labels[i] >= 0 && labels[*j] >= 0 && (labels[i] == labels[*j]) == same;
            assert_eq!(*seen, (0..labels.len()).filter(fits).collect(), "row {i} of {pairing:?}");
        }
    }
    let alone = plan(&rule(Granularity::Elem, Pairing::SameClass), &labels);
    assert_eq!(alone[4].flags, flags::NO_PARTNER | flags::IDENTITY, "the only row of its class");
    assert_eq!(alone[1].flags, flags::NO_PARTNER | flags::IDENTITY, "a row without class");
    // Linear in the rows: a quadratic search would take minutes here.
    assert!(partners_of(Pairing::SameClass, 0, &vec![7; 65_536]).iter().all(Option::is_some));
}

#[test]
fn units_share_lambda_as_their_granularity_says() {
    let lambdas = |g, slot| -> Vec<u64> {
        let rows = plan_at(&rule(g, Pairing::Flip), 3, slot, 0.0, &[0; 6]);
        rows.iter().map(|r| r.sampled.to_bits()).collect()
    };
    let distinct = |v: &[u64]| v.iter().collect::<BTreeSet<_>>().len();
    let batch = lambdas(Granularity::Batch, 0);
    assert_eq!(distinct(&batch), 1);
    assert_eq!(batch, lambdas(Granularity::Batch, 32), "the blocks of a step share it");
    let pair = lambdas(Granularity::Pair, 0);
    assert_eq!(distinct(&pair), 3);
    assert!((0..6).all(|i| pair[i] == pair[5 - i]));
    assert_eq!(distinct(&lambdas(Granularity::Elem, 0)), 6);
    assert_eq!(lambdas(Granularity::Half, 0), lambdas(Granularity::Elem, 0)[..3]);
    let half = plan(&rule(Granularity::Half, Pairing::Flip), &[0; 5]);
    assert_eq!(half.iter().map(|r| r.partner).collect::<Vec<_>>(), [4, 3, 2]);
}

#[test]
fn a_pair_swaps_one_box_and_rows_of_no_pair_draw_alone() {
    let cutmix = MixRule { members: vec![member("cutmix", 1.0)], ..rule(Granularity::Pair, Pairing::Flip) };
    let rows = plan(&cutmix, &[0; 4]);
    assert_eq!((rows[0].rect(), rows[0].own), (rows[3].rect(), rows[3].own));
    assert_eq!((rows[1].rect(), rows[1].own), (rows[2].rect(), rows[2].own));
    assert_ne!(rows[0].rect(), rows[1].rect());
    let roll = plan(&rule(Granularity::Pair, Pairing::Roll1), &[0; 5]);
    assert_eq!(roll.iter().map(|r| r.sampled.to_bits()).collect::<BTreeSet<_>>().len(), 5);
}

#[test]
fn policies_are_chosen_per_step_or_per_unit_with_their_shares() {
    let mut rule = MixRule {
        members: vec![member("mixup", 0.2), member("cutmix", 0.8)],
        ..rule(Granularity::Elem, Pairing::Roll1)
    };
    let chosen = |rule: &MixRule, step| plan_at(rule, step, 0, 0.0, &[0; 20]).into_iter().map(|r| r.policy);
    let per_step: Vec<_> = (0..1000).map(|step| chosen(&rule, step).collect::<BTreeSet<_>>()).collect();
    assert!(per_step.iter().all(|p| p.len() == 1));
    // Binomial, n = 1000 (20,000), p = 0.8: four standard deviations are 0.051 (0.0113), false alarm 6e-5.
    let share = per_step.iter().filter(|p| p.contains(&Some(1))).count() as f64 / 1000.0;
    assert!((share - 0.8).abs() < 0.051, "{share}");
    rule.choose_per_row = true;
    let ones: usize = (0..1000).map(|step| chosen(&rule, step).filter(|p| *p == Some(1)).count()).sum();
    assert!((ones as f64 / 20_000.0 - 0.8).abs() < 0.0113, "{ones}");
    rule.members[1].share = 0.0;
    rule.members[0].share = 1.0 - 1e-16;
    assert!((0..100).all(|step| chosen(&rule, step).all(|p| p == Some(0))), "a share of 0 is never chosen");
}

#[test]
fn the_gate_opens_with_its_probability_per_unit() {
    let open = |g: Granularity| -> (f64, Vec<usize>) {
        let rule = MixRule { gate: 0.3, ..rule(g, Pairing::Flip) };
        let mixed: Vec<usize> = (0..5000)
            .map(|step| plan_at(&rule, step, 0, 0.0, &[0; 4]).iter().filter(|r| r.policy.is_some()).count())
            .collect();
        (mixed.iter().sum::<usize>() as f64 / 20_000.0, mixed)
    };
    // The coarsest unit has 5000 draws: four standard deviations are 0.026, false alarm 6e-5.
    for g in [Granularity::Batch, Granularity::Pair, Granularity::Elem] {
        let (share, mixed) = open(g);
        assert!((share - 0.3).abs() < 0.026, "{g:?}: {share}");
        let unit = match g {
            Granularity::Batch => 4,
            Granularity::Pair => 2,
            Granularity::Elem | Granularity::Half => 1,
        };
        assert!(mixed.iter().all(|m| m % unit == 0), "{g:?}: a unit is mixed as a whole");
    }
    let closed = plan(&MixRule { gate: 0.0, ..rule(Granularity::Elem, Pairing::Roll1) }, &[0, 1, 2]);
    assert!(closed.iter().all(|r| r.flags == flags::IDENTITY && r.partner == r.base && r.own == 1.0));
}

#[test]
fn schedules_shape_the_gate() {
    let gate = |warmup, off_after, epoch| {
        MixRule { gate: 0.8, warmup, off_after, ..rule(Granularity::Elem, Pairing::Perm) }.gate_at(epoch)
    };
    let linear = Some((Warmup::Linear, 4.0));
    let cosine = Some((Warmup::Cosine, 4.0));
    for (warmup, epoch, want) in [
        (None, 0.0, 0.8),
        (linear, 0.0, 0.0),
        (linear, 1.0, 0.2),
        (linear, 4.0, 0.8),
        (cosine, 0.0, 0.0),
        (cosine, 1.0, 0.8 * (0.5 - 0.125f64.sqrt())),
        (cosine, 2.0, 0.4),
        (cosine, 5.0, 0.8),
        (Some((Warmup::Linear, 0.0)), 0.0, 0.8),
    ] {
        assert!((gate(warmup, None, epoch) - want).abs() < 1e-12, "{warmup:?} at {epoch}");
    }
    assert_eq!((gate(None, Some(3.0), 2.999), gate(None, Some(3.0), 3.0)), (0.8, 0.0));
}

#[test]
fn a_fraction_of_every_block_stays_clean() {
    let rule = MixRule { clean: 0.35, ..rule(Granularity::Elem, Pairing::Roll1) };
    let counts: Vec<usize> = (0..2000)
        .map(|step| plan_at(&rule, step, 0, 0.0, &[0; 7]).iter().filter(|r| r.policy.is_none()).count())
        .collect();
    assert!(counts.iter().all(|c| [2, 3].contains(c)), "0.35 * 7 = 2.45");
    // Bernoulli(0.45), n = 2000: four standard deviations are 0.0445, false alarm 6e-5.
    let mean = counts.iter().sum::<usize>() as f64 / 2000.0;
    assert!((mean - 2.45).abs() < 0.0445, "{mean}");
    let all = MixRule { clean: 1.0, ..rule };
    assert!(plan(&all, &[0; 7]).iter().all(|r| r.flags == flags::IDENTITY));
}

#[test]
fn ops_name_the_partner_and_no_members_mean_clean_rows() {
    for row in plan(&rule(Granularity::Elem, Pairing::Roll1), &[0, 1, 2, 3]) {
        let [Op::Blend { src, lambda, .. }] = row.ops[..] else { panic!("{row:?}") };
        assert_eq!((src, f64::from(lambda)), (row.partner, f64::from(row.own as f32)));
        assert_eq!(row.rect(), crate::plan::Rect::default(), "nothing is pasted");
    }
    let none = MixRule { members: Vec::new(), ..rule(Granularity::Elem, Pairing::Roll1) };
    assert!(plan(&none, &[0, 1]).iter().all(|r| r.policy.is_none() && r.flags == flags::IDENTITY));
}

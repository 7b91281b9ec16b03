//! The pipeline, step by step and under hostile rules.

use super::*;
use proptest::prelude::*;

/// Raw share, share before, lower and upper bound, cap, dropped.
type Group = (f64, f64, f64, f64, f64, bool);

fn close(a: &[f64], b: &[f64]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?}, want {b:?}");
}

fn bare(groups: usize) -> Rules {
    Rules { paper_faithful: true, ..Rules::new(groups) }
}

#[test]
fn faithful_shares_pass_as_they_are() {
    let settled = settle(&[0.999, 0.001], Some(&[0.5, 0.5]), &bare(2));
    close(&settled.shares, &[0.999, 0.001]);
    assert_eq!(settled.changes, "");
}

#[test]
fn dropped_groups_get_nothing_and_the_rest_is_scaled() {
    let rules = Rules { dropped: vec![false, true, false], ..bare(3) };
    let settled = settle(&[0.2, 0.6, 0.2], None, &rules);
    close(&settled.shares, &[0.5, 0.0, 0.5]);
    assert!(
        settled.changes.starts_with("drop: group 0 0.2000 -> 0.5000, group 1 0.6000 -> 0.0000"),
        "{settled:?}"
    );
    let rules = Rules { dropped: vec![true, true, false], ..bare(3) };
    close(&settle(&[0.5, 0.5, 0.0], None, &rules).shares, &[0.0, 0.0, 1.0]);
    let rules = Rules { dropped: vec![true; 3], ..bare(3) };
    assert_eq!(settle(&[0.5, 0.5, 0.0], None, &rules).shares, [0.0; 3]);
}

#[test]
fn bounds_are_met_by_one_factor_for_what_is_free() {
    let rules = Rules { high: vec![0.4, 1.0, 1.0], ..bare(3) };
    let settled = settle(&[0.7, 0.2, 0.1], None, &rules);
    close(&settled.shares, &[0.4, 0.4, 0.2]);
    assert!(settled.changes.starts_with("bounds: group 0 0.7000 -> 0.4000"), "{settled:?}");
    let rules = Rules { low: vec![0.0, 0.0, 0.3], ..bare(3) };
    close(&settle(&[0.6, 0.3, 0.1], None, &rules).shares, &[0.7 * 2.0 / 3.0, 0.7 / 3.0, 0.3]);
    // Both at once, where fixing one pushes another over its bound.
    let rules = Rules { low: vec![0.0, 0.2, 0.0], high: vec![0.5, 1.0, 0.25], ..bare(3) };
    close(&settle(&[0.9, 0.05, 0.05], None, &rules).shares, &[0.5, 0.25, 0.25]);
}

#[test]
fn exposure_caps_are_upper_bounds() {
    assert_eq!(exposure_cap(4.0, 100.0, 0.0, 1000.0), 0.4);
    assert_eq!(exposure_cap(4.0, 100.0, 350.0, 1000.0), 0.05);
    assert_eq!(exposure_cap(4.0, 100.0, 500.0, 1000.0), 0.0, "over it already");
    assert_eq!(exposure_cap(4.0, 1e9, 0.0, 1000.0), 1.0);
    assert_eq!(exposure_cap(0.0, 100.0, 0.0, 1000.0), 1.0, "no cap");
    assert_eq!(exposure_cap(4.0, 100.0, 0.0, 0.0), 1.0, "nothing remains");
    let rules = Rules { caps: vec![0.1, 1.0], ..bare(2) };
    close(&settle(&[0.5, 0.5], None, &rules).shares, &[0.1, 0.9]);
    // Hard: the floor doesn't lift a group over its cap.
    let rules = Rules { caps: vec![0.005, 1.0], ..Rules::new(2) };
    close(&settle(&[0.5, 0.5], None, &rules).shares, &[0.005, 0.995]);
}

#[test]
fn the_floor_blends() {
    let settled = settle(&[1.0, 0.0], None, &Rules::new(2));
    close(&settled.shares, &[0.99, 0.01]);
    assert!(settled.changes.starts_with("floor 0.01: group 0 1.0000 -> 0.9900"), "{settled:?}");
    close(&settle(&[0.7, 0.3], None, &Rules { floor: Some(0.1), ..Rules::new(2) }).shares, &[0.66, 0.34]);
    close(&settle(&[0.7, 0.3], None, &Rules { floor: Some(0.0), ..Rules::new(2) }).shares, &[0.7, 0.3]);
    close(&settle(&[0.7, 0.3], None, &Rules { floor: Some(0.9), ..Rules::new(2) }).shares, &[0.5, 0.5]);
    assert_eq!((default_floor(20), default_floor(40)), (0.01, 0.005));
}

#[test]
fn the_trust_region_limits_each_logarithm() {
    let rules = Rules { floor: Some(0.0), trust: 0.5, ..Rules::new(3) };
    let previous = [1.0 / 3.0; 3];
    let settled = settle(&[0.98, 0.01, 0.01], Some(&previous), &rules);
    let low = (-0.5f64).exp() / 3.0;
    let top = 0.5f64.exp() / 3.0;
    close(&settled.shares, &[top, (1.0 - top) / 2.0, (1.0 - top) / 2.0]);
    assert!(settled.shares[1] >= low);
    assert!(settled.changes.contains("trust 0.5: group 0 0.9800 -> 0.5496"), "{settled:?}");
    let off = Rules { trust: 0.0, ..rules.clone() };
    close(&settle(&[0.98, 0.01, 0.01], Some(&previous), &off).shares, &[0.98, 0.01, 0.01]);
    // A large group is dropped: no mixture lies within the region.
    let dropped = Rules { dropped: vec![true, false, false], ..rules };
    let settled = settle(&[0.9, 0.06, 0.04], Some(&[0.9, 0.06, 0.04]), &dropped);
    close(&settled.shares, &[0.0, 0.6, 0.4]);
    assert!(settled.changes.ends_with("trust region lifted: no mixture lies in it"), "{settled:?}");
}

#[test]
fn rules_that_leave_no_mixture_are_relaxed_and_told() {
    let rules = Rules { low: vec![0.9, 0.9], ..bare(2) };
    let settled = settle(&[0.5, 0.5], None, &rules);
    close(&settled.shares, &[0.5, 0.5]);
    assert!(settled.changes.contains("lower bounds sum to 1.8000: scaled down"), "{settled:?}");
    let rules = Rules { caps: vec![0.1, 0.3], ..bare(2) };
    let settled = settle(&[0.5, 0.5], None, &rules);
    close(&settled.shares, &[0.25, 0.75]);
    assert!(settled.changes.contains("upper bounds sum to 0.4000: scaled up"), "{settled:?}");
    let rules = Rules { caps: vec![0.0, 0.0, 0.0], dropped: vec![false, false, true], ..bare(3) };
    close(&settle(&[0.2, 0.3, 0.5], None, &rules).shares, &[0.5, 0.5, 0.0]);
}

#[test]
fn raw_shares_that_are_none_leave_the_last_ones() {
    for raw in [[f64::NAN, 1.0], [-1.0, 2.0], [0.0, 0.0], [f64::INFINITY, 1.0]] {
        let settled = settle(&raw, Some(&[0.3, 0.7]), &bare(2));
        close(&settled.shares, &[0.3, 0.7]);
        assert_eq!(settled.changes, "raw shares are no shares: the last ones are kept");
        close(&settle(&raw, None, &bare(2)).shares, &[0.5, 0.5]);
    }
}

#[test]
fn long_lists_of_changes_are_cut() {
    let rules = Rules { floor: Some(0.05), ..Rules::new(10) };
    let raw: Vec<f64> = (0..10).map(|j| f64::from(j + 1) / 55.0).collect();
    assert!(settle(&raw, None, &rules).changes.ends_with(" and 6 more"));
}

proptest! {
    #[test]
    fn whatever_the_rules_the_outcome_is_a_mixture_within_the_hard_bounds(
        groups in proptest::collection::vec(
            (0.0f64..1.0, 0.0f64..1.0, 0.0f64..0.2, 0.3f64..1.0, 0.0f64..1.0, prop::bool::weighted(0.2)),
            1..12,
        ),
        trust in 0.0f64..3.0,
        floor in proptest::option::of(0.0f64..0.2),
        paper_faithful: bool,
    ) {
        let of = |f: fn(&Group) -> f64| groups.iter().map(f).collect::<Vec<_>>();
        let dropped: Vec<bool> = groups.iter().map(|g| g.5).collect();
        let (raw, previous) = (of(|g| g.0), eg::proportional(&of(|g| g.1 + 1e-3)));
        let rules = Rules {
            dropped: dropped.clone(),
            low: of(|g| g.2),
            high: of(|g| g.3),
            caps: of(|g| g.4),
            floor,
            trust,
            paper_faithful,
        };
        let settled = settle(&raw, Some(&previous), &rules);
        let sum: f64 = settled.shares.iter().sum();
        let live = dropped.iter().filter(|d| !**d).count();
        prop_assert!(live == 0 || (sum - 1.0).abs() < 1e-9, "sum {}", sum);
        for j in 0..raw.len() {
            let share = settled.shares[j];
            prop_assert!(share >= 0.0 && (!dropped[j] || share == 0.0));
            if !settled.changes.contains("scaled") {
                let high = rules.high[j].min(rules.caps[j]);
                prop_assert!(share <= high + 1e-9, "group {} has {} over {}", j, share, high);
                prop_assert!(dropped[j] || share >= rules.low[j].min(high) - 1e-9);
                let bound = trust > 0.0 && !paper_faithful && !settled.changes.contains("lifted");
                // Hard bounds and drops win over the region.
                let inside = share > rules.low[j] + 1e-9 && share < high - 1e-9;
                if bound && inside && !dropped[j] {
                    prop_assert!((share / previous[j]).ln().abs() <= trust + 1e-9);
                }
            }
        }
        let again = settle(&settled.shares, Some(&settled.shares), &Rules { paper_faithful: true, ..rules.clone() });
        prop_assert!(again.shares.iter().zip(&settled.shares).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}

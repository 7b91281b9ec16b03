use super::*;
use std::f64::consts::PI;

fn close(got: &[f64], want: &[f64], slack: f64) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= slack * scale, "element {i}: {g}, want {w}");
    }
}

#[test]
fn golden_decay() {
    let want = [216.0, 216.0, 27.0, 8.0, 64.0, 36.866_228, 13.824, 5.724_334];
    close(&decays(4, 6, 3.0)[..8], &want, 1e-8);
    // Row 2 is f = 0.5, .527046, .600925, .707107; row 3 mirrors row 1.
    let row2 = [0.5, 0.527_046, 0.600_925, std::f64::consts::FRAC_1_SQRT_2].map(|f: f64| f.powf(-3.0));
    close(&decays(4, 6, 3.0)[8..12], &row2, 1e-5);
    assert_eq!(decays(4, 6, 3.0)[12..], decays(4, 6, 3.0)[4..8]);
}

#[test]
fn fields_equal_numpys() {
    let mut lines = include_str!("../../../tests/fixtures/fmix.txt").lines();
    let mut seen = 0;
    while let Some(head) = lines.next() {
        let numbers = |line: Option<&str>| -> Vec<f64> {
            let line = line.expect("three lines per case");
            line.split(' ').map(|v| v.parse().expect("a number")).collect()
        };
        let (normals, want) = (numbers(lines.next()), numbers(lines.next()));
        let head: Vec<&str> = head.split(' ').collect();
        let side = |i: usize| head[i].parse::<usize>().expect("a side");
        let (height, width, decay) = (side(1), side(2), head[3].parse().expect("a decay"));
        let half = match head[0] {
            "paper" => {
                let pairs = normals.chunks(2).zip(decays(height, width, decay));
                pairs.map(|(n, s)| Complex { re: s * n[0], im: s * n[1] }).collect()
            }
            "compat" => compat(height, width, decay, &normals),
            other => panic!("unknown mode `{other}`"),
        };
        let field = Transform::new(height, width).inverse(half);
        let scale = 1.0 / (height * width) as f64;
        close(&field.iter().map(|x| x * scale).collect::<Vec<_>>(), &want, 1e-12);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn ranks_are_a_permutation_by_descending_value() {
    assert_eq!(order(&[0.5, -1.0, 0.0, 2.0, -0.0, -3.0, 0.5]), [3, 0, 6, 2, 4, 1, 5]);
    for (height, width) in [(1, 1), (1, 7), (5, 3), (24, 37)] {
        let bank = Bank::new(1, height, width);
        for spectrum in [Spectrum::Paper { decay: 3.0 }, Spectrum::Compat { decay: 3.0 }] {
            let mut ranks = bank.field(spectrum, 0).ranks.clone();
            ranks.sort_unstable();
            assert!(ranks.into_iter().eq(0..height * width), "{height}x{width} {spectrum:?}");
        }
    }
}

#[test]
fn a_field_depends_on_seed_size_spectrum_and_id_alone() {
    let paper = Spectrum::Paper { decay: 3.0 };
    let bank = Bank::new(1, 6, 10);
    let first = bank.field(paper, 3);
    (0..50).for_each(|id| drop(bank.field(paper, id)));
    assert_eq!(first, bank.field(paper, 3));
    assert_eq!(first, Bank::with_capacity(1, 6, 10, 0).field(paper, 3), "whatever is kept");
    for (seed, spectrum, id) in [
        (2, paper, 3),
        (1, Spectrum::Paper { decay: 1.0 }, 3),
        (1, Spectrum::Compat { decay: 3.0 }, 3),
        (1, paper, 4),
    ] {
        assert_ne!(first.ranks, Bank::new(seed, 6, 10).field(spectrum, id).ranks);
    }
}

#[test]
fn the_cache_is_bounded_and_gives_the_same_field_to_all() {
    let bank = Bank::with_capacity(1, 6, 10, 3 * 4 * 60);
    let paper = Spectrum::Paper { decay: 3.0 };
    let first = bank.field(paper, 0);
    (1..3).for_each(|id| drop(bank.field(paper, id)));
    assert!(Arc::ptr_eq(&first, &bank.field(paper, 0)), "used last, so it stays");
    bank.field(paper, 3);
    assert!(Arc::ptr_eq(&first, &bank.field(paper, 0)));
    let kept = |bank: &Bank| {
        let cache = bank.cache.lock().expect("no panic");
        cache.fields.keys().map(|key| key.2).collect::<Vec<_>>()
    };
    assert_eq!(kept(&bank), [0, 2, 3], "1 was the least recently used");
    let none = Bank::with_capacity(1, 6, 10, 0);
    (0..3).for_each(|id| drop(none.field(paper, id)));
    assert_eq!(kept(&none), [2], "always the latest");
}

#[test]
fn a_bank_has_as_many_fields_as_fit() {
    assert_eq!(Bank::new(1, 224, 224).ids(), 334);
    assert_eq!(Bank::new(1, 32, 32).ids(), 4096);
    assert_eq!(Bank::new(1, 8192, 8192).ids(), 1);
}

#[test]
fn huge_rasters_enlarge_a_coarser_field() {
    let bank = Bank::new(1, 1025, 1027);
    assert_eq!(bank.cell, 2);
    let field = bank.field(Spectrum::Paper { decay: 3.0 }, 0);
    let rank = |y: usize, x: usize| field.ranks[y * 1027 + x];
    let cell = [rank(4, 6), rank(4, 7), rank(5, 6), rank(5, 7)];
    assert_eq!(cell, [0, 1, 2, 3].map(|i| cell[0] + i), "four pixels of a cell have consecutive ranks");
    assert_eq!(rank(1024, 6) + 1, rank(1024, 7), "cut at the bottom");
    let mut ranks = field.ranks.clone();
    ranks.sort_unstable();
    assert!(ranks.into_iter().eq(0..1025 * 1027));
}

/// Power of a field's horizontal bin `v`, summed over rows.
fn power(field: &[f64], height: usize, width: usize, v: usize) -> f64 {
    let row = |y: usize| {
        let (mut re, mut im) = (0.0, 0.0);
        for x in 0..width {
            let angle = 2.0 * PI * (v * x % width) as f64 / width as f64;
            re += field[y * width + x] * angle.cos();
            im += field[y * width + x] * angle.sin();
        }
        re * re + im * im
    };
    (0..height).map(row).sum()
}

#[test]
fn compat_has_no_horizontal_frequency_above_one_and_paper_has() {
    let (height, width) = (24, 40);
    let make = |spectrum: Spectrum| {
        let mut rng = Stream::new(9, "test").at(Draw::MaskField, 0, 0);
        Transform::new(height, width).inverse(spectrum.draw(height, width, &mut rng))
    };
    let share =
        |field: &[f64], v: usize| power(field, height, width, v) / power(field, height, width, 0).max(1e-300);
    let compat = make(Spectrum::Compat { decay: 3.0 });
    assert!(share(&compat, 1) > 1e-3);
    assert!((2..=20).all(|v| share(&compat, v) < 1e-20));
    let paper = make(Spectrum::Paper { decay: 3.0 });
    assert!((1..=5).all(|v| share(&paper, v) > 1e-9));
}

#[test]
fn power_falls_with_twice_the_decay_on_both_axes() {
    // Along one row or column the power at bin v of the half spectrum, averaged over 200 fields. The log-log slope
    // between bins 4 and 16 is -2 decay on the axis itself; each average of an exponential has a relative deviation of
    // 1 / sqrt(200) = 0.07, so the slope one of 0.07 sqrt(2) / ln 4 = 0.07: false alarm below 1e-10 at 0.5.
    let (height, width, decay) = (48, 64, 3.0);
    let columns = width / 2 + 1;
    let mut sums = [[0.0; 2]; 2];
    for id in 0..200 {
        let mut rng = Stream::new(9, "slope").at(Draw::MaskField, id, 0);
        let half = Spectrum::Paper { decay }.draw(height, width, &mut rng);
        let field = Transform::new(height, width).inverse(half);
        for (i, bin) in [4usize, 16].into_iter().enumerate() {
            let bins = [(0, bin), (bin * height / width, 0)];
            for (axis, (u, v)) in bins.into_iter().enumerate() {
                assert!(u < height && v < columns);
                let (mut re, mut im) = (0.0, 0.0);
                for (p, x) in field.iter().enumerate() {
                    let turn =
                        (u * (p / width)) as f64 / height as f64 + (v * (p % width)) as f64 / width as f64;
                    re += x * (2.0 * PI * turn).cos();
                    im += x * (2.0 * PI * turn).sin();
                }
                sums[axis][i] += re * re + im * im;
            }
        }
    }
    for axis in sums {
        let slope = (axis[1] / axis[0]).ln() / 4f64.ln();
        assert!((slope + 2.0 * decay).abs() < 0.5, "{slope}");
    }
}

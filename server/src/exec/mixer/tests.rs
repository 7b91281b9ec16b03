#![cfg(feature = "libtorch")]

use super::*;
use crate::batch::Layout;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::sync::LazyLock;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mixers")
}

fn opened(name: &str) -> Arc<Mixer> {
    let file = fixtures().join(name).join("manifest.json");
    Arc::new(Mixer::open(name, &file, Device::Cpu).expect("the fixture is right"))
}

static KINDS: LazyLock<[Arc<Mixer>; 3]> = LazyLock::new(|| ["automix", "adautomix", "adamixup"].map(opened));

/// Opens a copy of the mixer `name` after `bend` changed its folder and manifest.
fn bent(name: &str, bend: impl FnOnce(&Path, &mut Value)) -> Result<Mixer, MixerError> {
    let folder = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(fixtures().join(name)).expect("the fixtures are there") {
        let file = file.expect("a file");
        fs::copy(file.path(), folder.path().join(file.file_name())).expect("copied");
    }
    let file = folder.path().join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&file).expect("there")).expect("JSON");
    bend(folder.path(), &mut manifest);
    fs::write(&file, manifest.to_string()).expect("written");
    Mixer::open(name, &file, Device::Cpu)
}

fn entry(folder: &Path, file: &str) -> Value {
    let digest = Sha256::digest(fs::read(folder.join(file)).expect("there"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "file": file, "sha256": digest })
}

/// Puts `bytes` in the place of a file that the manifest names.
fn replace(folder: &Path, manifest: &mut Value, key: &str, bytes: &[u8]) {
    let file = manifest[key]["file"].as_str().expect("a name").to_owned();
    fs::write(folder.join(&file), bytes).expect("written");
    manifest[key] = entry(folder, &file);
}

fn fixture(path: &str) -> Vec<u8> {
    fs::read(fixtures().join(path)).expect("the fixtures are there")
}

#[test]
fn a_file_that_is_not_the_one_of_the_manifest_is_refused() {
    for file in ["stem.pt", "mixer.pt", "golden.npz"] {
        let error = bent("automix", |folder, _| {
            let mut bytes = fs::read(folder.join(file)).expect("there");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(folder.join(file), bytes).expect("written");
        });
        assert!(matches!(error, Err(MixerError::Digest { file: at, .. }) if at.ends_with(file)));
        let error = bent("automix", |folder, _| fs::remove_file(folder.join(file)).expect("removed"));
        assert!(matches!(error, Err(MixerError::Read { file: at, .. }) if at.ends_with(file)));
    }
}

#[test]
fn damage_that_the_manifest_knows_of_is_an_error_and_no_panic() {
    for (key, file) in [("stem", "stem.pt"), ("mixer", "mixer.pt"), ("golden", "golden.npz")] {
        let whole = fixture(&format!("automix/{file}"));
        for length in [0, 1, whole.len() / 2, whole.len() - 30] {
            let error = bent("automix", |folder, json| replace(folder, json, key, &whole[..length]));
            assert!(matches!(error, Err(MixerError::Load { .. })), "{file} {length}: {error:?}");
        }
        let error = bent("automix", |folder, json| replace(folder, json, key, b"no module at all"));
        assert!(matches!(error, Err(MixerError::Load { .. })), "{file}: {error:?}");
    }
    let error = bent("automix", |folder, json| {
        replace(folder, json, "golden", &fixture("adautomix/golden.npz"));
    });
    let error = error.expect_err("other shapes").to_string();
    assert!(error.contains("`out` is Float [3, 2, 6, 8], want Float [3, 1, 6, 8]"), "{error}");
}

#[test]
fn the_golden_output_is_met_within_its_tolerance_or_the_mixer_is_refused() {
    bent("automix", |folder, json| json["golden"] = entry(folder, "near.npz")).expect("9e-5 are borne");
    let far = bent("automix", |folder, json| json["golden"] = entry(folder, "far.npz"));
    let Err(MixerError::Golden { difference, .. }) = far else { panic!("{far:?}") };
    assert!((difference - 2e-4).abs() < 1e-5, "{difference}");
    // Pictures that are not flat make NaN, or another shape.
    let golden = fixture("automix/golden.npz");
    let nan = bent("nan", |folder, json| replace(folder, json, "golden", &golden));
    assert!(matches!(nan, Err(MixerError::Golden { difference, .. }) if difference.is_nan()), "{nan:?}");
    let shape = bent("shape", |folder, json| replace(folder, json, "golden", &golden));
    let (found, wanted) = (vec![1, 1, 5, 8], vec![1, 1, 6, 8]);
    assert_eq!(shape.err(), Some(MixerError::Shape { name: "shape".into(), found, wanted }));
    let draws = bent("draws", |_, _| {});
    assert_eq!(draws.err(), Some(MixerError::Unsteady { name: "draws".into() }));
    // A network that cannot take what it is given: the stem's 8 features are no picture.
    let torn = bent("automix", |_, json| drop(json.as_object_mut().expect("a table").remove("stem")));
    assert!(matches!(&torn, Err(error) if error.of_device().is_some()), "{torn:?}");
}

#[test]
fn a_manifest_that_does_not_fit_names_the_key() {
    for (name, key, value, wanted) in [
        ("automix", "factor", json!(5), "`factor` is 5, want a divisor of 24 and of 32"),
        ("automix", "factor", json!(0), "`factor` is 0"),
        ("automix", "factor", Value::Null, "`factor` and `upsample` are missing"),
        ("automix", "upsample", json!("cubic"), "unknown variant `cubic`"),
        ("automix", "output", json!("mask"), "unknown variant `mask`"),
        ("automix", "height", json!(0), "`height` is 0, want 1..=4096"),
        ("automix", "width", json!(5000), "`width` is 5000"),
        ("automix", "std", json!([1, 0, 1]), "`std` wants three finite numbers above 0"),
        ("automix", "mean", json!([1, 2]), "expected an array of length 3"),
        ("automix", "mean", json!([1, 2, 1e300]), "`mean` wants three finite numbers"),
        ("automix", "path", json!("x"), "unknown field `path`"),
        ("adamixup", "factor", json!(4), "mean nothing to an interval"),
    ] {
        let error = bent(name, |_, json| json[key] = value.clone()).expect_err("a misfit");
        assert!(matches!(error, MixerError::Manifest { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(wanted) && error.contains("manifest.json"), "{error}");
    }
}

#[test]
fn the_digest_is_of_everything() {
    let digest = |mixer: &Mixer| mixer.digest();
    let same = bent("automix", |_, _| {}).expect("right");
    let again = bent("automix", |_, _| {}).expect("right");
    assert_eq!(digest(&same), digest(&again));
    let near = bent("automix", |folder, json| json["golden"] = entry(folder, "near.npz")).expect("right");
    assert_ne!(digest(&same), digest(&near));
    let [a, b, c] = &*KINDS;
    assert!(digest(a) != digest(b) && digest(b) != digest(c));
    assert_eq!([a, b, c].map(|mixer| mixer.is_interval()), [false, false, true]);
}

/// Pixels that differ everywhere, without a generator.
fn pixels(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn asked(base: u32, partner: u32, lambda: f64, mixer: &Mixer) -> Row {
    let mask = Mask::Learned { mixer: 0, lambda: lambda as f32, interval: mixer.is_interval() };
    let ops = vec![Op::MaskBlend { src: partner, mask }];
    Row { base, partner, ops, policy: Some(0), sampled: lambda, own: lambda, flags: 0 }
}

/// The rows as a mixer makes them, and as they were planned.
fn made(mixer: &Arc<Mixer>, rows: &[Row], clean: &[u8], raster: &Raster) -> (Vec<Row>, Vec<Row>) {
    let mut planned = rows.to_vec();
    let block = (clean, raster);
    let made = realise(std::slice::from_ref(mixer), &mut planned, block, Place::Cpu).expect("it answers");
    (made, planned)
}

fn weights(row: &Row) -> &[f32] {
    match &row.ops[..] {
        [Op::MaskBlend { mask: Mask::Weights(weights), .. }] => weights,
        other => panic!("no mask: {other:?}"),
    }
}

/// Pictures, lambdas and output of the golden file, by libtorch's reader.
fn golden(name: &str) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let file = fixtures().join(name).join("golden.npz");
    let arrays = tch::Tensor::read_npz(file).expect("an archive");
    let find = |key: &str| {
        let (_, array) = arrays.iter().find(|(name, _)| name == key).expect("the array is there");
        array.reshape([-1])
    };
    let bytes = |key| Vec::<u8>::try_from(find(key)).expect("bytes");
    let floats = |key| Vec::<f32>::try_from(find(key)).expect("floats");
    ([bytes("a"), bytes("b")].concat(), floats("lambda"), floats("out"))
}

/// Half-pixel centres, by the formula.
fn bilinear(cells: &[f32], (rows, columns): (usize, usize), (y, x): (usize, usize), factor: f32) -> f32 {
    let axis = |i: usize, n: usize| {
        let at = ((i as f32 + 0.5) / factor - 0.5).max(0.0);
        let low = at as usize;
        (low, (low + 1).min(n - 1), at - low as f32)
    };
    let ((y0, y1, v), (x0, x1, u)) = (axis(y, rows), axis(x, columns));
    let line = |y: usize| cells[y * columns + x0] * (1.0 - u) + cells[y * columns + x1] * u;
    line(y0) * (1.0 - v) + line(y1) * v
}

#[test]
fn masks_follow_from_the_golden_logits_by_the_rule_of_the_manifest() {
    let raster = Raster::new(24, 32, Layout::Nchw);
    for (mixer, name) in KINDS.iter().zip(["automix", "adautomix", "adamixup"]) {
        let (clean, lambdas, out) = golden(name);
        let rows: Vec<Row> = (0..3).map(|i| asked(i, i + 3, f64::from(lambdas[i as usize]), mixer)).collect();
        let (made, planned) = made(mixer, &rows, &clean, &raster);
        for (i, (made, planned)) in made.iter().zip(&planned).enumerate() {
            let logits = &out[i * out.len() / 3..(i + 1) * out.len() / 3];
            if name == "adamixup" {
                let own = f64::from(logits[0]) + f64::from(lambdas[i]) * f64::from(logits[1]);
                assert!((made.own - own).abs() < 1e-5 && made.own == planned.own, "{} {own}", made.own);
                let blend =
                    Op::Blend { src: i as u32 + 3, lambda: made.own as f32, rest: (1.0 - made.own) as f32 };
                assert_eq!(made.ops, [blend]);
                assert_eq!(planned.ops, rows[i].ops, "the plan stays as it was drawn");
                continue;
            }
            assert_eq!(planned, &rows[i], "a mask changes no label weight");
            for (y, x) in (0..24).flat_map(|y| (0..32).map(move |x| (y, x))) {
                let want = match name {
                    "automix" => 1.0 - 1.0 / (1.0 + (-logits[y / 4 * 8 + x / 4]).exp()),
                    _ => {
                        let of = |k: usize| bilinear(&logits[k * 48..][..48], (6, 8), (y, x), 4.0);
                        1.0 / (1.0 + (of(1) - of(0)).exp())
                    }
                };
                let got = weights(made)[y * 32 + x];
                assert!((got - want).abs() < 1e-4, "{name} pair {i} at {y}, {x}: {got}, want {want}");
            }
        }
    }
}

#[test]
fn a_row_alone_a_row_of_many_other_threads_and_another_start_give_the_same_bits() {
    for (height, width) in [(1, 1), (7, 5), (24, 32), (33, 45)] {
        let raster = Raster::new(height, width, Layout::Nchw);
        let clean = pixels(5 * raster.len());
        for mixer in &*KINDS {
            // Row 1 meets itself as well: a mixer must bear it.
            let pairs = [(0, 4), (1, 1), (2, 0), (3, 1), (4, 0)];
            let rows: Vec<Row> = pairs.iter().map(|(a, b)| asked(*a, *b, 0.3, mixer)).collect();
            let (whole, _) = made(mixer, &rows, &clean, &raster);
            for (row, whole) in rows.iter().zip(&whole) {
                assert_eq!(&made(mixer, std::slice::from_ref(row), &clean, &raster).0[0], whole);
            }
            let again = opened(mixer.name());
            for threads in [1, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let (other, _) = pool.install(|| made(&again, &rows, &clean, &raster));
                assert_eq!(other, whole, "{threads} threads");
            }
        }
    }
}

#[test]
fn a_network_that_fails_on_a_pair_is_named_with_the_pair() {
    let raster = Raster::new(24, 32, Layout::Nchw);
    let mut clean = pixels(3 * raster.len());
    clean[..raster.len()].fill(7);
    clean[raster.len()..2 * raster.len()].fill(9);
    let run = |name: &str, base, partner| {
        let mixer = opened(name);
        let mut rows = [asked(base, partner, 0.5, &mixer)];
        realise(&[mixer], &mut rows, (&clean, &raster), Place::Device)
    };
    assert_eq!(weights(&run("nan", 0, 1).expect("flat pictures")[0])[0], 0.5);
    let error = run("nan", 2, 1).expect_err("NaN").to_string();
    assert_eq!(error, "mixer `nan`: rows 2 and 1 of the block get a mask with NaN, want 0..=1");
    assert!(matches!(run("shape", 2, 0), Err(MixerError::Shape { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn weights_are_weights_in_both_layouts(
        (height, width) in (1..40usize, 1..40usize),
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        lambda in 0.0..=1.0f64,
        kind in 0..3usize,
    ) {
        let (mixer, pixels) = (&KINDS[kind], height * width);
        let planar = Raster::new(height, width, Layout::Nchw);
        let clean: Vec<u8> = bytes.iter().copied().cycle().take(2 * planar.len()).collect();
        let last: Vec<u8> = clean
            .chunks_exact(planar.len())
            .flat_map(|row| crate::exec::conformance::interleaved(row, pixels, 1))
            .collect();
        let rows = [asked(0, 1, lambda, mixer), asked(1, 0, 1.0 - lambda, mixer)];
        let (made_planar, planned) = made(mixer, &rows, &clean, &planar);
        let (made_last, _) = made(mixer, &rows, &last, &Raster::new(height, width, Layout::Nhwc));
        prop_assert!(made_planar == made_last);
        for (made, planned) in made_planar.iter().zip(&planned) {
            prop_assert!((0.0..=1.0).contains(&planned.own));
            if mixer.is_interval() {
                let whole = matches!(made.ops[..], [Op::Blend { lambda, rest, .. }] if (lambda + rest - 1.0).abs() < 1e-6);
                prop_assert!(whole);
            } else {
                prop_assert_eq!(weights(made).len(), pixels);
                prop_assert!(weights(made).iter().all(|weight| (0.0..=1.0).contains(weight)));
            }
        }
    }
}

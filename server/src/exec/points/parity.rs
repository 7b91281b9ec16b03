//! Every op against NumPy and SciPy in f64 (`tests/fixtures/make_points.py`), draws injected.

#![allow(clippy::unwrap_used)] // fixtures are ours

use super::{Colors, Points, Scratch, apply};
use crate::cloud::Scene;
use crate::plan::scene::{Lattice, SceneOp, Shape};
use serde_json::Value;
use std::sync::Arc;

fn hex<const N: usize, T>(text: &Value, read: fn([u8; N]) -> T) -> Vec<T> {
    let digit = |b: &[u8]| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = text.as_str().unwrap().as_bytes().chunks_exact(2).map(digit).collect();
    bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}

fn floats(text: &Value) -> Vec<f32> {
    hex(text, f32::from_le_bytes)
}

fn triples<T: Copy>(flat: &[T]) -> Vec<[T; 3]> {
    flat.as_chunks::<3>().0.to_vec()
}

fn scene(stored: &Value) -> Scene {
    let some = |name: &str| stored.get(name);
    Scene {
        coord: triples(&hex(&stored["coord"], f64::from_le_bytes)),
        color: some("color").map(|c| triples(&floats(c)).iter().map(|c| c.map(|v| v as u8)).collect()),
        normal: some("normal").map(|n| triples(&floats(n))),
        intensity: some("intensity").map(floats),
        segment: some("segment").map(|s| hex(s, i32::from_le_bytes)),
        instance: some("instance").map(|s| hex(s, i32::from_le_bytes)),
    }
}

fn op(stored: &Value, noise: &Value) -> SceneOp {
    let number = |name: &str| stored[name].as_f64().unwrap() as f32;
    let three = |name: &str| <[f32; 3]>::try_from(floats(&stored[name])).unwrap();
    let flags = |name: &str| [0, 1, 2].map(|i| stored[name][i].as_bool().unwrap());
    let offsets = || triples(&floats(&stored["offsets"])).into();
    match stored["op"].as_str().unwrap() {
        "centre" => SceneOp::Centre,
        "recentre" => SceneOp::Recentre,
        "shift" => SceneOp::Shift { fraction: three("fraction") },
        "flip" => SceneOp::Flip { axes: flags("axes"), translate: stored["translate"].as_bool().unwrap() },
        "elastic" => {
            let field = noise.as_array().unwrap().iter().find(|n| n["dims"] == stored["dims"]).unwrap();
            let dims = [0, 1, 2].map(|i| stored["dims"][i].as_u64().unwrap() as u32);
            let noise = Arc::new(Lattice { dims, noise: floats(&field["values"]) });
            SceneOp::Elastic { granularity: number("granularity"), magnitude: number("magnitude"), noise }
        }
        "scale" => SceneOp::Scale { factor: three("factor") },
        "rotate" => SceneOp::Rotate { angles: three("angles") },
        "jitter" => SceneOp::Jitter { offsets: offsets() },
        "colour" => SceneOp::Colour { gain: number("gain"), offset: number("offset"), shift: three("shift") },
        "colour_jitter" => SceneOp::ColourJitter { offsets: offsets() },
        "channel_drop" => SceneOp::ChannelDrop { drop: flags("drop") },
        "keep" => {
            let points: Vec<i32> = hex(&stored["points"], i32::from_le_bytes);
            SceneOp::Keep { points: points.iter().map(|i| *i as u32).collect() }
        }
        "crop" => {
            let most = stored["most"].as_u64().unwrap() as u32;
            SceneOp::Crop { centre: stored["centre"].as_f64().unwrap(), most }
        }
        other => panic!("no op {other}"),
    }
}

fn same_triples(got: &[[f32; 3]], want: &[[f32; 3]], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let near = g.iter().zip(w).all(|(g, w)| (g - w).abs() <= tolerance);
        assert!(near, "{what}: point {i} is {g:?}, want {w:?} within {tolerance}");
    }
}

#[test]
fn every_op_agrees_with_numpy_and_scipy() {
    let all: Value = serde_json::from_str(include_str!("../../../tests/fixtures/points/ops.json")).unwrap();
    let scenes: Vec<Scene> = all["scenes"].as_array().unwrap().iter().map(scene).collect();
    let cases = all["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    let mut scratch = Scratch::default();
    for (number, case) in cases.iter().enumerate() {
        let before = &scenes[case["scene"].as_u64().unwrap() as usize];
        let ops: Vec<SceneOp> =
            case["ops"].as_array().unwrap().iter().map(|o| op(o, &all["noise"])).collect();
        let shape = Shape::of(&before.coord);
        let extent = (0..3).map(|a| shape.max[a] - shape.min[a]).fold(1.0, f64::max) as f32;
        // What a case does not name stays as it was; as nothing is done to it, it is equal exactly.
        let mut want = apply(before.clone(), &[], &mut scratch);
        let stored = |name: &str| case["want"].get(name);
        let Points { coord, color, normal, intensity, segment, instance, extent: _ } = &mut want;
        *coord = triples(&floats(stored("coord").unwrap()));
        stored("color").into_iter().for_each(|c| *color = Some(Colors::Each(triples(&floats(c)))));
        stored("normal").into_iter().for_each(|n| *normal = Some(triples(&floats(n))));
        stored("intensity").into_iter().for_each(|v| *intensity = Some(floats(v)));
        stored("segment").into_iter().for_each(|v| *segment = Some(hex(v, i32::from_le_bytes)));
        stored("instance").into_iter().for_each(|v| *instance = Some(hex(v, i32::from_le_bytes)));

        let got = apply(before.clone(), &ops, &mut scratch);
        let names: Vec<&str> =
            case["ops"].as_array().unwrap().iter().map(|o| o["op"].as_str().unwrap()).collect();
        let what = |column: &str| format!("case {number}, scene {}, {names:?}: {column}", case["scene"]);
        same_triples(&got.coord, &want.coord, 1e-5 * extent, &what("coord"));
        let each = |color: &Option<Colors>| color.clone().map(Colors::each);
        let colors = (each(&got.color), each(&want.color));
        let pairs = [(&colors.0, &colors.1, 1e-3, "color"), (&got.normal, &want.normal, 1e-6, "normal")];
        for (got, want, tolerance, column) in pairs {
            assert_eq!(got.is_some(), want.is_some(), "{}", what(column));
            if let (Some(got), Some(want)) = (got, want) {
                same_triples(got, want, tolerance, &what(column));
            }
        }
        assert_eq!(got.intensity, want.intensity, "{}", what("intensity"));
        assert_eq!(got.segment, want.segment, "{}", what("segment"));
        assert_eq!(got.instance, want.instance, "{}", what("instance"));
        scratch.recycle(got);
    }
}

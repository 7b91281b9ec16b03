//! Golden bytes: every policy on real photographs at odd sizes and odd batches, hashed.
//!
//! A digest that changes means that the same job gives other bytes than yesterday: raise `job::NUMERICS`, then
//! `UPDATE_GOLDEN=1 cargo test -p mixfeed-server --test golden` and say why in the commit.
#![allow(clippy::unwrap_used)]

use mixfeed_proto as v1;
use mixfeed_server::assemble::{Assembler, BlockAt};
use mixfeed_server::cloud::parts;
use mixfeed_server::plan::{image::POLICIES, points};
use mixfeed_server::source::{Memory, Source};
use mixfeed_server::{Sources, job, store};
use std::{fmt::Write, fs, path::Path, sync::Arc};

fn photos() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos");
    let mut records = Vec::new();
    for class in fs::read_dir(root).unwrap().map(|c| c.unwrap().path()) {
        let class_name = class.file_name().unwrap().to_string_lossy().into_owned();
        for file in fs::read_dir(&class).unwrap().map(|f| f.unwrap().path()) {
            let name = format!("{class_name}/{}", file.file_name().unwrap().to_string_lossy());
            records.push((name, fs::read(&file).unwrap().into(), class_name.clone()));
        }
    }
    Sources::from([("photos".to_owned(), Arc::new(Memory::new(records).unwrap()) as Arc<dyn Source>)])
}

fn spec(policy: Option<&str>, batch: u32, dtype: v1::Dtype, layout: v1::ImageLayout) -> v1::JobSpec {
    let policies = policy.map(|p| v1::PolicySpec { name: p.into(), ..Default::default() });
    let jitter = v1::ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
    let mut output = v1::OutputSpec::default();
    output.set_dtype(dtype);
    output.set_layout(layout);
    let normalize = (dtype == v1::Dtype::F32)
        .then(|| v1::Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] });
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "photos".into(), ..Default::default() }],
        seed: 11,
        global_batch: batch,
        mix_block: batch,
        image: Some(v1::ImageSpec {
            height: 57,
            width: 43,
            random_resized_crop: Some(v1::RandomResizedCrop::default()),
            horizontal_flip: 0.5,
            vertical_flip: 0.3,
            color_jitter: (batch > 1).then_some(jitter),
            random_erasing: Some(v1::RandomErasing::default()),
            normalize,
            ..Default::default()
        }),
        mix: Some(v1::MixSpec { policies: policies.into_iter().collect(), ..Default::default() }),
        output: Some(output),
        ..Default::default()
    }
}

/// Three real tiles, whole.
fn tiles() -> Sources {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/points");
    let record = |name: &str| {
        let packed = parts::pack(&[(name, &fs::read(folder.join(name)).unwrap())]);
        (name.to_owned(), packed.into(), "tiles".to_owned())
    };
    let records = ["autzen_1k.laz", "ign_lidarhd_37k.laz", "urban_25k.laz"].map(record);
    let source = Memory::scenes(records.into()).unwrap();
    Sources::from([("tiles".to_owned(), Arc::new(source) as Arc<dyn Source>)])
}

/// Every transform; a budget that thins.
fn scenes(policy: Option<&str>, batch: u32) -> v1::JobSpec {
    let policies = policy.map(|p| v1::PolicySpec { name: p.into(), ..Default::default() });
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "tiles".into(), ..Default::default() }],
        seed: 11,
        global_batch: batch,
        mix_block: batch,
        points: Some(v1::PointSpec {
            max_points: 9001 * u64::from(batch),
            max_scene_points: 15_000,
            features: ["color", "intensity", "coord", "distance"].map(String::from).into(),
            fill: [("color".to_owned(), 99.0)].into(),
            shift: true,
            flip_x: 0.5,
            flip_y: 0.5,
            elastic: vec![
                v1::Elastic { granularity: 30.0, magnitude: 20.0 },
                v1::Elastic { granularity: 90.0, magnitude: 50.0 },
            ],
            scale: vec![0.9, 1.1],
            rotate_z: vec![-3.0, 3.0],
            tilt: vec![-0.1, 0.1],
            jitter: Some(v1::PointJitter { sigma: 0.02, clip: 0.05 }),
            color: Some(v1::PointColor {
                brightness: 0.2,
                contrast: 0.2,
                shift: 20.0,
                drop: 0.2,
                jitter: 3.0,
            }),
            dropout: Some(v1::PointDropout { p: 0.5, fraction: 0.3 }),
            voxel: Some(v1::VoxelSpec {
                size: 2.0,
                pick: v1::VoxelPick::Random as i32,
                inverse: true,
                count: true,
                majority: true,
            }),
            ..Default::default()
        }),
        mix: Some(v1::MixSpec { policies: policies.into_iter().collect(), ..Default::default() }),
        ..Default::default()
    }
}

async fn digests() -> String {
    use v1::{Dtype, ImageLayout};
    let (sources, assembler) = (photos(), Assembler::new(2, 2, 1 << 20).unwrap());
    let mut out = String::from("# policy batch type layout step: BLAKE3 of the pixels, first 32 digits\n");
    let digest = async |spec: v1::JobSpec, sources: &Sources, step| {
        let job = job::resolve("golden", spec, sources).unwrap().open(&store::memory()).unwrap();
        let places = job.feed.order.step(step);
        let at = BlockAt { step, slot: 0, places };
        let block = assembler.block(job.feed.clone(), at, None, &assembler.turns()).await.unwrap();
        let mut hasher = blake3::Hasher::new();
        block.tensors.iter().for_each(|tensor| {
            hasher.update(&tensor.bytes);
        });
        job::hex(hasher.finalize().as_bytes())[..32].to_owned()
    };
    for policy in POLICIES.iter().map(|p| Some(p.name())).chain([None]) {
        for (batch, dtype, layout) in [
            (7, Dtype::U8, ImageLayout::Nchw),
            (7, Dtype::U8, ImageLayout::Nhwc),
            (5, Dtype::F16, ImageLayout::Nchw),
            (5, Dtype::Bf16, ImageLayout::Nhwc),
            (3, Dtype::F32, ImageLayout::Nchw),
            (1, Dtype::U8, ImageLayout::Nchw),
        ] {
            for step in [0, 1_000_003] {
                let digest = digest(spec(policy, batch, dtype, layout), &sources, step).await;
                let name = policy.unwrap_or("clean");
                writeln!(out, "{name} {batch} {dtype:?} {layout:?} {step}: {digest}").unwrap();
            }
        }
    }
    let tiles = tiles();
    for policy in points::POLICIES.iter().map(|p| Some(p.name())).chain([None]) {
        for batch in [7, 5, 1] {
            for step in [0, 1_000_003] {
                let digest = digest(scenes(policy, batch), &tiles, step).await;
                writeln!(out, "{} scenes {batch} {step}: {digest}", policy.unwrap_or("clean")).unwrap();
            }
        }
    }
    out
}

#[tokio::test]
async fn bytes_are_those_of_this_numerics() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bytes.txt");
    let now = digests().await;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap();
    for (now, kept) in now.lines().zip(kept.lines()) {
        assert_eq!(now, kept, "other bytes than `{}` promises: see the top of this file", job::NUMERICS);
    }
    assert_eq!(
        now.lines().count(),
        kept.lines().count(),
        "policies were added or removed: see the top of this file"
    );
}

//! Golden bytes: every policy on real photographs at odd sizes and odd batches, hashed.
//!
//! A digest that changes means that the same job gives other bytes than yesterday: raise `job::NUMERICS`, then
//! `UPDATE_GOLDEN=1 cargo test -p mixfeed-server --test golden` and say why in the commit.
#![allow(clippy::unwrap_used)]

use mixfeed_proto as v1;
use mixfeed_server::assemble::{Assembler, BlockAt};
use mixfeed_server::plan::image::POLICIES;
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

async fn digests() -> String {
    use v1::{Dtype, ImageLayout};
    let (sources, assembler) = (photos(), Assembler::new(2, 2, 1 << 20).unwrap());
    let mut out = String::from("# policy batch type layout step: BLAKE3 of the pixels, first 32 digits\n");
    for policy in POLICIES.iter().map(|p| Some(p.name())).chain([None]) {
        for (batch, dtype, layout) in [
            (7, Dtype::U8, ImageLayout::Nchw),
            (7, Dtype::U8, ImageLayout::Nhwc),
            (5, Dtype::F16, ImageLayout::Nchw),
            (5, Dtype::Bf16, ImageLayout::Nhwc),
            (3, Dtype::F32, ImageLayout::Nchw),
            (1, Dtype::U8, ImageLayout::Nchw),
        ] {
            let job = job::resolve("golden", spec(policy, batch, dtype, layout), &sources)
                .unwrap()
                .open(&store::memory())
                .unwrap();
            for step in [0, 1_000_003] {
                let places = job.feed.order.step(step);
                let block = assembler
                    .block(job.feed.clone(), BlockAt { step, slot: 0, places }, None, &assembler.turns())
                    .await
                    .unwrap();
                let digest = &job::hex(blake3::hash(&block.tensors[0].bytes).as_bytes())[..32];
                let name = policy.unwrap_or("clean");
                writeln!(out, "{name} {batch} {dtype:?} {layout:?} {step}: {digest}").unwrap();
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

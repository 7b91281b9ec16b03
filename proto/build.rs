//! Compiles `mixfeed/v1/*.proto` without protoc and writes the descriptor set for reflection.

use prost::Message;
use std::{env, error::Error, fs, path::Path};

const FILES: [&str; 5] = [
    "mixfeed/v1/args.proto",
    "mixfeed/v1/batch.proto",
    "mixfeed/v1/job.proto",
    "mixfeed/v1/feed_service.proto",
    "mixfeed/v1/mixture_service.proto",
];

/// Fields of the job spec that a person writes by name in TOML ("nchw") and the wire carries as an enum.
const NAMED_ENUMS: [(&str, &str); 16] = [
    ("GroupSpec.exhaustion", "exhaustion"),
    ("OutputSpec.dtype", "dtype"),
    ("OutputSpec.layout", "layout"),
    ("OutputSpec.labels", "label_layout"),
    ("OutputSpec.delivery", "delivery"),
    ("MixSpec.granularity", "granularity"),
    ("MixSpec.pairing", "pairing"),
    ("MixSpec.choose", "choose"),
    ("Schedule.warmup", "warmup"),
    ("JobSpec.last_batch", "last_batch"),
    ("TokenSpec.packing", "packing"),
    ("MixtureSpec.transform", "transform"),
    ("MixtureSpec.barrier", "barrier"),
    ("MixtureSpec.reduce", "reduce"),
    ("PointSpec.unmapped", "unmapped"),
    ("VoxelSpec.pick", "voxel_pick"),
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Payloads stay `Bytes`: a decoded chunk is a view on the received frame.
    let mut builder = tonic_prost_build::configure().bytes(".").btree_map(".");
    for message in SPEC_MESSAGES {
        builder = builder.message_attribute(
            format!(".mixfeed.v1.{message}"),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, deny_unknown_fields)]",
        );
    }
    builder = builder.message_attribute(
        ".mixfeed.v1.Vector",
        "#[derive(serde::Serialize, serde::Deserialize)] #[serde(transparent)]",
    );
    for (field, module) in NAMED_ENUMS {
        builder = builder.field_attribute(
            format!(".mixfeed.v1.{field}"),
            format!("#[serde(with = \"crate::names::{module}\")]"),
        );
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

const SPEC_MESSAGES: [&str; 27] = [
    "JobSpec",
    "GroupSpec",
    "ImageSpec",
    "RandomResizedCrop",
    "ResizeCenterCrop",
    "ColorJitter",
    "RandomErasing",
    "Normalize",
    "OutputSpec",
    "MixSpec",
    "PolicySpec",
    "Schedule",
    "LimitSpec",
    "TokenSpec",
    "HeldOutSpec",
    "MixtureSpec",
    "EstimatorSpec",
    "TaskSpec",
    "BoundSpec",
    "PointSpec",
    "LabelMap",
    "Elastic",
    "PointJitter",
    "PointColor",
    "PointDropout",
    "VoxelSpec",
    "PointCompat",
];

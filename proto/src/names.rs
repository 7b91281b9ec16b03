//! Enums of the job spec by name, as people write them in TOML: `layout = "nchw"` for `IMAGE_LAYOUT_NCHW`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

macro_rules! named {
    ($module:ident, $type:ty, $prefix:literal, [$($name:literal),+]) => {
        #[doc = concat!("Names of [`", stringify!($type), "`](", stringify!($type), ").")]
        pub mod $module {
            use super::*;

            /// Names in lower case, without the enum's prefix.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Value of a name; `None` for an unknown one.
            pub fn parse(name: &str) -> Option<$type> {
                if !NAMES.contains(&name) {
                    return None;
                }
                <$type>::from_str_name(&format!("{}{}", $prefix, name.to_ascii_uppercase()))
            }

            /// Name of a value; "unspecified" for numbers this version doesn't know.
            pub fn name(value: i32) -> String {
                let value = <$type>::try_from(value).unwrap_or_default();
                value.as_str_name().trim_start_matches($prefix).to_ascii_lowercase()
            }

            pub(crate) fn serialize<S: Serializer>(value: &i32, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(&name(*value))
            }

            pub(crate) fn deserialize<'a, D: Deserializer<'a>>(input: D) -> Result<i32, D::Error> {
                let text = String::deserialize(input)?;
                if text == "unspecified" {
                    return Ok(0);
                }
                parse(&text).map(|v| v as i32).ok_or_else(|| {
                    D::Error::custom(format!("unknown value `{text}`, want one of {}", NAMES.join(", ")))
                })
            }
        }
    };
}

use crate as v1;

named!(exhaustion, v1::Exhaustion, "EXHAUSTION_", ["repeat", "stop_first", "stop_last", "drop", "cap"]);
named!(last_batch, v1::LastBatch, "LAST_BATCH_", ["drop", "partial", "pad"]);
named!(dtype, v1::Dtype, "DTYPE_", ["u8", "f16", "bf16", "f32", "f64", "i32", "i64", "u32", "u64", "u16"]);
named!(layout, v1::ImageLayout, "IMAGE_LAYOUT_", ["nchw", "nhwc"]);
named!(
    label_layout,
    v1::LabelLayout,
    "LABEL_LAYOUT_",
    ["pair", "dense", "pair2", "kway", "map", "boxes", "reg", "points"]
);
named!(unmapped, v1::Unmapped, "UNMAPPED_", ["ignore", "refuse"]);
named!(voxel_pick, v1::VoxelPick, "VOXEL_PICK_", ["first", "random"]);
named!(delivery, v1::Delivery, "DELIVERY_", ["mixed", "recipe", "both"]);
named!(granularity, v1::Granularity, "GRANULARITY_", ["batch", "pair", "elem", "half"]);
named!(
    pairing,
    v1::Pairing,
    "PAIRING_",
    ["flip", "roll1", "perm", "derange", "same_class", "different_class", "consecutive"]
);
named!(choose, v1::Choose, "CHOOSE_", ["batch", "row"]);
named!(warmup, v1::Warmup, "WARMUP_", ["linear", "cosine"]);
named!(packing, v1::Packing, "PACKING_", ["concat", "best_fit", "document"]);
named!(transform, v1::Transform, "TRANSFORM_", ["loss", "perplexity"]);
named!(barrier, v1::Barrier, "BARRIER_", ["strict", "segment", "lagged"]);
named!(reduce, v1::Reduce, "REDUCE_", ["mean", "trimmed_mean", "nearest"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_value_and_comes_back() {
        fn check(names: &[&str], there: impl Fn(&str) -> Option<i32>, back: impl Fn(i32) -> String) {
            for name in names {
                let value = there(name).unwrap_or_else(|| panic!("{name} is no value"));
                assert_eq!(back(value), *name);
            }
        }
        macro_rules! all { ($($m:ident),+) => {$(check($m::NAMES, |n| $m::parse(n).map(|v| v as i32), $m::name);)+} }
        all!(
            exhaustion,
            last_batch,
            dtype,
            layout,
            label_layout,
            delivery,
            granularity,
            pairing,
            choose,
            warmup,
            packing,
            transform,
            barrier,
            reduce,
            unmapped,
            voxel_pick
        );
    }
}

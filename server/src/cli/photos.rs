//! The embedded photographs: 72 tiles in 6 groups, see demo-data/NOTICE.md.

use crate::Sources;
use crate::source::Memory;
use bytes::Bytes;
use mixfeed_proto as v1;
use std::sync::Arc;

/// Name, class, bytes.
const PHOTOS: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/photos.rs"));

/// The source "photos".
pub fn sources() -> Sources {
    let records = PHOTOS.iter();
    let records =
        records.map(|(name, class, bytes)| (name.to_string(), Bytes::from_static(bytes), class.to_string()));
    let source: Arc<dyn crate::source::Source> =
        Arc::new(Memory::new(records.collect()).expect("names of files are unique"));
    Sources::from([("photos".to_owned(), source)])
}

/// A job on the photographs: `batch` rows of 224 x 224 in one pairing block, random crops and mirrors.
pub fn job(seed: u64, batch: u32, policies: Vec<v1::PolicySpec>) -> v1::JobSpec {
    v1::JobSpec {
        groups: vec![v1::GroupSpec { group: "photos".into(), ..Default::default() }],
        seed,
        global_batch: batch,
        mix_block: batch,
        image: Some(v1::ImageSpec {
            height: 224,
            width: 224,
            random_resized_crop: Some(v1::RandomResizedCrop { scale: vec![0.4, 1.0], ratio: Vec::new() }),
            horizontal_flip: 0.5,
            ..Default::default()
        }),
        mix: Some(v1::MixSpec {
            policies,
            choose: v1::Choose::Row as i32,
            pairing: v1::Pairing::Derange as i32,
            ..Default::default()
        }),
        ..Default::default()
    }
}

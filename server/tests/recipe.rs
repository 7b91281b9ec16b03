//! Deliveries `recipe` and `both`: clean rows and plans beside, or instead of, mixed rows.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::{Batch, Error, EvalOptions, StreamOptions};
use mixfeed_proto::{self as v1, Delivery, Granularity};
use stand::{Server, sources, spec};

const ROW: usize = 33 * 45 * 3;

fn delivered(delivery: Delivery) -> v1::JobSpec {
    let output = v1::OutputSpec { delivery: delivery as i32, ..Default::default() };
    v1::JobSpec { output: Some(output), ..spec() }
}

async fn batches(spec: &v1::JobSpec, rank: u32, world_size: u32) -> (v1::JobInfo, Vec<Batch>) {
    let server = Server::start(sources()).await;
    let client = server.open(spec).await;
    let info = client.describe_job("job").await.unwrap();
    let options = StreamOptions { rank, world_size, ..Default::default() };
    let mut stream = client.stream("job", options).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(stream.next_batch().await.unwrap().unwrap());
    }
    (info, all)
}

fn bytes(batch: &Batch, name: &str) -> Vec<u8> {
    batch.tensor(name).unwrap_or_else(|| panic!("no {name}")).bytes.to_vec()
}

#[tokio::test]
async fn mixed_rows_are_those_of_any_delivery_and_clean_rows_those_of_an_unmixed_job() {
    let (_, mixed) = batches(&delivered(Delivery::Mixed), 0, 1).await;
    let (info, both) = batches(&delivered(Delivery::Both), 0, 1).await;
    let (_, recipe) = batches(&delivered(Delivery::Recipe), 0, 1).await;
    let (_, clean) = batches(&v1::JobSpec { mix: None, ..spec() }, 0, 1).await;
    for (((mixed, both), recipe), clean) in mixed.iter().zip(&both).zip(&recipe).zip(&clean) {
        for shared in mixed.tensors() {
            assert_eq!(bytes(both, shared.name), shared.bytes, "{}", shared.name);
        }
        assert!(mixed.tensor("image.clean").is_none() && mixed.tensor("plan.op").is_none());
        assert_eq!(bytes(both, "image.clean"), bytes(clean, "image"));
        assert_ne!(bytes(both, "image.clean"), bytes(both, "image"));
        assert!(recipe.tensor("image").is_none());
        for name in ["image.clean", "plan.base", "plan.op", "plan.partner", "label.weight"] {
            assert_eq!(bytes(recipe, name), bytes(both, name), "{name}");
        }
        let sent: usize = both.tensors().map(|t| t.bytes.len()).sum();
        assert_eq!(info.step_bytes, sent as u64);
    }
}

#[tokio::test]
async fn half_of_the_rows_comes_with_all_clean_rows_and_slots_are_those_of_the_step() {
    let mut spec = delivered(Delivery::Recipe);
    spec.mix.as_mut().unwrap().set_granularity(Granularity::Half);
    spec.mix.as_mut().unwrap().set_pairing(v1::Pairing::Consecutive);
    let (_, whole) = batches(&spec, 0, 1).await;
    let (_, part) = batches(&spec, 1, 2).await;
    for (whole, part) in whole.iter().zip(&part) {
        let (base, slots) = (part.tensor("plan.base").unwrap().as_u32().unwrap(), part.slots());
        assert_eq!((base, slots), (&[6, 8, 9, 11][..], 6..12), "blocks of 3, every second row");
        assert_eq!(bytes(part, "image.clean").len(), 6 * ROW);
        let second = |name: &str| {
            let all = bytes(whole, name);
            all[all.len() / 2..].to_vec()
        };
        for name in ["image.clean", "plan.base", "plan.op"] {
            assert_eq!(bytes(part, name), second(name), "{name}");
        }
    }
}

#[tokio::test]
async fn eval_sets_are_never_recipes() {
    let server = Server::start(sources()).await;
    let client = server.open(&delivered(Delivery::Recipe)).await;
    let eval = EvalOptions {
        group: "pics/ant".into(),
        batch: 6,
        rank: 0,
        world_size: 1,
        last_batch: v1::LastBatch::Partial,
        from_step: 0,
        held_out: false,
    };
    let batch = client.eval("job", eval).await.unwrap().next_batch().await.unwrap().unwrap();
    assert!(batch.tensor("image").is_some() && batch.tensor("image.clean").is_none());
}

#[tokio::test]
async fn a_recipe_of_floats_or_of_too_many_words_is_refused_by_name() {
    let server = Server::start(sources()).await;
    let refused = async |spec: &v1::JobSpec| match server.client().await.open_job("no", spec).await {
        Err(Error::Invalid { violations, .. }) => violations[0].field.clone(),
        other => panic!("{other:?}"),
    };
    let mut floats = delivered(Delivery::Recipe);
    floats.output.as_mut().unwrap().set_dtype(v1::Dtype::F32);
    assert_eq!(refused(&floats).await, "output.dtype");
    let mut large = delivered(Delivery::Both);
    (large.image.as_mut().unwrap().height, large.image.as_mut().unwrap().width) = (2048, 2048);
    large.mix.as_mut().unwrap().policies.retain(|p| p.name == "fmix");
    large.mix.as_mut().unwrap().policies[0].params.insert("max_soft".into(), 0.1);
    assert_eq!(refused(&large).await, "output.delivery");
}

//! Where sequences end, and sets that are served once.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::{BatchStream, EvalOptions, StreamOptions};
use mixfeed_proto::{self as v1, Exhaustion, LastBatch};
use mixfeed_server::batch::flags;
use stand::{Server, sources, spec};
use std::collections::BTreeMap;

/// Rows per step, ids with their counts, flags of all rows.
async fn drain(stream: &mut BatchStream) -> (Vec<usize>, BTreeMap<(u32, u64), u32>, Vec<u32>) {
    let (mut rows, mut ids, mut all_flags) = (Vec::new(), BTreeMap::new(), Vec::new());
    while let Some(batch) = stream.next_batch().await.unwrap() {
        let column = |name: &str| batch.tensor(name).unwrap();
        let flags = column("sample.flags").as_u32().unwrap();
        let (group, index) =
            (column("sample.group").as_u32().unwrap(), column("sample.index").as_u64().unwrap());
        assert_eq!(batch.images().unwrap().shape[0], flags.len());
        assert_eq!(batch.partial(), (flags.len() as u32) < batch.slots().end - batch.slots().start);
        rows.push(flags.len());
        for i in (0..flags.len()).filter(|i| flags[*i] & flags::PADDED == 0) {
            *ids.entry((group[2 * i], index[2 * i])).or_insert(0) += 1;
        }
        all_flags.extend_from_slice(flags);
    }
    (rows, ids, all_flags)
}

fn once(last: LastBatch) -> v1::JobSpec {
    let mut spec = spec();
    // 23 records: the job ends when any group would repeat, which is after all of them.
    spec.groups[0].set_exhaustion(Exhaustion::StopLast);
    spec.set_last_batch(last);
    spec
}

#[tokio::test]
async fn leftover_rows_are_dropped_short_or_padded_and_always_told() {
    for (last, rows, dropped, padded) in [
        (LastBatch::Drop, vec![12], 11, 0),
        (LastBatch::Partial, vec![12, 11], 0, 0),
        (LastBatch::Pad, vec![12, 12], 0, 1),
    ] {
        let server = Server::start(sources()).await;
        let client = server.open(&once(last)).await;
        let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
        let (seen, ids, flags) = drain(&mut stream).await;
        assert_eq!(seen, rows, "{last:?}");
        assert!(ids.values().all(|c| *c == 1), "{last:?}: a record came twice");
        assert_eq!(ids.len(), seen.iter().sum::<usize>() - padded as usize);
        assert_eq!(flags.iter().filter(|f| *f & flags::PADDED != 0).count() as u64, padded);
        let end = stream.end().unwrap();
        assert_eq!((end.steps, end.dropped_rows, end.padded_rows), (rows.len() as u64, dropped, padded));
    }
}

#[tokio::test]
async fn every_rank_gets_the_short_step_even_without_rows() {
    let mut spec = once(LastBatch::Partial);
    spec.max_steps = 0;
    spec.groups[0].group = "pics/cat".into(); // 5 records in steps of 12
    let server = Server::start(sources()).await;
    let client = server.open(&spec).await;
    let mut seen = Vec::new();
    for rank in 0..4 {
        let options = StreamOptions { rank, world_size: 4, ..Default::default() };
        seen.push(drain(&mut client.stream("job", options).await.unwrap()).await.0);
    }
    assert_eq!(seen, [vec![3], vec![2], vec![0], vec![0]]);
}

#[tokio::test]
async fn an_eval_set_comes_in_order_once_and_unmixed_on_any_number_of_ranks() {
    let server = Server::start(sources()).await;
    let client = server.open(&spec()).await;
    let eval = |rank, world_size, last_batch| EvalOptions {
        group: "pics/ant".into(),
        batch: 6,
        rank,
        world_size,
        last_batch,
        from_step: 0,
        held_out: false,
    };
    let mut whole = client.eval("job", eval(0, 1, LastBatch::Partial)).await.unwrap();
    let mut order = Vec::new();
    while let Some(batch) = whole.next_batch().await.unwrap() {
        let index = batch.tensor("sample.index").unwrap().as_u64().unwrap().to_vec();
        assert!(index.chunks(2).all(|p| p[0] == p[1]), "own partner: unmixed");
        let policy = batch.tensor("plan.policy").unwrap().as_i32().unwrap().to_vec();
        assert!(policy.iter().all(|p| *p == -1));
        assert!(batch.cursor().is_none());
        order.extend(index.chunks(2).map(|p| p[0]));
    }
    assert_eq!(order, (0..11).collect::<Vec<_>>());
    for (last, rows) in
        [(LastBatch::Partial, [vec![3, 3], vec![3, 2]]), (LastBatch::Pad, [vec![3, 3], vec![3, 3]])]
    {
        for rank in 0..2 {
            let mut stream = client.eval("job", eval(rank, 2, last)).await.unwrap();
            assert_eq!(drain(&mut stream).await.0, rows[rank as usize], "{last:?}");
        }
    }
}

#[tokio::test]
async fn half_granularity_returns_half_of_each_block() {
    let mut spec = spec();
    spec.mix.as_mut().unwrap().granularity = v1::Granularity::Half as i32;
    spec.max_steps = 2;
    let server = Server::start(sources()).await;
    let client = server.open(&spec).await;
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    let batch = stream.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.images().unwrap().shape[0], 8, "4 blocks of 3 slots, 2 rows each");
    assert!(!batch.partial());
}

#[tokio::test]
async fn every_layout_type_and_label_form_is_served() {
    use v1::{Dtype, ImageLayout, LabelLayout, OutputSpec};
    let server = Server::start(sources()).await;
    let client = server.client().await;
    let mut reference: Option<Vec<f32>> = None;
    for (i, dtype) in [Dtype::U8, Dtype::F16, Dtype::Bf16, Dtype::F32].into_iter().enumerate() {
        for layout in [ImageLayout::Nchw, ImageLayout::Nhwc] {
            let mut spec = spec();
            let mut output = OutputSpec::default();
            output.set_dtype(dtype);
            output.set_layout(layout);
            output.set_labels(if i % 2 == 0 { LabelLayout::Pair } else { LabelLayout::Dense });
            spec.output = Some(output);
            spec.mix.as_mut().unwrap().smoothing = 0.1;
            let name = format!("{dtype:?}-{layout:?}");
            client.open_job(&name, &spec).await.unwrap();
            let mut stream = client.stream(&name, StreamOptions::default()).await.unwrap();
            let batch = stream.next_batch().await.unwrap().unwrap();
            let image = batch.images().unwrap();
            let shape = if layout == ImageLayout::Nchw { [12, 3, 33, 45] } else { [12, 33, 45, 3] };
            assert_eq!(image.shape, shape);
            let values: Vec<f32> = match dtype {
                Dtype::U8 => image.as_u8().unwrap().iter().map(|v| f32::from(*v) / 255.0).collect(),
                Dtype::F16 => image.as_f16().unwrap().iter().map(|v| v.to_f32()).collect(),
                Dtype::F32 => image.as_f32().unwrap().to_vec(),
                Dtype::Bf16 => image.as_bf16().unwrap().iter().map(|v| v.to_f32()).collect(),
                Dtype::Unspecified
                | Dtype::F64
                | Dtype::I32
                | Dtype::I64
                | Dtype::U16
                | Dtype::U32
                | Dtype::U64 => unreachable!(),
            };
            let planar = if layout == ImageLayout::Nhwc { transposed(&values) } else { values };
            let first = reference.get_or_insert(planar.clone());
            // u8 rounds blends to 1/255, bf16 keeps 8 bits.
            let worst = first.iter().zip(&planar).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 0.5 / 255.0 + 1.0 / 256.0, "{name}: {worst}");
            if let Some(dense) = batch.tensor("label.dense") {
                assert_eq!((dense.shape, batch.smoothing()), (&[12, 3][..], 0.0));
                let rows = dense.as_f32().unwrap().chunks(3);
                assert!(rows.map(|r| r.iter().sum::<f32>()).all(|s| (s - 1.0).abs() < 1e-5));
            } else {
                assert_eq!(batch.smoothing(), 0.1);
            }
        }
    }
}

fn transposed(nhwc: &[f32]) -> Vec<f32> {
    let (h, w) = (33, 45);
    let at = |n: usize, c: usize, p: usize| nhwc[(n * h * w + p) * 3 + c];
    (0..12)
        .flat_map(|n| (0..3).flat_map(move |c| (0..h * w).map(move |p| (n, c, p))))
        .map(|(n, c, p)| at(n, c, p))
        .collect()
}

//! What is held out is served apart, and never trained on.

use super::*;

#[tokio::test]
async fn held_out_documents_are_pinned_whole_and_never_trained_on() {
    let server = Server::start(memory()).await;
    let client = server.client().await;
    for packing in PACKINGS {
        let mut sets = Vec::new();
        for seed in [1, 2] {
            let name = format!("{}-{seed}", packing.as_str_name());
            let held = v1::HeldOutSpec { fraction: 0.2, max_records: 6 };
            let spec = v1::JobSpec { seed, held_out: Some(held), ..one_epoch(packing, "a") };
            let info = client.open_job(&name, &spec).await.unwrap();
            assert_eq!(info.eval_digest.len(), 32);
            let mut both = Vec::new();
            for batch in [4, 7] {
                both.push(drain(&mut client.eval(&name, held_out("toks/a", batch)).await.unwrap()).await);
            }
            assert_eq!(both[0], both[1], "the batch size changes nothing");
            assert_eq!(info.eval_sets[0].rows as usize, both[0].len());
            let (eval, train) = (by_document(&both[0]), by_document(&epoch(&client, &name).await));
            assert!(eval.keys().all(|document| !train.contains_key(document)), "{name}");
            assert!(
                eval.iter().all(|(document, ids)| *ids == documents_of(*document)),
                "whole to the last token"
            );
            let not_empty = documents()[0].1.iter().filter(|d| !d.is_empty()).count();
            assert!(eval.len() <= 6 && eval.len() + train.len() <= not_empty);
            assert!(packing == v1::Packing::Concat || eval.len() + train.len() == not_empty);
            sets.push((both.remove(0), info.eval_sets[0].digest.clone(), info.eval_digest));
        }
        assert_eq!(sets[0], sets[1], "the seed changes nothing");
    }
    client.open_job("none", &spec(v1::Packing::Concat)).await.unwrap();
    let refused = client.eval("none", held_out("toks/a", 4)).await;
    let error = match refused {
        Ok(mut stream) => stream.next_batch().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("held_out"), "{error}");
}

#[tokio::test]
async fn pictures_are_held_out_too() {
    let server = Server::start(sources()).await;
    let client = server.client().await;
    let everything = stand::spec();
    client.open_job("all", &everything).await.unwrap();
    let held = v1::HeldOutSpec { fraction: 0.3, max_records: 0 };
    let info = client.open_job("some", &v1::JobSpec { held_out: Some(held), ..everything }).await.unwrap();
    assert_eq!(info.eval_sets.iter().map(|s| s.rows).collect::<Vec<_>>(), [3, 2, 2]);
    assert_eq!(info.groups.iter().map(|g| g.records).collect::<Vec<_>>(), [8, 5, 3]);
    assert!(info.group_tokens.is_empty());
    let pixels = async |job: &str, held_out: bool| {
        let options = EvalOptions { held_out, ..self::held_out("pics", 5) };
        let mut stream = client.eval(job, options).await.unwrap();
        let mut out = BTreeSet::new();
        while let Some(batch) = stream.next_batch().await.unwrap() {
            let images = batch.images().unwrap();
            out.extend(images.bytes.chunks(images.bytes.len() / images.shape[0]).map(<[u8]>::to_vec));
        }
        out
    };
    let (all, eval, train) =
        (pixels("all", false).await, pixels("some", true).await, pixels("some", false).await);
    assert_eq!((all.len(), eval.len(), train.len()), (23, 7, 16));
    assert!(eval.is_disjoint(&train) && eval.union(&train).cloned().collect::<BTreeSet<_>>() == all);
}

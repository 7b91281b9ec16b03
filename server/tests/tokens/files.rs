//! Ids of files of every format, and rows of every size.

use super::*;

/// Files of every format: Megatron, raw ids with marks, text.
fn files(folder: &Path) -> Sources {
    let docs: Vec<Vec<u16>> = (0..30).map(|d| (0..d % 7 + 3).map(|t| d * 100 + t).collect()).collect();
    let raw = |ids: &[u16]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let mut index = b"MMIDIDX\x00\x00".to_vec();
    index.extend(1u64.to_le_bytes());
    index.push(8);
    index.extend(30u64.to_le_bytes());
    index.extend(31u64.to_le_bytes());
    docs.iter().for_each(|d| index.extend((d.len() as i32).to_le_bytes()));
    let ends = docs.iter().scan(0, |end, d| Some(std::mem::replace(end, *end + d.len() as i64 * 2)));
    ends.for_each(|at| index.extend(at.to_le_bytes()));
    (0..=30i64).for_each(|border| index.extend(border.to_le_bytes()));
    fs::write(folder.join("m.idx"), index).unwrap();
    fs::write(folder.join("m.bin"), raw(&docs.concat())).unwrap();
    let marked: Vec<u16> = docs.iter().flat_map(|d| d.iter().copied().chain([9999])).collect();
    fs::write(folder.join("n.bin"), raw(&marked)).unwrap();
    let text: String = (0..30).map(|d| format!("line {d} of a text\n")).collect();
    fs::write(folder.join("t.txt"), text).unwrap();
    let megatron = Declaration::new(Kind::Tokens, "m.bin");
    let nano = Declaration {
        eod: Some(9999),
        groups: Some(GroupBy::Shard),
        ..Declaration::new(Kind::Tokens, "n.bin")
    };
    let text = Declaration {
        tokenizer: Some("r50k_base".into()),
        documents: Some(Documents::Line),
        ..Declaration::new(Kind::Text, "t.txt")
    };
    let open = |(name, declaration): (&str, Declaration)| {
        (name.to_owned(), source::open(name, &declaration, folder, &|_, _| {}).unwrap())
    };
    [("mega", megatron), ("nano", nano), ("text", text)].into_iter().map(open).collect()
}

#[tokio::test]
async fn files_of_every_format_are_served_until_one_changes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(files(folder.path())).await;
    let groups = ["mega", "nano", "text"].map(|g| v1::GroupSpec { group: g.into(), ..Default::default() });
    let spec = v1::JobSpec { groups: groups.to_vec(), ..spec(v1::Packing::Document) };
    let client = server.open(&spec).await;
    let mut seen = [const { BTreeSet::new() }; 3];
    for batch in pull(&client, 0, 1, 0, 20).await {
        for (group, _, ids) in rows(&batch) {
            seen[group as usize].insert(ids);
        }
    }
    let mega = seen[0].iter().cloned().map(|ids| ids.into_iter().chain([9999]).collect::<Vec<i32>>());
    assert_eq!(mega.collect::<BTreeSet<_>>(), seen[1], "the same documents, with marks");
    assert!(seen[2].contains(&vec![1370, 657, 286, 257, 2420]), "`line 0 of a text`: {:?}", seen[2].first());
    assert_eq!(seen[2].len(), 30);

    fs::File::options().write(true).open(folder.path().join("m.bin")).unwrap().set_len(20).unwrap();
    let mut stream = client.stream("job", StreamOptions::default()).await.unwrap();
    let error = stream.next_batch().await.unwrap_err();
    assert!(error.to_string().contains("m.bin changed since it was indexed"), "{error}");
}

#[tokio::test]
async fn a_large_row_is_sent_in_pieces_within_the_budget() {
    let long: Vec<u32> = (0..3 << 20).collect();
    let source = TokenMemory::new(vec![("long".into(), vec![long])]).unwrap();
    let server = Server::start(named(source)).await;
    let groups = vec![v1::GroupSpec { group: "pics".into(), ..Default::default() }];
    let tokens = Some(v1::TokenSpec { seq_len: 1 << 20, labels: true, ..Default::default() });
    let client =
        server.open(&v1::JobSpec { groups, global_batch: 1, seed: 1, tokens, ..Default::default() }).await;
    let batch = pull(&client, 0, 1, 0, 1).await.remove(0);
    let tokens = batch.tokens().unwrap();
    let ids = tokens.row(0).unwrap();
    assert!(ids.len() == 1 << 20 && ids.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(tokens.labels().unwrap().unwrap()[..ids.len() - 1], ids[1..]);
}

use super::*;
use proptest::prelude::*;

/// What a body says, with contiguous chunks joined: splits must not be seen.
fn parse(body: &[u8], cuts: &[usize]) -> Result<Vec<Event>> {
    let mut parser = Parser::default();
    let mut events: Vec<Event> = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([body.len()]) {
        let mut frame = Bytes::copy_from_slice(&body[from..to]);
        from = to;
        while let Some(event) = parser.next(&mut frame)? {
            events.push(event);
        }
        assert!(frame.is_empty(), "unread bytes of a frame");
    }
    if parser.is_idle() { Ok(join(events)) } else { Err("unfinished message".into()) }
}

fn join(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        if let (
            Event::Data { tensor, offset, data },
            Some(Event::Data { tensor: t, offset: o, data: before }),
        ) = (&event, joined.last_mut())
            && (*tensor, *offset) == (*t, *o + before.len() as u64)
        {
            *before = [before.as_ref(), data.as_ref()].concat().into();
        } else {
            joined.push(event);
        }
    }
    joined
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn fixed(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | if value.len() == 8 { 1 } else { 5 }), value.to_vec()].concat()
}

fn chunk(fields: &[Vec<u8>]) -> Vec<u8> {
    framed(&bytes(CHUNK, &fields.concat()))
}

fn stock(part: v1::batch_part::Part) -> Vec<u8> {
    framed(&v1::BatchPart { part: Some(part) }.encode_to_vec())
}

/// Every legal way to write one chunk.
fn spellings(tensor: u64, offset: u64, data: &[u8]) -> Vec<Vec<u8>> {
    let (t, o, d) = (number(1, tensor), number(2, offset), bytes(3, data));
    let unknown = [number(9, 1 << 40), fixed(10, &[1; 8]), bytes(11, b"later"), fixed(12, &[2; 4])].concat();
    vec![
        chunk(&[t.clone(), o.clone(), d.clone()]),
        chunk(&[d.clone(), o.clone(), t.clone()]),
        chunk(&[o.clone(), d.clone(), t.clone()]),
        chunk(&[unknown.clone(), t.clone(), unknown.clone(), o.clone(), d.clone(), unknown.clone()]),
        chunk(&[number(1, 77), bytes(3, b"replaced"), number(2, 5), t.clone(), o.clone(), d.clone()]),
        framed(&[unknown.clone(), bytes(CHUNK, &[t, o, d].concat()), unknown].concat()),
    ]
}

fn cuts(len: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..=len, 0..12).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

fn any_body() -> impl Strategy<Value = (Vec<u8>, Vec<Event>)> {
    let data = proptest::collection::vec(any::<u8>(), 0..400);
    let chunk =
        (0..3u64, 0..5_000_000_000u64, data, 0..6usize).prop_map(|(tensor, offset, data, spelling)| {
            let body = spellings(tensor, offset, &data)[spelling].clone();
            (body, Event::Data { tensor: tensor as u32, offset, data: data.into() })
        });
    let header = (any::<u64>(), "[a-z]{0,20}").prop_map(|(step, name)| {
        let tensors = vec![v1::TensorDescriptor { name, shape: vec![3, step], ..Default::default() }];
        let header = v1::BatchHeader { step, tensors, epoch: 0.5, ..Default::default() };
        (stock(v1::batch_part::Part::Header(header.clone())), Event::Part(Part::Header(header)))
    });
    let end = proptest::collection::vec(any::<u32>(), 0..5).prop_map(|crc32c| {
        let end = v1::BatchEnd { crc32c, receipt: None };
        (stock(v1::batch_part::Part::End(end.clone())), Event::Part(Part::End(end)))
    });
    proptest::collection::vec(prop_oneof![chunk, header, end], 0..8).prop_map(|parts| {
        let (bodies, events): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (bodies.concat(), events)
    })
}

proptest! {
    #[test]
    fn any_split_of_any_spelling_says_the_same(
        (body, events, cuts) in any_body().prop_flat_map(|(body, events)| {
            let len = body.len();
            (Just(body), Just(events), cuts(len))
        })
    ) {
        let every: Vec<usize> = (0..body.len()).collect();
        let events = join(events);
        prop_assert_eq!(parse(&body, &cuts), Ok(events.clone()));
        prop_assert_eq!(parse(&body, &every), Ok(events));
    }

    #[test]
    fn damaged_bodies_fail_or_parse_but_always_alike(
        (body, at, value) in any_body().prop_filter("not empty", |(body, _)| !body.is_empty())
            .prop_flat_map(|(body, _)| { let len = body.len(); (Just(body), 0..len, any::<u8>()) })
    ) {
        let mut body = body;
        body[at] = value;
        let every: Vec<usize> = (0..body.len()).collect();
        prop_assert_eq!(parse(&body, &every), parse(&body, &[]));
    }
}

#[test]
fn every_spelling_of_a_chunk_means_the_same() {
    for data in [&b"pixels"[..], b""] {
        for (index, body) in spellings(2, 1 << 33, data).into_iter().enumerate() {
            let expected = Event::Data { tensor: 2, offset: 1 << 33, data: Bytes::copy_from_slice(data) };
            assert_eq!(parse(&body, &[]), Ok(vec![expected]), "spelling {index}");
        }
    }
    let absent = Event::Data { tensor: 1, offset: 0, data: Bytes::new() };
    assert_eq!(parse(&chunk(&[number(1, 1)]), &[]), Ok(vec![absent]));
}

#[test]
fn parts_of_a_later_version_are_passed_over() {
    let body = [framed(&bytes(15, b"new part")), framed(&[])].concat();
    assert_eq!(parse(&body, &[3]), Ok(vec![]));
}

#[test]
fn illegal_bodies_are_refused_by_reason() {
    let mut compressed = framed(&[]);
    compressed[0] = 1;
    let long_data = vec![0; MAX_PAYLOAD_BYTES + 1];
    let cases = [
        (compressed, "compression flag 1"),
        ([&[0u8][..], &u32::MAX.to_be_bytes()].concat(), "message of 4294967295 bytes"),
        (framed(&[0x0a]), "past the end"),
        (framed(&[0x0a, 0x80]), "past the end"),
        (framed(&[0x0a, 5, 1]), "field of 5 bytes in a message with 1"),
        (framed(&bytes(CHUNK, &[0x1a, 9, 1])), "field of 9 bytes in a message with 1"),
        (framed(&[0x11, 1, 2]), "field of 8 bytes"),
        (framed(&[0x0b]), "wire type 3"),
        (framed(&[0x00, 0]), "tag 0"),
        (framed(&[0x08, 1]), "wire type 0, expected 2"),
        (chunk(&[bytes(1, b"x")]), "wire type 2, expected 0"),
        (chunk(&[number(1, 1 << 32)]), "chunk of tensor 4294967296"),
        (chunk(&[number(2, u64::MAX), bytes(3, b"x")]), "chunk at offset"),
        (chunk(&[bytes(3, &long_data)]), "payload of 1048577 bytes"),
        (framed(&bytes(HEADER, &vec![0; MAX_HEAD_BYTES + 1])), "part of 65537 bytes"),
        (framed(&[bytes(END, &[]), bytes(END, &[])].concat()), "two parts"),
        (framed(&bytes(HEADER, &[0x08])), "part 1"),
        (framed(&[&[0x48][..], &[0xff; 11]].concat()), "64 bits"),
        (framed(&[])[..3].to_vec(), "unfinished"),
    ];
    for (body, reason) in cases {
        let error = parse(&body, &[]).expect_err(reason);
        assert!(error.contains(reason), "`{error}` should say `{reason}`");
    }
}

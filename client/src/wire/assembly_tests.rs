use super::*;
use crate::Labels;

fn descriptor(name: &str, dtype: v1::Dtype, shape: &[u64], bytes: u64) -> v1::TensorDescriptor {
    let (name, dtype, shape) = (name.into(), dtype.into(), shape.to_vec());
    v1::TensorDescriptor { name, dtype, shape, bytes, offsets: String::new() }
}

fn header() -> v1::BatchHeader {
    v1::BatchHeader {
        step: 4,
        rank: 1,
        world_size: 3,
        slot_begin: 2,
        slot_end: 3,
        tensors: vec![
            descriptor("image", v1::Dtype::U8, &[1, 3, 5, 7], 105),
            descriptor("label.weight", v1::Dtype::F32, &[1, 2], 8),
        ],
        cursor: Some(v1::Cursor { next_step: 5, ..Default::default() }),
        ..Default::default()
    }
}

fn expect() -> Expect {
    Expect { step: Some(4), slice: Some((1, 3)), cursor: true, max_bytes: 1000 }
}

fn begin(header: v1::BatchHeader) -> Result<Assembly, Error> {
    Assembly::new(header, &expect(), &Arc::default())
}

fn end(parts: &[&[u8]]) -> v1::BatchEnd {
    v1::BatchEnd { crc32c: parts.iter().map(|p| crc32c::crc32c(p)).collect(), receipt: None }
}

const PIXELS: [u8; 105] = [9; 105];
const WEIGHTS: [u8; 8] = [0, 0, 0x40, 0x3f, 0, 0, 0x80, 0x3e];

#[test]
fn interleaved_pieces_make_a_batch_with_aligned_tensors() {
    let mut assembly = begin(header()).expect("good");
    assembly.write(0, 0, &PIXELS[..1]).expect("in order");
    assembly.write(1, 0, &WEIGHTS[..3]).expect("in order");
    assembly.write(0, 1, &PIXELS[1..]).expect("in order");
    assembly.write(1, 3, &WEIGHTS[3..]).expect("in order");
    let batch = assembly.finish(end(&[&PIXELS, &WEIGHTS])).expect("complete");
    assert_eq!(batch.images().and_then(|t| t.as_u8()), Ok(&PIXELS[..]));
    assert_eq!(batch.tensor("label.weight").expect("there").as_f32(), Ok(&[0.75, 0.25][..]));
    assert!(batch.tensors().all(|t| (t.bytes.as_ptr() as usize).is_multiple_of(64)));
    assert_eq!(batch.slots(), 2..3);
    let wrong = batch.images().and_then(|t| t.as_f32()).expect_err("is u8").to_string();
    assert_eq!(wrong, "tensor `image` is u8 [1, 3, 5, 7], expected f32");
    assert!(batch.labels().expect_err("no classes").to_string().contains("`label.class` is absent"));
}

#[test]
fn headers_that_cannot_be_are_refused_before_memory_is_taken() {
    type Change = fn(&mut v1::BatchHeader);
    let cases: &[(Change, &str)] = &[
        (|h| h.step = 5, "step 5 arrived, expected 4"),
        (|h| h.rank = 0, "rank 0 of 3, expected 1"),
        (|h| h.slot_begin = 9, "slots 9..3"),
        (|h| h.cursor = None, "cursor to step None"),
        (|h| h.cursor = Some(v1::Cursor { next_step: 4, ..Default::default() }), "cursor to step Some(4)"),
        (|h| h.tensors[0].dtype = 0, "unknown dtype 0"),
        (|h| h.tensors[0].dtype = 99, "unknown dtype 99"),
        (|h| h.tensors[0].bytes = 104, "said to have 104"),
        (|h| h.tensors[0].shape = vec![1 << 40, 1 << 40], "said to have 105"),
        (|h| h.tensors[0] = descriptor("x", v1::Dtype::F64, &[1 << 61], 0), "said to have 0"),
        (|h| h.tensors[0] = descriptor("x", v1::Dtype::U8, &[u64::MAX], u64::MAX), "over its limit of 1000"),
        (|h| h.tensors[0] = descriptor("x", v1::Dtype::U8, &[950], 950), "`label.weight` of 8 bytes takes"),
        (|h| h.tensors[1].name = "image".into(), "`image` is empty or given twice"),
        (|h| h.tensors[1].name.clear(), "`` is empty"),
        (|h| h.tensors[0].offsets = "label.weight".into(), "no i64 tensor"),
        (|h| h.tensors[0].offsets = "gone".into(), "offsets `gone`"),
        (|h| h.tensors = vec![descriptor("x", v1::Dtype::U8, &[0], 0); 257], "257 tensors"),
    ];
    let pool = Arc::default();
    for (change, reason) in cases {
        let mut header = header();
        change(&mut header);
        let expect = if *reason == "`label.weight` of 8 bytes takes" {
            Expect { max_bytes: 960, ..expect() }
        } else {
            expect()
        };
        let error = Assembly::new(header, &expect, &pool).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` should say `{reason}`");
        assert_eq!(pool.free_bytes(), 0);
    }
}

#[test]
fn pieces_out_of_place_are_refused() {
    let cases: &[(u32, u64, usize, &str)] = &[
        (2, 0, 1, "chunk of tensor 2 in step 4, which has 2"),
        (0, 1, 1, "offset 1 of tensor `image` in step 4, expected 3"),
        (0, 4, 1, "offset 4"),
        (0, u64::MAX, 1, "offset 18446744073709551615"),
        (0, 3, 103, "up to byte 106 of tensor `image` in step 4, which has 105"),
        (1, 0, 9, "up to byte 9"),
    ];
    for (tensor, offset, len, reason) in cases {
        let mut assembly = begin(header()).expect("good");
        assembly.write(0, 0, &[1; 3]).expect("in order");
        let error = assembly.write(*tensor, *offset, &vec![0; *len]).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` should say `{reason}`");
    }
}

#[test]
fn incomplete_or_damaged_batches_do_not_finish() {
    let mut assembly = begin(header()).expect("good");
    assembly.write(0, 0, &PIXELS).expect("in order");
    let error = assembly.finish(end(&[&PIXELS, &WEIGHTS])).expect_err("weights are missing").to_string();
    assert!(error.contains("`label.weight` of step 4 ends after 0 of 8 bytes"), "{error}");

    let mut assembly = begin(header()).expect("good");
    assembly.write(0, 0, &PIXELS).expect("in order");
    let error = assembly.finish(end(&[&PIXELS])).expect_err("one checksum").to_string();
    assert!(error.contains("1 checksums for 2 tensors"), "{error}");

    let mut assembly = begin(header()).expect("good");
    assembly.write(0, 0, &PIXELS).expect("in order");
    assembly.write(1, 0, &WEIGHTS).expect("in order");
    let (expected, found) = (crc32c::crc32c(b"other"), crc32c::crc32c(&WEIGHTS));
    assert_eq!(
        assembly.finish(end(&[&PIXELS, b"other"])).expect_err("damaged"),
        Error::Corrupt { step: 4, tensor: "label.weight".into(), expected, found }
    );
}

#[test]
fn labels_come_sparse_or_dense() {
    let mut sparse = header();
    sparse.tensors = vec![
        descriptor("label.class", v1::Dtype::I32, &[1, 2], 8),
        descriptor("label.weight", v1::Dtype::F32, &[1, 2], 8),
    ];
    let classes = [3, 0, 0, 0, 7, 0, 0, 0];
    let mut assembly = begin(sparse).expect("good");
    assembly.write(0, 0, &classes).expect("in order");
    assembly.write(1, 0, &WEIGHTS).expect("in order");
    let batch = assembly.finish(end(&[&classes, &WEIGHTS])).expect("complete");
    let wanted = Labels::Sparse { classes: &[3, 7], weights: &[0.75, 0.25], per_row: 2 };
    assert_eq!(batch.labels(), Ok(wanted));

    let mut dense = header();
    dense.tensors = vec![descriptor("label.dense", v1::Dtype::F32, &[1, 2], 8)];
    let mut assembly = begin(dense).expect("good");
    assembly.write(0, 0, &WEIGHTS).expect("in order");
    let batch = assembly.finish(end(&[&WEIGHTS])).expect("complete");
    assert_eq!(batch.labels(), Ok(Labels::Dense { weights: &[0.75, 0.25], classes: 2 }));
}

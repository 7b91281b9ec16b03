//! Files that were cut, bent or made up. Nothing may panic, and what is refused is refused before memory is asked for.

use super::{
    made::{f32s, las, laz, npy, zip},
    tests::{AUTZEN, IGN, LIMITS, files, read},
    *,
};
use proptest::prelude::*;
use std::sync::LazyLock;

/// A small valid file of every format, and whether each cut of it must be told: text and scans are whole at every line
/// or point.
static FILES: LazyLock<Vec<(&str, Vec<u8>, bool)>> = LazyLock::new(|| {
    let table = f32s(&[1.0, 2.0, 3.0, 255.0, 0.0, 7.0, 4.0, 4.0, 5.0, 6.0, 0.0, 9.0, 8.0, 2.0]);
    let xyz = npy("<f4", false, "(2, 3)", &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let arrays = [("coord.npy", xyz.clone()), ("segment.npy", npy("<i4", true, "(2,)", &[1; 8]))];
    let ply = |format: &str, body: &[u8]| {
        let head = format!(
            "ply\nformat {format} 1.0\nelement vertex 2\nproperty float x\nproperty list uchar uchar l\n\
            property float y\nproperty float z\nend_header\n"
        );
        [head.as_bytes(), body].concat()
    };
    let vertex = [&f32s(&[1.0])[..], &[2, 7, 7], &f32s(&[2.0, 3.0])].concat();
    let mut block = Vec::new();
    block::encode(&read("a.laz", AUTZEN).expect("it is valid").select(&[1, 5, 9]), &mut block);
    vec![
        ("a.laz", AUTZEN.to_vec(), true),
        ("a.las", las(&[(1, 2, 3), (4, 5, 6)]), true),
        ("chunks.laz", laz(&[(1, 2, 3); 7], None), true),
        ("ascii.ply", ply("ascii", b"1 1 9 2 3\n4 0 5 6\n"), true),
        ("little.ply", ply("binary_little_endian", &vertex.repeat(2)), true),
        ("big.ply", ply("binary_big_endian", &vertex.repeat(2)), true),
        ("a.npy", npy("<f4", false, "(2, 7)", &table), true),
        ("stored.npz", zip(&arrays, false), true),
        ("deflated.npz", zip(&arrays, true), true),
        ("a.bin", table[..48].to_vec(), false),
        ("a.txt", b"1 2 3\n4 5 6\n".to_vec(), false),
        ("a.block", block, true),
    ]
});

fn open(name: &str, data: &[u8]) -> Result<Scene, CloudError> {
    if name.ends_with(".block") { block::decode(data, &LIMITS) } else { read(name, data) }
}

/// What every decoded scene promises.
fn sound(scene: &Scene) -> bool {
    let n = scene.len();
    let lengths = [
        scene.color.as_ref().map(Vec::len),
        scene.normal.as_ref().map(Vec::len),
        scene.intensity.as_ref().map(Vec::len),
        scene.segment.as_ref().map(Vec::len),
        scene.instance.as_ref().map(Vec::len),
    ];
    (1..=LIMITS.points as usize).contains(&n)
        && lengths.iter().flatten().all(|&len| len == n)
        && scene.coord.as_flattened().iter().all(|v| v.is_finite())
}

#[test]
fn every_cut_is_told() {
    for (name, file, all) in FILES.iter() {
        let whole = open(name, file).unwrap();
        assert!(sound(&whole));
        for cut in 0..file.len() {
            match open(name, &file[..cut]) {
                Ok(scene) => {
                    assert!(!all && scene.len() < whole.len() || *name == "a.txt", "{name} cut at {cut}")
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn every_byte_may_be_wrong() {
    for (name, file, _) in FILES.iter() {
        // Compressed points take long: there one flip of each byte, and of the large file only as far as its points begin.
        let flips: &[u8] = if name.ends_with(".laz") { &[0xff] } else { &[0x01, 0x80, 0xff] };
        for at in 0..file.len().min(1000) {
            for &bits in flips {
                let mut bent = file.clone();
                bent[at] ^= bits;
                if let Ok(scene) = open(name, &bent) {
                    assert!(sound(&scene), "{name}: byte {at} ^ {bits:#x}");
                }
                let _ = peek(&files(&[(name, &bent)]));
            }
        }
    }
}

#[test]
fn claims_cost_nothing() {
    // With these limits a file that is believed would take terabytes.
    let limits = Limits { points: 1 << 40 };
    let claim = |name: &str, data: &[u8]| decode(&files(&[(name, data)]), &limits).unwrap_err().to_string();
    let mut laz = AUTZEN.to_vec();
    laz[107..111].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(claim("a.laz", &laz), "las: has 1 chunks for 4294967295 points");
    // One that also says that a chunk holds so many.
    let record = laz.windows(14).position(|at| at == b"laszip encoded").unwrap();
    let chunk_size = record - 2 + 54 + 12;
    laz[chunk_size..chunk_size + 4].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    laz[107..111].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    assert!(claim("a.laz", &laz).contains("want at most 64 a byte"), "{}", claim("a.laz", &laz));
    let xyz = "property float x\nproperty float y\nproperty float z\nend_header\n";
    for format in ["ascii", "binary_little_endian", "binary_big_endian"] {
        let head = format!("ply\nformat {format} 1.0\nelement vertex 1000000000000\n{xyz}");
        assert!(claim("a.ply", head.as_bytes()).contains("too few for 1000000000000 points"));
    }
    let far = npy("<f4", false, "(1000000000000, 3)", &[0; 12]);
    assert!(claim("a.npy", &far).contains("has 12 bytes after its header"));
    for deflate in [false, true] {
        assert!(
            claim("a.npz", &zip(&[("coord.npy", far.clone())], deflate)).contains("is 1000000000000 x 3 in")
        );
    }
    // A directory that agrees with the header, but not with what deflate can do.
    let million = npy("<f4", false, "(100000000, 3)", &[0; 12]);
    let size = (million.len() as u32 - 12 + 1_200_000_000).to_le_bytes();
    let mut archive = zip(&[("coord.npy", million)], true);
    let directory = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    archive[directory + 24..directory + 28].copy_from_slice(&size);
    assert!(claim("a.npz", &archive).contains("deflated bytes cannot be"));
    let mut block = b"MIXPTS1\0".to_vec();
    block.extend((1_u64 << 39).to_le_bytes());
    block.extend(0_u64.to_le_bytes());
    assert!(block::decode(&block, &limits).unwrap_err().to_string().contains("have 0 bytes"));
}

#[test]
fn tables_of_chunks_that_lie_are_told() {
    let begin = u32::from_le_bytes(AUTZEN[96..100].try_into().unwrap()) as usize;
    let table = u64::from_le_bytes(AUTZEN[begin..begin + 8].try_into().unwrap()) as usize;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = AUTZEN.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        read("a.laz", &file).unwrap_err().to_string()
    };
    assert!(with(table + 4, &u32::MAX.to_le_bytes()).contains("has 4294967295 chunks for 1065 points"));
    assert!(with(begin, &u64::MAX.to_le_bytes()).contains("chunk table"));
    assert!(with(begin, &(1_u64 << 62).to_le_bytes()).contains("but there are 18217"));
    assert!(with(107, &50_001_u32.to_le_bytes()).contains("has 1 chunks for 50001 points"));
    assert!(with(107, &2000_u32.to_le_bytes()).contains("damaged"));
    assert!(with(105, &[35, 0]).contains("compressed items are"));
}

/// Chunks that say how many points they have.
#[test]
fn variable_chunks_that_lie_are_told() {
    let file = laz(&[(1, 2, 3); 7], None);
    let begin = u32::from_le_bytes(file[96..100].try_into().unwrap()) as usize;
    let table = u64::from_le_bytes(file[begin..begin + 8].try_into().unwrap()) as usize;
    let with = |at: usize, count: u32| {
        let mut file = file.clone();
        file[at..at + 4].copy_from_slice(&count.to_le_bytes());
        read("a.laz", &file).unwrap_err().to_string()
    };
    assert_eq!(with(table + 4, u32::MAX), "las: has 4294967295 chunks for 7 points");
    assert_eq!(with(table + 4, 3), "las: chunks lack 1 of 7 points");
    assert_eq!(with(107, 6), "las: chunks have more points than the header");
    assert_eq!(with(107, 8), "las: chunks lack 1 of 8 points");
}

/// Chunks of point formats 6 to 10 have the sizes of their layers in them.
#[test]
fn layers_that_lie_are_told() {
    let begin = u32::from_le_bytes(IGN[96..100].try_into().unwrap()) as usize;
    let record = u16::from_le_bytes(IGN[105..107].try_into().unwrap()) as usize;
    let count = begin + 8 + record;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = IGN.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        read("a.laz", &file).map(|s| sound(&s)).map_err(|e| e.to_string())
    };
    assert_eq!(with(count, &7_u32.to_le_bytes()), Err("las: chunk 0 has 7 points, want 37805".into()));
    for layer in 1..=11 {
        let told = with(count + 4 * layer, &u32::MAX.to_le_bytes()).unwrap_err();
        assert!(told.contains("layers of a chunk at byte"), "{layer}: {told}");
    }
    // Without its last byte the first layer is one of fewer bytes; what it means then is another matter.
    let z = u32::from_le_bytes(IGN[count + 8..count + 12].try_into().unwrap()) - 1;
    assert!(matches!(with(count + 8, &z.to_le_bytes()), Ok(true) | Err(_)));
    for at in (count + 48..IGN.len() - 64).step_by(IGN.len() / 12) {
        assert!(matches!(with(at, &[0xff; 64]), Ok(true) | Err(_)), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bent_files_never_panic(
        which in 0usize..12,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let (name, file, _) = &FILES[which];
        let mut bent = file.clone();
        for (at, byte) in flips {
            let at = at.index(bent.len());
            bent[at] = byte;
        }
        if cuts {
            bent.truncate(cut.index(bent.len()));
        }
        if let Ok(scene) = open(name, &bent) {
            prop_assert!(sound(&scene));
        }
    }

    #[test]
    fn noise_never_panics(which in 0usize..12, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let (name, file, _) = &FILES[which];
        // Behind the first bytes of a valid file, or alone.
        for keep in [0, 8, 64] {
            let bent = [&file[..keep.min(file.len())], &noise].concat();
            if let Ok(scene) = open(name, &bent) {
                prop_assert!(sound(&scene));
            }
        }
    }
}

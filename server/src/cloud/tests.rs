//! Formats as files hold them, and parity with what an independent reader (laspy 2.7.0) finds in real tiles.

use super::{
    made::{f32s, las, laz, npy, zip},
    *,
};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) const LIMITS: Limits = Limits { points: 1 << 20 };
pub(super) const AUTZEN: &[u8] = include_bytes!("../../tests/fixtures/points/autzen_1k.laz");
pub(super) const IGN: &[u8] = include_bytes!("../../tests/fixtures/points/ign_lidarhd_37k.laz");
const URBAN: &[u8] = include_bytes!("../../tests/fixtures/points/urban_25k.laz");

pub(super) fn files(parts: &[(&str, &[u8])]) -> Vec<(String, Bytes)> {
    parts.iter().map(|(name, data)| ((*name).to_owned(), Bytes::copy_from_slice(data))).collect()
}

pub(super) fn read(name: &str, data: &[u8]) -> Result<Scene, CloudError> {
    decode(&files(&[(name, data)]), &LIMITS)
}

fn why(result: Result<Scene, CloudError>) -> String {
    result.expect_err("want an error").to_string()
}

fn classes(scene: &Scene) -> Vec<(i32, u64)> {
    let mut counts = BTreeMap::new();
    scene.segment.iter().flatten().for_each(|&class| *counts.entry(class).or_insert(0) += 1);
    counts.into_iter().collect()
}

#[test]
fn real_tiles_have_the_points_that_laspy_finds() {
    let ign = read("tile.laz", IGN).unwrap();
    assert_eq!(classes(&ign), [(1, 355), (2, 22859), (3, 929), (4, 1816), (5, 9974), (17, 1333), (65, 539)]);
    let urban = read("URBAN.LAZ", URBAN).unwrap();
    assert_eq!(classes(&urban), [(2, 9808), (3, 158), (4, 724), (5, 10956), (6, 3737), (7, 25)]);
    let autzen = read("a/b.laz", AUTZEN).unwrap();
    assert_eq!(classes(&autzen), [(1, 789), (2, 276)]);
    let sum = |s: &Scene, axis: usize| s.coord.iter().map(|c| c[axis]).sum::<f64>();
    for (scene, sums) in [
        (&ign, [26_391_451_472.54, 236_656_847_083.38, 3_746_984.47]),
        (&urban, [62_127_961_588.31, 15_354_452_149.78, 34_799_630.39]),
        (&autzen, [678_721_022.97, 906_580_758.49, 462_314.2]),
    ] {
        for (axis, want) in sums.into_iter().enumerate() {
            assert!((sum(scene, axis) - want).abs() < 1e-2, "axis {axis}: {} {want}", sum(scene, axis));
        }
    }
    let intensity = |s: &Scene| s.intensity.iter().flatten().map(|&v| f64::from(v)).sum::<f64>();
    assert_eq!(
        (intensity(&ign), intensity(&urban), intensity(&autzen)),
        (6_365_322.0, 556_207_820.0, 81_361.0)
    );
    let color =
        |s: &Scene| s.color.as_ref().map(|c| c.as_flattened().iter().map(|&v| u64::from(v)).sum::<u64>());
    // IGN's 16 bits are divided by 257; Autzen's hold 8 bits as they are.
    assert_eq!((color(&ign), color(&urban), color(&autzen)), (Some(12_661_032), None, Some(382_913)));
    assert_eq!(peek(&files(&[("tile.laz", IGN)])), Ok(Some(37_805)));
}

#[test]
fn las_fields_are_where_the_standard_has_them() {
    let scene = read("x.las", &las(&[(123_456_789, 9, 65_535), (-1, 31, 128)])).unwrap();
    // A UTM-like coordinate is what the file says, to the last bit of an f64.
    assert_eq!(scene.coord[0], [123_456_789.0 * 0.01 + 500_000.0, 500_000.0, 500_000.0]);
    assert_eq!(scene.segment.unwrap(), [9, 31]);
    assert_eq!(scene.intensity.unwrap(), [40_000.0; 2]);
    assert_eq!(scene.color.unwrap(), [[255, 0, 0], [0, 0, 0]]);
    let eight = read("x.las", &las(&[(0, 0, 255), (0, 0, 7)])).unwrap();
    assert_eq!(eight.color.unwrap(), [[255, 0, 0], [7, 0, 0]]);
}

#[test]
fn chunks_are_joined_in_order() {
    let points: Vec<(i32, u8, u16)> = (0..23).map(|k| (1000 - 7 * k * k, k as u8, 100 * k as u16)).collect();
    let want = read("x.las", &las(&points)).unwrap();
    for chunk in [None, Some(1), Some(5), Some(23), Some(100)] {
        assert_eq!(read("x.laz", &laz(&points, chunk)).unwrap(), want, "{chunk:?}");
    }
}

#[test]
fn las_headers_that_lie_are_told() {
    assert_eq!(read("x.las", &las(&[])), Err(CloudError::Empty));
    let with = |at: usize, bytes: &[u8]| {
        let mut file = las(&[(1, 2, 3)]);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        why(read("x.las", &file))
    };
    assert_eq!(
        with(107, &2_u32.to_le_bytes()),
        "las: is cut short: points at byte 227 has 68 bytes, but 34 are left"
    );
    assert_eq!(with(107, &u32::MAX.to_le_bytes()), "points is 4294967295, want at most 1048576");
    assert!(with(131, &f64::NAN.to_le_bytes()).contains("scale is [NaN"));
    assert!(with(104, &[11]).contains("point format is 11"));
    assert!(with(105, &[33, 0]).contains("records have 33 bytes, want at least 34"));
    assert!(with(25, &[4]).contains("want 375"));
    assert!(with(104, &[0x83]).contains("no record says how"));
}

/// The numbers of the next test's cameras and vertices, little-endian.
fn ply_numbers() -> Vec<Vec<u8>> {
    fn put<const N: usize>(out: &mut Vec<Vec<u8>>, numbers: &[[u8; N]]) {
        out.extend(numbers.iter().map(|n| n.to_vec()));
    }
    let floats = |v: &[f32]| v.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let mut out = Vec::new();
    put(&mut out, &floats(&[1.0]));
    put(&mut out, &[[0]]);
    put(&mut out, &floats(&[2.0]));
    put(&mut out, &[[3]]);
    put(&mut out, &[7_i32, 8, 9].map(i32::to_le_bytes));
    put(&mut out, &[4e6_f64.to_le_bytes()]);
    put(&mut out, &[[2]]);
    put(&mut out, &[5_i16, 6].map(i16::to_le_bytes));
    put(&mut out, &floats(&[1.5, -2.0]));
    put(&mut out, &[[1], [2], [255]]);
    put(&mut out, &floats(&[0.0, 0.0, 1.0]));
    put(&mut out, &[7_u16.to_le_bytes()]);
    put(&mut out, &floats(&[0.5]));
    put(&mut out, &[(-1_i32).to_le_bytes()]);
    put(&mut out, &[1_f64.to_le_bytes()]);
    put(&mut out, &[[0]]);
    put(&mut out, &floats(&[2.0, 3.0]));
    put(&mut out, &[[4], [5], [6]]);
    put(&mut out, &floats(&[1.0, 0.0, 0.0]));
    put(&mut out, &[300_u16.to_le_bytes()]);
    put(&mut out, &floats(&[2.0]));
    put(&mut out, &[12_i32.to_le_bytes()]);
    out
}

#[test]
fn ply_is_read_in_all_three_ways() {
    let properties = "element camera 2\nproperty float a\nproperty list uchar int b\n\
        element vertex 2\nproperty double x\nproperty list uchar short skipped\nproperty float y\nproperty float z\n\
        property uchar red\nproperty uchar green\nproperty uchar blue\nproperty float nx\nproperty float ny\n\
        property float nz\nproperty ushort scalar_Label\nproperty float intensity\nproperty int instance_id\n\
        element face 1\nproperty list uchar int vertex_indices\nend_header\n";
    let head = |format: &str| format!("ply\nformat {format} 1.0\ncomment by hand\n{properties}").into_bytes();
    let mut ascii = head("ascii");
    ascii.extend(
        b"1 0\n2 3 7 8 9\n4e6 2 5 6 1.5 -2 1 2 255 0 0 1 7 0.5 -1\n1 0 2 3 4 5 6 1 0 0 300 2 12\n3 0 1 0\n",
    );
    let mut scenes = vec![read("a.ply", &ascii).unwrap()];
    for big in [false, true] {
        let mut file = head(if big { "binary_big_endian" } else { "binary_little_endian" });
        for mut number in ply_numbers() {
            if big {
                number.reverse();
            }
            file.extend(number);
        }
        scenes.push(read("b.ply", &file).unwrap());
    }
    let want = Scene {
        coord: vec![[4e6, 1.5, -2.0], [1.0, 2.0, 3.0]],
        color: Some(vec![[1, 2, 255], [4, 5, 6]]),
        normal: Some(vec![[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
        intensity: Some(vec![0.5, 2.0]),
        segment: Some(vec![7, 300]),
        instance: Some(vec![-1, 12]),
    };
    assert_eq!(scenes, [want.clone(), want.clone(), want]);
    assert_eq!(peek(&files(&[("a.ply", &ascii)])), Ok(Some(2)));
}

#[test]
fn ply_without_lists_is_a_table() {
    let head = "ply\r\nformat binary_little_endian 1.0\r\nelement vertex 2\r\nproperty float x\r\nproperty float y\r\n\
        property float z\r\nproperty float red\r\nproperty float green\r\nproperty float blue\r\nend_header\r\n";
    let mut file = head.as_bytes().to_vec();
    file.extend(f32s(&[1.0, 2.0, 3.0, 0.0, 0.5, 1.0, 4.0, 5.0, 6.0, 1.0, 0.2, 0.0]));
    let scene = read("x.ply", &file).unwrap();
    assert_eq!(scene.coord, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    assert_eq!(scene.color.unwrap(), [[0, 128, 255], [255, 51, 0]]);
}

#[test]
fn ply_headers_that_lie_are_told() {
    let file = |vertices: &str, body: &str| {
        let xyz = "property float x\nproperty float y\nproperty float z\n";
        read("x.ply", format!("ply\nformat ascii 1.0\n{vertices}{xyz}end_header\n{body}").as_bytes())
    };
    assert!(file("element vertex 1\n", "1 2 3\n").is_ok());
    assert_eq!(file("element vertex 0\n", ""), Err(CloudError::Empty));
    assert!(why(file("element vertex 2\n", "1 2 3\n")).contains("too few for 2 points"));
    assert!(why(file("element vertex 1\n", "1 2     \n")).contains("numbers are missing"));
    assert!(why(file("element vertex 1\n", "1 2 x\n")).contains("\"x\" is no number"));
    assert_eq!(why(file("element vertex 1\n", "1 2 nan\n")), "z of point 0 is NaN, want a finite number");
    assert!(why(file("element vertex 99999999\n", "1 2 3\n")).contains("want at most 1048576"));
    assert!(
        why(file("element vertex 1\nproperty float red\n", "1 2 3 4\n")).contains("some of red, green, blue")
    );
    assert!(why(file("element face 1\n", "1 2 3\n")).contains("no element vertex"));
    assert!(why(file("element vertex 1\nproperty quad q\n", "1 2 3\n")).contains("property quad q"));
    let lists = "element a 18446744073709551615\nelement vertex 1\n";
    assert!(file(lists, "1 2 3\n").is_ok(), "elements without properties take no time");
}

#[test]
fn arrays_of_every_type_and_order_are_read() {
    let coord =
        npy("<f8", false, "(2, 3)", &[1.0_f64, 2.0, 3.0, 4e6, 5.0, 6.0].map(f64::to_le_bytes).concat());
    let fortran =
        npy(">f4", true, "(2, 3)", &[1.0_f32, 4e6, 2.0, 5.0, 3.0, 6.0].map(f32::to_be_bytes).concat());
    let want = vec![[1.0, 2.0, 3.0], [4e6, 5.0, 6.0]];
    assert_eq!(read("x.npy", &coord).unwrap().coord, want);
    assert_eq!(read("x.npy", &fortran).unwrap().coord, want);
    for (descr, data) in [
        ("<i2", [5_i16, -1].map(i16::to_le_bytes).concat()),
        (">i8", [5_i64, -1].map(i64::to_be_bytes).concat()),
        ("<f2", [0x4500_u16, 0xbc00].map(u16::to_le_bytes).concat()),
        ("|i1", vec![5, 255]),
    ] {
        let parts: &[(&str, &[u8])] =
            &[("s/coord.npy", &coord), ("s/segment.npy", &npy(descr, false, "(2,)", &data))];
        assert_eq!(decode(&files(parts), &LIMITS).unwrap().segment.unwrap(), [5, -1], "{descr}");
    }
}

#[test]
fn a_folder_of_arrays_is_a_scene() {
    let xyz = npy("<f4", false, "(2, 3)", &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let color = npy("|u1", false, "(2, 3)", &[1, 2, 3, 4, 5, 255]);
    let label = |a: i16| npy("<i2", false, "(2, 1)", &[a.to_le_bytes(), 7_i16.to_le_bytes()].concat());
    let (twenty, all, instance) = (label(1), label(2), label(-1));
    let strength = npy("<f4", false, "(2, 1)", &f32s(&[0.25, 0.5]));
    let parts: &[(&str, &[u8])] = &[
        ("s/segment200.npy", &all),
        ("s/segment20.npy", &twenty),
        ("s/color.npy", &color),
        ("s/coord.npy", &xyz),
        ("s/normal.npy", &xyz),
        ("s/instance.npy", &instance),
        ("s/strength.npy", &strength),
        ("s/superpoint.npy", b"left alone"),
    ];
    let scene = decode(&files(parts), &LIMITS).unwrap();
    let want = Scene {
        coord: vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        color: Some(vec![[1, 2, 3], [4, 5, 255]]),
        normal: Some(vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        intensity: Some(vec![0.25, 0.5]),
        segment: Some(vec![1, 7]),
        instance: Some(vec![-1, 7]),
    };
    assert_eq!(scene, want);
    assert_eq!(peek(&files(parts)), Ok(Some(2)));
    for deflate in [false, true] {
        let renamed: Vec<(&str, Vec<u8>)> = [
            ("xyz.npy", &xyz),
            ("rgb.npy", &color),
            ("normal.npy", &xyz),
            ("labels.npy", &twenty),
            ("instance.npy", &instance),
            ("intensity.npy", &strength),
            ("superpoint.npy", &xyz),
        ]
        .map(|(name, file)| (name, file.clone()))
        .to_vec();
        let archive = zip(&renamed, deflate);
        assert_eq!(read("s.npz", &archive).unwrap(), want);
        assert_eq!(peek(&files(&[("s.npz", &archive)])), Ok(Some(2)));
    }
}

#[test]
fn arrays_that_do_not_fit_are_told() {
    let xyz = npy("<f4", false, "(2, 3)", &f32s(&[0.0; 6]));
    let with =
        |name: &str, file: Vec<u8>| why(decode(&files(&[("coord.npy", &xyz), (name, &file)]), &LIMITS));
    assert_eq!(with("segment.npy", npy("<i4", false, "(1,)", &[0; 4])), "npy: segment is 1 x 1, want 2 x 1");
    assert_eq!(with("color.npy", npy("|u1", false, "(2, 4)", &[0; 8])), "npy: color is 2 x 4, want 2 x 3");
    let half = npy("<f4", false, "(2,)", &f32s(&[1.0, 1.5]));
    assert_eq!(with("segment.npy", half), "npy: segment of point 1 is 1.5, want a whole number of 32 bits");
    let nan = npy("<f4", false, "(2, 3)", &f32s(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]));
    assert_eq!(with("normal.npy", nan), "normal of point 1 is NaN, want a finite number");
    assert!(with("color.npy", npy("|O", false, "(2, 3)", &[])).contains("is no number of 1 to 8 bytes"));
    let lying = npy("<f4", false, "(4611686018427387904, 3)", &[0; 24]);
    assert!(why(read("x.npy", &lying)).contains("has 24 bytes after its header"));
    assert_eq!(read("x.npy", &npy("<f4", false, "(0, 3)", &[])), Err(CloudError::Empty));
    assert!(why(read("x.npy", &npy("<f4", false, "(1, 4)", &[0; 16]))).contains("has 4 columns"));
    let without = decode(&files(&[("color.npy", &xyz), ("normal.npy", &xyz)]), &LIMITS);
    for result in
        [without, read("normal.npy", &xyz), read("n.npz", &zip(&[("normal.npy", xyz.clone())], true))]
    {
        assert!(why(result).contains("none of coord, coords, xyz, points"));
    }
    let mut archive = zip(&[("coord.npy", xyz)], false);
    let at = archive.len() - 100;
    archive[at] ^= 1;
    assert!(why(read("x.npz", &archive)).starts_with("npz: "));
}

#[test]
fn tables_have_colours_labels_and_instances() {
    let text = b"# x y z r g b label instance\n1 2 3 255 0 7 4 -1\n4,5,6,0,0,0,2,9\n";
    let scene = read("room.txt", text).unwrap();
    let want = Scene {
        coord: vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        color: Some(vec![[255, 0, 7], [0, 0, 0]]),
        segment: Some(vec![4, 2]),
        instance: Some(vec![-1, 9]),
        ..Scene::default()
    };
    assert_eq!(scene, want);
    let rows = [1.0, 2.0, 3.0, 255.0, 0.0, 7.0, 4.0, -1.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 2.0, 9.0];
    assert_eq!(read("room.npy", &npy("<f4", false, "(2, 8)", &f32s(&rows))).unwrap(), want);
    assert_eq!(peek(&files(&[("room.txt", text)])), Ok(None));
    assert!(why(read("x.txt", b"1 2 3\n4 5\n")).contains("point 1 has 2 numbers, want 3"));
    assert!(why(read("x.txt", b"1 2 3 4\n")).contains("has 4 columns"));
    assert_eq!(read("x.txt", b"\n"), Err(CloudError::Empty));
}

#[test]
fn scans_have_classes_below_and_instances_above() {
    let scan = f32s(&[1.0, 2.0, 3.0, 0.5, 4.0, 5.0, 6.0, 0.25]);
    let labels: Vec<u8> = [0x0003_000a_u32, 0x0000_00fc].iter().flat_map(|v| v.to_le_bytes()).collect();
    let parts: &[(&str, &[u8])] = &[("labels/7.label", &labels), ("velodyne/7.bin", &scan)];
    let scene = decode(&files(parts), &LIMITS).unwrap();
    assert_eq!(scene.coord, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    assert_eq!(scene.intensity.unwrap(), [0.5, 0.25]);
    assert_eq!((scene.segment.unwrap(), scene.instance.unwrap()), (vec![10, 252], vec![3, -1]));
    assert_eq!(read("7.bin", &scan).unwrap().segment, None);
    let short: &[(&str, &[u8])] = &[("7.bin", &scan), ("7.label", &labels[..4])];
    assert!(why(decode(&files(short), &LIMITS)).contains("labels have 4 bytes"));
    assert!(why(read("7.bin", &scan[..31])).contains("want 16 per point"));
    let nan = f32s(&[0.0, 0.0, 0.0, f32::INFINITY]);
    assert_eq!(why(read("7.bin", &nan)), "intensity of point 0 is inf, want a finite number");
}

#[test]
fn files_that_are_no_scene_are_named() {
    assert!(why(read("a.laz", b"oops")).starts_with("las: `a.laz` does not begin with LASF"));
    assert!(why(read("a.pcd", b"# .PCD")).starts_with("cloud: `a.pcd`"));
    assert!(why(decode(&[], &LIMITS)).contains("0 files"));
    assert!(why(decode(&files(&[("a.las", AUTZEN), ("b.las", AUTZEN)]), &LIMITS)).contains("2 files"));
}

#[test]
fn blocks_keep_every_bit() {
    for (name, file) in [("ign.laz", IGN), ("urban.laz", URBAN)] {
        let mut scene = read(name, file).unwrap();
        scene.normal = Some(scene.coord.iter().map(|c| c.map(|v| v as f32)).collect());
        scene.instance = Some((0..scene.len() as i32).map(|v| v - 1).collect());
        let mut bytes = vec![1, 2, 3];
        block::encode(&scene, &mut bytes);
        assert_eq!(block::decode(&bytes[3..], &LIMITS).unwrap(), scene);
        let small = Limits { points: scene.len() as u64 - 1 };
        assert!(matches!(block::decode(&bytes[3..], &small), Err(CloudError::Limit { .. })));
        let bare = Scene { coord: scene.coord, ..Scene::default() };
        bytes.clear();
        block::encode(&bare, &mut bytes);
        assert_eq!(block::decode(&bytes, &LIMITS).unwrap(), bare);
        bytes[24..32].copy_from_slice(&f64::NAN.to_le_bytes());
        assert_eq!(why(block::decode(&bytes, &LIMITS)), "x of point 0 is NaN, want a finite number");
        assert_eq!(
            decode(&files(&[(name, file)]), &small).map(|_| ()).unwrap_err().to_string().split(',').count(),
            2
        );
    }
}

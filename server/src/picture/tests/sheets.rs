//! Whole sheets as files. `SHEETS_DIR=folder cargo test picture::` keeps them, to be looked at.

use super::*;
use std::path::{Path, PathBuf};

/// Where sheets go: a folder of the test, or the one that was asked for.
struct Folder(Option<PathBuf>, tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(std::env::var_os("SHEETS_DIR").map(PathBuf::from), tempfile::tempdir().unwrap())
    }

    /// Writes a PNG and reads it back; gives the page and the size of the file.
    fn keep(&self, name: &str, png: &[u8]) -> (Picture, u64) {
        let path = self.0.as_deref().unwrap_or(self.1.path()).join(name);
        std::fs::write(&path, png).unwrap();
        let page = decoded(&std::fs::read(&path).unwrap());
        (page, std::fs::metadata(&path).unwrap().len())
    }
}

fn photo(name: &str) -> Picture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").join(name);
    let image = image::open(path).unwrap().to_rgb8();
    Picture { height: image.height(), width: image.width(), rgb: image.into_raw() }
}

/// A photograph stretched to the size of a batch by nearest neighbour.
fn stretched(name: &str, height: u32, width: u32) -> Picture {
    let picture = photo(name);
    let pixel = |y: u32, x: u32| {
        let at = (y * picture.height / height * picture.width + x * picture.width / width) as usize * 3;
        [picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]]
    };
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect();
    Picture { height, width, rgb }
}

/// One weight everywhere, or a box of the partner, with the text below the mask.
fn weights(number: usize, height: u32, width: u32) -> (Vec<f32>, String) {
    let lambda = 0.35 + 0.05 * number as f32;
    if number.is_multiple_of(2) {
        return (vec![lambda; (height * width) as usize], format!("mixup\nlambda = {lambda:.4}"));
    }
    let (rows, columns) = (height / 4..height * 3 / 4, width / 3..width * 5 / 6);
    let weight = |y, x| if rows.contains(&y) && columns.contains(&x) { 0.0 } else { 1.0 };
    let weights: Vec<f32> = (0..height).flat_map(|y| (0..width).map(move |x| weight(y, x))).collect();
    let lambda = weights.iter().sum::<f32>() / weights.len() as f32;
    let text = format!("cutmix\nlambda = {lambda:.4}\nrows {rows:?}, columns {columns:?}");
    (weights, text)
}

/// Lines of photographs, Mixup-like and CutMix-like in turn.
fn photo_sheet(lines: usize, height: u32, width: u32) -> Sheet {
    let classes = ["cat", "coffee", "eye", "space", "texture", "grey"];
    let lines = (0..lines).map(|i| {
        let of = |i: usize| (classes[i % 6], format!("{0}/{0}_{1:02}.jpg", classes[i % 6], i * 7 % 12));
        let ((class, name), (other, other_name)) = (of(i), of(i * 5 + 3));
        let (base, partner) = (stretched(&name, height, width), stretched(&other_name, height, width));
        let (weights, how) = weights(i, height, width);
        let mix = |(at, (b, p)): (usize, (&u8, &u8))| {
            (f32::from(*b) * weights[at / 3] + f32::from(*p) * (1.0 - weights[at / 3])).round() as u8
        };
        let rgb = base.rgb.iter().zip(&partner.rgb).enumerate().map(mix).collect();
        let share = weights.iter().sum::<f32>() / weights.len() as f32;
        let captions = [
            format!("{class}\n{name}"),
            format!("{other}\n{other_name}"),
            how,
            format!("{class} {share:.3}, {other} {:.3}\nrow {i}", 1.0 - share),
        ];
        Line {
            result: Picture { rgb, height, width },
            mask: Picture::from_mask(&weights, height, width),
            base,
            partner,
            captions,
        }
    });
    Sheet {
        title: "mixup + cutmix".to_owned(),
        subtitle: "step 0, seed 17: mixup alpha 0.8, cutmix alpha 1.0, partner from any group".to_owned(),
        lines: lines.collect(),
    }
}

#[test]
fn sheets_of_photographs_are_written_and_read_back() {
    let folder = Folder::new();
    for (name, lines, height, width) in
        [("two.png", 2, 192, 224), ("twelve.png", 12, 224, 224), ("tiny.png", 3, 32, 48)]
    {
        let sheet = photo_sheet(lines, height, width);
        let layout = sheet.page().unwrap().layout();
        let (page, bytes) = folder.keep(name, &sheet.png().unwrap());
        assert_eq!((page.height as usize, page.width as usize), (layout.height, layout.width), "{name}");
        assert!(bytes > 20_000, "{name} has {bytes} bytes");
    }
}

#[test]
fn text_changes_the_height_of_a_sheet_only() {
    let folder = Folder::new();
    let mut sheet = photo_sheet(2, 224, 240);
    sheet.lines[0].captions = captions(LONG);
    sheet.subtitle = LONG.to_owned();
    let (long, _) = folder.keep("long.png", &sheet.png().unwrap());
    sheet.lines.iter_mut().for_each(|line| line.captions = captions(""));
    sheet.subtitle.clear();
    let (bare, _) = folder.keep("bare.png", &sheet.png().unwrap());
    assert_eq!(long.width, bare.width);
    // The subtitle has 4 rows, the captions 8 to 12 and 3 rows.
    assert_eq!((long.height - bare.height - 4 * 20 - 2 * 8) % 18, 0);
    assert!(long.height > bare.height + 4 * 20 + 11 * 18);
    sheet.lines.clear();
    let (empty, _) = folder.keep("empty.png", &sheet.png().unwrap());
    assert_eq!(empty.width, 2 * 32 + 4 * 224 + 3 * 24);
}

#[test]
fn odd_sizes_share_a_page() {
    let folder = Folder::new();
    let sizes = [(1, 1), (8, 200), (200, 8), (1000, 700), (2, 3)];
    let mut lines: Vec<_> =
        sizes.iter().map(|(h, w)| line(*h, *w, captions(&format!("{h} x {w}\nrows x columns")))).collect();
    lines[2].base = photo("cat/cat_00.jpg");
    let sheet = Sheet { title: "odd sizes".to_owned(), subtitle: String::new(), lines };
    let (page, _) = folder.keep("odd.png", &sheet.png().unwrap());
    assert_eq!(page.width, 2 * 32 + 4 * 269 + 3 * 24);
    let cells: Vec<_> = (0..10)
        .map(|i| {
            (photo(&format!("cat/cat_{i:02}.jpg")), format!("{i}: cat\nlambda {:.3}", f64::from(i) / 10.0))
        })
        .collect();
    let (wide, _) = folder.keep("grid.png", &grid("batch 0, 10 rows", &cells, 4).unwrap());
    let (narrow, _) = folder.keep("single.png", &grid("batch 0, a single row", &cells[..1], 4).unwrap());
    assert!(wide.width > 4 * 224 && narrow.width == 512, "{} {}", wide.width, narrow.width);
}

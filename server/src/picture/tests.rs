use super::canvas::{Canvas, Color, FRAME, PAPER, RULE};
use super::layout::{GAP, MARGIN, Mark, framed};
use super::text::wrap_all;
use super::*;
use crate::batch::Layout as Axes;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};
use proptest::prelude::*;

mod sheets;

/// A picture whose every byte tells where it is from.
fn gradient(height: u32, width: u32) -> Picture {
    let pixel = |y: u32, x: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, ((x + y) % 251) as u8];
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect();
    Picture { height, width, rgb }
}

/// A line of four gradients.
fn line(height: u32, width: u32, captions: [String; 4]) -> Line {
    let weights: Vec<f32> = (0..height * width).map(|i| (i % width) as f32 / width as f32).collect();
    let mask = Picture::from_mask(&weights, height, width);
    let picture = gradient(height, width);
    Line { base: picture.clone(), partner: picture.clone(), mask, result: picture, captions }
}

fn captions(text: &str) -> [String; 4] {
    [text.to_owned(), text.to_owned(), text.to_owned(), text.to_owned()]
}

/// Long paragraphs with and without places to break, and characters that the font lacks.
const LONG: &str = "a very long class name, as in a taxonomy: Animalia / Chordata / Mammalia / Carnivora / Felidae / \
                    Felis / Felis catus, and it goes on and on without an end in sight\n\
                    n02123045_tabby_tabby_cat_n02123159_tiger_cat_n02123394_persian_cat\n\
                    Wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww\n\
                    Größe 24 µm, 日本語, tab\there";

/// Decodes a PNG.
fn decoded(png: &[u8]) -> Picture {
    let page = image::load_from_memory(png).unwrap().to_rgb8();
    Picture { height: page.height(), width: page.width(), rgb: page.into_raw() }
}

fn pixel(page: &Picture, y: usize, x: usize) -> Color {
    let at = (y * page.width as usize + x) * 3;
    Color([page.rgb[at], page.rgb[at + 1], page.rgb[at + 2]])
}

#[test]
fn both_memory_orders_give_the_same_picture() {
    let (height, width) = (3, 5);
    let interleaved = gradient(height, width).rgb;
    let planar: Vec<u8> = (0..3).flat_map(|c| interleaved.iter().skip(c).step_by(3).copied()).collect();
    assert_ne!(planar, interleaved);
    let nhwc = Picture::from_row(&interleaved, &Raster::new(3, 5, Axes::Nhwc));
    assert_eq!(nhwc, gradient(height, width));
    assert_eq!(Picture::from_row(&planar, &Raster::new(3, 5, Axes::Nchw)), nhwc);
}

#[test]
fn a_mask_is_white_where_the_base_is() {
    let mask = Picture::from_mask(&[1.0, 0.0, 0.5, 7.0, -7.0, f32::NAN], 2, 3);
    let paint = [[255; 3], [0; 3], [128; 3], [255; 3], [0; 3], [255, 0, 255]];
    assert_eq!(mask, Picture { height: 2, width: 3, rgb: paint.concat() });
}

#[test]
fn a_picture_of_the_wrong_length_is_refused_by_name() {
    let short = Picture::from_row(&[0; 44], &Raster::new(3, 5, Axes::Nchw));
    let mut sheet =
        Sheet { title: String::new(), subtitle: String::new(), lines: vec![line(3, 5, captions(""))] };
    sheet.lines.push(Line { mask: Picture::from_mask(&[0.5; 14], 3, 5), ..line(3, 5, captions("")) });
    let error = sheet.png().unwrap_err().to_string();
    assert!(
        error.starts_with("`mask` of line 1 has 0 bytes") && error.contains("3 rows and 5 columns"),
        "{error}"
    );
    let cells = [(gradient(2, 3), String::new()), (short, String::new())];
    assert!(grid("", &cells, 2).unwrap_err().to_string().starts_with("cell 1 has 0 bytes"));
    let none = Picture { height: 0, width: 7, rgb: Vec::new() };
    assert!(matches!(
        grid("", &[(none, String::new())], 1),
        Err(PictureError::Length { height: 0, width: 7, .. })
    ));
}

#[test]
fn a_page_beyond_the_limit_is_refused() {
    let cells = vec![(gradient(1, 1), String::new()); 1000];
    let columns = |columns| grid("", &cells, columns).map(|png| decoded(&png).height);
    let error = columns(1).unwrap_err();
    assert!(matches!(error, PictureError::TooLarge { height, width: 512 } if height > 224_000), "{error}");
    let cells = &cells[..7];
    assert_eq!(grid("", cells, 0).unwrap(), grid("", cells, 1).unwrap());
    assert_eq!(grid("", cells, usize::MAX).unwrap(), grid("", cells, 7).unwrap());
}

#[test]
fn a_page_is_as_large_as_its_parts() {
    let text = captions("one\ntwo");
    let sheet = |lines: usize| Sheet {
        title: "title".to_owned(),
        subtitle: "subtitle".to_owned(),
        lines: vec![line(40, 100, text.clone()); lines],
    };
    let [one, two] = [1, 2].map(|lines| decoded(&sheet(lines).png().unwrap()));
    // 100 columns are enlarged to 300: the least integer factor that reaches 224.
    assert_eq!(one.width, 2 * 32 + 4 * 300 + 3 * 24);
    // Margins, title and subtitle, rule, heading, frames, picture, two rows of caption.
    assert_eq!(one.height, 2 * 32 + (26 + 20) + (18 + 1 + 18) + (20 + 8) + 2 + 120 + (8 + 2 * 18));
    assert_eq!((two.height, two.width), (one.height + (18 + 1 + 18) + 2 + 120 + (8 + 2 * 18), one.width));
}

/// A picture of one colour.
fn plain(height: u32, width: u32, paint: [u8; 3]) -> Picture {
    Picture { height, width, rgb: paint.repeat((height * width) as usize) }
}

#[test]
fn each_column_shows_its_picture_and_its_caption() {
    let paints = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]];
    let [base, partner, mask, result] = paints.map(|paint| plain(50, 224, paint));
    for captioned in 0..4 {
        let mut captions = captions("");
        captions[captioned] = "text".to_owned();
        let [base, partner, mask, result] = [&base, &partner, &mask, &result].map(Picture::clone);
        let lines = vec![Line { base, partner, mask, result, captions }];
        let page = decoded(&Sheet { title: String::new(), subtitle: String::new(), lines }.png().unwrap());
        // Margin and heading, then the frame.
        let top = MARGIN + 20 + 8;
        for (column, paint) in paints.into_iter().enumerate() {
            let left = MARGIN + column * (224 + GAP);
            for (y, x) in [(top + 1, left), (top + 50, left + 223), (top + 25, left + 100)] {
                assert_eq!(pixel(&page, y, x), Color(paint), "column {column} at {y} {x}");
            }
            for (y, x) in [(top, left), (top + 51, left), (top + 1, left - 1), (top + 50, left + 224)] {
                assert_eq!(pixel(&page, y, x), FRAME, "column {column} at {y} {x}");
            }
            let mut below =
                (top + 52..page.height as usize).flat_map(|y| (left..left + 224).map(move |x| (y, x)));
            assert_eq!(
                below.any(|(y, x)| pixel(&page, y, x) != PAPER),
                column == captioned,
                "column {column}"
            );
        }
    }
}

#[test]
fn pictures_stand_on_their_captions() {
    let paints = [[200, 0, 0], [0, 200, 0]];
    let cells =
        [(plain(20, 224, paints[0]), "low".to_owned()), (plain(60, 230, paints[1]), "high".to_owned())];
    let page = decoded(&grid("", &cells, 2).unwrap());
    let foot = MARGIN + 60;
    for (x, paint, height) in [(MARGIN, paints[0], 20), (MARGIN + 230 + GAP, paints[1], 60)] {
        let rows: Vec<_> =
            (0..page.height as usize).filter(|y| pixel(&page, *y, x) == Color(paint)).collect();
        assert_eq!(rows, (foot + 1 - height..foot + 1).collect::<Vec<_>>());
    }
    assert_eq!(page.height as usize, foot + 2 + 8 + 18 + MARGIN);
}

#[test]
fn pictures_are_shown_in_whole_pixels_or_shrunk() {
    let sizes =
        [(1, 1), (8, 200), (200, 8), (112, 100), (224, 225), (700, 1000), (1000, 700), (385, 1), (1, 9000)];
    let shown =
        [(224, 224), (8, 200), (200, 8), (336, 300), (224, 225), (269, 384), (384, 269), (384, 1), (1, 384)];
    assert_eq!(sizes.map(|(height, width)| scale::shown(height, width)), shown);
    let enlarged = scale::resize(&gradient(3, 100));
    let at = |y: usize, x: usize| &enlarged[(y * 300 + x) * 3..][..3];
    let small = gradient(3, 100);
    assert_eq!(enlarged.len(), 9 * 300 * 3);
    for (y, x) in [(0, 0), (0, 2), (2, 3), (3, 299), (8, 298), (5, 150)] {
        assert_eq!(at(y, x), &small.rgb[(y / 3 * 100 + x / 3) * 3..][..3], "{y} {x}");
    }
    let shrunk = scale::resize(&Picture::from_mask(&[0.4; 600 * 500], 600, 500));
    assert_eq!(shrunk, vec![102; 384 * 320 * 3]);
}

#[test]
fn text_is_wrapped_at_spaces_then_marks_then_anywhere() {
    let rows = |text: &str| wrap_all(text, 10, 3, 5).into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    assert_eq!(rows("the  quick\tbrown fox"), ["the quick", "brown fox"]);
    assert_eq!(rows("tabby_cat_and_dog"), ["tabby_cat_", "and_dog"]);
    assert_eq!(rows("abcdefghijklm"), ["abcdefghij", "klm"]);
    assert_eq!(rows("0123456789"), ["0123456789"]);
    assert_eq!(rows("0123456789 0123456789 0123456789 0"), ["0123456789", "0123456789", "01234567.."]);
    assert_eq!(rows("a\n\nGröße\r\nb\nc\nd"), ["a", "", "Gr??e", "b", "c.."]);
    assert_eq!(rows(""), [""; 0]);
}

/// Pixels of `text` that have any ink, by the font alone.
fn ink_of(text: &str) -> usize {
    let glyphs = text.chars().filter_map(|c| get_raster(c, FontWeight::Regular, RasterHeight::Size16));
    glyphs.map(|glyph| glyph.pixels().iter().filter(|cover| **cover > 0).count()).sum()
}

#[test]
fn captions_keep_their_ink_within_their_columns() {
    // 32 characters of 7 pixels fill the 224 pixels of a column; there is no place to break.
    let row = "Wgj[@]Mq".repeat(4);
    let full = Sheet {
        title: "t".to_owned(),
        subtitle: String::new(),
        lines: vec![line(7, 224, captions(&format!("{row}{row}\n{row}")))],
    };
    let page = decoded(&full.png().unwrap());
    let first = page.height as usize - MARGIN - 3 * 18;
    for column in 0..4 {
        let left = MARGIN + column * (224 + GAP);
        let ink = (first..page.height as usize - MARGIN)
            .flat_map(|y| (left..left + 224).map(move |x| (y, x)))
            .filter(|(y, x)| pixel(&page, *y, *x) != PAPER);
        assert_eq!(ink.count(), 3 * ink_of(&row), "column {column}: ink is missing");
    }
    let gaps = (1..4).flat_map(|column| (0..GAP).map(move |x| MARGIN + column * (224 + GAP) - GAP + x));
    let width = page.width as usize;
    for x in gaps.chain(0..MARGIN).chain(width - MARGIN..width) {
        let stray = (first..page.height as usize).find(|y| pixel(&page, *y, x) != PAPER);
        assert_eq!(stray, None, "ink in column {x}");
    }
}

/// Checks that marks are apart and on the page, that all ink lies in them, and that each mark has ink.
fn check_ink(page: &layout::Page) -> Result<Canvas, TestCaseError> {
    let layout = page.layout();
    let canvas = layout.paint().unwrap();
    let rects: Vec<_> = layout
        .marks
        .iter()
        .map(|mark| match mark {
            Mark::Text(rect, _) | Mark::Rule(rect) => *rect,
            Mark::Picture(rect, _) => framed(*rect),
        })
        .collect();
    let mut free = vec![true; layout.height * layout.width];
    for (i, rect) in rects.iter().enumerate() {
        // A frame may lie in the margin, nothing else.
        prop_assert!(rect.x + 1 >= MARGIN && rect.x + rect.width <= layout.width - MARGIN + 1, "{rect:?}");
        prop_assert!(rect.y >= MARGIN && rect.y + rect.height <= layout.height - MARGIN, "{rect:?}");
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                prop_assert!(free[y * layout.width + x], "mark {i} lies on another one at {y} {x}");
                free[y * layout.width + x] = false;
            }
        }
    }
    for (at, free) in free.iter().enumerate() {
        let (y, x) = (at / layout.width, at % layout.width);
        prop_assert!(!free || canvas.at(y, x) == PAPER, "ink beside the marks at {y} {x}");
    }
    for (mark, rect) in layout.marks.iter().zip(&rects) {
        let visible = match mark {
            Mark::Text(_, rows) => rows.iter().any(|(_, row)| !row.trim().is_empty()),
            Mark::Rule(_) => canvas.at(rect.y, rect.x) == RULE,
            Mark::Picture(..) => true,
        };
        let mut pixels =
            (rect.y..rect.y + rect.height).flat_map(|y| (rect.x..rect.x + rect.width).map(move |x| (y, x)));
        prop_assert_eq!(pixels.any(|(y, x)| canvas.at(y, x) != PAPER), visible);
    }
    Ok(canvas)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sheet_keeps_its_ink_in_place(
        sizes in prop::collection::vec((1u32..600, 1u32..600), 0..3),
        texts in prop::collection::vec("(\\PC|[ \n\t_]|[a-z]{1,60}){0,40}", 6),
    ) {
        let own = |i: usize| [0, 1, 2, 3].map(|j| texts[(i + j) % 4].clone());
        let lines = sizes.iter().enumerate().map(|(i, (height, width))| Line {
            partner: gradient(*width, *height),
            ..line(*height, *width, own(i))
        });
        let sheet = Sheet { title: texts[4].clone(), subtitle: texts[5].clone(), lines: lines.collect() };
        check_ink(&sheet.page().unwrap())?;
    }

    #[test]
    fn any_grid_keeps_its_ink_in_place(
        sizes in prop::collection::vec((1u32..600, 1u32..600), 0..8),
        columns in 0usize..9,
        text in any::<String>(),
    ) {
        let cells: Vec<_> = sizes.iter().map(|(height, width)| (gradient(*height, *width), text.clone())).collect();
        check_ink(&grid_page(&text, &cells, columns).unwrap())?;
    }

    #[test]
    fn wrapped_text_fits_and_loses_nothing_unmarked(
        text in any::<String>(), columns in 3usize..40, each in 1usize..5, limit in 1usize..9,
    ) {
        let rows = wrap_all(&text, columns, each, limit);
        prop_assert!(rows.len() <= limit);
        for (_, row) in &rows {
            prop_assert!(row.len() <= columns && row.chars().all(|c| (' '..='~').contains(&c)), "{row:?}");
        }
        let letters = |s: &str| s.chars().filter(|c| !c.is_whitespace()).count();
        let paragraphs = text.lines().map(letters).collect::<Vec<_>>();
        for (number, paragraph) in paragraphs.iter().enumerate() {
            let own: Vec<_> = rows.iter().filter(|row| row.0 == number).map(|row| row.1.as_str()).collect();
            let cut = rows.last().is_some_and(|row| row.1.ends_with("..")) && rows.len() == limit
                || own.last().is_some_and(|row| row.ends_with(".."));
            prop_assert!(cut || own.iter().map(|row| letters(row)).sum::<usize>() == *paragraph, "{text:?} {rows:?}");
        }
    }
}

//! Colours of classes and of origins. They differ in lightness as well as in hue, so that they are told apart without
//! red or green: ground is light sand, vegetation dark bluish green, buildings vermilion.

use super::ClassNames;

/// Points without class and colour.
pub(super) const PLAIN: [u8; 3] = [132, 150, 172];
/// Classes that say that there is none: negative numbers.
const NONE: [u8; 3] = [186, 186, 186];

/// Class, name and colour of survey tiles (ASPRS LAS 1.4, table of point classes).
const ASPRS: [(i32, &str, [u8; 3]); 19] = [
    (0, "never classified", [168, 168, 176]),
    (1, "unclassified", [140, 140, 150]),
    (2, "ground", [230, 206, 160]),
    (3, "low vegetation", [178, 210, 90]),
    (4, "medium vegetation", [74, 164, 84]),
    (5, "high vegetation", [0, 116, 92]),
    (6, "building", [224, 92, 28]),
    (7, "low noise", [214, 40, 150]),
    (8, "key point", [120, 94, 60]),
    (9, "water", [16, 96, 180]),
    (10, "rail", [84, 60, 120]),
    (11, "road surface", [104, 104, 112]),
    (12, "overlap", [190, 182, 200]),
    (13, "guard wire", [240, 228, 66]),
    (14, "conductor wire", [230, 180, 0]),
    (15, "tower", [60, 60, 70]),
    (16, "wire connector", [250, 210, 90]),
    (17, "bridge deck", [206, 136, 226]),
    (18, "high noise", [240, 110, 190]),
];

/// Colours of a surveyor's own classes beside those of the standard.
const OWN: [[u8; 3]; 4] = [[110, 180, 220], [128, 86, 52], [64, 70, 130], [206, 150, 168]];

/// Colours of classes that are not of survey tiles, by their number; neighbours differ most.
const WHEEL: [[u8; 3]; 12] = [
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [213, 94, 0],
    [150, 150, 150],
    [240, 228, 66],
    [90, 60, 140],
    [140, 90, 50],
    [160, 210, 120],
    [60, 60, 66],
];

/// Colours of scene 0, scene 1 and so on.
const ORIGINS: [[u8; 3]; 4] = [[36, 116, 200], [240, 136, 24], [46, 150, 90], [170, 80, 170]];

/// Name of a class of survey tiles; None for those that the standard leaves to the surveyor.
pub fn asprs(class: i32) -> Option<&'static str> {
    ASPRS.iter().find(|entry| entry.0 == class).map(|entry| entry.1)
}

/// Name of a class, if it has one.
pub(super) fn name<'a>(class: i32, names: ClassNames<'a>) -> Option<&'a str> {
    match names {
        ClassNames::Asprs => asprs(class),
        ClassNames::Own(own) => own.iter().find(|entry| entry.0 == class).map(|entry| entry.1.as_str()),
    }
}

/// Colour of a class.
pub(super) fn class(class: i32, names: ClassNames) -> [u8; 3] {
    let Ok(number) = usize::try_from(class) else { return NONE };
    match names {
        ClassNames::Asprs => {
            let known = ASPRS.iter().find(|entry| entry.0 == class).map(|entry| entry.2);
            known.unwrap_or(OWN[number % OWN.len()])
        }
        ClassNames::Own(_) => WHEEL[number % WHEEL.len()],
    }
}

/// Colour of a part's points.
pub(super) fn origin(part: usize) -> [u8; 3] {
    ORIGINS[part % ORIGINS.len()]
}

//! Scenes of points: a file each, or a folder of NumPy files; large ones cut into blocks.

mod tiles;

use super::{
    Index, Source, SourceError,
    declare::{Rules, Verify},
    draft::{Built, Draft},
    record,
    walk::{Found, Stamp, Tally, Want, append, walk},
};
use crate::cloud::{self, parts};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::PathBuf,
};
use tiles::Tiles;

/// One file of a scene.
#[derive(Debug)]
struct File {
    /// Name that tells its format, without folders.
    name: String,
    /// Name in errors.
    shown: String,
    path: PathBuf,
    stamp: Stamp,
}

/// One scene.
#[derive(Debug)]
struct Scene {
    /// Name in the source.
    name: String,
    files: Vec<File>,
}

impl Scene {
    /// Its files in one buffer.
    fn read(&self) -> Result<Vec<u8>, SourceError> {
        let sizes: Vec<(&str, u64)> =
            self.files.iter().map(|file| (file.name.as_str(), file.stamp.size)).collect();
        let mut bytes = parts::head(&sizes);
        for File { shown, path, stamp, .. } in &self.files {
            append(path, shown, stamp, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn size(&self) -> u64 {
        self.files.iter().map(|file| file.stamp.size).sum()
    }
}

/// Where the records of a source are.
#[derive(Debug)]
enum Place {
    /// Scenes, by the records' file numbers.
    Scenes(Vec<Scene>),
    /// Blocks of scenes.
    Tiles(Tiles),
}

/// A source of scenes.
#[derive(Debug)]
pub(super) struct Points {
    built: Built,
    place: Place,
}

/// Finds the scenes; cuts them when the declaration says so.
pub(super) fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Points, SourceError> {
    let (scenes, mut notes) = find(rules, progress)?;
    if rules.declared.tile.is_some() {
        let (tiles, drafts) = tiles::open(rules, &scenes, &mut notes, progress)?;
        let built = Built::new(rules, drafts, Vec::new(), notes)?;
        return Ok(Points { built, place: Place::Tiles(tiles) });
    }
    let mut drafts = Vec::with_capacity(scenes.len());
    for (number, scene) in scenes.iter().enumerate() {
        progress(number as u64, &scene.name);
        let mut draft = Draft::new(scene.name.clone(), number as u32, 0, scene.size());
        draft.points = points(scene)?;
        if rules.declared.verify == Verify::Content {
            draft.content = Some(*blake3::hash(&scene.read()?).as_bytes());
        }
        drafts.push(draft);
    }
    progress(scenes.len() as u64, &rules.declared.path);
    let built = Built::new(rules, drafts, Vec::new(), notes)?;
    Ok(Points { built, place: Place::Scenes(scenes) })
}

/// True for names with an extension of a file that holds points or belongs to one that does.
fn is_part(name: &str) -> bool {
    const EXTENSIONS: [&str; 7] = ["las", "laz", "ply", "npy", "npz", "bin", "label"];
    let extension = name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, end)| end);
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Bytes of a file that its header is looked for in.
const HEAD: u64 = 1 << 16;

/// Points of a scene as its headers say, 0 where they say nothing that can be understood: what it takes to make it must be
/// known before it is read. Such a scene is a bad record when its turn comes, as a broken picture is.
fn points(scene: &Scene) -> Result<u64, SourceError> {
    let head = |file: &File| {
        let io = |error| SourceError::io(file.shown.as_str(), error);
        let mut bytes = Vec::new();
        // The list of an archive stands at its end; what a scan holds is its size alone.
        let all = file.name.to_ascii_lowercase().ends_with(".npz");
        let opened = fs::File::open(&file.path).map_err(io)?;
        opened.take(if all { u64::MAX } else { HEAD }).read_to_end(&mut bytes).map_err(io)?;
        Ok((file.name.clone(), Bytes::from(bytes)))
    };
    let scan = |file: &&File| file.name.to_ascii_lowercase().ends_with(".bin");
    if let Some(scan) = scene.files.iter().find(scan) {
        return Ok(scan.stamp.size / 16);
    }
    let heads = scene.files.iter().map(head).collect::<Result<Vec<_>, SourceError>>()?;
    Ok(cloud::peek(&heads).ok().flatten().unwrap_or(0))
}

/// Every scene below the path, by name.
fn find(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<(Vec<Scene>, Vec<String>), SourceError> {
    let shown = rules.declared.path.trim_end_matches('/').to_owned();
    let root = rules.path(&rules.declared.path);
    if root.is_file() {
        let metadata = fs::metadata(&root).map_err(|error| SourceError::io(shown.as_str(), error))?;
        let name = shown.rsplit('/').next().unwrap_or_default().to_owned();
        let file = File { name: name.clone(), shown, path: root, stamp: Stamp::of(&metadata) };
        return Ok((vec![Scene { name, files: vec![file] }], Vec::new()));
    }
    if !root.is_dir() {
        return Err(rules.misfit(format!("path `{shown}` is no file or folder, want one of scenes")));
    }
    let want = Want { shown: &shown, depth: usize::MAX, file: &is_part, progress };
    let found = walk(&root, &want)?;
    let mut notes: Vec<String> =
        found.others.note("file is no scene", "files are no scenes").into_iter().collect();
    notes.extend(found.notes());
    let (scenes, lone) = group(found.files, &shown);
    notes.extend(lone.note("file belongs to no scene", "files belong to no scene"));
    if scenes.is_empty() {
        return Err(rules.misfit(format!("path `{shown}` holds no scene, want at least one")));
    }
    Ok((scenes, notes))
}

/// Files to scenes: the known arrays of a folder with `coord.npy` are one, a `.label` belongs to its `.bin`, every other
/// file is one by itself. Also files that belong to no scene.
fn group(files: Vec<Found>, shown: &str) -> (Vec<Scene>, Tally) {
    let folder = |name: &str| name.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let coords = files.iter().filter(|file| last(&file.name) == "coord.npy");
    let whole: BTreeSet<String> = coords.map(|file| folder(&file.name)).collect();
    let mut scenes: BTreeMap<String, Vec<File>> = BTreeMap::new();
    let (mut labels, mut lone) = (Vec::new(), Tally::default());
    for found in files {
        let (own, name) = (folder(&found.name), last(&found.name));
        let (part, scan) = (whole.contains(&own), scan_of(&found.name));
        let (label, array) = (is_label(&name), name.strip_suffix(".npy").is_some_and(cloud::is_known));
        let scene = if part { own } else { found.name.clone() };
        let shown = format!("{shown}/{}", found.name);
        let file = File { name, shown, path: found.path, stamp: found.stamp };
        match (label, part && !array) {
            (true, _) => labels.push((scan, file)),
            (false, true) => lone.add(&file.shown),
            (false, false) => scenes.entry(scene).or_default().push(file),
        }
    }
    for (scan, file) in labels {
        match scenes.get_mut(&scan) {
            Some(files) => files.push(file),
            None => lone.add(&file.shown),
        }
    }
    let scenes = scenes.into_iter().map(|(name, files)| Scene { name, files }).collect();
    (scenes, lone)
}

fn is_label(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(LABEL)
}

/// Extension of KITTI's labels.
const LABEL: &str = ".label";

/// The scan that a label file belongs to: "00/labels/000001.label" and "00/velodyne/000001.bin" in KITTI's layout, beside
/// each other elsewhere.
fn scan_of(label: &str) -> String {
    let scan = if is_label(label) { &label[..label.len() - LABEL.len()] } else { label };
    let scan = match scan.rsplit_once('/') {
        Some((folder, file)) if folder == "labels" || folder.ends_with("/labels") => {
            format!("{}velodyne/{file}", &folder[..folder.len() - "labels".len()])
        }
        Some(_) | None => scan.to_owned(),
    };
    format!("{scan}.bin")
}

impl Source for Points {
    fn kind(&self) -> &'static str {
        "points"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn notes(&self) -> &[String] {
        &self.built.notes
    }

    fn scenes(&self) -> bool {
        true
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let record = record(&self.built.index, number)?;
        match &self.place {
            Place::Scenes(scenes) => {
                let bytes = scenes[record.file as usize].read()?;
                self.built.verify(number, &bytes, &record.name)?;
                Ok(bytes.into())
            }
            Place::Tiles(tiles) => tiles.read(record),
        }
    }
}

//! Class folders: one file a record.

use super::{
    Fetching, Index, Source, SourceError,
    declare::{LabelFrom, Rules, Verify},
    draft::{Built, Draft},
    is_picture, record,
    remote::{self, Object, Span},
    walk::{Stamp, Want, walk, whole},
};
use bytes::Bytes;
use std::{fs::File, path::PathBuf, sync::Arc};

/// A folder of pictures.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    shown: String,
    built: Built,
    /// State of every record's file.
    stamps: Vec<Stamp>,
    /// In a store, every record's object instead.
    objects: Vec<Arc<Object>>,
}

impl Folder {
    /// Indexes the folder.
    pub fn open(rules: &Rules<'_>, progress: &dyn Fn(u64, &str)) -> Result<Folder, SourceError> {
        let shown = rules.declared.path.trim_end_matches('/').to_owned();
        if remote::is_url(&shown) {
            return Folder::listed(rules, shown, progress);
        }
        let root = rules.path(&rules.declared.path);
        if !root.is_dir() {
            return Err(rules.misfit(format!("path `{shown}` is no folder, want one of class folders")));
        }
        let mut found = walk(&root, &Want { shown: &shown, depth: usize::MAX, file: &is_picture, progress })?;
        let mut notes: Vec<String> =
            found.others.note("file is no picture", "files are no pictures").into_iter().collect();
        notes.extend(found.notes());
        let classes = match rules.labels {
            LabelFrom::Folder => found.folders.into_iter().filter(|folder| !folder.contains('/')).collect(),
            LabelFrom::Cls | LabelFrom::Json | LabelFrom::Csv | LabelFrom::Column | LabelFrom::None => {
                Vec::new()
            }
        };
        let total = found.files.len() as u64;
        let mut drafts = Vec::with_capacity(found.files.len());
        for (number, file) in found.files.iter_mut().enumerate() {
            let name = std::mem::take(&mut file.name);
            let mut draft = Draft::new(name, number as u32, 0, file.stamp.size);
            if rules.labels == LabelFrom::Folder {
                draft.label_by_folder();
            }
            if rules.declared.verify == Verify::Content {
                progress(number as u64, &draft.name);
                draft.content = Some(hash(&file.path, &format!("{shown}/{}", draft.name))?);
            }
            drafts.push(draft);
        }
        let stamps = found.files.into_iter().map(|file| file.stamp).collect();
        let built = Built::new(rules, drafts, classes, notes)?;
        progress(total, &shown);
        Ok(Folder { root, shown, built, stamps, objects: Vec::new() })
    }

    /// Finds the pictures of a store.
    fn listed(rules: &Rules<'_>, shown: String, progress: &dyn Fn(u64, &str)) -> Result<Folder, SourceError> {
        let found = remote::list(rules, &is_picture, progress)?;
        let notes = found.others.note("object is no picture", "objects are no pictures");
        let notes: Vec<String> = notes.into_iter().chain(found.notes()).collect();
        let own = |folder: &String| rules.labels == LabelFrom::Folder && !folder.contains('/');
        let classes = found.folders.into_iter().filter(own).collect();
        let (mut drafts, mut objects) = (Vec::with_capacity(found.objects.len()), Vec::new());
        for (number, (name, object)) in found.objects.into_iter().enumerate() {
            let mut draft = Draft::new(name, number as u32, 0, object.size());
            if rules.labels == LabelFrom::Folder {
                draft.label_by_folder();
            }
            if rules.declared.verify == Verify::Content {
                progress(number as u64, &object.shown);
                draft.content = Some(remote::hash(&object)?);
            }
            drafts.push(draft);
            objects.push(object);
        }
        progress(drafts.len() as u64, &shown);
        let built = Built::new(rules, drafts, classes, notes)?;
        Ok(Folder { root: PathBuf::new(), shown, built, stamps: Vec::new(), objects })
    }

    /// What to ask a store for.
    fn want(&self, number: u32) -> Result<Span, SourceError> {
        let record = record(&self.built.index, number)?;
        let object = self.objects[record.file as usize].clone();
        let hash = self.built.hash(number);
        Ok(Span { object, from: 0, length: record.size, hash, name: record.name.clone() })
    }
}

fn hash(path: &std::path::Path, shown: &str) -> Result<[u8; 32], SourceError> {
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    hashed.map_err(|error| SourceError::io(shown, error))?;
    Ok(*hasher.finalize().as_bytes())
}

impl Source for Folder {
    fn kind(&self) -> &'static str {
        "folder"
    }

    fn index(&self) -> &Index {
        &self.built.index
    }

    fn notes(&self) -> &[String] {
        &self.built.notes
    }

    fn far(&self) -> bool {
        !self.objects.is_empty()
    }

    fn read(&self, number: u32) -> Result<Bytes, SourceError> {
        let record = record(&self.built.index, number)?;
        if !self.objects.is_empty() {
            return remote::one(self.want(number)?);
        }
        let shown = format!("{}/{}", self.shown, record.name);
        let bytes = whole(&self.root.join(&record.name), &shown, &self.stamps[record.file as usize])?;
        self.built.verify(number, &bytes, &shown)?;
        Ok(bytes.into())
    }

    fn fetch(&self, numbers: &[u32]) -> Option<Fetching> {
        self.objects.first()?;
        Some(remote::fetch(numbers.iter().map(|number| self.want(*number)).collect()))
    }
}

//! Finding the objects of a source: by listing a bucket, by a pattern that counts, or by a manifest.

use super::{
    Remote,
    address::{Address, expand, is_url, shown},
    client,
    fault::Fault,
    object::{Object, Place},
    wait,
};
use crate::source::{
    SourceError,
    declare::{Declaration, Kind, Rules},
    keep,
    label::open_text,
    walk::Tally,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use globset::{GlobBuilder, GlobMatcher};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use std::{
    collections::{BTreeSet, HashMap},
    io::Read,
    sync::Arc,
};

/// Bytes of a manifest.
const MAX_MANIFEST: u64 = 256 << 20;
/// Objects asked for between two signs of progress.
const ROUND: usize = 1024;

/// What a source holds.
#[derive(Debug, Default)]
pub(in crate::source) struct Listed {
    /// Objects by name below the path, or below the part of it without wildcards.
    pub objects: Vec<(String, Arc<Object>)>,
    /// Folders above any object, by name.
    pub folders: Vec<String>,
    /// Objects that were not wanted.
    pub others: Tally,
    hidden: Tally,
}

impl Listed {
    /// Notes on what was left out, but for other objects.
    pub fn notes(&self) -> Option<String> {
        self.hidden.note("hidden object is left out", "hidden objects are left out")
    }
}

/// What does not fit between the path and what belongs to it.
pub(in crate::source) fn misfit(declared: &Declaration) -> Option<String> {
    let path = declared.path.as_str();
    if !is_url(path) {
        let given = [("store", declared.store.is_some()), ("manifest", declared.manifest.is_some())];
        let given = given.iter().find(|(_, given)| *given)?;
        return Some(format!("{} is given, want a path s3://, https:// or http:// with it", given.0));
    }
    if !matches!(declared.kind, Kind::Folder | Kind::Tar | Kind::Parquet) {
        let kind = declared.kind.name();
        let why = "kinds `folder`, `tar` and `parquet` read from stores";
        return Some(format!(
            "path `{}` is a URL, kind `{kind}` reads files of this machine; {why}",
            shown(path)
        ));
    }
    let store = declared.store.clone().unwrap_or_default();
    match Address::parse(path) {
        Err(why) => Some(format!("path: {why}")),
        Ok(Address::Bucket(..)) => store.misfit(true),
        Ok(Address::Web(url)) if url.query().is_some() || url.fragment().is_some() => {
            Some("path has a query, want it in a `manifest`: what is signed is a secret".into())
        }
        Ok(Address::Web(_)) if declared.manifest.is_none() && declared.kind == Kind::Folder => {
            Some("manifest is missing, want one: a web server cannot list its files".into())
        }
        Ok(Address::Web(_)) if path.contains(['*', '[']) => Some(
            "path has wildcards, want `{000..099}` or a `manifest`: a web server cannot list its files"
                .into(),
        ),
        Ok(Address::Web(url))
            if url.scheme() == "http" && !store.allow_http && !client::here(url.host_str()) =>
        {
            Some("path is read without TLS, want https:// or store.allow_http = true".into())
        }
        Ok(Address::Web(_)) => store.misfit(false),
    }
}

/// The objects of a source whose names below the path are `wanted`.
pub(in crate::source) fn list(
    rules: &Rules<'_>,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(u64, &str),
) -> Result<Listed, SourceError> {
    let path = rules.declared.path.trim_end_matches('/');
    let s3 = path.starts_with("s3://");
    let mut finder =
        Finder { rules, remote: Remote::new(rules, s3)?, stores: HashMap::new(), wanted, progress };
    let mut listed = Listed::default();
    match &rules.declared.manifest {
        Some(manifest) => {
            let named = finder.manifest(manifest, path)?;
            listed.add(finder.probed(named)?, wanted);
        }
        None => {
            let base = base(path, s3 && rules.declared.kind == Kind::Folder, wanted);
            for url in expand(path).map_err(|why| rules.misfit(format!("path: {why}")))? {
                let found = if s3 { finder.bucket(&url, base)? } else { finder.single(&url, base)? };
                listed.add(found, wanted);
            }
            // Patterns may overlap. A manifest names an object once: two of its lines may differ in their queries only.
            listed.objects.sort_by(|a, b| (&a.0, &a.1.shown).cmp(&(&b.0, &b.1.shown)));
            listed.objects.dedup_by(|a, b| a.0 == b.0 && a.1.shown == b.1.shown);
        }
    }
    listed.objects.sort_by(|a, b| a.0.cmp(&b.0));
    if listed.objects.is_empty() {
        let others = listed.others.note("other object", "other objects");
        let others = others.map(|note| format!(" ({note})")).unwrap_or_default();
        return Err(rules.misfit(format!("path `{}` holds nothing of its kind{others}", shown(path))));
    }
    Ok(listed)
}

/// The part of `path` that names are below of: all of it for a folder, else what is before the first wildcard.
fn base<'a>(path: &'a str, folder: bool, wanted: &dyn Fn(&str) -> bool) -> &'a str {
    let wild = path.find(['*', '?', '[', '{']);
    if wild.is_none() && (folder || !wanted(path)) {
        return path;
    }
    let end = wild.unwrap_or(path.len());
    path[..end].rfind('/').map_or(path, |cut| &path[..cut])
}

impl Listed {
    fn add(&mut self, found: Vec<(String, Arc<Object>)>, wanted: &dyn Fn(&str) -> bool) {
        let mut folders: BTreeSet<String> = std::mem::take(&mut self.folders).into_iter().collect();
        for (name, object) in found {
            if name.split('/').any(|part| part.starts_with('.')) {
                self.hidden.add(&name);
                continue;
            }
            let above = name.match_indices('/').map(|(at, _)| &name[..at]);
            above.for_each(|folder| {
                if !folders.contains(folder) {
                    folders.insert(folder.to_owned());
                }
            });
            if wanted(&name) {
                self.objects.push((name, object));
            } else if !name.ends_with(keep::EXTENSION) {
                self.others.add(&name);
            }
        }
        self.folders = folders.into_iter().collect();
    }
}

struct Finder<'a> {
    rules: &'a Rules<'a>,
    remote: Arc<Remote>,
    /// By bucket, or by host and query.
    stores: HashMap<String, Arc<dyn ObjectStore>>,
    wanted: &'a dyn Fn(&str) -> bool,
    progress: &'a dyn Fn(u64, &str),
}

type Found = Vec<(String, Arc<Object>)>;

impl Finder<'_> {
    fn misfit(&self, why: impl std::fmt::Display) -> SourceError {
        self.rules.misfit(format!("path: {why}"))
    }

    /// Where the object at `url` would be.
    fn place(&mut self, url: &str) -> Result<Place, SourceError> {
        let address = Address::parse(url).map_err(|why| self.misfit(why))?;
        let (id, path) = match &address {
            Address::Bucket(bucket, key) => (bucket.clone(), Path::parse(key)),
            Address::Web(url) => {
                let mut root = url.clone();
                root.set_path("/");
                (root.to_string(), Path::from_url_path(url.path()))
            }
        };
        let path = path.map_err(|error| self.misfit(format!("`{}`: {error}", shown(url))))?;
        let store = match self.stores.get(&id) {
            Some(store) => store.clone(),
            None => {
                let (wire, declared) =
                    (&self.remote.wire, self.rules.declared.store.clone().unwrap_or_default());
                let made = match &address {
                    Address::Bucket(bucket, _) => wire.bucket(&declared, &self.rules.path(""), bucket),
                    Address::Web(url) => wire.web(url),
                };
                let store = made.map_err(|why| self.rules.misfit(format!("store: {why}")))?;
                self.stores.insert(id, store.clone());
                store
            }
        };
        Ok(Place { store, path, url: url.into() })
    }

    /// The one object at `url`.
    fn single(&mut self, url: &str, base: &str) -> Result<Found, SourceError> {
        let place = self.place(url)?;
        self.probed(vec![(below(url, base), place)])
    }

    /// What a pattern in a bucket, without braces, stands for: an object, all below a prefix, or what fits a glob.
    fn bucket(&mut self, url: &str, base: &str) -> Result<Found, SourceError> {
        let wild = url.find(['*', '?', '[']);
        if wild.is_none() && self.rules.declared.kind != Kind::Folder && (self.wanted)(url) {
            return self.single(url, base);
        }
        let prefix = wild.map_or(url, |wild| url[..wild].rfind('/').map_or(url, |cut| &url[..cut]));
        let glob =
            wild.map(|_| glob(&url[prefix.len() + 1..])).transpose().map_err(|why| self.misfit(why))?;
        (self.progress)(0, prefix);
        let place = self.place(prefix)?;
        let (remote, root) = (self.remote.clone(), place.clone());
        let found = wait(async move { everything(&remote, &root).await })?;
        let strip = place.path.as_ref().len() + usize::from(!place.path.as_ref().is_empty());
        let bucket = prefix["s3://".len()..].split('/').next().unwrap_or_default();
        let (mut objects, mut untagged) = (Vec::new(), Vec::new());
        for meta in found {
            let key = meta.location.as_ref().to_owned();
            if key.len() <= strip || glob.as_ref().is_some_and(|glob| !glob.is_match(&key[strip..])) {
                continue;
            }
            let url = format!("s3://{bucket}/{key}");
            let place = Place { store: place.store.clone(), path: meta.location.clone(), url: url.clone() };
            match meta.e_tag {
                Some(_) => {
                    objects.push((below(&url, base), Arc::new(Object::new(&self.remote, place, meta)?)))
                }
                // Reads may tell more of it, or its time less finely than the listing: what they tell is its state.
                None => untagged.push((below(&url, base), place)),
            }
        }
        objects.extend(self.probed(untagged)?);
        (self.progress)(objects.len() as u64, prefix);
        Ok(objects)
    }

    /// Asks for the state of every one of `places`.
    fn probed(&mut self, places: Vec<(String, Place)>) -> Result<Found, SourceError> {
        let mut found = Vec::with_capacity(places.len());
        for round in places.chunks(ROUND) {
            (self.progress)(found.len() as u64, &shown(&round[0].1.url));
            let (remote, round) = (self.remote.clone(), round.to_vec());
            found.extend(wait(async move {
                let asked = stream::iter(round).map(|(name, place)| {
                    let remote = remote.clone();
                    async move { Ok((name, Arc::new(Object::probe(&remote, place).await?))) }
                });
                asked.buffered(ROUND).try_collect::<Vec<_>>().await
            })?);
        }
        Ok(found)
    }

    /// Names and places of a manifest: a line is a name below `path` or a URL; `#` begins a comment.
    fn manifest(&mut self, manifest: &str, path: &str) -> Result<Vec<(String, Place)>, SourceError> {
        let label = shown(manifest);
        let mut text = String::new();
        if is_url(manifest) {
            let place = self.place(manifest)?;
            let remote = self.remote.clone();
            let bytes = wait(async move {
                let object = Object::probe(&remote, place).await?;
                match object.size() > MAX_MANIFEST {
                    true => Err(SourceError::format(object.shown, format!("is over {MAX_MANIFEST} bytes"))),
                    false => object.range(0, object.size()).await,
                }
            })?;
            text =
                String::from_utf8(bytes.into()).map_err(|_| SourceError::format(&*label, "is no UTF-8"))?;
        } else {
            let file = open_text(&self.rules.path(manifest), manifest)?;
            let read = file.take(MAX_MANIFEST).read_to_string(&mut text);
            read.map_err(|error| SourceError::io(&*label, error))?;
        }
        let mut named = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| SourceError::format(format!("{label}:{}", number + 1), why);
            for entry in expand(line).map_err(&wrong)? {
                let url = if is_url(&entry) { entry } else { format!("{path}/{entry}") };
                if url.starts_with("s3://") != path.starts_with("s3://") {
                    return Err(wrong(format!("`{}` is of another kind of store than path", shown(&url))));
                }
                named.push((below(&shown(&url), path), self.place(&url)?));
            }
        }
        Ok(named)
    }
}

/// Name of the object at `url`: what follows `base`, or all after its host.
fn below(url: &str, base: &str) -> String {
    let rest = url.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
    let host =
        || url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    rest.unwrap_or_else(host).into()
}

fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob.map_err(|error| error.to_string())?.compile_matcher())
}

/// Every object below a place of a bucket.
async fn everything(remote: &Arc<Remote>, place: &Place) -> Result<Vec<ObjectMeta>, SourceError> {
    let mut found: Vec<ObjectMeta> = Vec::new();
    loop {
        // Goes on behind the last one that came; each of them renews the patience.
        let after = found.last().map(|meta| meta.location.clone());
        let more = remote.patience.retried(|| some(remote, place, after.as_ref())).await;
        let (more, all) = more.map_err(|gave_up| remote.error(&shown(&place.url), None, gave_up))?;
        found.extend(more);
        if all {
            return Ok(found);
        }
    }
}

/// Objects below a place, behind `after`, and whether those are all; an error only when there is none before it.
async fn some(
    remote: &Remote,
    place: &Place,
    after: Option<&Path>,
) -> Result<(Vec<ObjectMeta>, bool), Fault> {
    let _one = remote.requests.acquire().await.expect("never closed");
    let prefix = Some(&place.path).filter(|path| !path.as_ref().is_empty());
    let mut listing = match after {
        Some(after) => place.store.list_with_offset(prefix, after),
        None => place.store.list(prefix),
    };
    let mut found = Vec::new();
    loop {
        let fault = match tokio::time::timeout(remote.timeout, listing.next()).await {
            Ok(None) => return Ok((found, true)),
            Ok(Some(Ok(meta))) => {
                found.push(meta);
                continue;
            }
            Ok(Some(Err(error))) => Fault::of(&error),
            Err(_) => Fault::Again("no answer in time".into()),
        };
        return if found.is_empty() { Err(fault) } else { Ok((found, false)) };
    }
}

//! What the operator's TOML file says about a source, checked before anything is read.

use super::{Source, SourceError, folder, parquet, points, remote, tar, text, tokens};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One `[sources.NAME]` table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// How records are stored.
    pub kind: Kind,
    /// Folder of class folders; for the other kinds a file, a folder of files or a glob such as "shards/train-*.tar".
    /// Relative to the file that declares the source. Or, for folders, tar and Parquet, a URL of a store:
    /// "s3://bucket/prefix", "s3://bucket/train-*.tar", "https://host/train-{000..099}.tar".
    pub path: String,
    /// Text file, or a URL of one, that lists objects below a `path` that is a URL: a line is a name, a pattern such as
    /// "train-{000..099}.tar", or a whole URL, which may be presigned. Web servers cannot list, so folders there need one.
    pub manifest: Option<String>,
    /// How objects of a `path` that is a URL are read.
    pub store: Option<remote::Store>,
    /// What a group is; default: "class" for folders, "column" when `group_column` is given, otherwise "one".
    pub groups: Option<GroupBy>,
    /// Where labels are; default: "csv" or "column" when `labels_csv` or `label_column` is given, "json" when
    /// `json_field` is, otherwise "folder" for folders, "cls" for tar and "none" for Parquet.
    pub labels: Option<LabelFrom>,
    /// CSV file of record name and label, relative like `path`; a header may name the columns.
    pub labels_csv: Option<String>,
    /// Field of the `.json` members that holds the label; default "label".
    pub json_field: Option<String>,
    /// Class names by label. Without it, names are sorted bytewise and integers n become the class "n".
    pub classes: Option<Vec<String>>,
    /// Parquet column of the encoded pictures, or a struct with a field `bytes`; default "image".
    pub image_column: Option<String>,
    /// Parquet column of the labels, integers or names.
    pub label_column: Option<String>,
    /// Parquet column, or field of JSON lines, of the groups, integers or names.
    pub group_column: Option<String>,
    /// What is hashed into the index digest beside names, sizes, offsets and labels.
    #[serde(default)]
    pub verify: Verify,
    /// Folder for indexes of shards whose own folder cannot be written to; for text, of the tokens, default
    /// "mixfeed-cache". Relative like `path`.
    pub cache: Option<String>,
    /// Memory for decoded rows of a Parquet source, in MiB, 1..=65536; default 64.
    pub decoded_mib: Option<u32>,
    /// How text becomes tokens: "bytes", "r50k_base", "p50k_base", "cl100k_base", "o200k_base", or "file:tokenizer.json"
    /// (Hugging Face), relative like `path`.
    pub tokenizer: Option<String>,
    /// What a document of a plain text file is; default "file".
    pub documents: Option<Documents>,
    /// Parquet column, or field of JSON lines, of the text; default "text".
    pub text_column: Option<String>,
    /// Id that ends every document: added to texts; in raw token files the mark between documents, without which a file
    /// is one document.
    pub eod: Option<u32>,
    /// Type of the ids of raw token files; default "u16".
    pub dtype: Option<Width>,
    /// Cuts large scenes into overlapping blocks, each of them a record.
    pub tile: Option<Tile>,
}

/// Square blocks over x and y, in the unit of the coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Side of a block, > 0.
    pub block: f64,
    /// From one block to the next, block / 16 <= stride <= block; default: the block, without overlap.
    pub stride: Option<f64>,
    /// Blocks of fewer points are left out; default 1,024.
    pub min_points: Option<u64>,
}

/// What a document of a plain text file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Documents {
    /// The whole file.
    #[default]
    File,
    /// A line that is not empty.
    Line,
    /// Lines up to an empty one.
    Paragraph,
}

/// Type of stored ids, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// 16 bits.
    #[default]
    U16,
    /// 32 bits.
    U32,
}

impl Width {
    /// Bytes of an id.
    pub fn bytes(self) -> usize {
        match self {
            Width::U16 => 2,
            Width::U32 => 4,
        }
    }
}

/// How records are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One file a record.
    Folder,
    /// WebDataset shards.
    Tar,
    /// One row a record.
    Parquet,
    /// Files of token ids.
    Tokens,
    /// Files of text that are tokenised once.
    Text,
    /// Scenes of points: LAS, LAZ, PLY, NumPy and KITTI files, or folders of NumPy files, one scene each.
    Points,
}

impl Kind {
    /// Name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Folder => "folder",
            Kind::Tar => "tar",
            Kind::Parquet => "parquet",
            Kind::Tokens => "tokens",
            Kind::Text => "text",
            Kind::Points => "points",
        }
    }
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Records of one class.
    Class,
    /// Records of one containing folder (in tar: of the member's folder, over all shards).
    Folder,
    /// Records of one shard file.
    Shard,
    /// All records, as one group named "all".
    One,
    /// Records with one value of `group_column`.
    Column,
    /// Records whose name matches a glob (`*` also crosses `/`), by group name.
    Pattern(BTreeMap<String, String>),
    /// Records that a text file lists, one name a line, by group name.
    List(BTreeMap<String, String>),
}

/// Where labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelFrom {
    /// The first-level folder.
    Folder,
    /// `.cls` members of tar shards.
    Cls,
    /// A field of `.json` members of tar shards.
    Json,
    /// A CSV file.
    Csv,
    /// A Parquet column.
    Column,
    /// Nowhere.
    None,
}

/// What is hashed into the index digest beside names, sizes, offsets and labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Nothing more.
    #[default]
    Size,
    /// Each record's bytes; every read is compared with them.
    Content,
}

impl Declaration {
    /// A declaration with every default.
    pub fn new(kind: Kind, path: impl Into<String>) -> Declaration {
        Declaration {
            kind,
            path: path.into(),
            manifest: None,
            store: None,
            groups: None,
            labels: None,
            labels_csv: None,
            json_field: None,
            classes: None,
            image_column: None,
            label_column: None,
            group_column: None,
            verify: Verify::Size,
            cache: None,
            decoded_mib: None,
            tokenizer: None,
            documents: None,
            text_column: None,
            eod: None,
            dtype: None,
            tile: None,
        }
    }
}

/// Opens and indexes the source that `declaration` describes; relative paths are relative to `base`. `progress` hears
/// the number of records found so far and the file being read.
///
/// # Errors
/// [`SourceError`]: a field that does not fit, a file that is missing, unreadable, damaged or mislabelled, no record.
pub fn open(
    name: &str,
    declaration: &Declaration,
    base: &Path,
    progress: &dyn Fn(u64, &str),
) -> Result<Arc<dyn Source>, SourceError> {
    let rules = Rules::check(name, declaration, base)?;
    Ok(match declaration.kind {
        Kind::Folder => Arc::new(folder::Folder::open(&rules, progress)?),
        Kind::Tar => Arc::new(tar::Tar::open(&rules, progress)?),
        Kind::Parquet => Arc::new(parquet::Parquet::open(&rules, progress)?),
        Kind::Tokens => Arc::new(tokens::open(&rules, progress)?),
        Kind::Text => Arc::new(text::open(&rules, progress)?),
        Kind::Points => Arc::new(points::open(&rules, progress)?),
    })
}

/// A declaration with its defaults filled in.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// Name of the source.
    pub name: &'a str,
    /// As declared.
    pub declared: &'a Declaration,
    /// What a group is.
    pub groups: GroupBy,
    /// Where labels are.
    pub labels: LabelFrom,
    base: &'a Path,
}

impl<'a> Rules<'a> {
    /// Fills in defaults and refuses fields that contradict each other.
    pub fn check(name: &'a str, declared: &'a Declaration, base: &'a Path) -> Result<Rules<'a>, SourceError> {
        let d = declared;
        let labels = d.labels.unwrap_or(match d.kind {
            _ if d.labels_csv.is_some() => LabelFrom::Csv,
            _ if d.label_column.is_some() => LabelFrom::Column,
            _ if d.json_field.is_some() => LabelFrom::Json,
            Kind::Folder => LabelFrom::Folder,
            Kind::Tar => LabelFrom::Cls,
            Kind::Parquet | Kind::Tokens | Kind::Text | Kind::Points => LabelFrom::None,
        });
        let groups = d.groups.clone().unwrap_or(match d.kind {
            _ if d.group_column.is_some() => GroupBy::Column,
            Kind::Folder => GroupBy::Class,
            Kind::Tar | Kind::Parquet | Kind::Tokens | Kind::Text | Kind::Points => GroupBy::One,
        });
        let rules = Rules { name, declared, groups, labels, base };
        rules.check_labels()?;
        rules.check_groups()?;
        rules.check_fields()?;
        Ok(rules)
    }

    /// An error of the declaration.
    pub fn misfit(&self, why: impl Into<String>) -> SourceError {
        SourceError::misfit(self.name, why)
    }

    /// `path` of the declaration, made absolute.
    pub fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    fn ensure(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), SourceError> {
        if holds { Ok(()) } else { Err(self.misfit(why())) }
    }

    fn check_labels(&self) -> Result<(), SourceError> {
        let (d, kind) = (self.declared, self.declared.kind);
        let pictures = !matches!(kind, Kind::Tokens | Kind::Text | Kind::Points);
        let fits = match self.labels {
            LabelFrom::None => true,
            _ if !pictures => false,
            LabelFrom::Folder => kind != Kind::Parquet,
            LabelFrom::Cls | LabelFrom::Json => kind == Kind::Tar,
            LabelFrom::Column => kind == Kind::Parquet,
            LabelFrom::Csv => true,
        };
        self.ensure(fits, || {
            let want = match kind {
                Kind::Folder => "`folder`, `csv` or `none`",
                Kind::Tar => "`cls`, `json`, `folder`, `csv` or `none`",
                Kind::Parquet => "`column`, `csv` or `none`",
                Kind::Tokens | Kind::Text | Kind::Points => "`none`",
            };
            format!("labels of kind `{}` cannot be `{:?}`, want {want}", kind.name(), self.labels)
                .to_lowercase()
        })?;
        for (field, given, wanted) in [
            ("labels_csv", d.labels_csv.is_some(), LabelFrom::Csv),
            ("label_column", d.label_column.is_some(), LabelFrom::Column),
        ] {
            let here = self.labels == wanted;
            let other = if given { "is given, want it absent" } else { "is missing, want it" };
            self.ensure(given == here, || {
                format!("{field} {other} with labels = `{:?}`", self.labels).to_lowercase()
            })?;
        }
        let json = d.json_field.is_none() || self.labels == LabelFrom::Json;
        self.ensure(json, || "json_field is given, want labels = `json` with it".into())
    }

    fn check_groups(&self) -> Result<(), SourceError> {
        let kind = self.declared.kind;
        let (name, fits) = match &self.groups {
            GroupBy::Class => ("class", self.labels != LabelFrom::None),
            GroupBy::Folder => ("folder", kind != Kind::Parquet),
            GroupBy::Shard => {
                ("shard", kind != Kind::Folder && (kind != Kind::Points || self.declared.tile.is_some()))
            }
            GroupBy::Column if kind == Kind::Tokens => ("column", true),
            GroupBy::Column => {
                let kind = matches!(kind, Kind::Parquet | Kind::Text);
                ("column", kind && self.declared.group_column.is_some())
            }
            GroupBy::One => ("one", true),
            GroupBy::Pattern(named) => ("pattern", !named.is_empty()),
            GroupBy::List(named) => ("list", !named.is_empty()),
        };
        self.ensure(fits, || {
            let want = match &self.groups {
                GroupBy::Class => "labels to group by",
                GroupBy::Folder => "a kind other than `parquet`",
                GroupBy::Shard => "kind `tar`, `parquet`, `tokens` or `text`, or `points` with `tile`",
                GroupBy::Column => "kind `parquet` or `text` and a `group_column`",
                GroupBy::One | GroupBy::Pattern(_) | GroupBy::List(_) => "at least one group in it",
            };
            format!("groups = `{name}` wants {want}")
        })?;
        let column = self.declared.group_column.is_none() || self.groups == GroupBy::Column;
        self.ensure(column, || format!("group_column is given, want groups = `column` with it, not `{name}`"))
    }

    fn check_fields(&self) -> Result<(), SourceError> {
        let d = self.declared;
        self.ensure(!d.path.is_empty(), || "path is empty, want a folder, a file or a glob".into())?;
        let misfit = remote::misfit(d);
        self.ensure(misfit.is_none(), || misfit.unwrap_or_default())?;
        for (field, given, fits) in [
            ("image_column", d.image_column.is_some(), d.kind == Kind::Parquet),
            ("decoded_mib", d.decoded_mib.is_some(), d.kind == Kind::Parquet),
            ("cache", d.cache.is_some(), !matches!(d.kind, Kind::Folder | Kind::Tokens)),
            ("tile", d.tile.is_some(), d.kind == Kind::Points),
            ("classes", d.classes.is_some(), !matches!(d.kind, Kind::Tokens | Kind::Text)),
            ("tokenizer", d.tokenizer.is_some(), d.kind == Kind::Text),
            ("documents", d.documents.is_some(), d.kind == Kind::Text),
            ("text_column", d.text_column.is_some(), d.kind == Kind::Text),
            ("dtype", d.dtype.is_some(), d.kind == Kind::Tokens),
            ("eod", d.eod.is_some(), matches!(d.kind, Kind::Tokens | Kind::Text)),
        ] {
            self.ensure(fits || !given, || format!("{field} means nothing to kind `{}`", d.kind.name()))?;
        }
        let tokenizer = d.kind != Kind::Text || d.tokenizer.is_some();
        self.ensure(tokenizer, || "tokenizer is missing, want one with kind `text`".into())?;
        let eod = d.eod.unwrap_or(0);
        self.ensure(eod <= i32::MAX as u32, || format!("eod is {eod}, want 0..=2147483647"))?;
        let mib = d.decoded_mib.unwrap_or(64);
        self.ensure((1..=65536).contains(&mib), || format!("decoded_mib is {mib}, want 1..=65536"))?;
        if let Some(Tile { block, stride, .. }) = d.tile {
            let stride = stride.unwrap_or(block);
            self.ensure(block.is_finite() && block > 0.0, || format!("tile.block is {block}, want above 0"))?;
            self.ensure(stride <= block && stride >= block / 16.0, || {
                format!("tile.stride is {stride}, want the block to a sixteenth of it")
            })?;
            self.ensure(d.verify == Verify::Size, || {
                "verify = `content` is not kept for blocks of `tile`".into()
            })?;
        }
        let mut classes: Vec<&String> = d.classes.iter().flatten().collect();
        self.ensure(d.classes.is_none() || !classes.is_empty(), || "classes is empty, want names".into())?;
        classes.sort();
        let twice = classes.windows(2).find(|pair| pair[0] == pair[1]);
        self.ensure(twice.is_none(), || format!("classes names `{}` twice", twice.map_or("", |t| t[0])))
    }
}

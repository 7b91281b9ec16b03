//! Keys from a file in the format of `~/.aws/credentials`, read again when it changes.

use object_store::{CredentialProvider, aws::AwsCredential};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of such a file.
const MOST: u64 = 1 << 20;

/// Keys of one profile.
pub(super) struct FileCredentials {
    path: PathBuf,
    shown: String,
    profile: String,
    kept: Mutex<Option<(State, Arc<AwsCredential>)>>,
}

/// Tells one state of the file from another.
type State = (u64, u64, i64, i64);

/// Why there are no keys; holds nothing of the file.
#[derive(Debug, thiserror::Error)]
#[error("credentials file `{file}` {why}")]
struct NoKeys {
    file: String,
    why: String,
}

impl std::fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCredentials").field("file", &self.shown).finish_non_exhaustive()
    }
}

impl FileCredentials {
    /// Keys of `profile` in the file at `path`, which the operator named `shown`.
    pub fn new(path: PathBuf, shown: &str, profile: &str) -> FileCredentials {
        FileCredentials { path, shown: shown.into(), profile: profile.into(), kept: Mutex::new(None) }
    }

    fn now(&self) -> Result<Arc<AwsCredential>, String> {
        let io = |error: std::io::Error| format!("cannot be read: {error}");
        let metadata = fs::metadata(&self.path).map_err(io)?;
        let state = (metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, keys)) = kept.as_ref().filter(|(before, _)| *before == state) {
            return Ok(keys.clone());
        }
        if !metadata.is_file() || metadata.len() > MOST {
            return Err(format!("has {} bytes, want a file of at most {MOST}", metadata.len()));
        }
        let keys = Arc::new(keys(&fs::read_to_string(&self.path).map_err(io)?, &self.profile)?);
        *kept = Some((state, keys.clone()));
        Ok(keys)
    }
}

impl CredentialProvider for FileCredentials {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(
        &'a self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.now().map_err(|why| object_store::Error::Generic {
                store: "S3",
                source: Box::new(NoKeys { file: self.shown.clone(), why }),
            })
        })
    }
}

fn keys(text: &str, profile: &str) -> Result<AwsCredential, String> {
    let mut here = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = section.trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| here) {
            let value = Some(value.trim().to_owned());
            match key.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {} // other tools' settings
            }
        }
    }
    let missing = |key: &str| format!("has no `{key}` in section `[{profile}]`");
    Ok(AwsCredential {
        key_id: id.ok_or_else(|| missing("aws_access_key_id"))?,
        secret_key: secret.ok_or_else(|| missing("aws_secret_access_key"))?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_profile_and_follow_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let text =
            "[a]\naws_access_key_id = A\n[b]\n aws_access_key_id=B\naws_secret_access_key = s=1\nregion=x\n";
        fs::write(&path, text).expect("a file");
        let b = FileCredentials::new(path.clone(), "keys", "b");
        let keys = b.now().expect("both keys");
        assert_eq!((keys.key_id.as_str(), keys.secret_key.as_str(), &keys.token), ("B", "s=1", &None));
        let error = FileCredentials::new(path.clone(), "keys", "a").now().expect_err("half");
        assert_eq!(error, "has no `aws_secret_access_key` in section `[a]`");

        let fresh = "[b]\naws_access_key_id=C\naws_secret_access_key=t\naws_session_token=u\n";
        fs::write(folder.path().join("new"), fresh).expect("a file");
        fs::rename(folder.path().join("new"), &path).expect("moved into place");
        let keys = b.now().expect("new keys");
        assert_eq!((keys.key_id.as_str(), keys.token.as_deref()), ("C", Some("u")));
        fs::remove_file(&path).expect("was there");
        assert!(b.now().expect_err("gone").contains("cannot be read"));
    }
}

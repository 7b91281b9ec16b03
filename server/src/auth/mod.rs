//! Who may do what: tokens with verbs, patterns of jobs and quotas. Secrets are compared by hash, in constant time, and are
//! never kept.

mod file;
mod quota;
mod secret;
mod verbs;

pub use file::TokensError;
pub use quota::{JobHold, Quota, StreamHold, Usage};
pub use secret::Secret;
pub use verbs::{METHODS, Method, Need, Verb, method};

use globset::GlobSet;
use std::{fmt, path::Path, sync::Arc, time::Duration, time::SystemTime};
use tokio::sync::watch;

/// Longest secret that is looked at.
const MAX_SECRET: usize = 256;
/// Longest wait for a token to expire before the clock is looked at again: clocks are set.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Why a call is refused. No message holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No token came with it.
    #[error("a token is wanted: `authorization: Bearer TOKEN`")]
    Missing,
    /// No token has this secret; it may have been revoked.
    #[error("the token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("token `{token}` has expired")]
    Expired {
        /// Name.
        token: String,
    },
    /// It lacks the verb.
    #[error("token `{token}` may not call {method}: that takes the verb {verbs}")]
    Verb {
        /// Name of the token.
        token: String,
        /// Call.
        method: &'static str,
        /// Verbs of which it would need one.
        verbs: String,
    },
    /// Its patterns do not name the job.
    #[error("token `{token}` may not {verb} job `{job}`: none of its patterns fits")]
    Job {
        /// Name of the token.
        token: String,
        /// What the call takes.
        verb: Verb,
        /// Job.
        job: String,
    },
    /// It holds as much as it may.
    #[error("token `{token}` holds {held} of {limit} {what}, {wanted} more {} wanted", if *wanted == 1 { "is" } else { "are" })]
    Quota {
        /// Name of the token.
        token: String,
        /// "streams", "bytes" or "jobs".
        what: &'static str,
        /// Most that it may hold.
        limit: u64,
        /// What it holds.
        held: u64,
        /// What it would need more.
        wanted: u64,
    },
    /// A path that no row of the table names.
    #[error("there is no call `{path}`")]
    NoMethod {
        /// Path of the request.
        path: String,
    },
}

/// A token as its file declares it.
pub struct Token {
    name: String,
    hash: blake3::Hash,
    jobs: GlobSet,
    every_job: bool,
    verbs: Vec<Verb>,
    quota: Quota,
    expires: Option<SystemTime>,
    usage: Arc<Usage>,
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Token")
            .field("name", &self.name)
            .field("verbs", &self.verbs)
            .finish_non_exhaustive()
    }
}

impl Token {
    fn has(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb) || self.verbs.contains(&Verb::Admin)
    }

    fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Whether it may make the call.
    fn calls(&self, method: &Method) -> Result<(), Denial> {
        let Need::OneOf(verbs) = method.need else { return Ok(()) };
        if verbs.iter().any(|verb| self.has(*verb)) {
            return Ok(());
        }
        let names: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
        Err(Denial::Verb { token: self.name.clone(), method: method.name, verbs: names.join(" or ") })
    }

    fn names(&self, method: &Method, job: &str) -> Result<(), Denial> {
        if self.jobs.is_match(job) {
            return Ok(());
        }
        let verb = match method.need {
            Need::OneOf(verbs) => verbs.iter().copied().find(|verb| self.has(*verb)),
            Need::Nothing | Need::Token => None,
        };
        Err(Denial::Job { token: self.name.clone(), verb: verb.unwrap_or(Verb::Pull), job: job.into() })
    }
}

/// The tokens of a file.
#[derive(Debug)]
pub struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    /// Reads and checks a token file.
    ///
    /// # Errors
    /// [`TokensError`] for the first thing that does not fit.
    pub fn load(path: &Path) -> Result<Tokens, TokensError> {
        Ok(Tokens::of(file::load(path)?))
    }

    /// As [`Tokens::load`] from text; `path` names it in errors.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn parse(text: &str, path: &Path) -> Result<Tokens, TokensError> {
        Ok(Tokens::of(file::parse(text, path)?))
    }

    fn of(tokens: Vec<Token>) -> Tokens {
        Tokens(tokens.into_iter().map(Arc::new).collect())
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|token| token.name.as_str()).collect()
    }

    /// The token of a hash. All are compared, each in constant time.
    fn find(&self, hash: &blake3::Hash) -> Option<&Arc<Token>> {
        self.0.iter().filter(|token| token.hash == *hash).fold(None, |_, token| Some(token))
    }

    /// Takes over what tokens of the same names hold.
    fn after(self, old: Option<&Tokens>) -> Tokens {
        let held = |name: &str| {
            let old = old?.0.iter().find(|token| token.name == name)?;
            Some(old.usage.clone())
        };
        let take_over = |mut token: Arc<Token>| {
            if let (Some(usage), Some(token)) = (held(&token.name), Arc::get_mut(&mut token)) {
                token.usage = usage;
            }
            token
        };
        Tokens(self.0.into_iter().map(take_over).collect())
    }
}

/// The tokens in force. Cheap to clone; all clones change together.
#[derive(Clone, Debug)]
pub struct Access(Arc<watch::Sender<Option<Arc<Tokens>>>>);

impl Default for Access {
    /// Everything is allowed to everybody.
    fn default() -> Self {
        Access::new(None)
    }
}

impl Access {
    /// These tokens; `None` allows everything to everybody.
    pub fn new(tokens: Option<Tokens>) -> Access {
        Access(Arc::new(watch::Sender::new(tokens.map(Arc::new))))
    }

    /// Puts other tokens in force. What tokens of the same names hold goes on to count.
    pub fn replace(&self, tokens: Option<Tokens>) {
        self.0.send_modify(|current| {
            *current = tokens.map(|tokens| Arc::new(tokens.after(current.as_deref())));
        });
    }

    /// Whether there are tokens at all.
    pub fn is_guarded(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Who calls `path` with this `authorization` header, when they may.
    ///
    /// # Errors
    /// [`Denial`]: no token, an unknown or expired one, one without the verb, or a path without a row in [`METHODS`].
    pub fn enter(&self, header: Option<&[u8]>, path: &str) -> Result<Caller, Denial> {
        let current = self.0.borrow().clone();
        let row = method(path);
        let Some(tokens) = current else { return Ok(Caller { token: None, method: row }) };
        if row.is_some_and(|row| row.need == Need::Nothing) {
            return Ok(Caller { token: None, method: row });
        }
        let header = header.ok_or(Denial::Missing)?;
        let secret = std::str::from_utf8(header).ok().and_then(secret::bearer).ok_or(Denial::Unknown)?;
        let token = valid(&tokens, secret)?;
        let Some(row) = row else { return Err(Denial::NoMethod { path: path.chars().take(200).collect() }) };
        token.calls(row)?;
        Ok(Caller { token: Some(token), method: Some(row) })
    }

    /// Whether a page that shows all jobs may be shown to whoever sends this `authorization` header: a token with the verb
    /// admin and the pattern "*", as Bearer or as the password of Basic. True when there are no tokens.
    pub fn allows_page(&self, authorization_header: Option<&str>) -> bool {
        let current = self.0.borrow().clone();
        let Some(tokens) = current else { return true };
        let Some(header) = authorization_header else { return false };
        let secret = secret::bearer(header).map(str::to_owned).or_else(|| secret::password(header));
        let token = secret.and_then(|secret| valid(&tokens, &secret).ok());
        token.is_some_and(|token| token.has(Verb::Admin) && token.every_job)
    }

    /// Waits until `caller` may no longer do what it does for `job`, and says why: its token was revoked, changed, or has
    /// expired.
    pub async fn revoked(&self, caller: Caller, job: String) -> Denial {
        let mut changes = self.0.subscribe();
        loop {
            let current = changes.borrow_and_update().clone();
            if let Err(denial) = still(current.as_deref(), &caller, &job) {
                return denial;
            }
            let end = caller.token.as_ref().and_then(|_| expiry(current.as_deref(), &caller));
            let left = end.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await; // nobody is left to revoke
                    }
                }
                () = tokio::time::sleep(left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) => {}
            }
        }
    }
}

/// The token of a secret, unless it is unknown or has expired.
fn valid(tokens: &Tokens, secret: &str) -> Result<Arc<Token>, Denial> {
    if secret.len() > MAX_SECRET {
        return Err(Denial::Unknown);
    }
    let token = tokens.find(&blake3::hash(secret.as_bytes())).ok_or(Denial::Unknown)?;
    if token.expired(SystemTime::now()) {
        return Err(Denial::Expired { token: token.name.clone() });
    }
    Ok(token.clone())
}

/// Whether a caller may go on.
fn still(current: Option<&Tokens>, caller: &Caller, job: &str) -> Result<(), Denial> {
    let Some(tokens) = current else { return Ok(()) };
    let known = caller.token.as_ref().ok_or(Denial::Missing)?;
    let token = tokens.find(&known.hash).ok_or(Denial::Unknown)?;
    if token.expired(SystemTime::now()) {
        return Err(Denial::Expired { token: token.name.clone() });
    }
    let Some(method) = caller.method else { return Ok(()) };
    token.calls(method)?;
    token.names(method, job)
}

fn expiry(current: Option<&Tokens>, caller: &Caller) -> Option<SystemTime> {
    current?.find(&caller.token.as_ref()?.hash)?.expires
}

/// Who makes a call, and which.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None`: everything is allowed.
    token: Option<Arc<Token>>,
    method: Option<&'static Method>,
}

impl Caller {
    /// Name of the token; `None` when no tokens are in force.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.name.as_str())
    }

    /// The call, when it is one of ours.
    pub fn method(&self) -> Option<&'static Method> {
        self.method
    }

    /// Whether it may see the job.
    pub fn sees(&self, job: &str) -> bool {
        self.token.as_ref().is_none_or(|token| token.jobs.is_match(job))
    }

    /// Whether it may see every job.
    pub fn sees_all(&self) -> bool {
        self.token.as_ref().is_none_or(|token| token.every_job)
    }

    /// Whether it may do what it does with the job.
    ///
    /// # Errors
    /// [`Denial::Job`].
    pub fn check(&self, job: &str) -> Result<(), Denial> {
        match (&self.token, self.method) {
            (Some(token), Some(method)) => token.names(method, job),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    /// Takes a stream that wants `wanted` bytes and cannot do with less than `least`.
    ///
    /// # Errors
    /// [`Denial::Quota`].
    pub fn stream(&self, wanted: u64, least: u64) -> Result<StreamHold, Denial> {
        match &self.token {
            None => Ok(StreamHold::free(wanted)),
            Some(token) => StreamHold::take(&token.name, &token.quota, &token.usage, (wanted, least)),
        }
    }

    /// Takes a job that may have to be opened; `is_open` knows which are.
    ///
    /// # Errors
    /// [`Denial::Quota`].
    pub fn opening(&self, job: &str, is_open: impl Fn(&str) -> bool) -> Result<JobHold, Denial> {
        match &self.token {
            None => Ok(JobHold::free()),
            Some(token) => JobHold::take(&token.name, &token.quota, &token.usage, job, is_open),
        }
    }
}

#[cfg(test)]
mod tests;

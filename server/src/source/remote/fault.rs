//! What went wrong with a request, and whether asking again can help.

use super::client::{InTheClear, NoCredentials, Refused};
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another time may be better: throttling, a server or connection that failed, an answer cut short.
    Again(String),
    /// Keys may be about to be renewed.
    Denied(String),
    /// The object is another one now.
    Changed(String),
    /// The object ends before the range.
    Beyond,
    /// Asking again gives the same.
    Never(String),
}

impl Fault {
    /// What `error` means. Its own text is not used: it names URLs with their queries.
    pub fn of(error: &object_store::Error) -> Fault {
        if let Some(refused) = find::<Refused>(error) {
            return of_status(refused);
        }
        if let Some(none) = find::<NoCredentials>(error) {
            return Fault::Denied(none.to_string());
        }
        if let Some(clear) = find::<InTheClear>(error) {
            return Fault::Never(clear.to_string());
        }
        if let Some(http) = find::<HttpError>(error) {
            let why = deepest(http);
            // Kinds may be added to this list of others.
            return Fault::Again(if http.kind() == HttpErrorKind::Connect {
                format!("cannot connect: {why}")
            } else if http.kind() == HttpErrorKind::Timeout {
                "no answer in time".into()
            } else {
                format!("the connection broke: {why}")
            });
        }
        if matches!(error, object_store::Error::NotSupported { .. }) {
            return Fault::Never("the server does not serve ranges, want one that answers 206".into());
        }
        match matches!(error, object_store::Error::InvalidPath { .. }) {
            true => Fault::Never(deepest(error)),
            false => Fault::Again(deepest(error)),
        }
    }

    /// For people.
    pub fn why(&self) -> &str {
        match self {
            Fault::Again(why) | Fault::Denied(why) | Fault::Changed(why) | Fault::Never(why) => why,
            Fault::Beyond => "it ends before what was asked for",
        }
    }
}

fn of_status(refused: &Refused) -> Fault {
    match refused.status {
        412 => Fault::Changed("it was written to (precondition failed)".into()),
        416 => Fault::Beyond,
        404 | 410 => Fault::Never(format!("not found ({refused})")),
        401 | 403 => Fault::Denied(format!("access denied ({refused})")),
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            Fault::Again(format!("the server is busy or broken ({refused})"))
        }
        301 | 302 | 303 | 307 | 308 => {
            let region = refused.region.as_ref().map(|r| format!("; the bucket is in region `{r}`"));
            let region = region.unwrap_or_default();
            Fault::Never(format!("the server sends elsewhere, which is not followed ({refused}){region}"))
        }
        _ => Fault::Never(format!("the server refuses ({refused})")),
    }
}

/// `error` and what caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| Error::source(*error))
}

/// The first error of type `T` among `error` and what caused it.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// What the first cause of `error` says, without queries of URLs.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    let last = causes(error).last();
    let text = last.map(ToString::to_string).unwrap_or_default();
    let words = text.split(' ').map(|word| word.split_once('?').map_or(word, |(start, _)| start));
    let text: Vec<&str> = words.collect();
    text.join(" ").chars().take(300).collect()
}

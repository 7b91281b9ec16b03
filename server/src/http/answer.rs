//! Answers to requests.

use super::page::STYLE;
use super::route::Route;
use super::site::Site;
use crate::job::Job;
use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::Full;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

const PLAIN: &str = "text/plain; charset=utf-8";
const PAGE: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml; charset=utf-8";
/// A dot, so that browsers need not ask for what is not there.
const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\"><path fill=\"#0a5c9e\" \
                    d=\"M0 0h7v7H0z\"/><path fill=\"#d55e00\" d=\"M9 9h7v7H9z\"/></svg>";
/// Nothing of other hosts, no script, no style inside of pages, no frame around them.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

/// Everything for Prometheus: one at a time and on a thread of its own, since whoever asks needs no token.
async fn scrape(metrics: PrometheusHandle) -> Result<String, JoinError> {
    static ONE: Mutex<()> = Mutex::const_new(());
    let _one = ONE.lock().await;
    spawn_blocking(move || crate::metrics::render(&metrics)).await
}

/// What goes back.
pub(super) async fn answer<B>(request: &Request<B>, metrics: &PrometheusHandle, site: &Site) -> Answer {
    let route = Route::of(request.uri().path(), request.uri().query());
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "want GET or HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !route.is_open() && !site.sight.access.allows(authorization) {
        let mut answer =
            text(StatusCode::UNAUTHORIZED, "a token is needed: any user name, the token as password\n");
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"mixfeed\""));
        return answer;
    }
    let follow = !request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "still"));
    match route {
        Route::Metrics => match scrape(metrics.clone()).await {
            Ok(text) => ok("text/plain; version=0.0.4; charset=utf-8", text),
            Err(lost) => text(StatusCode::INTERNAL_SERVER_ERROR, lost.to_string()),
        },
        Route::Health => ok(PLAIN, "ok\n"),
        Route::Style => guarded(ok("text/css; charset=utf-8", STYLE), "max-age=3600"),
        Route::Icon => guarded(ok(SVG, ICON), "max-age=3600"),
        Route::Overview => private(ok(PAGE, site.overview(follow).await.html())),
        Route::Job(name) => match site.sight.jobs.get(&name) {
            Ok(job) => private(ok(PAGE, site.page(&job, follow).await.html())),
            Err(_) => private(no_job()),
        },
        Route::Batch(name, step) => match site.sight.jobs.get(&name) {
            Ok(job) => private(pictures(site, &job, step).await),
            Err(_) => private(no_job()),
        },
        Route::Plot(name) => match site.sight.jobs.get(&name) {
            Ok(job) => private(match site.mixtures.plot(&job).await {
                Ok(svg) => ok(SVG, svg),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }),
            Err(_) => private(no_job()),
        },
        Route::Missing => text(StatusCode::NOT_FOUND, "not found\n"),
        Route::TooLong => text(StatusCode::URI_TOO_LONG, "the address is too long\n"),
    }
}

async fn pictures(site: &Site, job: &Arc<Job>, step: Option<u64>) -> Answer {
    match &site.pictures(job, step).await.png {
        Some(png) => ok("image/png", png.clone()),
        None => text(StatusCode::NOT_FOUND, "there are no pictures of this job's last batch now\n"),
    }
}

fn no_job() -> Answer {
    // Which jobs there are is for those to see who may see the page; the name is not repeated.
    text(StatusCode::NOT_FOUND, "no such job is open\n")
}

fn ok(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = ok(PLAIN, body);
    *answer.status_mut() = status;
    answer
}

/// Data: nobody keeps them.
fn private(answer: Answer) -> Answer {
    guarded(answer, "no-store")
}

fn guarded(mut answer: Answer, keep: &'static str) -> Answer {
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CACHE_CONTROL, keep),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

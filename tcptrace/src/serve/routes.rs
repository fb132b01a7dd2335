//! Paths and answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::guard::Guard;
use super::negotiate::Format;
use super::office::{NoAnswer, Office};

const JSON: &str = "application/json";
/// One JSON object a line.
const JSON_LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";
const OVERVIEW: &str = "\
tcptrace exporter

/metrics  Prometheus metrics: text, OpenMetrics or protobuf, as asked for
/healthz  whether the tracer is alive, as JSON
/leaks    who keeps sockets in CLOSE_WAIT: the lines of tcptrace leaks --json
/report   how long each state lasted: the lines of tcptrace report --json
";

/// Who asks, and whom.
pub struct Client {
    /// Address.
    pub peer: SocketAddr,
    /// Answers.
    pub office: Arc<Office>,
    /// Decides who may ask.
    pub guard: Arc<Guard>,
}

type Answer = Response<Full<Bytes>>;

/// Answers a request. Its body, if it has one, is not read.
pub async fn respond(request: &Request<Incoming>, client: &Client) -> Answer {
    // A load balancer's or kubelet's probe has no credentials, and learns nothing but that we live.
    let is_probe = request.uri().path() == "/healthz";
    if !is_probe && !client.guard.admits(request.headers()).await {
        let mut answer = words(StatusCode::UNAUTHORIZED, "credentials are needed");
        let challenge = HeaderValue::from_static(client.guard.challenge());
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return answer;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = words(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    // hyper sends no body with the answer to HEAD.
    match request.uri().path() {
        "/" => words(StatusCode::OK, OVERVIEW),
        "/metrics" => metrics(request.headers(), client).await,
        "/healthz" => health(client),
        "/leaks" if !may_see_command_lines(client) => words(
            StatusCode::FORBIDDEN,
            "command lines may hold secrets: /leaks is shown over the network only with authentication \
             (--web-config or --bearer-token-file)",
        ),
        "/leaks" => lines(client.office.leaks().await),
        "/report" => lines(client.office.report().await),
        _ => words(StatusCode::NOT_FOUND, "no such page; / lists what there is"),
    }
}

async fn metrics(headers: &HeaderMap, client: &Client) -> Answer {
    let format = Format::wanted_by(&joined(headers, ACCEPT));
    let compressed = accepts_gzip(&joined(headers, ACCEPT_ENCODING));
    let mut answer = match client.office.metrics(format, compressed).await {
        Ok(bytes) => body(StatusCode::OK, format.content_type(), bytes),
        Err(error) => return unavailable(error),
    };
    if compressed {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    answer
}

fn health(client: &Client) -> Answer {
    let health = client.office.pulse().health(Instant::now());
    let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = serde_json::to_vec(&health).unwrap_or_default();
    text.push(b'\n');
    body(status, JSON, text.into())
}

/// Command lines of other people's processes: for this host, or for who has shown a credential.
fn may_see_command_lines(client: &Client) -> bool {
    client.guard.asks_for_credentials() || client.peer.ip().to_canonical().is_loopback()
}

fn lines(answer: Result<Bytes, NoAnswer>) -> Answer {
    match answer {
        Ok(bytes) => body(StatusCode::OK, JSON_LINES, bytes),
        Err(error) => unavailable(error),
    }
}

fn unavailable(error: NoAnswer) -> Answer {
    let mut answer = words(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn words(status: StatusCode, text: &str) -> Answer {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    body(status, TEXT, format!("{text}{newline}").into())
}

fn body(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(bytes));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A header that may be given several times.
fn joined(headers: &HeaderMap, name: HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && quality > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_only_when_asked_for() {
        assert!(accepts_gzip("deflate, gzip;q=0.5"));
        assert!(accepts_gzip("*"));
        assert!(!accepts_gzip("gzip;q=0"));
        assert!(!accepts_gzip("identity"));
        assert!(!accepts_gzip(""));
    }
}

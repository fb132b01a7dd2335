//! A whole server without a tracer behind it: formats, credentials, TLS, and what clients can do to it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore};

use super::super::desk::{Ask, MAX_ASKS};
use super::super::guard::GuardFiles;
use super::super::view::View;
use super::*;

/// Starts a server whose tracer answers every question with nothing.
fn start(files: GuardFiles) -> (SocketAddr, Running) {
    let (asks, mut asked) = mpsc::channel(MAX_ASKS);
    // Ends when the office does.
    thread::spawn(move || {
        while let Some(ask) = asked.blocking_recv() {
            if let Ask::View(answer) = ask {
                let _ = answer.send(Arc::new(View::default()));
            }
        }
    });
    let office = Office::new(asks, Arc::new(Notify::new()), Arc::default());
    let guard = Guard::new(files).expect("files");
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], office, guard).expect("bound");
    (server.addrs()[0], server.start().expect("started"))
}

/// Status, headers in lower case, body.
fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("asked");
    let mut answer = Vec::new();
    // A peer that closes without TLS's goodbye has still said everything.
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("ASCII");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, head.to_ascii_lowercase(), answer.split_off(end + 4))
}

fn connect(addr: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream
}

#[test]
fn every_format_is_what_its_content_type_says() {
    let (addr, running) = start(GuardFiles::default());
    let get = |accept: &str| ask(connect(addr), "/metrics", &format!("Accept: {accept}\r\n"));
    let (status, head, body) = get("text/plain;version=0.0.4");
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.starts_with(b"# HELP tcptrace_") && !body.ends_with(b"# EOF\n"));
    let (_, head, body) = get("application/openmetrics-text;version=1.0.0");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with(b"# EOF\n"));
    let protobuf =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let (_, head, mut body) = get(protobuf);
    assert!(head.contains("content-type: application/vnd.google.protobuf"), "{head}");
    // A length before each family, and nothing behind the last.
    let mut families = 0;
    while !body.is_empty() {
        let mut rest = body.as_slice();
        let length = prost::decode_length_delimiter(&mut rest).expect("a length");
        assert!(rest[1..].windows(8).any(|name| name == b"tcptrace" || &name[..7] == b"process"));
        body = rest[length..].to_vec();
        families += 1;
    }
    assert!(families > 3, "{families} families");
    let (_, head, body) = ask(connect(addr), "/metrics", "Accept-Encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip") && body.starts_with(&[0x1f, 0x8b]), "{head}");
    // The tracer has not said a word: that is no health.
    assert_eq!(ask(connect(addr), "/healthz", "").0, 503);
    running.stop();
}

/// An authority whose key was thrown away, and one certificate of it for each side; good for a hundred years.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/testdata").join(name)
}

/// A client that trusts the tests' authority, with or without a certificate of it.
fn client(with_certificate: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data("ca.pem")).expect("CA")).expect("added");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = builder.with_root_certificates(roots);
    Arc::new(if with_certificate {
        let chain = vec![CertificateDer::from_pem_file(data("client.pem")).expect("certificate")];
        let key = PrivateKeyDer::from_pem_file(data("client.key")).expect("key");
        builder.with_client_auth_cert(chain, key).expect("client certificate")
    } else {
        builder.with_no_client_auth()
    })
}

fn tls(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> rustls::StreamOwned<ClientConnection, std::net::TcpStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    rustls::StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("client"), connect(addr))
}

#[test]
fn tls_users_and_tokens() {
    let dir = tempfile::tempdir().expect("directory");
    let (web, token) = (dir.path().join("web.yml"), dir.path().join("token"));
    let hash = bcrypt::hash("password", 4).expect("hash");
    let own = |name| data(name).display().to_string();
    let (certificate, key) = (own("server.pem"), own("server.key"));
    let config = format!(
        "tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\nbasic_auth_users:\n  ann: {hash}\n"
    );
    fs::write(&web, config).expect("written");
    fs::write(&token, "s3cret\n").expect("written");
    let (addr, running) = start(GuardFiles { web_config: Some(web), bearer_token: Some(token) });
    let client = client(false);
    let status = |headers: &str| ask(tls(addr, &client), "/metrics", headers).0;
    assert_eq!(status("Authorization: Bearer s3cret\r\n"), 200);
    // ann:password
    assert_eq!(status("Authorization: Basic YW5uOnBhc3N3b3Jk\r\n"), 200);
    assert_eq!(status("Authorization: Basic YW5uOndyb25n\r\n"), 401);
    assert_eq!(status("Authorization: Bearer s3cre\r\n"), 401);
    let (status, head, _) = ask(tls(addr, &client), "/leaks", "");
    assert!(status == 401 && head.contains("www-authenticate: basic"), "{head}");
    // Who speaks no TLS learns nothing.
    let mut plain = connect(addr);
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    running.stop();
}

#[test]
fn client_certificates() {
    let dir = tempfile::tempdir().expect("directory");
    let web = dir.path().join("web.yml");
    let own = |name| data(name).display().to_string();
    let (certificate, key, ca) = (own("server.pem"), own("server.key"), own("ca.pem"));
    let config = format!(
        "tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n  client_ca_file: {ca}\n  \
         client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n"
    );
    fs::write(&web, config).expect("written");
    let (addr, running) = start(GuardFiles { web_config: Some(web), bearer_token: None });
    assert_eq!(ask(tls(addr, &client(true)), "/metrics", "").0, 200);
    let mut stranger = tls(addr, &client(false));
    // The refusal comes with the first answer at the latest (TLS 1.3).
    let refused = stranger
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .and_then(|()| stranger.flush())
        .and_then(|()| stranger.read(&mut [0; 16]));
    assert!(refused.is_err() || refused.is_ok_and(|read| read == 0));
    running.stop();
}

#[test]
fn silent_clients_keep_nobody_out_and_do_not_hold_up_the_end() {
    let (addr, running) = start(GuardFiles::default());
    let silent: Vec<_> = (0..2 * MAX_CONNECTIONS)
        .map(|number| {
            let mut client = connect(addr);
            if number % 2 == 0 {
                client.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("half asked");
            }
            client
        })
        .collect();
    assert_eq!(ask(connect(addr), "/metrics", "").0, 200);
    let begun = Instant::now();
    running.stop();
    // Generous: others want the processors, too.
    assert!(begun.elapsed() < STOP_GRACE + Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(silent);
}

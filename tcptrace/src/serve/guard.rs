//! Who may ask: TLS, bearer token, basic authentication. Files are read again when they change, so that a renewed
//! certificate needs no restart.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use super::web_config::{self, ConfigError, Tls, WebConfig};

/// Files are looked at for changes at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Credentials that were right and need no bcrypt the next time.
const MAX_KNOWN: usize = 64;
/// What an unknown user's password is compared with, so that answers take as long as for a known one: bcrypt of
/// nothing that anybody has.
const NOBODY: &str = "$2b$10$C6UzMDM.H6dfI/f/IKcEeO7ZBpKpZ4s1cLrP3EfTzpYWwwb.ad6Te";

/// Where it is written who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardFiles {
    /// Web configuration of exporter-toolkit.
    pub web_config: Option<PathBuf>,
    /// A file that holds a token.
    pub bearer_token: Option<PathBuf>,
}

/// Decides who may ask.
#[derive(Debug)]
pub struct Guard {
    files: GuardFiles,
    state: Mutex<State>,
    /// One password is hashed at a time: hashing is made to be slow, and must not take all of a machine.
    hashing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    rules: Arc<Rules>,
    stamps: Vec<Stamp>,
    looked: Instant,
    known: HashSet<[u8; 32]>,
}

/// Enough of a file to see that it was changed.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

/// What the files say.
#[derive(Debug, Default)]
struct Rules {
    token: Option<[u8; 32]>,
    users: BTreeMap<String, String>,
    tls: Option<Tls>,
}

impl Guard {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or understood.
    pub fn new(files: GuardFiles) -> Result<Self, ConfigError> {
        let (rules, stamps) = load(&files)?;
        let state = State { rules: Arc::new(rules), stamps, looked: Instant::now(), known: HashSet::new() };
        Ok(Self { files, state: Mutex::new(state), hashing: tokio::sync::Mutex::default() })
    }

    /// Nobody gets further than the door without a credential.
    #[must_use]
    pub fn asks_for_credentials(&self) -> bool {
        let rules = self.rules();
        rules.needs_header() || rules.tls.as_ref().is_some_and(|tls| tls.needs_client_certificate)
    }

    /// What to do TLS with; `None` for plain HTTP.
    #[must_use]
    pub fn tls(&self) -> Option<TlsAcceptor> {
        Some(TlsAcceptor::from(Arc::clone(&self.rules().tls.as_ref()?.config)))
    }

    /// `WWW-Authenticate`.
    #[must_use]
    pub fn challenge(&self) -> &'static str {
        if self.rules().users.is_empty() { "Bearer" } else { "Basic realm=\"tcptrace\", charset=\"UTF-8\"" }
    }

    /// Whether a request with these headers is answered.
    pub async fn admits(&self, headers: &HeaderMap) -> bool {
        let rules = self.rules();
        if !rules.needs_header() {
            return true;
        }
        let Some(credentials) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, credentials)) = credentials.split_once(' ') else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            // Digests are compared: the time that takes tells nothing about the token.
            return rules.token.is_some_and(|token| token == digest(&[credentials.trim().as_bytes()]));
        }
        scheme.eq_ignore_ascii_case("basic") && self.knows(&rules, credentials.trim()).await
    }

    async fn knows(&self, rules: &Rules, credentials: &str) -> bool {
        let decoded = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return false;
        };
        let known_user = rules.users.get(user);
        let hash = known_user.map_or(NOBODY, String::as_str).to_owned();
        let seal = digest(&[user.as_bytes(), b":", password.as_bytes(), b":", hash.as_bytes()]);
        if self.lock().known.contains(&seal) {
            return true;
        }
        let _one_at_a_time = self.hashing.lock().await;
        let password = password.to_owned();
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        let is_right = matches!(verified, Ok(Ok(true))) && known_user.is_some();
        if is_right {
            let known = &mut self.lock().known;
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(seal);
        }
        is_right
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the files say now.
    fn rules(&self) -> Arc<Rules> {
        let mut state = self.lock();
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            if state.stamps.iter().any(|(path, stamp)| *stamp != stamp_of(path)) {
                // Looked at before it is read: a change in between is seen the next time.
                state.stamps = state.stamps.iter().map(|(path, _)| (path.clone(), stamp_of(path))).collect();
                match load(&self.files) {
                    Ok((rules, stamps)) => {
                        state.rules = Arc::new(rules);
                        state.stamps = stamps;
                        state.known.clear();
                    }
                    Err(error) => eprintln!("tcptrace: the former credentials stay in force: {error}"),
                }
            }
        }
        Arc::clone(&state.rules)
    }
}

impl Rules {
    fn needs_header(&self) -> bool {
        self.token.is_some() || !self.users.is_empty()
    }
}

fn load(files: &GuardFiles) -> Result<(Rules, Vec<Stamp>), ConfigError> {
    let (mut rules, mut watched) = (Rules::default(), Vec::new());
    if let Some(path) = &files.bearer_token {
        watched.push((path.clone(), stamp_of(path)));
        let text = web_config::read(path)?;
        let token = text.trim_ascii();
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(ConfigError::Token(path.clone()));
        }
        rules.token = Some(digest(&[token]));
    }
    if let Some(path) = &files.web_config {
        watched.push((path.clone(), stamp_of(path)));
        let config = WebConfig::read(path)?;
        watched.extend(config.files().map(|path| (path.to_owned(), stamp_of(path))));
        rules.tls = config.tls()?;
        rules.users = config.basic_auth_users;
        for (user, hash) in &rules.users {
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(ConfigError::Hash { user: crate::text::escape(user.as_bytes()).into_owned() });
            }
        }
    }
    Ok((rules, watched))
}

fn stamp_of(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut sha = Sha256::new();
    parts.iter().for_each(|part| sha.update(part));
    sha.finalize().into()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).expect("header"));
        headers
    }

    fn admits(guard: &Guard, headers: &HeaderMap) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(guard.admits(headers))
    }

    #[test]
    fn without_files_everybody_is_admitted() {
        let guard = Guard::new(GuardFiles::default()).expect("nothing to read");
        assert!(admits(&guard, &HeaderMap::new()) && !guard.asks_for_credentials());
    }

    #[test]
    fn tokens_and_passwords() {
        let dir = tempfile::tempdir().expect("directory");
        let files = GuardFiles {
            web_config: Some(dir.path().join("web.yml")),
            bearer_token: Some(dir.path().join("token")),
        };
        let hash = bcrypt::hash("pass:word", 4).expect("hash");
        fs::write(dir.path().join("web.yml"), format!("basic_auth_users:\n  ann: {hash}\n"))
            .expect("written");
        fs::write(dir.path().join("token"), "s3cret\n").expect("written");
        let guard = Guard::new(files.clone()).expect("valid");
        assert!(guard.asks_for_credentials() && guard.tls().is_none());
        assert!(guard.challenge().starts_with("Basic"));

        let basic = |text: &str| headers(&format!("Basic {}", STANDARD.encode(text)));
        assert!(admits(&guard, &headers("Bearer s3cret")));
        assert!(admits(&guard, &headers("bearer  s3cret")));
        assert!(admits(&guard, &basic("ann:pass:word")));
        assert!(admits(&guard, &basic("ann:pass:word")), "known now");
        for wrong in ["Bearer s3cre", "Bearer", "Bearer ", "Basic !", "Digest s3cret", ""] {
            assert!(!admits(&guard, &headers(wrong)), "{wrong}");
        }
        for wrong in ["ann:pass", "bob:pass:word", "ann", ":"] {
            assert!(!admits(&guard, &basic(wrong)), "{wrong}");
        }
        assert!(!admits(&guard, &HeaderMap::new()));

        fs::write(dir.path().join("web.yml"), "basic_auth_users:\n  ann: plain\n").expect("written");
        let error = Guard::new(files.clone()).expect_err("no hash").to_string();
        assert!(error.contains("ann"), "{error}");
        fs::write(dir.path().join("token"), " \n").expect("written");
        assert!(Guard::new(files).is_err());
    }
}

//! A real Prometheus server.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::clock::wait_until;
use crate::{spawn, web};

/// Where it listens: every trial has a network namespace of its own.
const PORT: u16 = 9090;

/// Series of an answer: labels and value.
pub type Vector = Vec<(BTreeMap<String, String>, f64)>;

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

/// Why there is none; `None` when there is.
#[must_use]
pub fn obstacle() -> Option<String> {
    for program in ["prometheus", "promtool"] {
        let version =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            return Some(format!("no {program} (Debian package prometheus)"));
        }
    }
    None
}

/// A file of `deploy/`.
#[must_use]
pub fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

impl Prometheus {
    /// Starts one in the calling thread's namespace that scrapes these every second, with the alerts of
    /// `deploy/`, minutes made seconds.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(targets: &[SocketAddr], native_histograms: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let rules = fs::read_to_string(deployed("prometheus/tcptrace.rules.yml"))?;
        fs::write(dir.path().join("rules.yml"), hurried(&rules))?;
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: tcptrace\n  static_configs:\n  - targets: [{}]\n",
            targets.join(", ")
        );
        let config_file = dir.path().join("prometheus.yml");
        fs::write(&config_file, config)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let mut args = vec![
            format!("--config.file={}", config_file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={addr}"),
            "--log.level=error".to_owned(),
        ];
        if native_histograms {
            args.push("--enable-feature=native-histograms".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let child = spawn::quiet(Path::new("prometheus"), &args)?;
        let prometheus = Self { child, addr, _dir: dir };
        wait_until("Prometheus", Duration::from_secs(60), || {
            web::get(addr, "/-/ready", "").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(prometheus)
    }

    /// An instant query.
    ///
    /// # Errors
    /// When Prometheus refuses it.
    pub fn query(&self, expr: &str) -> Result<Vector> {
        let path = format!("/api/v1/query?query={}", web::percent_encode(expr));
        let answer: Value = serde_json::from_str(&web::get(self.addr, &path, "")?.body)?;
        ensure!(answer["status"] == "success", "{expr}: {answer}");
        let result = answer["data"]["result"].as_array().with_context(|| format!("{expr}: {answer}"))?;
        result
            .iter()
            .map(|series| {
                let labels = serde_json::from_value(series["metric"].clone())?;
                // A native histogram as such has no value.
                let value = series["value"][1].as_str().map_or(Ok(f64::NAN), str::parse)?;
                Ok((labels, value))
            })
            .collect()
    }

    /// The one value of a query.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn number(&self, expr: &str) -> Result<f64> {
        let vector = self.query(expr)?;
        ensure!(vector.len() == 1, "{expr}: {vector:?}");
        Ok(vector[0].1)
    }

    /// Label `comm` of what an alert fires for.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn firing(&self, alert: &str) -> Result<Vec<String>> {
        let firing = self.query(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}"))?;
        Ok(firing.into_iter().map(|(labels, _)| labels.get("comm").cloned().unwrap_or_default()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules with minutes made seconds, where they are ranges and waits, and five minutes of age five seconds.
fn hurried(rules: &str) -> String {
    let mut out = String::with_capacity(rules.len());
    for line in rules.lines() {
        let mut line = line.replace("_seconds > 300", "_seconds > 5").replace("m])", "s])");
        if line.trim_start().starts_with("for: ") {
            line = line.replace('m', "s");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

//! A real nginx that hands everything on to one backend.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock::wait_until;
use crate::{installed, spawn, web};

/// Where it listens: every trial has a network namespace of its own.
const PORT: u16 = 8080;

/// A running master process and its one worker. Dropping it ends both.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    addr: SocketAddr,
    _prefix: tempfile::TempDir,
}

/// The program; `None` where there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let runs = |program: &PathBuf| {
        let version = Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    ["nginx".into(), "/usr/sbin/nginx".into(), installed("nginx/usr/sbin/nginx")].into_iter().find(runs)
}

impl Nginx {
    /// Starts one in the calling thread's namespace, under a prefix and with a configuration of its own. It keeps
    /// next to nothing of an answer itself (`proxy_buffering off`, small socket buffers), as where answers are
    /// streamed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, backend: SocketAddr) -> Result<Self> {
        let prefix = tempfile::tempdir()?;
        let config = format!(
            "daemon off;\n\
             worker_processes 1;\n\
             user root;\n\
             pid nginx.pid;\n\
             error_log stderr crit;\n\
             events {{}}\n\
             http {{\n\
               access_log off;\n\
               client_body_temp_path body;\n\
               proxy_temp_path proxy;\n\
               fastcgi_temp_path fastcgi;\n\
               uwsgi_temp_path uwsgi;\n\
               scgi_temp_path scgi;\n\
               server {{\n\
                 listen 127.0.0.1:{PORT} sndbuf=4k;\n\
                 location / {{ proxy_pass http://{backend}; proxy_buffering off; proxy_buffer_size 4k; }}\n\
                 location = /health {{ return 200; }}\n\
               }}\n\
             }}\n"
        );
        fs::write(prefix.path().join("nginx.conf"), config)?;
        let dir = prefix.path().to_str().context("path")?;
        let child = spawn::quiet(program, &["-p", dir, "-c", "nginx.conf", "-e", "stderr"])?;
        let nginx = Self { child, addr: (Ipv4Addr::LOCALHOST, PORT).into(), _prefix: prefix };
        wait_until("nginx", Duration::from_secs(60), || {
            web::get(nginx.addr, "/health", "").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(nginx)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process that has the connections.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn worker(&self) -> Result<u32> {
        let master = self.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        children.trim().parse().with_context(|| format!("children of {master}: {children:?}"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The worker outlives a master that is killed.
        for pid in self.worker().into_iter().chain([self.child.id()]) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

//! What a cgroup's path says about who runs in it: systemd unit, container, Kubernetes pod.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::escape;

/// Digits of a container's or a sandbox's id.
const ID_DIGITS: usize = 64;
/// Digits of an id that are shown, as `docker ps` shows them.
const SHORT_ID_DIGITS: usize = 12;
/// Kinds of systemd units that processes live in.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// What made a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd through the Kubernetes runtime interface.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman and whatever else uses libpod.
    Podman,
    /// LXC and LXD: the id is a name.
    Lxc,
    /// systemd-nspawn: the id is a name.
    Nspawn,
    /// A container id without a sign of what made it.
    Unknown,
}

impl Runtime {
    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Unknown => "container",
        }
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId {
    /// What made it.
    pub runtime: Runtime,
    /// 64 hexadecimal digits, or a name (escaped) for LXC and nspawn.
    pub id: String,
}

impl ContainerId {
    /// The id as `docker ps` and `crictl ps` shorten it; names stay whole.
    #[must_use]
    pub fn short(&self) -> &str {
        if is_id(&self.id) { &self.id[..SHORT_ID_DIGITS] } else { &self.id }
    }
}

/// `docker 0123456789ab`.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.runtime.name(), self.short())
    }
}

/// Who runs in a cgroup, as far as its path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The innermost systemd unit, escaped: of a user's service manager where there is one. The scope that a
    /// runtime makes for a container is none.
    pub unit: Option<String>,
    /// The innermost container.
    pub container: Option<ContainerId>,
    /// uid of the Kubernetes pod, with hyphens.
    pub pod: Option<String>,
}

impl Workload {
    /// Reads a path such as `/system.slice/nginx.service`, of cgroup v1 or v2.
    #[must_use]
    pub fn from_path(path: &[u8]) -> Self {
        let mut workload = Self::default();
        let mut parent: &str = "";
        // Names that are not UTF-8 are nobody's unit or container.
        for name in path.split(|&byte| byte == b'/').filter_map(|name| std::str::from_utf8(name).ok()) {
            workload.pod = pod_uid(name).or(workload.pod);
            if let Some(container) = container(name, parent) {
                workload.container = Some(container);
            } else if let Some(unit) = unit(name) {
                // The service manager of a user sits in a scope of that name itself.
                if unit != "init.scope" || workload.unit.is_none() {
                    workload.unit = Some(escape(unit.as_bytes()).into_owned());
                }
            }
            parent = name;
        }
        workload
    }

    /// True when the path says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How much the path says: used to choose between the hierarchies of cgroup v1.
    pub(super) fn weight(&self) -> u8 {
        u8::from(self.container.is_some()) * 4
            + u8::from(self.pod.is_some()) * 2
            + u8::from(self.unit.is_some())
    }
}

/// Recognises the names that runtimes give, with the systemd and with the cgroupfs driver.
fn container(name: &str, parent: &str) -> Option<ContainerId> {
    let with = |runtime, id: &str| Some(ContainerId { runtime, id: escape(id.as_bytes()).into_owned() });
    let by_id = |runtime, id: &str| is_id(id).then(|| ContainerId { runtime, id: id.to_ascii_lowercase() });
    let scope = name.strip_suffix(".scope").unwrap_or(name);
    // containerd under a systemd parent: `kubepods-pod….slice:cri-containerd:<id>`.
    let (prefix, last) = match scope.rsplit_once(':') {
        Some((before, id)) => (before.rsplit(':').next().unwrap_or(before), id),
        None => scope.rsplit_once('-').unwrap_or(("", scope)),
    };
    let runtime = match prefix {
        "docker" => Some(Runtime::Docker),
        "cri-containerd" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "libpod" => Some(Runtime::Podman),
        // `crio-conmon-<id>` and `libpod-conmon-<id>` hold the monitor, which runs outside the container.
        "" if parent == "docker" => Some(Runtime::Docker),
        "" if parent == "libpod_parent" => Some(Runtime::Podman),
        "" => Some(Runtime::Unknown),
        _ => None,
    };
    if let Some(container) = runtime.and_then(|runtime| by_id(runtime, last)) {
        return Some(container);
    }
    if let Some(id) = name.strip_prefix("lxc.payload.") {
        return with(Runtime::Lxc, id);
    }
    if parent == "lxc" && !name.is_empty() {
        return with(Runtime::Lxc, name);
    }
    if let Some(id) = name.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return with(Runtime::Nspawn, id);
    }
    None
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A unit's name, without the underscore that protects names the kernel would take for its own
/// (systemd's `cg_escape`). The scope of a container or its monitor is none.
fn unit(name: &str) -> Option<&str> {
    let name = name.strip_prefix('_').unwrap_or(name);
    let is_unit = UNIT_SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    let is_conmon = name.starts_with("crio-conmon-") || name.starts_with("libpod-conmon-");
    (is_unit && !is_conmon).then_some(name)
}

/// `kubepods-burstable-pod<uid>.slice`, where systemd wants underscores for hyphens, or `pod<uid>`.
fn pod_uid(name: &str) -> Option<String> {
    let name = name.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.rsplit_once("-pod") {
        Some((before, uid)) if before.starts_with("kubepods") => uid,
        _ => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_uuid = uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    // Static pods have a digest of their file for uid.
    let is_digest = uid.len() == 32 && !uid.contains('-');
    let is_hex = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    ((is_uuid || is_digest) && is_hex).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";

    fn read(path: &str) -> (Option<String>, Option<Runtime>, Option<String>) {
        let path = path.replace("ID", ID).replace("POD_", &POD.replace('-', "_")).replace("POD", POD);
        let Workload { unit, container, pod } = Workload::from_path(path.as_bytes());
        if let Some(container) = &container {
            assert_eq!((container.id.as_str(), container.short()), (ID, &ID[..12]), "{path}");
        }
        (unit, container.map(|container| container.runtime), pod)
    }

    #[test]
    fn units_are_the_innermost() {
        for (path, unit) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/system.slice/php.service/worker/3", "php.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service", "sync.service"),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
            ("/init.scope", "init.scope"),
            ("/system.slice/_cpu.service", "cpu.service"),
        ] {
            assert_eq!(read(path), (Some(unit.to_owned()), None, None), "{path}");
        }
        for path in ["/", "", "/system.slice", "/.service", "/process_api/47216f50e5adb3236e5aa432ba2b1a56"] {
            assert!(Workload::from_path(path.as_bytes()).is_empty(), "{path}");
        }
    }

    #[test]
    fn containers_are_found_with_every_driver() {
        for (path, runtime) in [
            ("/docker/ID", Runtime::Docker),
            ("/system.slice/docker-ID.scope", Runtime::Docker),
            ("/system.slice/docker-ID.scope/init", Runtime::Docker),
            ("/machine.slice/libpod-ID.scope/container", Runtime::Podman),
            ("/libpod_parent/libpod-ID", Runtime::Podman),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", Runtime::Podman),
            ("/ecs/ac0f/ID", Runtime::Unknown),
        ] {
            assert_eq!(read(path).1, Some(runtime), "{path}");
        }
        assert_eq!(read("/system.slice/docker-ID.scope").0, None);
    }

    #[test]
    fn kubernetes_pods_are_found_with_every_driver() {
        for (path, runtime) in [
            ("/kubepods/burstable/podPOD/ID", Runtime::Unknown),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
                Runtime::Containerd,
            ),
            ("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", Runtime::CriO),
            (
                "/system.slice/containerd.service/kubepods-besteffort-podPOD_.slice:cri-containerd:ID",
                Runtime::Containerd,
            ),
            ("/docker/ID/kubelet/kubepods/besteffort/podPOD/ID", Runtime::Unknown),
        ] {
            let (_, found, pod) = read(path);
            assert_eq!((found, pod.as_deref()), (Some(runtime), Some(POD)), "{path}");
        }
        let of_static = Workload::from_path(b"/kubepods/pod0123456789abcdef0123456789abcdef/x");
        assert_eq!(of_static.pod.as_deref(), Some("0123456789abcdef0123456789abcdef"));
        assert_eq!(Workload::from_path(b"/podman/podcast/pod").pod, None);
    }

    #[test]
    fn a_monitor_is_not_its_container() {
        for path in ["/machine.slice/libpod-conmon-ID.scope", "/x.slice/crio-conmon-ID.scope"] {
            assert_eq!(read(path), (None, None, None));
        }
    }

    #[test]
    fn named_containers_and_hostile_names_are_harmless() {
        let lxc = Workload::from_path(b"/lxc.payload.web1/system.slice/nginx.service");
        assert_eq!(lxc.container.map(|container| container.to_string()).as_deref(), Some("lxc web1"));
        assert_eq!(lxc.unit.as_deref(), Some("nginx.service"));
        let hostile = Workload::from_path(b"/lxc/\x1b[2J/\xff.service/a\nb.service");
        assert_eq!(hostile.container.map(|container| container.id).as_deref(), Some("\\x1b[2J"));
        assert_eq!(hostile.unit.as_deref(), Some("a\\x0ab.service"));
    }
}

//! Whose code a frame is, told by its source path, its function and its module.

use super::frame::Role;

/// What is known of a frame when it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Function, demangled.
    pub function: Option<&'a str>,
    /// Source file.
    pub file: Option<&'a str>,
    /// Path of the module; `None` for code of a JIT compiler.
    pub module: Option<&'a str>,
}

/// Judges one frame. What is not known to belong to somebody else is the application's.
#[must_use]
pub fn of(evidence: Evidence<'_>) -> Role {
    let by_module = evidence.module.map_or(Role::Application, of_module);
    if by_module < Role::Library {
        return by_module;
    }
    if let Some(role) = evidence.file.and_then(of_file) {
        return role;
    }
    let by_name = evidence.function.and_then(|function| of_function(function, evidence.file));
    by_name.unwrap_or(by_module)
}

/// A module that is an interpreter or a managed runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// A Java virtual machine.
    Java,
    /// Another one, whose frames cannot be told apart from outside.
    Other(&'static str),
}

/// Which interpreter a module is, by its file name.
#[must_use]
pub fn interpreter(module: &str) -> Option<Interpreter> {
    let name = file_name(module);
    let plain = name.split(".so").next().unwrap_or(name);
    let stem = plain.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    Some(match stem {
        "python" | "libpython" | "pypy" | "libpypy" => Interpreter::Python,
        "node" | "nodejs" | "libnode" => Interpreter::Node,
        "libjvm" | "java" => Interpreter::Java,
        "ruby" | "libruby" => Interpreter::Other("Ruby"),
        "perl" | "libperl" => Interpreter::Other("Perl"),
        "php" | "php-fpm" | "libphp" => Interpreter::Other("PHP"),
        "lua" | "liblua" | "luajit" | "libluajit" => Interpreter::Other("Lua"),
        "beam" => Interpreter::Other("Erlang"),
        _ => return None,
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// By the path of the program or library alone.
#[must_use]
pub fn of_module(path: &str) -> Role {
    /// Parts of glibc, musl and the loader, up to the first `.` or `-`.
    const SYSTEM: [&str; 13] = [
        "ld",
        "libc",
        "libpthread",
        "libdl",
        "libm",
        "librt",
        "libresolv",
        "libutil",
        "libanl",
        "libnsl",
        "libthread_db",
        "libBrokenLocale",
        "libcrypt",
    ];
    const RUNTIME: [&str; 9] =
        ["libstdc++", "libgcc_s", "libc++", "libc++abi", "libuv", "libnet", "libnio", "libjava", "libasan"];
    /// Where distributions put the libraries of everybody. Elsewhere they are the application's own.
    const SHARED_LIBRARIES: [&str; 5] = ["/usr/", "/lib/", "/lib64/", "/nix/store/", "/snap/"];
    let name = file_name(path);
    if path == "[vdso]" {
        return Role::System;
    }
    let is_shared = name.contains(".so");
    let stem = name.split(['.', '-']).next().unwrap_or(name);
    if is_shared && (SYSTEM.contains(&stem) || stem.starts_with("libnss_")) {
        Role::System
    } else if interpreter(path).is_some() || is_shared && RUNTIME.contains(&stem) {
        Role::Runtime
    } else if let Some(role) = of_file(path) {
        role
    } else if is_shared && SHARED_LIBRARIES.iter().any(|root| path.starts_with(root)) {
        Role::Library
    } else {
        Role::Application
    }
}

/// By source path; `None` where the path does not say.
fn of_file(path: &str) -> Option<Role> {
    const LIBRARY: [&str; 8] = [
        "/.cargo/registry/",
        "/.cargo/git/",
        "/cargo/registry/",
        "/site-packages/",
        "/dist-packages/",
        "/node_modules/",
        "/go/pkg/mod/",
        "/vendor/",
    ];
    const RUNTIME: [&str; 4] = ["/rustc/", "/rustlib/src/", "/usr/include/", "/libstdc++-v3/"];
    if LIBRARY.iter().any(|part| path.contains(part)) {
        return Some(Role::Library);
    }
    let is_runtime = RUNTIME.iter().any(|part| path.contains(part))
        || path.starts_with("node:")
        || path.starts_with("<frozen ")
        || path.contains("/lib/python3.")
        || path.contains("/lib64/python3.")
        // The standard library of distributions that build Rust themselves.
        || path.starts_with("library/std/")
        || path.contains("/library/std/src/")
        || path.contains("/library/core/src/")
        || path.contains("/library/alloc/src/");
    is_runtime.then_some(Role::Runtime)
}

/// Go names a function by its package, and its own packages have no dot in their first part:
/// `internal/poll.(*FD).Read` against `example.com/shop/db.Connect` and `main.serve`.
fn is_go_standard_library(function: &str, file: &str) -> bool {
    const PACKAGES: [&str; 17] = [
        "bufio", "bytes", "context", "crypto", "database", "encoding", "fmt", "internal", "io", "log", "net",
        "os", "runtime", "sync", "syscall", "testing", "vendor",
    ];
    let first = function.split(['/', '.']).next().unwrap_or(function);
    (file.ends_with(".go") || file.ends_with(".s")) && PACKAGES.contains(&first)
}

/// By function name; `None` where the name does not say.
fn of_function(function: &str, file: Option<&str>) -> Option<Role> {
    // `<std::net::TcpStream as std::io::Read>::read`, `<&mut core::…>::…`
    let first = function
        .trim_start_matches(['<', '&', '*', '('])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    const RUNTIME: [&str; 8] =
        ["std::", "core::", "alloc::", "__rust_", "rust_begin_", "__gnu_cxx::", "__cxxabiv1::", "Builtins_"];
    let is_go = file.is_some_and(|file| is_go_standard_library(function, file));
    if is_go || RUNTIME.iter().any(|prefix| first.starts_with(prefix)) {
        return Some(Role::Runtime);
    }
    (file.is_none() && is_libc_function(function)).then_some(Role::System)
}

/// The functions of a statically linked libc that stand between an application and its system call, or below
/// its first function. Only asked where no source file is known, so that a program's own functions of these
/// names are not taken for them.
fn is_libc_function(function: &str) -> bool {
    const NAMES: [&str; 25] = [
        "recv",
        "recvfrom",
        "recvmsg",
        "recvmmsg",
        "read",
        "readv",
        "connect",
        "splice",
        "syscall",
        "sccp",
        "syscall_cp",
        "syscall_cp_c",
        "syscall_cp_asm",
        "cp_end",
        "internal_syscall_cancel",
        "syscall_cancel",
        "syscall_cancel_arch",
        "start",
        "start_c",
        "libc_start_main",
        "libc_start_call_main",
        "libc_start_main_stage2",
        "start_thread",
        "clone",
        "clone3",
    ];
    let plain = function.trim_start_matches('_').trim_start_matches("GI_").trim_start_matches('_');
    let without = |text: &str| NAMES.contains(&text);
    without(plain)
        || without(plain.trim_start_matches("libc_"))
        || without(plain.trim_end_matches("_nocancel"))
        || without(plain.trim_end_matches("_impl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(function: &str, file: &str, module: &str) -> Role {
        fn known(text: &str) -> Option<&str> {
            (!text.is_empty()).then_some(text)
        }
        of(Evidence { function: known(function), file: known(file), module: known(module) })
    }

    #[test]
    fn libc_and_the_loader_are_the_system_whatever_their_source() {
        for module in [
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/libpthread-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/libnss_files.so.2",
            "[vdso]",
        ] {
            assert_eq!(role("recv", "../sysdeps/recv.c", module), Role::System, "{module}");
        }
        // Statically linked.
        for function in ["__libc_recv", "recvfrom", "__syscall_cp_c", "__read_nocancel", "_start"] {
            assert_eq!(role(function, "", "/srv/app"), Role::System, "{function}");
        }
        assert_eq!(role("connect", "/srv/app/db.c", "/srv/app"), Role::Application);
        assert_eq!(role("libcache_get", "", "/srv/app"), Role::Application);
    }

    #[test]
    fn standard_libraries_and_interpreters_are_runtime() {
        for (function, file, module) in [
            ("std::net::tcp::TcpStream::read", "", "/srv/app"),
            ("<std::net::tcp::TcpStream as std::io::Read>::read", "", "/srv/app"),
            ("<&mut core::iter::Map<I, F> as X>::next", "", "/srv/app"),
            ("read", "/rustc/abc/library/std/src/sys/net.rs", "/srv/app"),
            ("recv", "/usr/include/x86_64-linux-gnu/bits/socket2.h", "/srv/app"),
            ("_PyEval_EvalFrameDefault", "Python/ceval.c", "/usr/bin/python3.11"),
            ("sock_recv", "", "/usr/lib/libpython3.12.so.1.0"),
            ("", "", "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so"),
            ("uv__read", "../deps/uv/src/unix/stream.c", "/usr/bin/node"),
            ("connect", "node:net", ""),
            ("recv", "/usr/lib/python3.12/socket.py", ""),
            ("net.(*conn).Read", "/usr/local/go/src/net/net.go", "/srv/app"),
            ("internal/poll.(*FD).Read", "/usr/lib/go-1.22/src/internal/poll/fd.go", "/srv/app"),
            ("runtime.goexit", "runtime/asm_amd64.s", "/srv/app"),
            ("std::basic_streambuf::underflow", "", "/usr/lib/libstdc++.so.6.0.30"),
        ] {
            assert_eq!(role(function, file, module), Role::Runtime, "{function} {file} {module}");
        }
    }

    #[test]
    fn other_peoples_libraries_are_not_the_application() {
        for (function, file, module) in [
            ("poll", "/root/.cargo/registry/src/index/hyper-1.0/src/lib.rs", "/srv/app"),
            ("get", "/usr/lib/python3/dist-packages/requests/api.py", ""),
            ("get", "/srv/venv/lib/python3.12/site-packages/requests/api.py", ""),
            ("request", "/srv/app/node_modules/got/index.js", ""),
            ("pgx.Connect", "/root/go/pkg/mod/github.com/jackc/pgx/v5/conn.go", "/srv/app"),
            ("curl_easy_perform", "", "/usr/lib/libcurl.so.4"),
        ] {
            assert_eq!(role(function, file, module), Role::Library, "{function} {file} {module}");
        }
    }

    #[test]
    fn what_remains_is_the_application() {
        for (function, file, module) in [
            ("serve", "/srv/app/src/serve.rs", "/srv/app"),
            ("<app::Conn as std::io::Read>::read", "", "/srv/app"),
            ("handler", "/srv/app.py", ""),
            ("main.leak", "/root/go/src/leaky/main.go", "/srv/leaky"),
            ("", "", "/srv/app"),
            ("worker", "/srv/plugin.c", "/srv/libplugin.so"),
            ("", "", "/srv/libplugin.so"),
        ] {
            assert_eq!(role(function, file, module), Role::Application, "{function} {file} {module}");
        }
    }

    #[test]
    fn interpreters_are_known_by_their_file() {
        assert_eq!(interpreter("/usr/bin/python3.11"), Some(Interpreter::Python));
        assert_eq!(interpreter("/usr/lib/libpython3.12.so.1.0"), Some(Interpreter::Python));
        assert_eq!(interpreter("/usr/bin/node"), Some(Interpreter::Node));
        assert_eq!(interpreter("/usr/lib/libnode.so.108"), Some(Interpreter::Node));
        assert_eq!(interpreter("/jdk/lib/server/libjvm.so"), Some(Interpreter::Java));
        assert_eq!(interpreter("/usr/bin/ruby3.1"), Some(Interpreter::Other("Ruby")));
        assert_eq!(interpreter("/srv/pythonista"), None);
    }
}

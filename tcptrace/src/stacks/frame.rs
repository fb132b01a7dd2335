//! Frames with names, and how they are written.

use std::fmt;

/// Longest function name that is kept, in characters: instantiations of C++ and Rust templates can have names
/// of many thousands.
pub const MAX_NAME_CHARS: usize = 256;

/// Directories of a source path that are shown beside the file name; the whole path is in [`Frame::file`].
const SHOWN_DIRECTORIES: usize = 1;

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// libc, the dynamic loader, the kernel's vdso.
    System,
    /// The standard library or the interpreter of the language.
    Runtime,
    /// A library that the application uses.
    Library,
    /// The application's own.
    Application,
}

/// One frame. All text is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Function, demangled, at most [`MAX_NAME_CHARS`]; `None` where no symbol covers the address.
    pub function: Option<String>,
    /// Source file as the debug information or the JIT compiler names it.
    pub file: Option<String>,
    /// Line of the call in `file`; in the frames of a JIT compiler the line where the function begins.
    pub line: Option<u32>,
    /// Program or library; `None` for code of a JIT compiler.
    pub module: Option<String>,
    /// Address as the module states it (what `addr2line -e` takes), or in memory without a module.
    pub address: u64,
    /// Inlined into the frame that follows.
    pub inlined: bool,
    /// Whose code it is.
    pub role: Role,
    /// Found by looking through the stack, or by a frame pointer that may not be one, because the code before
    /// it says nothing about its frames: right as a rule, not for certain. Shown with a `?`.
    pub scanned: bool,
}

/// `serve at src/serve.rs:41`, `recv in libc.so.6`, `libfoo.so+0x1234`, `[jit]+0x7f001234`.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scanned {
            f.write_str("? ")?;
        }
        let module = self.module.as_deref().unwrap_or("[jit]");
        match (&self.function, &self.file, self.line) {
            (Some(function), Some(file), Some(line)) => {
                write!(f, "{function} at {}:{line}", short_path(file))
            }
            (Some(function), Some(file), None) => write!(f, "{function} at {}", short_path(file)),
            (Some(function), None, _) => write!(f, "{function} in {module}"),
            (None, ..) => write!(f, "{module}+{:#x}", self.address),
        }
    }
}

/// The end of a path, which is what tells files apart. Node's own modules (`node:internal/timers`) stay whole.
fn short_path(path: &str) -> &str {
    if path.starts_with("node:") {
        return path;
    }
    let end = path.rmatch_indices('/').nth(SHOWN_DIRECTORIES).map_or(0, |(at, _)| at + 1);
    path[end..].trim_start_matches('/')
}

/// A name cut to [`MAX_NAME_CHARS`].
#[must_use]
pub fn cut(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            function: Some("serve".to_owned()),
            file: Some("/home/me/leaky/src/serve.rs".to_owned()),
            line: Some(41),
            module: Some("leaky".to_owned()),
            address: 0x1234,
            inlined: false,
            role: Role::Application,
            scanned: false,
        }
    }

    #[test]
    fn a_frame_says_as_much_as_is_known() {
        assert_eq!(frame().to_string(), "serve at src/serve.rs:41");
        assert_eq!(Frame { line: None, ..frame() }.to_string(), "serve at src/serve.rs");
        assert_eq!(Frame { file: None, ..frame() }.to_string(), "serve in leaky");
        assert_eq!(Frame { function: None, ..frame() }.to_string(), "leaky+0x1234");
        assert_eq!(Frame { function: None, module: None, ..frame() }.to_string(), "[jit]+0x1234");
        assert_eq!(Frame { scanned: true, ..frame() }.to_string(), "? serve at src/serve.rs:41");
    }

    #[test]
    fn paths_are_shown_by_their_end() {
        assert_eq!(short_path("app.py"), "app.py");
        assert_eq!(short_path("/app.py"), "app.py");
        assert_eq!(short_path("src/main.rs"), "src/main.rs");
        assert_eq!(short_path("/a/b/c.rs"), "b/c.rs");
        assert_eq!(short_path("node:internal/cjs/loader"), "node:internal/cjs/loader");
        assert_eq!(short_path(""), "");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(MAX_NAME_CHARS + 1);
        assert_eq!(cut(&long).chars().count(), MAX_NAME_CHARS + 1);
    }
}

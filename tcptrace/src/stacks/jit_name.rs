//! What JIT compilers write as names into perf maps, taken apart into function, file and line.

/// A function of a JIT compiler. Not escaped yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitName {
    /// The function.
    pub function: String,
    /// Its source file, where the compiler says it.
    pub file: Option<String>,
    /// The line on which the function begins, where the compiler says it.
    pub line: Option<u32>,
}

impl JitName {
    /// True for what belongs to the virtual machine or its standard library, told by the name alone.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        // Builtins, bytecode handlers and stubs of V8 and .NET.
        const KINDS: [&str; 6] = ["Builtin:", "BytecodeHandler:", "Handler:", "Stub:", "RegExp:", "stub<"];
        const PACKAGES: [&str; 8] =
            ["java.", "javax.", "jdk.", "sun.", "com.sun.", "kotlin.", "scala.", "[System."];
        let name = self.function.as_str();
        if self.file.is_some() {
            return false;
        }
        // The JVM's `Interpreter`, `StubRoutines (1)`, `call_stub`: methods have a class and arguments.
        let has_class = name.contains(['.', ':', '/']);
        // `int java.io.InputStream.read(byte[])`, `instance void [System.Net] System.Net.Socket::Connect()`
        let method = name.split('(').next().unwrap_or(name);
        let packaged = method.split(' ').any(|word| PACKAGES.iter().any(|package| word.starts_with(package)));
        !has_class || packaged || KINDS.iter().any(|kind| name.starts_with(kind))
    }
}

/// Takes a name apart. Names of an unknown kind are kept whole.
#[must_use]
pub fn parse(name: &str) -> JitName {
    python(name).or_else(|| v8(name)).unwrap_or_else(|| JitName {
        function: name.to_owned(),
        file: None,
        line: None,
    })
}

/// CPython with `-X perf`: `py::handler:/srv/app.py` (`perf_map_write_entry`).
fn python(name: &str) -> Option<JitName> {
    let (function, file) = name.strip_prefix("py::")?.split_once(':')?;
    Some(JitName { function: function.to_owned(), file: Some(file.to_owned()), line: None })
}

/// V8: `JS:*leak /srv/app.js:12:3` (`*` optimised, `~` interpreted, `^` and `+` between), also with
/// `LazyCompile:`, `Function:`, `Script:` or `Eval:` in front, and with a `file://` address for modules.
fn v8(name: &str) -> Option<JitName> {
    let (kind, rest) = name.split_once(':')?;
    if !["JS", "LazyCompile", "Function", "Script", "Eval"].contains(&kind) {
        return None;
    }
    let rest = rest.trim_start_matches(['*', '~', '^', '+', '\'']);
    let (function, place) = rest.split_once(' ').unwrap_or((rest, ""));
    let function = if function.is_empty() { "(anonymous)" } else { function }.to_owned();
    let (place, _column) = split_number(place);
    let (file, line) = split_number(place);
    let file = file.strip_prefix("file://").unwrap_or(file);
    let file = (!file.is_empty()).then(|| file.to_owned());
    Some(JitName { function, file, line })
}

/// `text:number`; the whole text where it does not end in a number.
fn split_number(text: &str) -> (&str, Option<u32>) {
    text.rsplit_once(':')
        .and_then(|(before, number)| Some((before, Some(number.parse().ok()?))))
        .unwrap_or((text, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> (String, String, u32) {
        let name = parse(name);
        (name.function, name.file.unwrap_or_default(), name.line.unwrap_or_default())
    }

    fn expected(function: &str, file: &str, line: u32) -> (String, String, u32) {
        (function.to_owned(), file.to_owned(), line)
    }

    #[test]
    fn names_of_python_v8_and_others() {
        assert_eq!(parts("py::handler:/srv/a b.py"), expected("handler", "/srv/a b.py", 0));
        assert_eq!(parts("JS:*leak /srv/app.js:12:3"), expected("leak", "/srv/app.js", 12));
        assert_eq!(parts("JS:~ /srv/app.js:1:1"), expected("(anonymous)", "/srv/app.js", 1));
        assert_eq!(parts("LazyCompile:~get file:///srv/m.mjs:7:10"), expected("get", "/srv/m.mjs", 7));
        assert_eq!(parts("JS:^connect node:net:1005:20"), expected("connect", "node:net", 1005));
        assert_eq!(parts("Builtin:ArgumentsAdaptor"), expected("Builtin:ArgumentsAdaptor", "", 0));
        assert_eq!(
            parts("void com.example.Leak.serve(int)"),
            expected("void com.example.Leak.serve(int)", "", 0)
        );
    }

    #[test]
    fn the_virtual_machines_own_functions_are_told_apart() {
        for name in [
            "Interpreter",
            "StubRoutines (2)",
            "Builtin:CEntry_Return1",
            "int java.io.InputStream.read(byte[])",
            "instance void [System.Net.Sockets] System.Net.Sockets.Socket::Connect()",
        ] {
            assert!(parse(name).is_runtime(), "{name}");
        }
        for name in [
            "int Leak.readRequest(java.net.Socket)",
            "void com.example.Shop.serve()",
            "instance void [Shop] Shop.Server::Accept()[Tier0]",
            "py::serve:/srv/app.py",
            "JS:~serve /srv/app.js:1:1",
        ] {
            assert!(!parse(name).is_runtime(), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name: String) {
            let _ = parse(&name);
        }
    }
}

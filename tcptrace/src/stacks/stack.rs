//! A symbolised stack: which frame is the application's, and what is missing.

use std::fmt;

use super::frame::{Frame, Role};
use super::role::Interpreter;

/// Frames of one site at most: the application's own function and who called it.
pub const MAX_SITE_FRAMES: usize = 8;

/// A symbolised stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Callers are missing at the outer end: the stack was deeper than what was copied, or could not be
    /// followed to the first function of the thread.
    pub truncated: bool,
    /// What is missing and what to do about it.
    pub note: Option<Note>,
}

/// What a stack lacks, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Note {
    /// CPython's own frames instead of the Python functions.
    Python,
    /// V8's own frames instead of the JavaScript functions.
    JavaScript,
    /// None of the application's JavaScript was running: Node's event loop itself read or connected.
    EventLoop,
    /// The JVM's own frames instead of the Java methods.
    Java,
    /// Another interpreter's frames.
    Interpreter(&'static str),
    /// The application's program or library has no symbols.
    NoSymbols(String),
    /// A file on the stack could not be read.
    Unreadable {
        /// Which file.
        module: String,
        /// Why.
        why: String,
    },
    /// The stack could not be followed at all.
    NotFollowed(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Python => f.write_str(
                "these are the interpreter's frames: run Python 3.12 or later with -X perf to see \
                 Python functions",
            ),
            Self::JavaScript => f.write_str(
                "these are V8's frames: run node with --perf-basic-prof to see JavaScript functions",
            ),
            Self::EventLoop => f.write_str(
                "none of the application's JavaScript was on the stack: Node reads and connects from its \
                 event loop, before and after the application's functions run",
            ),
            Self::Java => f.write_str(
                "these are the JVM's frames: run java with -XX:+PreserveFramePointer and then \
                 `jcmd PID Compiler.perfmap` (JDK 17 or later) to see Java methods",
            ),
            Self::Interpreter(language) => write!(
                f,
                "these are the {language} interpreter's frames: it does not say which {language} \
                 code it runs"
            ),
            Self::NoSymbols(module) => write!(
                f,
                "{module} has no symbols: `addr2line -e` with its debug information turns the \
                 addresses into lines"
            ),
            Self::Unreadable { module, why } => write!(f, "{module} could not be read: {why}"),
            Self::NotFollowed(why) => f.write_str(why),
        }
    }
}

impl Stack {
    /// The frame to look at: the innermost one of the application's own code, else of a library's. `None`
    /// where there are only the system's and the runtime's.
    #[must_use]
    pub fn interesting(&self) -> Option<usize> {
        let innermost = |role| self.frames.iter().position(|frame| frame.role == role);
        innermost(Role::Application).or_else(|| innermost(Role::Library))
    }

    /// What to show: the frames of the application and its libraries from the interesting one outwards, at most
    /// [`MAX_SITE_FRAMES`]. Where there are none, the named functions of a JIT compiler, else the runtime's,
    /// else all.
    #[must_use]
    pub fn site_frames(&self) -> Vec<&Frame> {
        let shown: [&dyn Fn(&Frame) -> bool; 4] = [
            &|frame| frame.role >= Role::Library,
            &is_named_jit,
            &|frame| frame.role == Role::Runtime,
            &|_| true,
        ];
        let chosen = shown.into_iter().find(|is_shown| self.frames.iter().any(is_shown));
        let frames = self.frames.iter().skip(self.interesting().unwrap_or(0));
        frames.filter(|frame| chosen.is_some_and(|is_shown| is_shown(frame))).take(MAX_SITE_FRAMES).collect()
    }
}

/// A function that a JIT compiler has named: a frame in no module.
fn is_named_jit(frame: &Frame) -> bool {
    frame.module.is_none() && frame.function.is_some()
}

/// What a stack whose frames could be named lacks.
#[must_use]
pub fn missing(frames: &[Frame], interpreter: Option<Interpreter>) -> Option<Note> {
    let names = |wanted: &dyn Fn(&Frame) -> bool| frames.iter().any(wanted);
    let named_jit = names(&is_named_jit);
    let own = names(&|frame| frame.role >= Role::Library);
    let jit = names(&|frame| frame.module.is_none())
        || names(&|frame| {
            frame.function.as_deref().is_some_and(|function| function.starts_with("Builtins_"))
        });
    match interpreter {
        Some(Interpreter::Node) if named_jit => (!own).then_some(Note::EventLoop),
        Some(_) if named_jit => None,
        Some(Interpreter::Python) => Some(Note::Python),
        Some(Interpreter::Node) if jit => Some(Note::JavaScript),
        Some(Interpreter::Node) => Some(Note::EventLoop),
        Some(Interpreter::Java) => Some(Note::Java),
        Some(Interpreter::Other(language)) => Some(Note::Interpreter(language)),
        None => frames
            .iter()
            .find(|frame| frame.role == Role::Application)
            .filter(|frame| frame.function.is_none())
            .and_then(|frame| Some(Note::NoSymbols(frame.module.clone()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, role: Role) -> Frame {
        Frame {
            function: (!function.is_empty()).then(|| function.to_owned()),
            file: None,
            line: None,
            module: Some("m".to_owned()),
            address: 0,
            inlined: false,
            role,
            scanned: false,
        }
    }

    fn stack(frames: &[(&str, Role)]) -> Stack {
        let frames = frames.iter().map(|(function, role)| frame(function, *role)).collect();
        Stack { frames, truncated: false, note: None }
    }

    fn site(stack: &Stack) -> Vec<&str> {
        stack.site_frames().into_iter().filter_map(|frame| frame.function.as_deref()).collect()
    }

    #[test]
    fn a_site_begins_at_the_application_and_ends_with_it() {
        let stack = stack(&[
            ("recv", Role::System),
            ("read", Role::Runtime),
            ("hyper", Role::Library),
            ("serve", Role::Application),
            ("poll", Role::Library),
            ("main", Role::Application),
            ("lang_start", Role::Runtime),
            ("_start", Role::System),
        ]);
        assert_eq!(stack.interesting(), Some(3));
        assert_eq!(site(&stack), ["serve", "poll", "main"]);
    }

    #[test]
    fn without_the_application_a_library_and_then_the_runtime_is_shown() {
        let library = stack(&[("recv", Role::System), ("curl", Role::Library), ("x", Role::Runtime)]);
        assert_eq!(site(&library), ["curl"]);
        let runtime = stack(&[("recv", Role::System), ("eval", Role::Runtime), ("s", Role::System)]);
        assert_eq!(site(&runtime), ["eval"]);
        let system = stack(&[("recv", Role::System)]);
        assert_eq!(site(&system), ["recv"]);
        assert_eq!(site(&stack(&[])), [""; 0]);
    }

    #[test]
    fn interpreters_without_names_say_what_to_do() {
        let frames = [frame("recv", Role::System), frame("eval", Role::Runtime)];
        assert_eq!(missing(&frames, Some(Interpreter::Python)), Some(Note::Python));
        assert_eq!(missing(&frames, Some(Interpreter::Node)), Some(Note::EventLoop));
        let mut jit = frame("", Role::Application);
        jit.module = None;
        assert_eq!(missing(std::slice::from_ref(&jit), Some(Interpreter::Node)), Some(Note::JavaScript));
        jit.function = Some("handler".to_owned());
        assert_eq!(missing(&[jit], Some(Interpreter::Node)), None);
        assert_eq!(missing(&frames, None), None);
        assert_eq!(missing(&[frame("", Role::Application)], None), Some(Note::NoSymbols("m".to_owned())));
    }
}

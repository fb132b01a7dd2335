//! From addresses in modules to functions, files and lines, inlined functions included.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::frame::{self, Frame, Role};
use super::module::{Module, ModuleId};
use super::role::{self, Evidence};
use crate::text;

/// Files whose symbols are kept parsed. Each costs a descriptor, a mapping, and for debug information an index
/// of its units; beyond the limit all are let go and read again when needed.
pub const MAX_SYMBOL_FILES: usize = 64;

/// Addresses whose frames are kept, some hundred bytes each; beyond it all are let go.
pub const MAX_ADDRESSES: usize = 16_384;

/// Looks up symbols and keeps what it found.
pub struct Symboliser {
    symboliser: Symbolizer,
    files: HashSet<ModuleId>,
    frames: HashMap<(ModuleId, u64), Rc<[Frame]>>,
}

impl Default for Symboliser {
    fn default() -> Self {
        Self { symboliser: Symbolizer::new(), files: HashSet::new(), frames: HashMap::new() }
    }
}

impl Symboliser {
    /// The frames at an address of a module, innermost first: the functions that were inlined there and the
    /// one that holds them. At least one.
    pub fn frames(&mut self, module: &Module, address: u64) -> Rc<[Frame]> {
        let key = (module.id(), address);
        if let Some(frames) = self.frames.get(&key) {
            return frames.clone();
        }
        if self.frames.len() >= MAX_ADDRESSES {
            self.frames.clear();
        }
        let frames = self.look_up(module, address);
        self.frames.insert(key, frames.clone());
        frames
    }

    fn look_up(&mut self, module: &Module, address: u64) -> Rc<[Frame]> {
        let unknown = || Rc::from([unnamed(module, address)]);
        let Some(path) = module.readable_path() else { return unknown() };
        if self.files.insert(module.id()) && self.files.len() > MAX_SYMBOL_FILES {
            self.symboliser = Symbolizer::new();
            self.files = HashSet::from([module.id()]);
        }
        // Nobody looks for a leak inside libc or an interpreter, whose debug information is the largest.
        let whose = role::of_module(module.path());
        let with_lines = whose >= Role::Library && module.debug_info_is_bearable();
        // Debug information may be damaged, or compressed in a way that is not supported; the symbol table
        // then still has the function's name.
        let symbol = with_lines
            .then(|| self.symbol(path.clone(), address, true))
            .flatten()
            .or_else(|| self.symbol(path, address, false));
        symbol.map_or_else(unknown, |symbol| named(module, address, &symbol))
    }

    fn symbol(&self, path: PathBuf, address: u64, debug_syms: bool) -> Option<Sym<'_>> {
        let mut file = Elf::new(path);
        file.debug_syms = debug_syms;
        match self.symboliser.symbolize_single(&Source::Elf(file), Input::VirtOffset(address)) {
            Ok(Symbolized::Sym(symbol)) => Some(symbol),
            Ok(Symbolized::Unknown(_)) => None,
            Err(error) => {
                log::debug!("no symbol for {address:#x}: {error}");
                None
            }
        }
    }
}

fn named(module: &Module, address: u64, symbol: &Sym<'_>) -> Rc<[Frame]> {
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|function| frame(module, address, &function.name, function.code_info.as_ref(), true));
    let holder = frame(module, address, &symbol.name, symbol.code_info.as_deref(), false);
    inlined.chain([holder]).collect()
}

fn frame(module: &Module, address: u64, name: &str, code: Option<&CodeInfo<'_>>, inlined: bool) -> Frame {
    let function = text::escape(frame::cut(name).as_bytes()).into_owned();
    let file = code.map(|code| {
        let path = code.to_path();
        text::escape(path.as_os_str().as_encoded_bytes()).into_owned()
    });
    let evidence = Evidence { function: Some(&function), file: file.as_deref(), module: Some(module.path()) };
    Frame {
        role: role::of(evidence),
        line: code.and_then(|code| code.line).filter(|&line| line != 0),
        module: Some(module.name().to_owned()),
        function: Some(function),
        file,
        address,
        inlined,
        scanned: false,
    }
}

fn unnamed(module: &Module, address: u64) -> Frame {
    let evidence = Evidence { function: None, file: None, module: Some(module.path()) };
    Frame {
        function: None,
        file: None,
        line: None,
        module: Some(module.name().to_owned()),
        address,
        inlined: false,
        role: role::of(evidence),
        scanned: false,
    }
}

//! The address of a kernel function: from a BPF program that asks for it, else from /proc/kallsyms.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};

use super::lookup;

/// Where the kernel lists its symbols.
const KALLSYMS: &str = "/proc/kallsyms";
/// The function of every TIME_WAIT mini's timer (`inet_twsk_alloc()`).
pub const TW_TIMER_HANDLER: &str = "tw_timer_handler";
/// Longest line that can matter: 16 digits, a type, KSYM_NAME_LEN (512) and a module's name.
const MAX_LINE: usize = 1024;

/// Why a symbol's address is not known.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The list itself cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel shows zeros instead of addresses.
    #[error("{path} hides the address of `{symbol}` (kernel.kptr_restrict, or CAP_SYSLOG is missing)")]
    Hidden {
        /// The file.
        path: String,
        /// The symbol.
        symbol: String,
    },
    /// The kernel has no such function.
    #[error("{path} has no function `{symbol}`")]
    Absent {
        /// The file.
        path: String,
        /// The symbol.
        symbol: String,
    },
    /// Several candidates with compilers' suffixes and none without.
    #[error(
        "{path} has several functions `{symbol}` with suffixes ({first}, {second}): which one is meant is unknown"
    )]
    Ambiguous {
        /// The file.
        path: String,
        /// The symbol.
        symbol: String,
        /// One name.
        first: String,
        /// Another.
        second: String,
    },
}

/// Address of [`TW_TIMER_HANDLER`] in the running kernel.
///
/// # Errors
/// When the address is hidden or the function is not there.
pub fn tw_timer_handler() -> Result<u64, SymbolError> {
    match lookup::address(TW_TIMER_HANDLER) {
        Some(address) => Ok(address),
        None => listed(TW_TIMER_HANDLER),
    }
}

/// The same from the kernel's list alone.
pub(super) fn listed(symbol: &str) -> Result<u64, SymbolError> {
    let unreadable = |source| SymbolError::Unreadable { path: KALLSYMS.to_owned(), source };
    // seq_file hands out about a page per read whatever the buffer; formatting it costs the kernel far more
    // than the call.
    let reader = BufReader::with_capacity(64 * 1024, File::open(KALLSYMS).map_err(unreadable)?);
    find(reader, symbol, KALLSYMS)
}

/// Finds a function of the kernel proper in a list of the form of /proc/kallsyms. Stops at the exact name;
/// a name with a suffix counts only when the whole list has no exact one.
pub(crate) fn find(mut list: impl BufRead, symbol: &str, path: &str) -> Result<u64, SymbolError> {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut suffixed: Option<(u64, Vec<u8>)> = None;
    let hidden = || SymbolError::Hidden { path: path.to_owned(), symbol: symbol.to_owned() };
    loop {
        line.clear();
        let got = read_line(&mut list, &mut line);
        if got.map_err(|source| SymbolError::Unreadable { path: path.to_owned(), source })? == 0 {
            break;
        }
        let Some((address, name)) = function(&line) else { continue };
        let Some(suffix) = name.strip_prefix(symbol.as_bytes()) else { continue };
        if suffix.is_empty() {
            return if address == 0 { Err(hidden()) } else { Ok(address) };
        }
        if !is_same_function(suffix) {
            continue;
        }
        if let Some((known, first)) = &suffixed
            && *known != address
        {
            return Err(SymbolError::Ambiguous {
                path: path.to_owned(),
                symbol: symbol.to_owned(),
                first: String::from_utf8_lossy(first).into_owned(),
                second: String::from_utf8_lossy(name).into_owned(),
            });
        }
        suffixed = Some((address, name.to_vec()));
    }
    match suffixed {
        Some((0, _)) => Err(hidden()),
        Some((address, _)) => Ok(address),
        None => Err(SymbolError::Absent { path: path.to_owned(), symbol: symbol.to_owned() }),
    }
}

/// Reads one line without its end; of a line longer than any real one only the beginning is kept. 0 at the end
/// of the list.
fn read_line(list: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = list.by_ref().take(MAX_LINE as u64).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read == MAX_LINE {
        read += list.skip_until(b'\n')?;
    }
    Ok(read)
}

/// Takes `ffffffff82006870 t tw_timer_handler` apart; `None` for what is not code of the kernel proper.
fn function(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = line.split(|&byte| byte == b' ' || byte == b'\t');
    let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
    // A fourth word is the module's name.
    if !matches!(kind, b"t" | b"T" | b"w" | b"W") || words.next().is_some() {
        return None;
    }
    let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
    Some((address, name))
}

/// True for suffixes under which compilers keep the whole of a static function: link-time optimisation
/// (`.llvm.123`, `.lto_priv.0`), clones (`.constprop.0`, `.isra.0`), unique names (`.__uniq.123`), also in a row.
/// Not for fragments (`.cold`, `.part.0`), nor for what is not the function that the timer calls (`.cfi_jt`).
fn is_same_function(suffix: &[u8]) -> bool {
    let Ok(suffix) = std::str::from_utf8(suffix) else { return false };
    let Some(suffix) = suffix.strip_prefix('.') else { return false };
    let mut parts = suffix.split('.').peekable();
    while let Some(part) = parts.next() {
        if !matches!(part, "llvm" | "lto_priv" | "constprop" | "isra" | "__uniq") {
            return false;
        }
        parts.next_if(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(list: &str) -> Result<u64, SymbolError> {
        // A tiny buffer, so that lines are cut at every place.
        find(BufReader::with_capacity(7, list.as_bytes()), TW_TIMER_HANDLER, "list")
    }

    #[test]
    fn the_exact_name_wins_over_prefixes_suffixes_and_modules() {
        let list = "ffffffff82006860 t __pfx_tw_timer_handler\n\
                    ffffffff82006861 t tw_timer_handler.llvm.9\n\
                    ffffffff82006862 t tw_timer_handler\t[fancy]\n\
                    ffffffff82006863 d tw_timer_handler\n\
                    ffffffff82006864 t tw_timer_handlers\n\
                    ffffffff82006870 t tw_timer_handler\n";
        assert_eq!(look_up(list).unwrap(), 0xffff_ffff_8200_6870);
    }

    #[test]
    fn a_suffixed_symbol_is_taken_a_fragment_or_jump_table_entry_is_not() {
        for suffix in
            [".llvm.1234567890", ".isra.0", ".constprop.0.isra.0", ".lto_priv.0", ".__uniq.12.llvm.3"]
        {
            assert_eq!(
                look_up(&format!("10 t a\nff t tw_timer_handler{suffix}\n20 t b")).unwrap(),
                0xff,
                "{suffix}"
            );
        }
        for suffix in [".cfi_jt", ".cold", ".part.0", ".llvm.1.cold", ".", "2", "_x", ".llvm..1"] {
            let error = look_up(&format!("ff t tw_timer_handler{suffix}\n")).unwrap_err();
            assert!(matches!(error, SymbolError::Absent { .. }), "{suffix}: {error}");
        }
    }

    #[test]
    fn two_different_clones_are_not_guessed_between() {
        let list = "10 t tw_timer_handler.llvm.1\n20 t tw_timer_handler.llvm.2\n";
        assert!(matches!(look_up(list).unwrap_err(), SymbolError::Ambiguous { .. }));
    }

    #[test]
    fn zeros_are_reported_as_hidden() {
        let error = look_up("0000000000000000 T _text\n0000000000000000 t tw_timer_handler\n").unwrap_err();
        assert!(error.to_string().contains("kptr_restrict"), "{error}");
        let error = look_up("0000000000000000 t tw_timer_handler.llvm.1\n").unwrap_err();
        assert!(matches!(error, SymbolError::Hidden { .. }));
    }

    #[test]
    fn damaged_lists_are_errors_not_panics() {
        for list in
            ["", "\n\n", "zz t tw_timer_handler", "ffffffffffffffffff t tw_timer_handler", "ff t", "ff"]
        {
            assert!(matches!(look_up(list).unwrap_err(), SymbolError::Absent { .. }), "{list:?}");
        }
        let long = format!("ff t {}\n10 t tw_timer_handler\n", "x".repeat(100_000));
        assert_eq!(look_up(&long).unwrap(), 0x10);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = find(bytes.as_slice(), TW_TIMER_HANDLER, "list");
        }
    }
}

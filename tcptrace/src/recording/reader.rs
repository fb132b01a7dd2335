//! Reads a recording, as far as it can be read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Footer, Header, Line, VERSION, row};
use crate::engine::Input;

/// The first bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Decoded at once: where a block turns out to be damaged, the decoder keeps back what it had decoded before in
/// the same call, and so much is lost at most.
const DECODED_BYTES: usize = 4 << 10;
/// The longest line that is believed: a dump of a million sockets is one line.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// A recording that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read the recording {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The first line is not a header.
    #[error("{path} is not a recording of tcptrace: {why}")]
    NoHeader {
        /// The file.
        path: String,
        /// What is wrong with its first line.
        why: String,
    },
    /// Made by a newer version.
    #[error(
        "the recording {path} has format version {found}; this tcptrace reads up to {VERSION} \
         (it was made by tcptrace {made_by})"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// Its maker, escaped.
        made_by: String,
    },
}

/// How a recording ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// In good order.
    Complete(Footer),
    /// Without a footer: the recorder was killed, or is still at work.
    CutOff {
        /// Lines that were read.
        lines: u64,
    },
    /// At damage: what comes after it is not used.
    Damaged {
        /// The line that could not be read, from 1.
        line: u64,
        /// Why.
        why: String,
    },
}

/// A recording that is being read.
pub struct Reader {
    path: PathBuf,
    header: Header,
    lines: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    read: u64,
    ending: Option<Ending>,
}

impl Reader {
    /// Opens a recording and reads its header. Compression is recognised by content, not by name.
    ///
    /// # Errors
    /// When the file cannot be read, is no recording, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |error| {
            let path = crate::text::escape(path.as_os_str().as_encoded_bytes()).into_owned();
            ReadError::Io { path, error }
        };
        Self::of_lines(path, open(path).map_err(failed)?)
    }

    /// Reads the header of what is not compressed any more.
    pub(crate) fn of_lines(path: &Path, lines: Box<dyn BufRead + Send>) -> Result<Self, ReadError> {
        let shown = || crate::text::escape(path.as_os_str().as_encoded_bytes()).into_owned();
        let mut reader = Self {
            path: path.to_owned(),
            header: Header::default(),
            lines,
            line: Vec::new(),
            read: 0,
            ending: None,
        };
        let no_header = |why: String| ReadError::NoHeader { path: shown(), why };
        match reader.next_line() {
            Ok(true) => {}
            Ok(false) => return Err(no_header("it is empty".to_owned())),
            Err(why) => return Err(no_header(why)),
        }
        // The version first: the rest of a newer header may look different.
        #[derive(serde::Deserialize)]
        struct Versioned {
            record: String,
            version: u32,
            #[serde(default)]
            tool_version: String,
        }
        let versioned: Versioned = serde_json::from_slice(&reader.line)
            .map_err(|error| no_header(format!("its first line is no header: {error}")))?;
        if versioned.record != "header" {
            return Err(no_header("its first line is no header".to_owned()));
        }
        if versioned.version > VERSION {
            return Err(ReadError::Newer {
                path: shown(),
                found: versioned.version,
                made_by: crate::text::escape(versioned.tool_version.as_bytes()).into_owned(),
            });
        }
        match serde_json::from_slice(&reader.line) {
            Ok(Line::Header(header)) => reader.header = header,
            Ok(_) => return Err(no_header("its first line is no header".to_owned())),
            Err(error) => return Err(no_header(format!("its header is damaged: {error}"))),
        }
        Ok(reader)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next input, `None` at the end; [`Reader::ending`] then says which.
    pub fn next_input(&mut self) -> Option<Input> {
        while self.ending.is_none() {
            match self.next_line() {
                Ok(true) => {}
                Ok(false) => {
                    self.ending = Some(Ending::CutOff { lines: self.read });
                    break;
                }
                Err(why) => {
                    self.ending = Some(Ending::Damaged { line: self.read + 1, why });
                    break;
                }
            }
            match parse(&self.line) {
                Ok(Parsed::Input(input)) => return Some(input),
                Ok(Parsed::Footer(footer)) => self.ending = Some(Ending::Complete(footer)),
                Err(why) => self.ending = Some(Ending::Damaged { line: self.read, why }),
            }
        }
        None
    }

    /// How the recording ended, once [`Reader::next_input`] has said that it did.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Lines that were read, the header included.
    #[must_use]
    pub fn lines_read(&self) -> u64 {
        self.read
    }

    /// Passes over a line without looking at it: much faster than reading the input in it. False where there is
    /// none.
    pub fn skip_line(&mut self) -> bool {
        self.ending.is_none() && self.next_line().unwrap_or(false)
    }

    /// Reads a whole line into `self.line`; false at the end of the file. A line without its newline was cut
    /// off while it was written, which is an end and no damage.
    fn next_line(&mut self) -> Result<bool, String> {
        self.line.clear();
        let taken = (&mut self.lines).take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
        match taken {
            // A zstd stream that stops in a block says so; everything before was whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error.to_string()),
            Ok(0) => Ok(false),
            Ok(_) if self.line.pop_if(|last| *last == b'\n').is_some() => {
                self.read += 1;
                Ok(true)
            }
            Ok(length) if length as u64 == MAX_LINE_BYTES => {
                Err(format!("a line longer than {MAX_LINE_BYTES} bytes"))
            }
            Ok(_) => Ok(false),
        }
    }
}

enum Parsed {
    Input(Input),
    Footer(Footer),
}

fn parse(line: &[u8]) -> Result<Parsed, String> {
    if line.first() == Some(&b'[') {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        return row::read(text)
            .map(|event| Parsed::Input(Input::Event(event)))
            .map_err(|error| error.to_string());
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok(Parsed::Input(match line {
        Line::InventoryBegins { at } => Input::InventoryBegins { at },
        Line::Inventory(inventory) => Input::Inventory(inventory),
        Line::Loss(loss) => Input::Loss(loss),
        Line::Tick { at } => Input::Tick { at },
        Line::Footer(footer) => return Ok(Parsed::Footer(footer)),
        Line::Header(_) => return Err("a second header".to_owned()),
    }))
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let is_zstd = match file.read_exact(&mut magic) {
        Ok(()) => magic == ZSTD_MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(if is_zstd {
        Box::new(BufReader::with_capacity(DECODED_BYTES, zstd::Decoder::new(file)?))
    } else {
        Box::new(BufReader::with_capacity(1 << 20, file))
    })
}

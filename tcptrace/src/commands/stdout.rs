//! Standard output in whole lines.

use std::io::{self, Write};

/// Written to the descriptor once this many bytes wait; one system call then carries hundreds of lines. A quarter as many
/// take a twelfth more of the collector's time, where the output is a file.
const BATCH_BYTES: usize = 128 << 10;

/// Collects what is written and passes on whole lines only, so that a signal, a closed pipe or a full disk
/// leaves no partial JSON line of ours behind. `flush` passes on all whole lines; the start of a line that is
/// never finished is dropped.
#[derive(Debug)]
pub struct LineSink<W: Write> {
    out: W,
    waiting: Vec<u8>,
}

impl LineSink<io::StdoutLock<'static>> {
    /// To standard output, locked.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(io::stdout().lock())
    }
}

impl<W: Write> LineSink<W> {
    /// To anything.
    pub fn new(out: W) -> Self {
        Self { out, waiting: Vec::with_capacity(BATCH_BYTES) }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let Some(last) = self.waiting.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let written = self.out.write_all(&self.waiting[..=last]);
        // Forgotten in any case: lines that failed halfway are not sent a second time. The room for them stays.
        self.waiting.drain(..=last);
        written
    }
}

impl<W: Write> Write for LineSink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= BATCH_BYTES {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_pass() {
        let mut passed = Vec::new();
        let mut sink = LineSink::new(&mut passed);
        sink.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
        sink.flush().unwrap();
        assert_eq!(sink.waiting, b"{\"b\"");
        sink.write_all(b":2}\n{").unwrap();
        sink.flush().unwrap();
        drop(sink);
        assert_eq!(passed, b"{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn lines_that_failed_are_not_sent_a_second_time() {
        /// Refuses the first line and takes the others.
        struct Full<'a>(bool, &'a mut Vec<u8>);

        impl Write for Full<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if !std::mem::replace(&mut self.0, true) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.1.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let mut passed = Vec::new();
        let mut sink = LineSink::new(Full(false, &mut passed));
        sink.write_all(b"1\n2").unwrap();
        assert_eq!(sink.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        sink.write_all(b"\n").unwrap();
        sink.flush().unwrap();
        drop(sink);
        assert_eq!(passed, b"2\n");
    }

    #[test]
    fn a_full_batch_passes_by_itself_at_a_line_end() {
        let mut passed = Vec::new();
        let mut sink = LineSink::new(&mut passed);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..300 {
            sink.write_all(&line).unwrap();
        }
        drop(sink);
        assert!(passed.len() >= BATCH_BYTES && passed.len() < 300_000);
        assert_eq!(passed.len() % 1000, 0);
    }
}

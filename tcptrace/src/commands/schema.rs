//! `tcptrace --schema`.

use std::io::Write as _;

use anyhow::Context as _;

use super::Exit;
use crate::views::json;

/// Prints the JSON Schema of everything that `--json` prints.
pub fn run() -> anyhow::Result<Exit> {
    let mut text =
        serde_json::to_string_pretty(&json::schema()).context("cannot write the schema as JSON")?;
    text.push('\n');
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(Exit::Done)
}

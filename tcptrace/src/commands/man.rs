//! `tcptrace man`.

use std::io::Write as _;
use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Advice as _, Exit};
use crate::cli::{Cli, ManArgs};

/// Prints the main page, or writes them all.
pub fn run(args: &ManArgs) -> anyhow::Result<Exit> {
    let main = built();
    match &args.out {
        None => io::stdout()
            .lock()
            .write_all(&page(&main).context("cannot render the manual page")?)
            .context("cannot write to standard output")?,
        Some(dir) => {
            for command in std::iter::once(&main).chain(documented(&main)) {
                write_page(command, dir)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The command line with everything that clap adds at parse time, so that pages show it too.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn documented(main: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    main.get_subcommands().filter(|command| !command.is_hide_set())
}

/// `tcptrace`, `tcptrace-watch`: the name of a page.
fn page_name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn write_page(command: &clap::Command, dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(format!("{}.1", page_name(command)));
    let page = page(command).with_context(|| format!("cannot render {}", path.display()))?;
    fs::write(&path, page)
        .with_context(|| format!("cannot write {}", path.display()))
        .advise("name a directory that exists and that you may write to")
}

/// One page. The text after the options becomes sections of its own, with its columns kept.
fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    // By hand: clap_mangen drops an empty date, and roff then takes the version for it.
    let title = page_name(command).to_uppercase();
    writeln!(page, r#".TH "{title}" 1 "" "tcptrace {}" "tcptrace""#, env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        write_sections(&text.to_string(), &mut page)?;
    }
    write_see_also(command, &mut page)?;
    Ok(page)
}

/// Blocks of text under a line that ends in a colon become sections named by it, other blocks go under NOTES.
fn write_sections(text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut in_notes = false;
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (first, rest) = block.split_once('\n').unwrap_or((block, ""));
        match first.strip_suffix(':') {
            Some(title) if !rest.is_empty() => {
                in_notes = false;
                // No filling, two columns less indented than in the help, where all of it is.
                writeln!(page, ".SH {}\n.nf", title.to_uppercase())?;
                for line in rest.lines() {
                    writeln!(page, "{}", roff(line.strip_prefix("  ").unwrap_or(line)))?;
                }
                writeln!(page, ".fi")?;
            }
            _ => {
                writeln!(page, "{}", if in_notes { ".PP" } else { ".SH NOTES" })?;
                in_notes = true;
                block.lines().try_for_each(|line| writeln!(page, "{}", roff(line)))?;
            }
        }
    }
    Ok(())
}

/// A command points to the main page; that one lists the commands itself.
fn write_see_also(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let others = if command.has_subcommands() { "" } else { ".BR tcptrace (1),\n" };
    writeln!(page, ".SH SEE ALSO\n{others}.BR ss (8),\n.BR tcp (7)")
}

/// Text as roff takes it: a hyphen stays the ASCII one that can be pasted into a shell, and no line is a request.
fn roff(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('≥', "\\(>=");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_after_the_options_becomes_sections() {
        let mut page = Vec::new();
        let text = "Examples:\n  tcptrace a 'b*'\n  .x\n\nA note.\n.It goes on.\n\nAnother.\n\nExit status:\n  0  done";
        write_sections(text, &mut page).unwrap();
        assert_eq!(
            String::from_utf8(page).unwrap(),
            ".SH EXAMPLES\n.nf\ntcptrace a \\(aqb*\\(aq\n\\&.x\n.fi\n.SH NOTES\nA note.\n\\&.It goes on.\n.PP\nAnother.\n\
             .SH EXIT STATUS\n.nf\n0  done\n.fi\n"
        );
    }

    #[test]
    fn every_page_names_itself_and_the_version() {
        let main = built();
        for command in std::iter::once(&main).chain(documented(&main)) {
            let page = String::from_utf8(page(command).unwrap()).unwrap();
            let title = format!(".TH \"{}\" 1", page_name(command).to_uppercase());
            assert!(page.contains(&title) && page.contains(env!("CARGO_PKG_VERSION")), "{page}");
            assert!(!page.contains(".SH EXTRA"), "{page}");
        }
    }
}

//! `doctor`'s findings as text: what needs attention first, then everything, group by group.

use std::io::{self, Write};

use crate::doctor::{Check, Group, Verdict};
use crate::text::escape;
use crate::views::human;
use crate::views::page::{Page, wrap};
use crate::views::paint::Paint;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Columns to fill at most.
    pub width: usize,
    /// Plain ASCII.
    pub ascii: bool,
    /// Colours or none.
    pub paint: Paint,
}

/// Columns that the verdict takes; everything else is indented below it.
const INDENT: usize = 6;

/// Text for a person. `release` is that of the kernel, `label` the name of the namespace, or its number.
///
/// # Errors
/// What the writer returns.
pub fn write(
    (release, label): (&str, &str),
    checks: &[Check],
    options: &Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut page = Page::new(options.width, options.ascii, options.paint);
    page.paragraph(&format!("Linux {}, network namespace {label}. {}", shown(release), tally(checks)));
    attention(checks, &mut page);
    for group in checks.chunk_by(|a, b| a.group == b.group) {
        let Some(first) = group.first() else { continue };
        page.heading(title(first.group), Paint::heading);
        group.iter().for_each(|check| finding(check, &mut page));
    }
    out.write_all(page.finish().as_bytes())
}

/// `1 fails, 2 warnings, 12 notes, 40 as they should be.`
fn tally(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count() as u64;
    let mut parts = Vec::new();
    match count(Verdict::Fail) {
        0 => {}
        1 => parts.push("1 thing does not work".to_owned()),
        n => parts.push(format!("{} things do not work", human::count(n))),
    }
    let mut add = |n, what: &str| {
        if n > 0 {
            parts.push(human::counted(n, what));
        }
    };
    add(count(Verdict::Warn), "warning");
    add(count(Verdict::Note), "note");
    parts.push(format!("{} as it should be", human::count(count(Verdict::Ok))));
    format!("{}.", human::list(&parts))
}

/// What is wrong, by name: the reasons stand below.
fn attention(checks: &[Check], page: &mut Page) {
    let mut wrong: Vec<_> = checks.iter().filter(|check| check.verdict >= Verdict::Warn).collect();
    wrong.sort_by_key(|check| std::cmp::Reverse(check.verdict));
    if !wrong.is_empty() {
        page.blank();
    }
    for check in wrong {
        head(check, page);
    }
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Left => "Left changed",
        Group::Readiness => "Can it run here",
        Group::Ports => "Local ports",
        Group::Limits => "Limits",
        Group::Dwells => "Measured",
        Group::Sysctls => "Sysctls: what they really do",
        Group::Unseen => "Not seen",
    }
}

fn finding(check: &Check, page: &mut Page) {
    // A note on what was not seen has no name of its own.
    if check.group == Group::Unseen {
        page.item("- ", &shown(&check.detail));
        return;
    }
    if check.verdict == Verdict::Ok && check.group != Group::Sysctls {
        entry(
            check,
            &format!("{}. {}", headline(check), shown(&check.detail)),
            |_, line| line.to_owned(),
            page,
        );
        return;
    }
    head(check, page);
    indented(&shown(&check.detail), page, |_, line| line.to_owned());
    if let Some(measured) = &check.measured {
        indented(&format!("Measured here: {}.", shown(measured)), page, Paint::good);
    }
    if let Some(folklore) = &check.folklore {
        indented(&format!("Said of it: {folklore}"), page, Paint::faint);
    }
}

fn head(check: &Check, page: &mut Page) {
    entry(check, &headline(check), Paint::heading, page);
}

/// `tcp_fin_timeout = 90 (default: 60)`.
fn headline(check: &Check) -> String {
    let mut text = shown(&check.name);
    match check.value.as_deref().map(shown) {
        Some(value) if check.group == Group::Sysctls => {
            let value = if value.is_empty() { "none" } else { &value };
            text += &format!(" = {value}");
        }
        Some(value) => text += &format!(": {value}"),
        None if check.group == Group::Sysctls => text += ": absent",
        None => {}
    }
    if let Some(default) = &check.default {
        let is_it = check.value.as_ref() == Some(default);
        let default = if default.is_empty() { "none" } else { default };
        text += &if is_it { " (the default)".to_owned() } else { format!(" (default: {default})") };
    }
    text
}

/// `warn  ` and a text, wrapped.
fn entry(check: &Check, text: &str, style: impl Fn(Paint, &str) -> String, page: &mut Page) {
    let paint = page.paint();
    let (word, verdict): (_, fn(Paint, &str) -> String) = match check.verdict {
        Verdict::Ok => ("ok", Paint::good),
        Verdict::Note => ("note", Paint::heading),
        Verdict::Warn => ("warn", Paint::warning),
        Verdict::Fail => ("FAIL", Paint::alarm),
    };
    let text = page.shown(text);
    for (index, line) in wrap(&text, room(page), "").iter().enumerate() {
        let label = if index == 0 { verdict(paint, word) } else { String::new() };
        let gap = " ".repeat(INDENT - if index == 0 { word.len() } else { 0 });
        page.line(&format!("{label}{gap}{}", style(paint, line)));
    }
}

fn indented(text: &str, page: &mut Page, paint: impl Fn(Paint, &str) -> String) {
    let text = page.shown(text);
    for line in wrap(&text, room(page), "") {
        let line = paint(page.paint(), &line);
        page.line(&format!("{}{line}", " ".repeat(INDENT)));
    }
}

fn room(page: &Page) -> usize {
    page.paragraph_width().saturating_sub(INDENT)
}

/// Names of processes and values of sysctls are other people's bytes.
fn shown(text: &str) -> String {
    escape(text.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: Group, name: &str, value: Option<&str>, verdict: Verdict) -> Check {
        let detail =
            "A sentence that is long enough to be wrapped where a terminal is as narrow as some are.";
        Check {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            verdict,
            detail: detail.to_owned(),
            group,
            netns: None,
            default: (group == Group::Sysctls).then(|| "60".to_owned()),
            folklore: (group == Group::Sysctls).then(|| "\"Lower it\": no.".to_owned()),
            measured: (group == Group::Sysctls).then(|| "half of 212 within 5.13 s".to_owned()),
            ports: None,
            pid: None,
        }
    }

    fn text(width: usize, ascii: bool) -> String {
        let checks = [
            check(Group::Readiness, "kernel", Some("6.12"), Verdict::Ok),
            check(Group::Ports, "ports from 10.0.0.1 to 10.0.0.2:80", Some("10 of 10"), Verdict::Fail),
            check(Group::Limits, "fds of \x1b[2Jx[7]", Some("90 of 100"), Verdict::Warn),
            check(Group::Sysctls, "tcp_fin_timeout", Some("60"), Verdict::Ok),
            check(Group::Sysctls, "tcp_fin_timeout", Some("30"), Verdict::Note),
            check(Group::Sysctls, "ip_local_reserved_ports", Some(""), Verdict::Ok),
            check(Group::Unseen, "unseen", None, Verdict::Note),
        ];
        let options = Options { width, ascii, paint: Paint::default() };
        let mut out = Vec::new();
        write(("6.12", "web"), &checks, &options, &mut out).expect("a vector takes all");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_is_wrong_stands_first_and_everything_below() {
        insta::assert_snapshot!(text(80, false));
    }

    #[test]
    fn it_fits_any_width_in_ascii_and_drives_no_terminal() {
        for width in [40, 60, 80, 200] {
            let text = text(width, true);
            assert!(text.is_ascii() && !text.contains('\x1b'), "{text}");
            assert!(text.lines().all(|line| line.len() <= width), "{text}");
        }
    }
}

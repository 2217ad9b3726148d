//! `regauge doctor`: what this host can and cannot measure.

use anyhow::{Result, bail};
use regauge_replayer::doctor::{Level, Report, examine};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Say what this host can and cannot measure, and what to do about it
///
/// Looks at the kernel, io_uring, CPUs, file system and mount, limits, steal time and clock. Exit code 1 when a study
/// would be impossible or would mislead.
#[derive(clap::Args)]
pub struct Args {
    /// Where a study would lie
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let bar = crate::ui::progress(None, "{spinner} looking at this host");
    let report = examine(&args.path, Duration::from_secs(1));
    bar.finish_and_clear();
    if args.json {
        crate::ui::print_json(&report)?;
    } else {
        crate::ui::print(&words(&report, std::io::stdout().is_terminal()))?;
    }
    match report.findings.iter().filter(|f| f.level == Level::Bad).count() {
        0 => Ok(()),
        n => bail!("{n} finding{} make a study here impossible or misleading", if n == 1 { "" } else { "s" }),
    }
}

fn words(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let (mark, code) = match finding.level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Bad => ("BAD ", "31"),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_string() };
        text.push_str(&format!("{mark} {:<16} {}\n", finding.name, finding.value));
        if finding.level > Level::Ok {
            text.push_str(&wrapped(&finding.means));
            if let Some(advice) = &finding.advice {
                text.push_str(&wrapped(&format!("→ {advice}")));
            }
        }
    }
    text
}

/// Indented below the value, within 80 columns.
fn wrapped(sentence: &str) -> String {
    const INDENT: usize = 22;
    let mut text = String::new();
    let mut line = String::new();
    for word in sentence.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 80 - INDENT {
            text.push_str(&format!("{:INDENT$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&format!("{:INDENT$}{line}\n", ""));
    text
}

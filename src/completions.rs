//! `regauge completions SHELL`: prints a completion script.

use anyhow::Result;
use clap::CommandFactory;

/// Print a completion script for a shell (bash, zsh, fish, elvish, powershell)
///
/// For bash: regauge completions bash > ~/.local/share/bash-completion/completions/regauge
#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete in
    shell: clap_complete::Shell,
}

pub fn run<C: CommandFactory>(args: Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "regauge", &mut script);
    crate::ui::print(&String::from_utf8_lossy(&script))
}

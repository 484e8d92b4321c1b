//! What belongs around a command: completions for shells, and manual pages.

use clap::{Args, Command};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The subcommand whose page is wanted [default: the page of `exuvia`]
    command: Option<String>,
}

/// The completions, as text for the shell.
pub(crate) fn completions(args: &CompletionsArgs, mut cli: Command) -> Result<String, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "exuvia", &mut out);
    text(out)
}

/// A manual page, in roff.
pub(crate) fn man(args: &ManArgs, mut cli: Command) -> Result<String, Failure> {
    cli.build();
    let page = match &args.command {
        None => cli,
        Some(name) => cli
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Failure::Usage(format!("there is no command {name:?}; see exuvia --help")))?,
    };
    let mut out = Vec::new();
    let written = clap_mangen::Man::new(page).render(&mut out);
    written.map_err(|e| Failure::Store(format!("the page cannot be written: {e}")))?;
    text(out)
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| Failure::Store(e.to_string()))
}

//! The commands of the `mixfeed` program, one file each.

/// As `println!`, but a reader that left ends the program quietly instead of with a panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::line(format_args!($($text)*)) };
}

mod check;
mod clouds;
mod demo;
mod dial;
mod estimators;
mod fit;
mod healthcheck;
mod learn;
mod logs;
mod mixture;
mod photos;
mod points;
mod policies;
mod preview;
mod pull;
mod serve;
mod sheet;
mod tiles;
mod token;
mod tokenize;

use crate::shutdown::leave;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Serves mixed, augmented training batches over gRPC.
#[derive(Debug, Parser)]
#[command(name = "mixfeed", version, about, propagate_version = true)]
struct Cli {
    /// How log lines look.
    #[arg(long, global = true, env = "MIXFEED_LOG_FORMAT", default_value = "text")]
    log_format: logs::Format,
    /// What is logged: a level, or targets with levels such as "info,h2=warn".
    #[arg(long, global = true, env = "MIXFEED_LOG", default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the sources of a config file.
    Serve(serve::Args),
    /// Serve embedded photographs, pull mixed batches over TCP, write pictures to look at; with `--mixture`, learn a mixture.
    Demo(demo::Args),
    /// Pull batches as a trainer would and print samples/s, GB/s and the time spent waiting.
    Pull(pull::Args),
    /// List the mixing policies with their parameters.
    Policies(policies::Args),
    /// List the estimators of mixtures with their parameters and the reports that they live on.
    Estimators(estimators::Args),
    /// Show how a job's mixture stands and went, draw it, follow it, or set its weights.
    Mixture(mixture::Args),
    /// Open every source of a config file, decode every record, list bad ones, estimate memory.
    Check(check::Args),
    /// Tokenise the text sources of a config file ahead of serving.
    Tokenize(tokenize::Args),
    /// Draw what a policy does: base, partner, mask, result.
    Preview(preview::Args),
    /// Fit a mixing law or a regression to a table of finished runs; print the best weights.
    Fit(fit::Args),
    /// Make a token: print its secret once, and the block of the token file that knows its hash.
    Token(token::Args),
    /// Ask a server whether it serves; for container health checks.
    Healthcheck(healthcheck::Args),
}

/// Prints a line. When standard output cannot take it there is no one to go on for: a pipe that was closed ends the
/// program with 0, anything else (a full disk) with 1 and a sentence.
fn line(text: std::fmt::Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout(), "{text}") else { return };
    if error.kind() != std::io::ErrorKind::BrokenPipe {
        complain(format_args!("error: cannot write to standard output: {error}"));
        leave(1);
    }
    leave(0);
}

/// Prints a line to standard error, if anyone takes it.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}"); // nowhere left to complain to
}

/// Runs the program. Exit codes: 0 done, 1 failed, 2 wrong flags, 78 wrong config.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("error: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let traces = {
        let _inside = runtime.enter();
        logs::init(&cli.log, cli.log_format)
    };
    let traces = match traces {
        Ok(traces) => traces,
        Err(why) => {
            complain(format_args!("error: {why}"));
            return ExitCode::from(2);
        }
    };
    let done = match cli.command {
        Command::Serve(args) => runtime.block_on(serve::run(args)),
        Command::Demo(args) => runtime.block_on(demo::run(args)),
        Command::Pull(args) => runtime.block_on(pull::run(args)),
        Command::Policies(args) => policies::run(&args),
        Command::Estimators(args) => estimators::run(&args),
        Command::Mixture(args) => runtime.block_on(mixture::run(args)),
        Command::Check(args) => check::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Preview(args) => preview::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Healthcheck(args) => runtime.block_on(healthcheck::run(args)),
    };
    drop(traces);
    // Blocking reads of a dead disk must not keep the process.
    runtime.shutdown_background();
    let status = match done {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("error: {}", told(&error)));
            let start = error.downcast_ref::<crate::StartError>();
            let config = start.is_some_and(crate::StartError::is_configuration)
                || error.downcast_ref::<crate::config::ConfigError>().is_some();
            if config { 78 } else { 1 }
        }
    };
    leave(status)
}

/// An error and its causes, each once: some errors tell their cause already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::device::DeviceError;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let device = crate::StartError::from(DeviceError::Lost("gone".into()));
        let once = "`server.device`: the device is lost until the server is started again: gone";
        assert_eq!(told(&device.into()), once);
        let file = std::fs::File::open("/nonexistent").context("cannot read x");
        assert!(told(&file.expect_err("absent")).starts_with("cannot read x: No such file"));
    }
}

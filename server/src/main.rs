//! The `mixfeed` program: see [`mixfeed_server::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mixfeed_server::heap::keep();
    mixfeed_server::cli::main()
}

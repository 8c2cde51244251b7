//! The command line: one file per command.

/// Runs the command line.
pub fn main() -> std::process::ExitCode {
    todo!()
}

//! The `baton` command.

fn main() -> std::process::ExitCode {
    batonfs::cli::main()
}

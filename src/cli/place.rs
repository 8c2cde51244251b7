//! Which exchange a command works on, and how an operator's request reaches it.

use super::output;
use crate::daemon::{self, mount_table};
use crate::exchange::config::Config;
use crate::exchange::layout::Layout;
use crate::exchange::operator::OperatorRequest;
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use anyhow::{Context as _, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `--exchange DIR`, for commands that work on one exchange.
#[derive(Debug, clap::Args)]
pub struct ExchangeOption {
    /// The exchange's folder, or a mount of it [default: the exchange around the current folder]
    #[arg(long, value_name = "DIR", env = "BATON_EXCHANGE")]
    exchange: Option<PathBuf>,
}

/// `[DIR]` or `--exchange DIR`, for commands that look at one exchange.
#[derive(Debug, clap::Args)]
pub struct ExchangePlace {
    /// The exchange's folder, or a mount of it [default: the exchange around the current folder]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same as DIR
    #[arg(long, value_name = "DIR", env = "BATON_EXCHANGE")]
    exchange: Option<PathBuf>,
}

impl ExchangeOption {
    /// The exchange's folder, absolute.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self) -> anyhow::Result<Layout> {
        find_exchange(self.exchange.as_deref()).map(Layout::new)
    }
}

impl ExchangePlace {
    /// The exchange's folder, absolute.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self) -> anyhow::Result<Layout> {
        find_exchange(self.given()).map(Layout::new)
    }
    /// A file of records: in the exchange's folder, or under `in_mount` in a mount of an exchange whose
    /// folder the caller may not read.
    ///
    /// # Errors
    /// There is no exchange.
    pub fn find_record(
        &self,
        in_folder: impl Fn(&Layout) -> PathBuf,
        in_mount: &str,
    ) -> anyhow::Result<PathBuf> {
        match self.find() {
            Ok(layout) => Ok(in_folder(&layout)),
            Err(none) => {
                let start = self.given().unwrap_or(Path::new(".")).canonicalize().ok();
                let files = start.iter().flat_map(|start| start.ancestors()).map(|dir| dir.join(in_mount));
                files.into_iter().find(|file| file.is_file()).ok_or(none)
            }
        }
    }
    fn given(&self) -> Option<&Path> {
        self.dir.as_deref().or(self.exchange.as_deref())
    }
}

/// The folder of the exchange that `given` (or the current folder) is, lies in, or is a mount of.
///
/// # Errors
/// There is none.
pub fn find_exchange(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let start = given.unwrap_or(Path::new("."));
    let absolute = start.canonicalize().with_context(|| start.display().to_string())?;
    if let Some(dir) = Layout::find_around(&absolute).or_else(|| mounted_exchange(&absolute)) {
        return Ok(dir);
    }
    match given {
        Some(dir) => bail!(
            "{} is no exchange: neither it nor a folder above it holds an exchange.toml that you may read. \
             Make an exchange with: baton init DIR --agent NAME",
            dir.display()
        ),
        None => bail!(
            "there is no exchange around the current folder. Name one with --exchange DIR or \
             $BATON_EXCHANGE, or make one with: baton init DIR --agent NAME"
        ),
    }
}

/// The exchange whose mount `path` lies in, if its folder may be read.
fn mounted_exchange(path: &Path) -> Option<PathBuf> {
    let exchange = mount_table::around(path).ok()??.exchange;
    exchange.join("exchange.toml").is_file().then_some(exchange)
}

/// Reads the exchange's exchange.toml.
///
/// # Errors
/// Names the file and the line.
pub fn read_config(layout: &Layout) -> anyhow::Result<Config> {
    let file = layout.config();
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Config::parse(&text).map_err(anyhow::Error::msg).with_context(|| file.display().to_string())
}

/// Reads the exchange's trust.json.
///
/// # Errors
/// Names the file and what is wrong in it.
pub fn read_trust(layout: &Layout) -> anyhow::Result<TrustList> {
    let file = layout.trust();
    let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
    TrustList::parse(&text).with_context(|| file.display().to_string())
}

/// Makes sure that these agents take part in the exchange.
///
/// # Errors
/// Names the one that doesn't, and says how to add it.
pub fn check_agents<'a>(
    layout: &Layout,
    names: impl IntoIterator<Item = &'a AgentName>,
) -> anyhow::Result<()> {
    let config = read_config(layout)?;
    for name in names {
        if !config.agents.contains_key(name) {
            bail!(
                "{name} is no agent of {}: add [agents.\"{name}\"] to its exchange.toml first",
                layout.root().display()
            );
        }
    }
    Ok(())
}

/// Has an operator's request carried out, by the exchange's daemon if one runs.
///
/// # Errors
/// What the exchange says, or that it can't be reached.
pub fn operate(layout: &Layout, request: OperatorRequest) -> anyhow::Result<serde_json::Value> {
    daemon::operate(layout.root(), request)
}

/// Prints an operator request's answer: as it is for `--json`, otherwise the sentences in its
/// `changes`, or `otherwise` where there are none.
///
/// # Errors
/// Standard output's.
pub fn print_answer(answer: &serde_json::Value, json: bool, otherwise: &str) -> anyhow::Result<ExitCode> {
    let mut out = output::stdout();
    if json {
        output::write_json(&mut out, answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let changes = answer.get("changes").and_then(serde_json::Value::as_array);
    let sentences: Vec<_> = changes.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    if sentences.is_empty() {
        writeln!(out, "{otherwise}")?;
    }
    for sentence in sentences {
        writeln!(out, "{}", output::printable(sentence))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

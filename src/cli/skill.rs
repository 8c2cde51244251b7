//! `baton skill`: puts SKILL.md where programs that run agents look for skills.

use super::output;
use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NAME: &str = "batonfs";
const FILE: &str = "SKILL.md";

/// Teach agents how to work in an exchange: a skill for Claude Code, Codex and gptme
#[derive(Debug, clap::Subcommand)]
pub enum SkillCommand {
    Install(InstallArgs),
    Remove(RemoveArgs),
    /// Print the skill
    Show,
}

/// Put the skill where Claude Code, Codex and gptme look for skills
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where it goes:
  claude-code   ~/.claude/skills/batonfs/SKILL.md ($CLAUDE_CONFIG_DIR for ~/.claude)
                with --project: DIR/.claude/skills/batonfs/SKILL.md
  codex         ~/.agents/skills/batonfs/SKILL.md, with --project: DIR/.agents/skills/batonfs/SKILL.md
  gptme         ~/.config/gptme/skills/batonfs/SKILL.md, with --project: DIR/.gptme/skills/batonfs/SKILL.md

A SKILL.md there that somebody has changed is left as it is, unless you say --force.

Examples:
  baton skill install
  baton skill install --for claude-code --project .")]
pub struct InstallArgs {
    #[command(flatten)]
    places: Places,
    /// Replace a SKILL.md that was changed
    #[arg(long)]
    force: bool,
}

/// Take the skill away again
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    places: Places,
    /// Remove a SKILL.md that was changed, too
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Places {
    /// For which program
    #[arg(long = "for", value_name = "PROGRAM", default_value = "all")]
    program: Program,
    /// For one project: in DIR, not in the home folder
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// For this user: in the home folder (the default)
    #[arg(long, conflicts_with = "project")]
    user: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Program {
    ClaudeCode,
    Codex,
    Gptme,
    All,
}

impl Program {
    /// Its folder of skills: in a project, or in the home folder.
    fn skills(self, project: Option<&Path>) -> anyhow::Result<PathBuf> {
        let (in_project, in_home) = match self {
            Program::ClaudeCode => (".claude/skills", ".claude/skills"),
            Program::Codex => (".agents/skills", ".agents/skills"),
            Program::Gptme | Program::All => (".gptme/skills", ".config/gptme/skills"),
        };
        if let Some(project) = project {
            return Ok(project.join(in_project));
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let (Program::ClaudeCode, Some(config)) = (self, set("CLAUDE_CONFIG_DIR")) {
            return Ok(config.join("skills"));
        }
        let home = set("HOME").context("HOME is not set: name a folder with --project DIR")?;
        Ok(home.join(in_home))
    }
}

impl Places {
    /// The file of each program that was asked for.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let project = match &self.project {
            Some(dir) => Some(dir.canonicalize().with_context(|| dir.display().to_string())?),
            None => None,
        };
        let all = Program::value_variants().iter().copied().filter(|program| *program != Program::All);
        let asked = all.filter(|program| matches!(self.program, Program::All) || self.program == *program);
        asked.map(|program| Ok(program.skills(project.as_deref())?.join(NAME).join(FILE))).collect()
    }
}

/// What stands where the skill goes.
enum Found {
    Nothing,
    /// This version's text.
    Same,
    /// What baton wrote, another version's.
    Older,
    /// Somebody's own.
    Changed,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: SkillCommand) -> anyhow::Result<ExitCode> {
    match command {
        SkillCommand::Show => {
            let mut out = output::stdout();
            out.write_all(text().as_bytes())?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        SkillCommand::Install(args) => each(&args.places, |file| install(file, &args)),
        SkillCommand::Remove(args) => each(&args.places, |file| remove(file, &args)),
    }
}

/// Does it everywhere, also where it failed elsewhere; tells of each.
fn each(places: &Places, act: impl Fn(&Path) -> anyhow::Result<&'static str>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in places.files()? {
        match act(&file) {
            Ok(done) => output::tell(format_args!("{done} {}", file.display())),
            Err(error) => {
                output::warn(format_args!("{error:#}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn install(file: &Path, args: &InstallArgs) -> anyhow::Result<&'static str> {
    let found = look(file)?;
    let (would, done) = match found {
        Found::Same => return Ok("is there already:"),
        Found::Changed if !args.force => bail!(
            "{} was changed since baton wrote it, or is somebody else's; it stays. --force replaces it",
            file.display()
        ),
        Found::Nothing => ("would write", "wrote"),
        Found::Older | Found::Changed => ("would replace", "replaced"),
    };
    if args.places.dry_run {
        return Ok(would);
    }
    write(file).with_context(|| format!("{} could not be written", file.display()))?;
    Ok(done)
}

fn remove(file: &Path, args: &RemoveArgs) -> anyhow::Result<&'static str> {
    match look(file)? {
        Found::Nothing => return Ok("is not there:"),
        Found::Changed if !args.force => bail!(
            "{} was changed since baton wrote it, or is somebody else's; it stays. --force removes it",
            file.display()
        ),
        _ => {}
    }
    if args.places.dry_run {
        return Ok("would remove");
    }
    fs::remove_file(file).with_context(|| file.display().to_string())?;
    // The folder is the skill's own; what somebody has put beside it stays.
    if let Some(folder) = file.parent() {
        let _ = fs::remove_dir(folder);
    }
    Ok("removed")
}

/// The skill's text, with a mark by which baton knows its own again.
fn text() -> String {
    let text = crate::exchange::views::general_skill();
    let mark = mark_of(&text);
    text + &mark
}

/// The last line: a comment in Markdown, with the sum of all before it.
fn mark_of(text: &str) -> String {
    use sha2::Digest as _;
    let sum = sha2::Sha256::digest(text.as_bytes());
    let hex: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\n<!-- written by baton skill install; its text: {hex} -->\n")
}

fn look(file: &Path) -> anyhow::Result<Found> {
    let found = match fs::read(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    if found == text().as_bytes() {
        return Ok(Found::Same);
    }
    let found = String::from_utf8_lossy(&found);
    let own = found.rfind("\n<!--").is_some_and(|at| found[at..] == mark_of(&found[..at]));
    Ok(if own { Found::Older } else { Found::Changed })
}

/// Whole or not at all: a temp file beside it, renamed over it.
fn write(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let temp = folder.join(format!(".{FILE}.{}.tmp", std::process::id()));
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temp).and_then(|mut new| {
            new.write_all(text().as_bytes())?;
            new.sync_all()?;
            fs::rename(&temp, file)
        });
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written
}

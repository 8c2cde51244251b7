//! What goes to standard output: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

/// Standard output, buffered. A closed pipe comes back as an error that `main` takes for the reader's
/// wish to see no more.
pub fn stdout() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Tells the user of something that was done. That it can't be told undoes nothing.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Tells the user of something beside the result, or that there is none.
pub fn warn(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "baton: {text}");
}

/// Writes a value as indented JSON and a newline.
///
/// # Errors
/// Standard output's.
pub fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes rows with their columns aligned; the last column is left as long as it is.
///
/// # Errors
/// Standard output's.
pub fn write_table(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max();
    let widths: Vec<usize> = (0..head.len().saturating_sub(1)).map(|c| width(c).unwrap_or(0)).collect();
    let head = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            match widths.get(column) {
                Some(width) => {
                    let _ = write!(line, "{cell:width$}  ");
                }
                None => line.push_str(cell),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}

/// Text from an agent, safe to show on a terminal: control characters are written as escapes.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

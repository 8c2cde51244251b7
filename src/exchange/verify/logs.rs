//! The logs: is each one, byte for byte, what the events say was appended?

use super::chain::{Chain, KnownArchive, LogHistory, Segment};
use super::lines;
use super::{Faults, Setting, count};
use crate::exchange::layout::Layout;
use crate::exchange::logs::temp_path;
use crate::rules::{Rule, archive};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How many segments and lines ahead a log's events and bytes may get out of step by one fault and
/// still be brought together again.
const WINDOW: usize = 64;
/// The longest stretch that is searched for line ends to do so.
const WINDOW_BYTES: u64 = 4 << 20;

/// The logs that are on disk or in the events, by their path in the tree.
pub(super) fn find(layout: &Layout, chain: &Chain) -> BTreeSet<String> {
    let mut logs: BTreeSet<String> = chain.logs().cloned().collect();
    for (dir, prefix) in [("", ""), ("inbox", "inbox/"), ("outbox", "outbox/")] {
        for entry in std::fs::read_dir(layout.tree(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".jsonl") && name != "events.jsonl" {
                logs.insert(format!("{prefix}{name}"));
            }
        }
    }
    logs
}

/// Checks one log, with its archives, against its events and each of its lines by itself. Returns its lines.
pub(super) fn check<'a>(
    setting: &'a Setting<'a>,
    path: &str,
    chain: &Chain,
    faults: &mut Faults,
) -> lines::Lines<'a> {
    let mut lines = lines::Lines::new(setting, path);
    for archive in chain.archives(path) {
        check_file(setting, &archive.path, Some(&archive.history), &mut lines, faults);
    }
    let history = chain.log(path);
    let last = chain.archives(path).last();
    if last.is_some_and(|last| is_not_cut(setting, path, history, last)) {
        let problem = "still holds what is archived already: a crash interrupted the archive";
        faults.add_mendable(path, Some(1), "uncovered", problem);
    } else {
        check_file(setting, path, history, &mut lines, faults);
    }
    lines
}

fn check_file(
    setting: &Setting<'_>,
    path: &str,
    history: Option<&LogHistory>,
    lines: &mut lines::Lines<'_>,
    faults: &mut Faults,
) {
    let no_history = LogHistory::default();
    let mut try_check = |faults: &mut Faults| -> io::Result<()> {
        let file = setting.layout.tree(path);
        if !std::fs::symlink_metadata(&file)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(file)?;
        let history = history.unwrap_or(&no_history);
        let orders = check_coverage(setting, path, &file, history, faults)?;
        lines.check(path, &file, history, &orders, faults)
    };
    match try_check(faults) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if history.is_some_and(|h| !h.segments.is_empty()) {
                let part = setting.layout.tree(&temp_path(path)).exists();
                let add = if part { Faults::add_mendable } else { Faults::add };
                add(faults, path, None, "missing", "the file is gone, but events tell of lines in it");
            }
        }
        Err(e) => faults.add(path, None, "unreadable", e.to_string()),
    }
}

/// Whether a crash came between a log's last archive and its cut.
fn is_not_cut(setting: &Setting<'_>, path: &str, history: Option<&LogHistory>, last: &KnownArchive) -> bool {
    let Ok(file) = File::open(setting.layout.tree(path)) else { return false };
    let size = file.metadata().map_or(0, |meta| meta.len());
    let mut hash = Sha256::new();
    history.is_none_or(|history| history.segments.is_empty())
        && size == last.history.end
        && each_block(&file, 0, size, |block| hash.update(block)).is_ok()
        && <[u8; 32]>::from(hash.finalize()) == last.sha256
}

/// Files in the archive that no event tells of.
pub(super) fn check_archive(setting: &Setting<'_>, chain: &Chain, faults: &mut Faults) {
    let layout = setting.layout;
    let names = |dir: &str| -> Vec<(String, bool)> {
        let entries = std::fs::read_dir(layout.tree(dir)).into_iter().flatten().flatten();
        let name = |entry: std::fs::DirEntry| {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            (format!("{dir}/{}", entry.file_name().to_string_lossy()), is_dir)
        };
        entries.map(name).collect()
    };
    let years = names(archive::DIR)
        .into_iter()
        .filter(|(dir, is_dir)| *is_dir && dir.rsplit('/').next().and_then(archive::parse_year).is_some());
    let mut dirs: Vec<String> = years.map(|(dir, _)| dir).collect();
    while let Some(dir) = dirs.pop() {
        for (path, is_dir) in names(&dir) {
            if is_dir {
                dirs.push(path);
            } else if path.ends_with(".part") {
                // A daemon may be at it.
                if !setting.live {
                    faults.add_mendable(path, None, "added", "an archive that a crash interrupted");
                }
            } else if !chain.has_archive(&path) {
                faults.add(path, None, "added", "no event put an archive here: added behind the mount");
            }
        }
    }
}

/// Walks through the log and its events side by side. Where they part, the nearest place is sought at
/// which they agree again, so that one line that was edited, dropped or added is one fault. Returns of which
/// commits the bytes are.
fn check_coverage(
    setting: &Setting<'_>,
    path: &str,
    file: &File,
    history: &LogHistory,
    faults: &mut Faults,
) -> io::Result<lines::Orders> {
    let mut orders = lines::Orders::default();
    let size = file.metadata()?.len();
    let segments = &history.segments;
    let (mut next, mut at, mut line) = (0, 0, 1);
    while let Some(segment) = segments.get(next) {
        if matches(file, segment, at, size)? {
            // Where nobody's trust ever changed, a line's time has no say.
            if let Some(order) = segment.order.filter(|_| !setting.history.is_constant()) {
                orders.push(at, at + segment.end - segment.start, order);
            }
            (next, at, line) = (next + 1, at + segment.end - segment.start, line + segment.lines);
            continue;
        }
        let again = agree_again(file, &segments[next..], at, size)?;
        let lost = &segments[next..next + again.segments];
        let lost_lines = lost.iter().map(|s| s.lines).sum();
        let events = match lost {
            [] => String::new(),
            [only] => format!("by event {} (events.jsonl)", only.event),
            [first, .., last] => format!("by events {} to {} (events.jsonl)", first.event, last.event),
        };
        let problem = match (again.segments, again.lines) {
            (0, n) => format!("{} from here on added behind the mount", count(n, "line")),
            (_, 0) => {
                format!("{} appended here {events}: dropped behind the mount", count(lost_lines, "line"))
            }
            (_, n) => format!(
                "{} from here on in place of {} appended {events}: edited behind the mount",
                count(n, "line"),
                count(lost_lines, "line")
            ),
        };
        faults.add(path, Some(line), Rule::AppendOnly.name(), problem);
        (next, at, line) = (next + again.segments, at + again.bytes, line + again.lines);
    }
    // What a daemon is appending gets its event in a moment.
    if at < size && (!setting.live || path.starts_with(archive::DIR)) {
        let rest = size - at;
        let problem =
            format!("{rest} bytes from here to the end have no event: added behind the mount, or a crash");
        faults.add_mendable(path, Some(line), "uncovered", problem);
    }
    Ok(orders)
}

/// How much of the events and of the log lies before the place at which they agree again.
struct Again {
    segments: usize,
    bytes: u64,
    lines: u64,
}

fn agree_again(file: &File, segments: &[Segment], at: u64, size: u64) -> io::Result<Again> {
    let starts = line_starts(file, at, size)?;
    for distance in 1..2 * WINDOW {
        for (skipped_lines, &start) in starts.iter().enumerate().take(distance + 1) {
            let skipped = distance - skipped_lines;
            let Some(segment) = segments.get(skipped).filter(|_| skipped <= WINDOW) else { continue };
            if matches(file, segment, start, size)? {
                return Ok(Again { segments: skipped, bytes: start - at, lines: skipped_lines as u64 });
            }
        }
    }
    // Nothing later fits: all the rest of either.
    Ok(Again { segments: segments.len(), bytes: size - at, lines: count_lines(file, at, size)? })
}

/// Whether the bytes at `start` are the segment's.
fn matches(file: &File, segment: &Segment, start: u64, size: u64) -> io::Result<bool> {
    let length = segment.end - segment.start;
    if length == 0 || start + length > size {
        return Ok(false);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, start + length - 1)?;
    if last != *b"\n" {
        return Ok(false);
    }
    let mut hash = Sha256::new();
    each_block(file, start, start + length, |block| hash.update(block))?;
    Ok(<[u8; 32]>::from(hash.finalize()) == segment.sha256)
}

/// `at`, and where the lines after it start, within the window.
fn line_starts(file: &File, at: u64, size: u64) -> io::Result<Vec<u64>> {
    let mut starts = vec![at];
    let mut position = at;
    each_block(file, at, size.min(at + WINDOW_BYTES), |block| {
        for byte in block {
            position += 1;
            if *byte == b'\n' && starts.len() <= WINDOW {
                starts.push(position);
            }
        }
    })?;
    Ok(starts)
}

fn count_lines(file: &File, start: u64, end: u64) -> io::Result<u64> {
    let (mut lines, mut last) = (0, b'\n');
    each_block(file, start, end, |block| {
        lines += block.iter().filter(|&&b| b == b'\n').count() as u64;
        last = block.last().copied().unwrap_or(last);
    })?;
    Ok(lines + u64::from(last != b'\n'))
}

fn each_block(file: &File, start: u64, end: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut block = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX).min(256 * 1024)];
    let mut at = start;
    while at < end {
        let length = block.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut block[..length], at)?;
        take(&block[..length]);
        at += length as u64;
    }
    Ok(())
}

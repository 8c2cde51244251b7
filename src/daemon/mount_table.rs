//! Which exchanges are mounted where, as the kernel says (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedExchange {
    /// Where.
    pub mountpoint: PathBuf,
    /// The exchange's folder.
    pub exchange: PathBuf,
}

/// All mounts of exchanges that this process can see, in the order they were made.
///
/// # Errors
/// The mount table can't be read.
pub fn mounted_exchanges() -> io::Result<Vec<MountedExchange>> {
    #[cfg(target_os = "linux")]
    {
        Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        Ok(Vec::new())
    }
}

/// The topmost mount at exactly this path.
///
/// # Errors
/// The mount table can't be read.
pub fn at(mountpoint: &Path) -> io::Result<Option<MountedExchange>> {
    Ok(mounted_exchanges()?.into_iter().rfind(|mount| mount.mountpoint == mountpoint))
}

/// The mount that a path lies in.
///
/// # Errors
/// The mount table can't be read.
pub fn around(path: &Path) -> io::Result<Option<MountedExchange>> {
    let around = mounted_exchanges()?.into_iter().filter(|mount| path.starts_with(&mount.mountpoint));
    Ok(around.max_by_key(|mount| mount.mountpoint.as_os_str().len()))
}

/// An absolute path without links, `.` and `..`, found without touching its last part: a dead mount answers nothing.
///
/// # Errors
/// The folder around it is not there.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

#[cfg_attr(not(target_os = "linux"), expect(dead_code))]
fn parse(mountinfo: &[u8]) -> Vec<MountedExchange> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let mountpoint = fields.nth(4)?;
            // Any number of optional fields stand before the lone hyphen.
            fields.find(|field| *field == b"-")?;
            (fields.next()? == b"fuse.batonfs").then_some(())?;
            Some(MountedExchange { mountpoint: unescape(mountpoint), exchange: unescape(fields.next()?) })
        })
        .collect()
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_exchanges_are_found_among_others_with_their_odd_names() {
        let table = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            40 22 0:50 / /mnt/a\\040b rw,nosuid shared:2 master:3 - fuse.batonfs /srv/ex\\134change rw,user_id=0\n\
            41 22 0:51 / /mnt/c rw - fuse.sshfs host:/ rw\n\
            42 22 0:52 / /mnt/d rw - fuse.batonfs /srv/e rw\n";
        let found = parse(table);
        let expected = [("/mnt/a b", "/srv/ex\\change"), ("/mnt/d", "/srv/e")];
        let expected = expected.map(|(mountpoint, exchange)| MountedExchange {
            mountpoint: mountpoint.into(),
            exchange: exchange.into(),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_path_is_resolved_without_touching_its_last_part() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/missing")).unwrap(), real.join("missing"));
        assert!(resolve(&real.join("missing/further")).is_err());
    }
}

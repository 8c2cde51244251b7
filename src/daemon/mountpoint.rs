//! What may become a mountpoint.

use super::mount_table;
use crate::fuse::mount::detach;
use anyhow::{Context, bail, ensure};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A directory that is ready to be mounted on.
#[derive(Debug, Clone)]
pub struct Mountpoint {
    /// Absolute, without links.
    pub path: PathBuf,
    /// What was done to make it ready, for the user to read.
    pub notes: Vec<String>,
}

/// Makes a directory ready for an exchange (absolute, without links): makes it where it is missing, and takes away what
/// a daemon that was killed left mounted there.
///
/// # Errors
/// It is no empty directory, is mounted already, or lies inside the exchange or around it.
pub fn prepare(exchange_dir: &Path, asked: &Path) -> anyhow::Result<Mountpoint> {
    let mut notes = Vec::new();
    match std::fs::metadata(asked) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Its last part only: a misspelt path must not grow a tree.
            let path = mount_table::resolve(asked)
                .with_context(|| format!("{}: the folder around it is not there", asked.display()))?;
            refuse_inside(exchange_dir, &path)?;
            std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
            notes.push(format!("made the directory {}", asked.display()));
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            let path = mount_table::resolve(asked)?;
            let dead = mount_table::at(&path)?.with_context(|| {
                format!("{} is a dead mount of something else: unmount it", path.display())
            })?;
            detach(&path, true).with_context(|| format!("unmounting what died at {}", path.display()))?;
            notes.push(format!(
                "unmounted what a killed daemon of {} left at {}",
                dead.exchange.display(),
                path.display()
            ));
        }
        Err(e) => return Err(e).with_context(|| asked.display().to_string()),
    }
    let path = asked.canonicalize().with_context(|| asked.display().to_string())?;
    ensure!(path.is_dir(), "{} is no directory: name an empty one", path.display());
    refuse_inside(exchange_dir, &path)?;
    ensure!(
        !exchange_dir.starts_with(&path),
        "{} holds the exchange, which the mount would hide: mount it elsewhere",
        path.display()
    );
    if let Some(mounted) = mount_table::at(&path)? {
        bail!(
            "{} is already a mount of {}: baton umount {} first, or mount elsewhere",
            path.display(),
            mounted.exchange.display(),
            path.display()
        );
    }
    let mut names = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
    ensure!(names.next().is_none(), "{} is not empty: name an empty directory", path.display());
    Ok(Mountpoint { path, notes })
}

fn refuse_inside(exchange_dir: &Path, path: &Path) -> anyhow::Result<()> {
    ensure!(
        !path.starts_with(exchange_dir),
        "{} lies inside the exchange itself: mount it elsewhere",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mountpoint_is_made_and_an_unfit_one_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let exchange = root.join("exchange");
        std::fs::create_dir(&exchange).unwrap();

        std::fs::create_dir(root.join("new")).unwrap();
        let made = prepare(&exchange, &root.join("new/mnt")).unwrap();
        assert_eq!(made.path, root.join("new/mnt"));
        assert_eq!(made.notes.len(), 1);
        assert!(prepare(&exchange, &root.join("new/mnt")).unwrap().notes.is_empty());

        let reason = |path: &Path| prepare(&exchange, path).unwrap_err().to_string();
        assert!(reason(&exchange.join("mnt")).contains("inside the exchange"));
        assert!(!exchange.join("mnt").exists());
        assert!(reason(&root).contains("would hide"));
        assert!(reason(&root.join("new")).contains("not empty"));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(reason(&root.join("file")).contains("no directory"));
        assert!(reason(&root.join("misspelt/mnt")).contains("the folder around it"));
        assert!(!root.join("misspelt").exists());
    }
}

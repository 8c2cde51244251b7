//! Attaching a FUSE connection to a mountpoint, and detaching it: by mount(2) where that is allowed, else by fusermount3.
//!
//! Done here rather than by fuser because fuser unmounts the *path* once more when a session ends, which can hit a mount
//! that somebody has made there since.

use std::io;
use std::path::Path;
use std::process::Command;

/// The file system type in the mount table.
#[cfg(target_os = "linux")]
pub(crate) const TYPE: &str = "fuse.batonfs";

#[cfg(target_os = "linux")]
mod attach {
    use super::TYPE;
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    use rustix::mount::MountFlags;
    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    };
    use std::ffi::CString;
    use std::io::{self, IoSliceMut, Read};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    /// Mounts: afterwards the kernel waits for the handshake on the descriptor returned. `source` is what the mount
    /// table shows.
    ///
    /// # Errors
    /// The kernel's, or what fusermount3 said.
    pub(crate) fn attach(source: &Path, mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
        match by_system_call(source, mountpoint, allow_other) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) || e.raw_os_error() == Some(libc::EACCES) => {
                by_fusermount(source, mountpoint, allow_other)
            }
            done => done,
        }
    }

    fn by_system_call(source: &Path, mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
        if !rustix::process::geteuid().is_root() {
            return Err(Errno::PERM.into());
        }
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut data = format!(
            "fd={},rootmode=40000,user_id={},group_id={}",
            device.as_raw_fd(),
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        if allow_other {
            data.push_str(",allow_other");
        }
        let data = CString::new(data).map_err(|_| io::Error::from(Errno::INVAL))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
        rustix::mount::mount(source, mountpoint, TYPE, flags, data.as_c_str())?;
        Ok(device)
    }

    fn by_fusermount(source: &Path, mountpoint: &Path, allow_other: bool) -> io::Result<OwnedFd> {
        // Without CLOEXEC, for fusermount3 to inherit its end; a process started at this very moment by another
        // thread could inherit it too, and would only delay the error of a fusermount3 that fails.
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
        let mut options = b"fsname=".to_vec();
        for byte in source.as_os_str().as_bytes() {
            if matches!(byte, b',' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
        options.extend_from_slice(b",subtype=batonfs,nodev,nosuid,noatime");
        if allow_other {
            options.extend_from_slice(b",allow_other");
        }
        let mut helper = Command::new("fusermount3")
            .arg("-o")
            .arg(std::ffi::OsStr::from_bytes(&options))
            .arg("--")
            .arg(mountpoint)
            .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => io::Error::new(
                    e.kind(),
                    "fusermount3 was not found, and only root can mount without it: install the package fuse3",
                ),
                _ => e,
            })?;
        drop(theirs);
        let device = receive_descriptor(&ours);
        let mut said = String::new();
        if let Some(stderr) = &mut helper.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        helper.wait()?;
        match device {
            Ok(Some(device)) => {
                rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC)?;
                Ok(device)
            }
            Ok(None) => Err(io::Error::other(said.trim().to_owned())),
            Err(e) => Err(e),
        }
    }

    fn receive_descriptor(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        loop {
            let buffers = &mut [IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => break,
            }
        }
        Ok(control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        }))
    }
}

#[cfg(target_os = "linux")]
pub(crate) use attach::attach;

/// Unmounts. `lazily`: also while it is in use; then it ends with its last user.
///
/// # Errors
/// EBUSY while it is in use; else what fusermount3 said.
pub(crate) fn detach(mountpoint: &Path, lazily: bool) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::mount::UnmountFlags;
        let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        match rustix::mount::unmount(mountpoint, flags | UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::PERM) => {}
            done => return Ok(done?),
        }
    }
    let mut helper = if cfg!(target_os = "linux") {
        let mut helper = Command::new("fusermount3");
        helper.arg("-u").args(lazily.then_some("-z")).arg("--");
        helper
    } else {
        let mut helper = Command::new("umount");
        helper.args(lazily.then_some("-f"));
        helper
    };
    let output = helper.arg(mountpoint).env("LC_ALL", "C").output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Err(io::Error::other(said))
}

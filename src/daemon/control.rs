//! The control socket: `private/control.sock`, reachable by the exchange's owner and root only.

use super::protocol::{Request, Response};
use crate::exchange::layout::Layout;
use anyhow::Context;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longer paths don't fit a socket address (sun_path: 108 bytes on Linux, 104 on macOS, with the ending NUL).
const LONGEST_SOCKET_PATH: usize = 103;

/// Asks the daemon of an exchange and waits for its answer. `None`: no daemon runs, or it ended before it answered.
///
/// # Errors
/// The socket can't be used by this user, or the answer is none.
pub fn call(exchange_dir: &Path, request: &Request) -> anyhow::Result<Option<Response>> {
    let path = Layout::new(exchange_dir).socket();
    let mut stream = match at_socket(&path, |path| UnixStream::connect(path)) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => {
            return Err(e).with_context(|| {
                format!("{}: only the exchange's owner and root may do this", path.display())
            });
        }
    };
    // An operator's request may carry a secret.
    let mut line =
        Zeroizing::new(serde_json::to_vec(request).context("a path that is no UTF-8 can't be asked for")?);
    line.push(b'\n');
    let mut answer = String::new();
    let exchanged = stream.write_all(&line).and_then(|()| BufReader::new(&stream).read_line(&mut answer));
    match exchanged {
        // It ended, or was ending, before it answered.
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
        Ok(_) if !answer.ends_with('\n') => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_str(&answer).context("the running daemon is of another version")?)),
    }
}

/// Listens. A socket file that is there is a dead daemon's: the caller holds the exchange's lock.
pub(super) fn listen(exchange_dir: &Path) -> io::Result<UnixListener> {
    let path = Layout::new(exchange_dir).socket();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = at_socket(&path, |path| UnixListener::bind(path))?;
    // The folder is 0700, so nobody came in between.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Calls `act` with a name of the socket that is short enough for its address.
fn at_socket<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH || cfg!(not(target_os = "linux")) {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return act(path) };
    let folder = std::fs::File::open(folder)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
    act(&PathBuf::from(format!("/proc/self/fd/{number}")).join(name))
}

/// Whether the process at the other end may ask: the exchange's owner, root, or who runs the daemon.
pub(super) fn may_ask(stream: &UnixStream, owner: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        let own = rustix::process::geteuid().as_raw();
        rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| {
            let uid = peer.uid.as_raw();
            uid == 0 || uid == owner || uid == own
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        // The private folder's mode is the guard there.
        let _ = (stream, owner);
        true
    }
}

/// Answers the requests of one connection until it closes. `answer` gives `None` to end without an answer, which tells
/// the other side that this daemon is ending.
pub(super) fn serve(stream: &UnixStream, answer: impl Fn(Request) -> Option<Response>) -> io::Result<()> {
    let mut writer = stream;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Zeroizing::new(String::new());
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => match answer(request) {
                Some(response) => response,
                None => return Ok(()),
            },
            Err(e) => Response::Error(format!("the running daemon does not understand this request: {e}")),
        };
        let mut line = serde_json::to_vec(&response)?;
        line.push(b'\n');
        writer.write_all(&line)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange_at(depth: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let exchange = folder.path().join("long-name/".repeat(depth));
        std::fs::create_dir_all(Layout::new(&exchange).private()).unwrap();
        (folder, exchange)
    }

    #[test]
    fn a_request_is_answered_also_where_the_path_is_too_long_for_a_socket() {
        for depth in [0, 20] {
            let (_folder, exchange) = exchange_at(depth);
            let listener = listen(&exchange).unwrap();
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                assert!(may_ask(&stream, rustix::process::getuid().as_raw()));
                serve(&stream, |request| {
                    assert!(matches!(request, Request::Status));
                    Some(Response::Ok(7.into()))
                })
                .unwrap();
            });
            let response = call(&exchange, &Request::Status).unwrap().unwrap();
            assert_eq!(response.into_result().unwrap(), 7);
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_answers_where_no_daemon_runs_or_it_ended() {
        let (_folder, exchange) = exchange_at(0);
        assert!(call(&exchange, &Request::Status).unwrap().is_none());
        drop(listen(&exchange).unwrap());
        assert!(call(&exchange, &Request::Status).unwrap().is_none());
        let listener = listen(&exchange).unwrap();
        let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(call(&exchange, &Request::Status).unwrap().is_none());
        server.join().unwrap();
    }
}

//! Reading signing keys and pair secrets from files.

use crate::wire::keys::{PairSecret, SigningKey};
use crate::wire::name::AgentName;
use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// No key or secret is longer; what is was not meant.
const MAX_FILE: u64 = 64 * 1024;

/// Reads a signing key that only its owner can read.
///
/// # Errors
/// Names the file and what to do.
pub fn read_signing_key(file: &Path) -> anyhow::Result<SigningKey> {
    let text = read_private(file)?;
    SigningKey::from_file_text(&text)
        .with_context(|| format!("{} is no signing key (base64 of a 32-byte Ed25519 seed)", file.display()))
}

/// Reads a pair's secret from a file that only its owner can read.
///
/// # Errors
/// Names the file and what to do.
pub fn read_secret(file: &Path) -> anyhow::Result<PairSecret> {
    let secret = PairSecret::from_file_bytes(&read_private(file)?);
    if secret.as_bytes().is_empty() {
        bail!("{} is empty: a secret needs bytes, best 32 random ones", file.display());
    }
    Ok(secret)
}

fn read_private(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let name = || file.display().to_string();
    let open = File::open(file).with_context(name)?;
    let meta = open.metadata().with_context(name)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        bail!(
            "{} can be read by others (mode {:04o}): chmod 600 it, and make a new one if others may have",
            file.display(),
            meta.mode() & 0o7777
        );
    }
    read_all(open).with_context(name)
}

/// Reads a key or secret that is about to be taken over, whatever its mode. `-` is standard input.
///
/// # Errors
/// Names the file.
pub fn read_any(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if file == Path::new("-") {
        return read_all(std::io::stdin().lock()).context("standard input");
    }
    let name = || file.display().to_string();
    read_all(File::open(file).with_context(name)?).with_context(name)
}

fn read_all(from: impl std::io::Read) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: growing would leave copies behind that nobody zeroizes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    from.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        bail!("longer than {MAX_FILE} bytes, so it is no key or secret");
    }
    Ok(bytes)
}

/// Reads an agent's name on the command line.
///
/// # Errors
/// It is none.
pub fn agent_name(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|e| e.to_string())
}

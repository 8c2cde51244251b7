//! Lines that come in as history, many at a time: nobody acts on them, and no rule of the day judges them.

use super::LogName;
use crate::exchange::events::{hex, members};
use crate::exchange::replay::ShortId;
use crate::exchange::{Durability, Exchange};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io;

/// Bytes that are appended at a time: for so long others who append wait.
const BLOCK: usize = 8 << 20;

/// A line that was judged right.
#[derive(Clone, Copy)]
pub(in crate::exchange) struct Incoming<'a> {
    /// Without newline.
    pub line: &'a [u8],
    pub id: ShortId,
    /// It has no signature; somebody vouches for it.
    pub unsigned: bool,
}

impl Exchange {
    /// Which of these ids a log or its archives hold.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn known_ids(
        &self,
        name: &LogName,
        ids: impl Iterator<Item = ShortId>,
    ) -> io::Result<HashSet<ShortId>> {
        if self.store.stat(&name.path()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(HashSet::new());
        }
        let log = self.log(name)?;
        let tail = log.tail.lock();
        Ok(ids.filter(|id| tail.ids.contains(id)).collect())
    }

    /// Appends the lines that a log lacks; durable and with their events when it returns. Returns how many.
    ///
    /// # Errors
    /// The disk's. What was appended before it stays.
    pub(in crate::exchange) fn append_history(
        &self,
        name: &LogName,
        lines: &[Incoming<'_>],
    ) -> io::Result<u64> {
        let (mut appended, mut rest) = (0, lines);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |line: &&Incoming<'_>| {
                bytes += line.line.len() + 1;
                bytes <= BLOCK
            };
            let (block, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            appended += self.append_history_block(name, block)?;
            rest = later;
        }
        Ok(appended)
    }

    fn append_history_block(&self, name: &LogName, lines: &[Incoming<'_>]) -> io::Result<u64> {
        let log = self.log(name)?;
        let order = self.next_order();
        let _no_checkpoint = self.upheaval.lock();
        let mut held = log.hold(self)?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let mut unsigned = false;
        for incoming in lines.iter().filter(|incoming| !held.tail.ids.contains(&incoming.id)) {
            bytes.extend_from_slice(incoming.line);
            bytes.push(b'\n');
            ends.push((incoming.id, bytes.len() as u64));
            unsigned |= incoming.unsigned;
        }
        if ends.is_empty() {
            return Ok(0);
        }
        let start = held.tail.len;
        let mut members = members! {
            "log": log.path.as_str(), "by": "operator", "order": order, "start": start, "unsigned": unsigned,
        };
        // So that a start after a crash takes the lines for what they are.
        let intended = self.events.append(self.now(), "importing", &members)?;
        self.events.make_durable(intended, Durability::Commit)?;
        // What comes here next must not be taken for part of the import: a start says that it is none.
        log.bytes.append_at(start, &bytes).inspect_err(|_| log.commit.fail())?;
        log.bytes.sync().inspect_err(|_| log.commit.fail())?;
        let end = start + bytes.len() as u64;
        members.extend(members! {
            "lines": ends.len(), "end": end, "sha256": hex(&Sha256::digest(&bytes)),
        });
        let done = self.events.append(self.now(), "imported", &members);
        done.and_then(|done| self.events.make_durable(done, Durability::Commit)).inspect_err(|error| {
            tracing::error!(log = log.path, %error, "imported lines have no event: their log takes nothing until \
                the exchange is mounted anew");
            log.commit.fail();
        })?;
        held.tail.len = end;
        for (id, end) in &ends {
            if let Err(error) = held.tail.ids.insert(*id, start + end) {
                tracing::warn!(log = log.path, %error, "replay index not written; it will be rebuilt");
            }
        }
        Ok(ends.len() as u64)
    }
}

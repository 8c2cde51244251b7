//! A letter becomes a message: sealed and judged, kept beside, committed, and then the file that its sender sees.
//!
//! The line is on disk before it is committed, under `private/sending/`. A start that finds it there asks the sender's
//! outbox: what is in it was sent, and gets its place; what is not goes to quarantine.

use super::{LetterNode, Place, has_been_sent};
use crate::exchange::events::{hex, members};
use crate::exchange::logs::{LogName, line_id};
use crate::exchange::{Attempt, Caller, Durability, Exchange, Outcome};
use crate::rules::{Refusal, Rule};
use crate::wire::json::Object;
use crate::wire::letter;
use crate::wire::message;
use sha2::{Digest, Sha256};
use std::io;

/// Where letters lie while they are committed, under the exchange's folder.
const SENDING: &str = "private/sending";
const LATER: &str = "a letter was sent; its file is not there before the next start";

impl Place {
    fn staged(&self) -> String {
        format!("{SENDING}/{}/{}/{}", self.to, self.from, self.name)
    }

    fn outbox(&self) -> LogName {
        LogName::Outbox(self.from.clone())
    }
}

impl Exchange {
    /// Sends a draft that is whole; the node is then the letter's. A draft with nothing in it stays one.
    ///
    /// # Errors
    /// `immutable` where the name is another letter's; the rules of the file's form, `unsigned`, and those of the
    /// message. Nothing is recorded.
    pub(super) fn send_letter(
        &self,
        caller: &Caller,
        node: LetterNode,
        place: Place,
        text: &[u8],
    ) -> Outcome<()> {
        let Some(object) = self.read_letter(caller, &place, text)? else { return Ok(()) };
        let ready = self.make_ready(caller, &place.outbox(), object)?;
        let (id, line) = (ready.id(), ready.line());
        self.stage_letter(&place, &line)?;
        if let Err(denied) = self.post_ready(ready) {
            // What failed after the commit is sent all the same.
            if !matches!(self.log_holds(&place.outbox(), &id), Ok(true)) {
                let _ = self.store.remove(&place.staged());
                return Err(denied);
            }
            tracing::error!(path = place.path(), %denied, "a letter was sent, but may not outlive a power cut");
        }
        // Where the disk does not let its file appear, the next start does.
        match self.note_sent(&place, &line) {
            Ok(()) => self.put_in_place(node, place),
            Err(error) => {
                tracing::error!(path = place.path(), %error, "{LATER}");
                self.letters.book.lock().drafts.remove(node);
            }
        }
        Ok(())
    }

    /// Tells of a letter that has been sent, before its file is there: baton verify knows the file by it.
    fn note_sent(&self, place: &Place, line: &str) -> io::Result<()> {
        let sha256 = hex(&Sha256::digest(format!("{line}\n")));
        let members = members! {"path": place.path(), "by": place.from.as_str(), "sha256": sha256};
        let end = self.events.append(self.now(), "sent", &members)?;
        self.make_events_durable(end)
    }

    /// Whether a text that is not whole yet could be sent if it ended here; what no further byte can mend is refused.
    ///
    /// # Errors
    /// As of [`Exchange::send`], but for `immutable`.
    pub(super) fn check_letter_so_far(
        &self,
        caller: &Caller,
        place: &Place,
        text: &[u8],
    ) -> Result<(), Refusal> {
        letter::check_start(&place.name, text, &place.to)?;
        // Not understood yet: more may come.
        let Ok(Some(object)) = letter::read(&place.name, text, &place.to) else { return Ok(()) };
        self.check_sealable(caller, &object)?;
        self.make_ready(caller, &place.outbox(), object).map(drop)
    }

    fn read_letter(&self, caller: &Caller, place: &Place, text: &[u8]) -> Result<Option<Object>, Refusal> {
        let object = letter::read(&place.name, text, &place.to)?;
        if let Some(object) = &object {
            self.check_sealable(caller, object)?;
        }
        Ok(object)
    }

    fn check_sealable(&self, caller: &Caller, object: &Object) -> Result<(), Refusal> {
        if message::is_signed(object) { Ok(()) } else { self.check_seals(caller) }
    }

    /// Rule `unsigned`: the texts of a caller can only be sent with a key to sign them.
    ///
    /// # Errors
    /// EKEYREJECTED `unsigned`.
    pub(super) fn check_seals(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.sealing_key(caller).is_some() {
            return Ok(());
        }
        let me = self.actor(caller);
        let advice = format!(
            "What is written here is signed with {me}'s key, and there is none at hand: mount with --as {me} and a key \
             (--key FILE, or baton key import), or append a signed line to inbox/<agent>.jsonl."
        );
        Err(Refusal::new(Rule::Unsigned, advice))
    }

    /// Writes the line where no agent sees it. The name is this letter's from now on.
    fn stage_letter(&self, place: &Place, line: &str) -> Outcome<()> {
        let staged = place.staged();
        self.store.make_dir(&format!("{SENDING}/{}/{}", place.to, place.from), 0o700)?;
        self.store.make_dir(&place.folder(), 0o755)?;
        let durable = self.durability == Durability::Commit;
        match self.store.create(&staged, format!("{line}\n").as_bytes(), 0o444, durable) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(has_been_sent(&place.path(), "write").into());
            }
            created => created?,
        }
        if self.store.stat(&place.file()).is_ok() {
            let _ = self.store.remove(&staged);
            return Err(has_been_sent(&place.path(), "write").into());
        }
        Ok(())
    }

    /// Shows a letter that has been sent.
    fn put_in_place(&self, node: LetterNode, place: Place) {
        let (staged, file, folder) = (place.staged(), place.file(), place.folder());
        let mut book = self.letters.book.lock();
        // A reader finds a file by its name or as a draft, so it stops being the one as it becomes the other.
        let mut placed = self.store.rename_new(&staged, &file);
        book.drafts.remove(node);
        book.note_sent(node, place);
        drop(book);
        if placed.is_ok() && self.durability == Durability::Commit {
            placed = self.store.sync_dir(&folder);
        }
        if let Err(error) = placed {
            tracing::error!(file, %error, "{LATER}");
        }
    }

    /// After a start: letters that a crash caught on their way.
    pub(in crate::exchange) fn finish_letters(&self) {
        let dirs = |dir: &str| self.store.list_dirs(dir).unwrap_or_default();
        for to in dirs(SENDING) {
            for from in dirs(&format!("{SENDING}/{to}")) {
                let (Some(to), Some(from)) = (self.find_mailbox(&to), self.find_mailbox(&from)) else {
                    continue;
                };
                for name in self.store.list(&format!("{SENDING}/{to}/{from}")).unwrap_or_default() {
                    let place = Place { to: to.clone(), from: from.clone(), name };
                    if let Err(error) = self.finish_letter(&place) {
                        tracing::warn!(path = place.path(), %error, "a letter is not in its place yet");
                    }
                }
            }
        }
    }

    fn finish_letter(&self, place: &Place) -> Outcome<()> {
        let staged = place.staged();
        let bytes = self.store.read(&staged)?;
        // One that was only written in part is none.
        let line = bytes.strip_suffix(b"\n").and_then(|line| Some((line, line_id(line)?)));
        if let Some((line, id)) = line
            && self.log_holds(&place.outbox(), &id)?
        {
            self.note_sent(place, &String::from_utf8_lossy(line))?;
            self.store.rename_new(&staged, &place.file())?;
            tracing::info!(
                path = place.path(),
                "a letter that a crash had caught was sent, and is in its place"
            );
            return Ok(());
        }
        let path = place.path();
        let by = Caller { uid: self.owner_uid, gid: self.owner_gid, pid: 0, bound: Some(place.from.clone()) };
        let advice = format!("The daemon stopped before {path} was sent. Send it again.");
        let denied = self.refuse(
            &by,
            Attempt { operation: "close", path: &path, bytes: &bytes },
            Refusal::new(Rule::Partial, advice),
        );
        tracing::info!(path, %denied);
        Ok(self.store.remove(&staged)?)
    }
}

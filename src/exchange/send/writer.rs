//! Letters that are being written: drafts in memory, seen by their writer only, until they are sent.
//!
//! A draft is sent once its name is a letter's and nobody has it open for writing any more: at a close or at a rename.
//! close(2) reaches us for each descriptor, also those that a shell copies to and fro for every redirection and those
//! that children inherit. It counts as the last one if the process that opened the file keeps no other descriptor of it,
//! and no living process that wrote to it is another. Where /proc does not tell, the kernel's word that the file is closed
//! decides; that word comes after close(2) has returned, so the refusal is then only in refusals.jsonl.

use super::{Book, LetterNode, Place, has_been_sent, mailbox};
use crate::exchange::process::{Ending, ending, holds_open, is_alive, process_of, same_process};
use crate::exchange::{Actor, Attempt, Caller, Denied, Exchange, Outcome};
use crate::rules::identity::check_takes_part;
use crate::rules::{Refusal, Rule};
use crate::wire::letter::Format;
use crate::wire::name::AgentName;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Up to this many bytes a text is judged with every write, so that who overlooks what close(2) says is told, too.
const JUDGED_EARLY: usize = 128 * 1024;

/// A draft below send/ that is open.
pub struct LetterWriter {
    exchange: Arc<Exchange>,
    node: LetterNode,
    opener: Caller,
    process: u32,
    /// Who only reads has no part in when it is sent.
    writes: bool,
    /// The process that opened it has closed it.
    closed: AtomicBool,
}

/// A draft as it stands.
struct Standing {
    place: Place,
    creator: Caller,
    bytes: Vec<u8>,
    cut_short: bool,
}

impl Exchange {
    /// create(2) in an agent's folder.
    ///
    /// # Errors
    /// `authority` for who is no agent, `unsigned` where there is no key to sign a text with, `immutable` where the name
    /// has been sent, `rate` beyond 1,000 drafts.
    pub fn create_letter(
        &self,
        caller: &Caller,
        to: &AgentName,
        name: &str,
    ) -> Outcome<(LetterNode, LetterWriter)> {
        let actor = self.actor(caller);
        let folder = mailbox(to);
        let created = (|| {
            let from = sender(&actor)?;
            if matches!(Format::of(name), Some(Format::Markdown | Format::Text)) {
                self.check_seals(caller)?;
            }
            let place = Place { to: to.clone(), from: from.clone(), name: name.to_owned() };
            let mut book = self.letters.book.lock();
            if self.store.stat(&place.file()).is_ok() {
                return Err(has_been_sent(&place.path(), "create"));
            }
            let node = book.new_node();
            book.drafts.add(node, &actor, caller, (&folder, name))?;
            Ok(node)
        })();
        let node = created.map_err(|refusal| {
            let path = format!("{folder}/{name}");
            self.refuse(caller, Attempt { operation: "create", path: &path, bytes: &[] }, refusal)
        })?;
        Ok((node, self.letter_writer(caller, node, true)))
    }

    /// Opens a draft (own ones only), or refuses to open for writing what has been sent.
    ///
    /// # Errors
    /// `immutable`, `rate`; ENOENT for a reader where it is no draft (any more).
    pub fn open_letter_draft(&self, caller: &Caller, node: LetterNode, flags: i32) -> Outcome<LetterWriter> {
        let actor = self.actor(caller);
        if flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_TRUNC == 0 {
            let is_own = self.letters.book.lock().drafts.get(node).is_some_and(|draft| draft.by == actor);
            return if is_own {
                Ok(self.letter_writer(caller, node, false))
            } else {
                Err(Denied::os(libc::ENOENT))
            };
        }
        let opened = {
            let mut book = self.letters.book.lock();
            let own = book.new_node();
            book.drafts.open(node, own, &actor, caller, flags)
        };
        match opened {
            Ok(Some(node)) => Ok(self.letter_writer(caller, node, true)),
            Ok(None) => Err(self.refuse_letter_operation(caller, node, "open for writing")),
            Err(refusal) => {
                let path = self.letter_path(node);
                Err(self.refuse(caller, Attempt { operation: "open", path: &path, bytes: &[] }, refusal))
            }
        }
    }

    fn letter_writer(&self, caller: &Caller, node: LetterNode, writes: bool) -> LetterWriter {
        LetterWriter {
            exchange: self.this(),
            node,
            opener: caller.clone(),
            process: process_of(caller.pid),
            writes,
            closed: AtomicBool::new(!writes),
        }
    }

    /// truncate(2) of a draft.
    ///
    /// # Errors
    /// `immutable` for what has been sent, `size`, `rate` beyond 64 MiB in all drafts.
    pub fn truncate_letter(&self, caller: &Caller, node: LetterNode, size: u64) -> Outcome<()> {
        let actor = self.actor(caller);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut book = self.letters.book.lock();
        let Some(draft) = book.drafts.get(node).filter(|draft| draft.by == actor) else {
            drop(book);
            return Err(self.refuse_letter_operation(caller, node, "truncate"));
        };
        let room = self.check_pending(&actor, size).and_then(|()| book.drafts.check_room(draft, size));
        if let Err(refusal) = room {
            let path = draft.path();
            drop(book);
            let attempt = Attempt { operation: "truncate", path: &path, bytes: &[] };
            return Err(self.refuse(caller, attempt, refusal));
        }
        if let Some(draft) = book.drafts.get_mut(node) {
            draft.truncate(size);
        }
        Ok(())
    }

    /// rename(2) below send/: of drafts only. Sends, where the new name is a letter's and the draft is closed.
    /// `replace`: whether a draft of the new name may be replaced.
    ///
    /// # Errors
    /// ENOENT, EEXIST; `immutable` where either name has been sent; when it sends, as a close. The draft then stays.
    pub fn move_letter(
        &self,
        caller: &Caller,
        from: (&AgentName, &str),
        to: (&AgentName, &str),
        replace: bool,
    ) -> Outcome<()> {
        let node = self.find_letter(caller, from.0, from.1).ok_or_else(|| Denied::os(libc::ENOENT))?;
        let is_sent = |book: &Book| book.drafts.get(node).is_none_or(|draft| draft.more.sending);
        if is_sent(&self.letters.book.lock()) {
            return Err(self.refuse_letter_operation(caller, node, "rename"));
        }
        let new_folder = mailbox(to.0);
        if let Some(taken) = self.find_letter(caller, to.0, to.1).filter(|taken| *taken != node) {
            if !self.is_draft_letter(taken) {
                return Err(self.refuse_letter_operation(caller, taken, "rename over"));
            }
            if !replace {
                return Err(Denied::os(libc::EEXIST));
            }
        }
        let rename = |name: (&str, &str)| self.letters.book.lock().drafts.rename(node, name);
        rename((&new_folder, to.1));
        self.send_if_whole(caller, node, "rename").inspect_err(|_| rename((&mailbox(from.0), from.1)))
    }

    /// Sends a draft if its name is a letter's and nobody writes to it any more; what is refused is recorded.
    fn send_if_whole(&self, caller: &Caller, node: LetterNode, operation: &'static str) -> Outcome<()> {
        let Some(standing) = self.letters.book.lock().take_whole(node) else { return Ok(()) };
        let path = standing.place.path();
        let attempt = Attempt { operation, path: &path, bytes: &standing.bytes };
        let sent = if standing.cut_short {
            Err(cut_short(&path).into())
        } else {
            self.send_letter(caller, node, standing.place.clone(), &standing.bytes)
        };
        if let Some(draft) = self.letters.book.lock().drafts.get_mut(node) {
            draft.more.sending = false;
        }
        sent.map_err(|denied| self.record(caller, attempt, denied))
    }
}

impl Book {
    /// A draft that is whole, for who sends it now; `None` for any other, and for what is no draft.
    fn take_whole(&mut self, node: LetterNode) -> Option<Standing> {
        let draft = self.drafts.get_mut(node)?;
        Format::of(&draft.name)?;
        let is_blank = draft.bytes.iter().all(u8::is_ascii_whitespace);
        if draft.writers > 0 || draft.unlinked || draft.more.sending || is_blank {
            return None;
        }
        draft.more.sending = true;
        self.standing(node)
    }

    fn standing(&self, node: LetterNode) -> Option<Standing> {
        let draft = self.drafts.get(node)?;
        let Actor::Agent(from) = &draft.by else { return None };
        let to = AgentName::parse(draft.folder.rsplit('/').next()?).ok()?;
        Some(Standing {
            place: Place { to, from: from.clone(), name: draft.name.clone() },
            creator: draft.creator.clone(),
            bytes: draft.bytes.clone(),
            cut_short: draft.more.cut_short,
        })
    }

    /// Takes a refused draft's name and bytes away; whoever has it open is told so again.
    fn discard(&mut self, node: LetterNode, refusal: Refusal) {
        if let Some(draft) = self.drafts.get_mut(node) {
            draft.bytes = Vec::new();
            draft.more.refused = Some(refusal);
        }
        self.drafts.unlink(node);
    }
}

impl LetterWriter {
    /// One write(2).
    ///
    /// # Errors
    /// What no further byte can mend of the text so far; `size`, `rate`; `immutable` after it was sent. What is refused is
    /// no draft any more.
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let exchange = &self.exchange;
        let actor = exchange.actor(&self.opener);
        let (so_far, room) = {
            let mut book = exchange.letters.book.lock();
            let Some(draft) = book.drafts.get(self.node) else {
                let was_sent = book.sent.contains_key(&self.node);
                drop(book);
                return Err(self.refuse_late(caller, data, was_sent));
            };
            if let Some(refusal) = &draft.more.refused {
                return Err(refusal.clone().into());
            }
            if draft.more.sending {
                drop(book);
                return Err(self.refuse_late(caller, data, true));
            }
            let (start, end) = draft.extent(offset, append, data.len());
            let room = exchange.check_pending(&actor, end).and_then(|()| book.drafts.check_room(draft, end));
            let judged = Format::of(&draft.name).is_some() && end <= JUDGED_EARLY;
            if let (Ok(()), Some(draft)) = (&room, book.drafts.get_mut(self.node)) {
                draft.put(start, data);
                if draft.more.written_by.0 != caller.pid {
                    draft.more.written_by = (caller.pid, process_of(caller.pid));
                }
                if self.closed.swap(false, Ordering::Relaxed) {
                    draft.writers += 1;
                }
                if !judged {
                    return Ok(data.len());
                }
            }
            (book.standing(self.node), room)
        };
        let Some(mut so_far) = so_far else { return Ok(data.len()) };
        if room.is_err() {
            so_far.bytes.extend_from_slice(data);
        }
        let judged =
            room.and_then(|()| exchange.check_letter_so_far(&so_far.creator, &so_far.place, &so_far.bytes));
        judged.map(|()| data.len()).map_err(|refusal| {
            exchange.letters.book.lock().discard(self.node, refusal.clone());
            let path = so_far.place.path();
            exchange.refuse(
                caller,
                Attempt { operation: "write", path: &path, bytes: &so_far.bytes },
                refusal,
            )
        })
    }

    fn refuse_late(&self, caller: &Caller, data: &[u8], was_sent: bool) -> Denied {
        let path = self.exchange.letter_path(self.node);
        let refusal = if was_sent {
            has_been_sent(&path, "write")
        } else {
            let advice = "The file was refused when it was closed. Write the whole file again.";
            Refusal::new(Rule::Partial, advice)
        };
        self.exchange.refuse(caller, Attempt { operation: "write", path: &path, bytes: data }, refusal)
    }

    /// Bytes of the draft, for a descriptor that reads too.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let book = self.exchange.letters.book.lock();
        book.drafts.get(self.node).map_or_else(Vec::new, |draft| draft.read(offset, size))
    }

    /// One close(2) of possibly many; the last one by the process that opened the file sends it.
    ///
    /// # Errors
    /// The rules of the file's form and of the message. The file is then gone; its bytes are in quarantine.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let (path, writer) = {
            let book = self.exchange.letters.book.lock();
            match book.drafts.get(self.node) {
                Some(draft) if self.writes && !draft.bytes.is_empty() => {
                    (draft.path(), draft.more.written_by)
                }
                _ => return Ok(()),
            }
        };
        let process = process_of(caller.pid);
        let ending = ending(caller.pid, caller.uid);
        if ending == Ending::Killed && (process == self.process || process == writer.1) {
            if let Some(draft) = self.exchange.letters.book.lock().drafts.get_mut(self.node) {
                draft.more.cut_short = true;
            }
            return Ok(());
        }
        let is_last = process == self.process
            && (ending == Ending::Exits || holds_open(process, &path) == Some(false))
            && (writer.1 == process || !is_alive(writer.0) || same_process(writer.0, process));
        if !is_last {
            return Ok(());
        }
        self.close_once();
        self.finish()
    }

    /// The last close of all.
    pub fn release(&self) {
        // What its opener has closed was sent or refused then.
        if !self.closed.load(Ordering::Relaxed) {
            if ending(self.process, self.opener.uid) == Ending::Killed {
                self.cut_short();
            }
            self.close_once();
            let _ = self.finish();
        }
        let mut book = self.exchange.letters.book.lock();
        if book.drafts.get(self.node).is_some_and(|draft| draft.unlinked && draft.writers == 0) {
            book.drafts.remove(self.node);
        }
    }

    /// The mount ends while the file is open: what is in it is not whole.
    pub fn abandon(&self) {
        if !self.closed.load(Ordering::Relaxed) {
            self.cut_short();
        }
        self.release();
    }

    fn cut_short(&self) {
        if let Some(draft) = self.exchange.letters.book.lock().drafts.get_mut(self.node) {
            draft.more.cut_short = true;
        }
    }

    fn close_once(&self) {
        if !self.closed.swap(true, Ordering::Relaxed)
            && let Some(draft) = self.exchange.letters.book.lock().drafts.get_mut(self.node)
        {
            draft.writers = draft.writers.saturating_sub(1);
        }
    }

    /// Sends the draft if it is whole; what is refused is no draft any more.
    fn finish(&self) -> Outcome<()> {
        let exchange = &self.exchange;
        exchange.send_if_whole(&self.opener, self.node, "close").inspect_err(|denied| {
            // Where only the disk said no, the draft can still be renamed, which tries again.
            if let Denied::Refused(refusal) = denied {
                exchange.letters.book.lock().discard(self.node, refusal.clone());
            }
        })
    }
}

/// Rule `authority`: who sends.
fn sender(actor: &Actor) -> Result<&AgentName, Refusal> {
    check_takes_part(actor, "send messages")?;
    match actor {
        Actor::Agent(me) => Ok(me),
        _ => {
            let advice = "What is written in send/ is sent in the name of the agent that writes it. You are the operator: \
                          mount with --as <agent> to write as one.";
            Err(Refusal::new(Rule::Authority, advice))
        }
    }
}

fn cut_short(path: &str) -> Refusal {
    let advice = format!(
        "The program that wrote {path} was stopped before it had closed it, so it was not sent. Write the whole file again."
    );
    Refusal::new(Rule::Partial, advice)
}

//! Which writes of a sidecar are let through: those that say the truth about their slot.

use super::credential::SlotRef;
use super::{Refusal, Rule};
use crate::wire::credential::Fingerprint;
use crate::wire::sidecar::Sidecar;

/// What a slot and its sidecar hold.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The login in the slot; `None` where there is no slot, or no login in it.
    pub held: Option<Fingerprint>,
    /// The login that the sidecar names; `None` where there is none.
    pub recorded: Option<Fingerprint>,
}

impl Standing {
    /// The login that the sidecar names and the slot does not hold: the slot was changed behind the mount.
    pub fn drift(&self) -> Option<&Fingerprint> {
        self.recorded.as_ref().filter(|recorded| self.held.as_ref() != Some(*recorded))
    }
}

/// Whether these bytes may become a slot's sidecar.
///
/// # Errors
/// `identity`: they don't say the truth, or it is not known whether what the slot holds is its own.
pub fn judge(slot: SlotRef<'_>, standing: &Standing, bytes: &[u8]) -> Result<(), Refusal> {
    let name = slot.slot;
    let refuse = |what: String| Err(Refusal::new(Rule::Identity, what));
    let Some(held) = &standing.held else {
        return refuse(format!(
            "Slot {name} holds no login that a sidecar could tell of. Write its login first: the sidecar comes by itself."
        ));
    };
    if let Some(recorded) = standing.drift() {
        return refuse(format!(
            "Slot {name} was changed behind the mount: it holds login {held}, its sidecar says {recorded}. Put that \
             login back, or let the operator accept the new one: baton credentials baseline {name} --profile {}",
            slot.profile
        ));
    }
    match Sidecar::parse(bytes) {
        Ok(sidecar) if sidecar.says(name.as_str(), held) => Ok(()),
        Ok(_) => refuse(format!(
            "That is not what slot {name} holds (login {held}). A sidecar tells of its own slot: \
             refresh_token_sha256 is that slot's, and slot is {name:?}.",
            name = name.as_str()
        )),
        Err(error) => refuse(format!("The sidecar of slot {name} stays as it is: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::credential::SlotName;
    use crate::wire::credential::Format;
    use crate::wire::time::Timestamp;

    #[test]
    fn only_the_truth_is_let_through() {
        let (format, work) = (Format::claude(), SlotName::parse("work").unwrap());
        let at = SlotRef { format: &format, profile: "p", slot: &work };
        let [one, two] = [1, 2].map(|n| Fingerprint([n; 32]));
        let text = |slot: &str, login: &Fingerprint| Sidecar::new(slot, login, Timestamp(0)).text();
        let standing = |held: Option<&Fingerprint>, recorded: Option<&Fingerprint>| Standing {
            held: held.cloned(),
            recorded: recorded.cloned(),
        };
        assert!(judge(at, &standing(Some(&one), Some(&one)), &text("work", &one)).is_ok());
        assert!(judge(at, &standing(Some(&one), None), &text("work", &one)).is_ok());
        for (held, recorded, bytes, why) in [
            (Some(&one), Some(&one), text("work", &two), "not what slot work holds"),
            (Some(&one), Some(&one), text("home", &one), "not what slot work holds"),
            (Some(&one), Some(&one), b"{}".to_vec(), "stays as it is"),
            (Some(&two), Some(&one), text("work", &two), "baton credentials baseline work --profile p"),
            (None, None, text("work", &one), "holds no login"),
        ] {
            let refusal = judge(at, &standing(held, recorded), &bytes).unwrap_err();
            assert!(refusal.advice.contains(why), "{refusal}");
            assert!(!refusal.advice.contains(&"01".repeat(32)), "no whole hash: {refusal}");
        }
    }
}

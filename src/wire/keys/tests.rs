//! Verification is ed25519-dalek's decision for every signature; keys read back.

use super::*;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::traits::IsIdentity;
use proptest::prelude::*;

/// The group's order, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn dalek(key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
    ed25519_dalek::VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok())
}

fn ours(key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
    PublicKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, signature))
}

fn agree(key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
    let decision = ours(key, bytes, signature);
    assert_eq!(decision, dalek(key, bytes, signature), "{key:?} {bytes:?} {signature:?}");
    decision
}

fn joined(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

/// Encodings of small-order points: the eight canonical ones, and those with y + p or a stray sign.
fn small_order() -> Vec<[u8; 32]> {
    let mut all: Vec<_> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    let mut p = [0xff; 32];
    p[31] = 0x7f;
    for low in 0xec..=0xf0 {
        p[0] = low;
        all.push(p);
    }
    let signs: Vec<_> = all
        .iter()
        .map(|encoding| {
            let mut other = *encoding;
            other[31] ^= 0x80;
            other
        })
        .collect();
    all.extend(signs);
    all
}

fn plus_order(s: [u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|n| {
        carry += u16::from(s[n]) + u16::from(L[n]);
        let byte = carry as u8;
        carry >>= 8;
        byte
    })
}

/// A signature that satisfies the equation for the key `a B + torsion`, with `R = r B + r_torsion`.
fn with_torsion(
    a: u64,
    torsion: EdwardsPoint,
    r_torsion: EdwardsPoint,
    bytes: &[u8],
) -> ([u8; 32], [u8; 64]) {
    let (a, r) = (Scalar::from(a), Scalar::from(a ^ 0x5555));
    let key = (EdwardsPoint::mul_base(&a) + torsion).compress().0;
    let r_bytes = (EdwardsPoint::mul_base(&r) + r_torsion).compress().0;
    let mut hash = Sha512::new();
    hash.update(r_bytes);
    hash.update(key);
    hash.update(bytes);
    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    (key, joined(r_bytes, (r + k * a).to_bytes()))
}

proptest! {
    // Each case makes dozens of tables.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_signature_and_its_corruptions_are_decided_as_dalek_does(
        seed: [u8; 32],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in 0..512usize,
        junk: [u8; 64],
    ) {
        let key = SigningKey::from_seed(&seed);
        let public = key.public().to_bytes();
        let signature = key.sign(&bytes);
        prop_assert!(agree(&public, &bytes, &signature));
        let mut flipped = signature;
        flipped[at / 8] ^= 1 << (at % 8);
        prop_assert!(!agree(&public, &bytes, &flipped));
        let mut other_key = public;
        other_key[at / 16] ^= 1 << (at % 8);
        prop_assert!(!agree(&other_key, &bytes, &signature));
        let (r, s) = signature.split_at(32);
        let (r, s) = (r.try_into().expect("32"), s.try_into().expect("32"));
        prop_assert!(!agree(&public, &bytes, &joined(r, plus_order(s))));
        prop_assert!(!agree(&public, &bytes, &junk));
        for small in small_order() {
            prop_assert!(!agree(&public, &bytes, &joined(small, s)));
            prop_assert!(!agree(&small, &bytes, &signature));
            prop_assert!(!agree(&small, &bytes, &joined(small, [0; 32])));
        }
    }

    #[test]
    fn points_with_a_small_order_part_are_decided_as_dalek_does(
        a in 1u64..,
        key_torsion in 0..8usize,
        r_torsion in 0..8usize,
        bytes: [u8; 4],
    ) {
        let (key, signature) =
            with_torsion(a, EIGHT_TORSION[key_torsion], EIGHT_TORSION[r_torsion], &bytes);
        let decision = agree(&key, &bytes, &signature);
        prop_assert!(decision || key_torsion + r_torsion > 0);
    }
}

#[test]
fn a_mixed_order_key_is_accepted_where_its_torsion_cancels() {
    // Not a wish but dalek's decision: so the equality above is not of refusals alone.
    let accepted = (1..200u64)
        .filter(|a| {
            let (key, signature) = with_torsion(*a, EIGHT_TORSION[1], EIGHT_TORSION[0], b"text");
            agree(&key, b"text", &signature)
        })
        .count();
    assert!(accepted > 0 && accepted < 199);
}

#[test]
fn a_small_order_signature_by_a_small_order_key_is_refused() {
    // s = 0, R = A = identity satisfies the bare equation for every text.
    for small in small_order() {
        assert!(!agree(&small, b"any", &joined(small, [0; 32])));
        if CompressedEdwardsY(small).decompress().is_some_and(|p| p.is_identity() || p.is_small_order()) {
            assert_eq!(PublicKey::from_bytes(&small).err(), Some(KeyError::Point));
        }
    }
}

#[test]
fn a_key_file_reads_back() {
    let key = SigningKey::from_seed(&[7; 32]);
    let text = key.to_file_text();
    assert!(text.ends_with("=\n"));
    let again = SigningKey::from_file_text(text.as_bytes()).expect("what was written");
    assert_eq!(again.public().to_bytes(), key.public().to_bytes());
    assert!(SigningKey::from_file_text(text.trim_end().as_bytes()).is_ok());
    for wrong in ["", "\n", "AAAA\n", &format!("{}\n", &*text), &format!(" {}", &*text)] {
        assert_eq!(SigningKey::from_file_text(wrong.as_bytes()).err(), Some(KeyError::Encoding(32)));
    }
    assert_eq!(format!("{key:?}"), "SigningKey(..)");
}

#[test]
fn a_key_id_is_an_agent_and_eight_hex_digits() {
    let id = KeyId::parse("did:wire:bob:6587a754").expect("a did names the agent too");
    assert_eq!(id.to_string(), "bob:6587a754");
    for wrong in ["bob", "bob:", "bob:6587A754", "bob:6587a75", ":6587a754", "b/b:6587a754", "bob:6587a7540"]
    {
        assert_eq!(KeyId::parse(wrong), Err(KeyError::Id(wrong.to_owned())));
    }
}

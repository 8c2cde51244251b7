//! Canonical JSON: the bytes of Python's `json.dumps(sort_keys=True, separators=(",", ":"))`.

use super::json::{Object, Value};

/// `ensure_ascii=False`: what messages and cards are signed over.
pub fn utf8(value: &Value) -> String {
    let _ = value;
    todo!()
}

/// `ensure_ascii=True`: what a handoff's HMAC covers.
pub fn ascii(value: &Value) -> String {
    let _ = value;
    todo!()
}

/// [`utf8`] of an object without some of its top-level keys.
pub fn utf8_without(object: &Object, left_out: &[&str]) -> String {
    let _ = (object, left_out);
    todo!()
}

/// [`ascii`] of an object without some of its top-level keys.
pub fn ascii_without(object: &Object, left_out: &[&str]) -> String {
    let _ = (object, left_out);
    todo!()
}

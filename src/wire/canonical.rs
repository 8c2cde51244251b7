//! Canonical JSON: the bytes of Python's `json.dumps(sort_keys=True, separators=(",", ":"))`.

use super::json::{Object, Value};
use std::fmt::Write;

/// `ensure_ascii=False`: what messages and cards are signed over.
pub fn utf8(value: &Value) -> String {
    let mut out = String::with_capacity(512);
    write_value(&mut out, value, Form::Utf8);
    out
}

/// `ensure_ascii=True`: what a handoff's HMAC covers.
pub fn ascii(value: &Value) -> String {
    let mut out = String::with_capacity(512);
    write_value(&mut out, value, Form::Ascii);
    out
}

/// [`utf8`] of an object without some of its top-level keys.
pub fn utf8_without(object: &Object, left_out: &[&str]) -> String {
    let mut out = String::with_capacity(512);
    write_object(&mut out, object, left_out, Form::Utf8);
    out
}

/// [`ascii`] of an object without some of its top-level keys.
pub fn ascii_without(object: &Object, left_out: &[&str]) -> String {
    let mut out = String::with_capacity(512);
    write_object(&mut out, object, left_out, Form::Ascii);
    out
}

/// Appends [`utf8`] of a string.
pub(super) fn write_utf8_string(out: &mut String, text: &str) {
    write_string(out, text, Form::Utf8);
}

/// Appends [`utf8`] of a value.
pub(super) fn write_utf8(out: &mut String, value: &Value) {
    write_value(out, value, Form::Utf8);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Utf8,
    Ascii,
}

// Recursion is bounded: no Value is deeper than json::MAX_DEPTH.
fn write_value(out: &mut String, value: &Value, form: Form) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(digits) => out.push_str(digits),
        Value::Float(float) => write_float(out, *float),
        Value::String(text) => write_string(out, text, form),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_value(out, item, form);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(out, members, &[], form),
    }
}

fn write_object(out: &mut String, members: &Object, left_out: &[&str], form: Form) {
    out.push('{');
    let mut separator = "";
    for (key, value) in members {
        if left_out.contains(&key.as_str()) {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        write_string(out, key, form);
        out.push(':');
        write_value(out, value, form);
    }
    out.push('}');
}

fn write_string(out: &mut String, text: &str, form: Form) {
    out.push('"');
    let bytes = text.as_bytes();
    let mut done = 0;
    while let Some(length) = bytes[done..].iter().position(|&b| needs_care(b, form)) {
        let at = done + length;
        out.push_str(&text[done..at]);
        // Only a first byte needs care: a sequence's later bytes are skipped with it.
        let Some(c) = text[at..].chars().next() else { break };
        write_escape(out, c);
        done = at + c.len_utf8();
    }
    out.push_str(&text[done..]);
    out.push('"');
}

fn needs_care(byte: u8, form: Form) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || (form == Form::Ascii && byte >= 0x7f)
}

fn write_escape(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(char::from(HEX[usize::from(*unit >> shift & 0xf)]));
                }
            }
        }
    }
}

/// The shortest digits that read back as `float`, as Python chooses them. Rust's are as many, but where the
/// float lies exactly between two such numbers Rust takes the upper and Python the even one
/// (1676843523072207.25 is ...07.2 in Python).
fn shortest_digits(float: f64) -> String {
    let shortest = format!("{float:e}");
    let digits = shortest.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    // Up to 15 digits name distinct floats, so no float lies between two such numbers.
    if digits < 15 {
        return shortest;
    }
    let nearest = format!("{float:.*e}", digits - 1);
    // Below a power of two floats lie closer: there the nearest number may be another float's.
    if nearest.parse() == Ok(float) { nearest } else { shortest }
}

/// Python's `repr(float)`: the shortest digits that read back the same, with an exponent below 1e-4 and
/// from 1e16 on.
fn write_float(out: &mut String, float: f64) {
    let scientific = shortest_digits(float);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let mantissa = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.push('-');
            rest
        }
        None => mantissa,
    };
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    match usize::try_from(exponent) {
        Ok(exponent) if exponent < 16 => {
            out.push_str(first);
            if rest.len() > exponent {
                out.push_str(&rest[..exponent]);
                out.push('.');
                out.push_str(&rest[exponent..]);
            } else {
                out.push_str(rest);
                out.extend(std::iter::repeat_n('0', exponent - rest.len()));
                out.push_str(".0");
            }
        }
        Err(_) if exponent >= -4 => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
            out.push_str(first);
            out.push_str(rest);
        }
        _ => {
            // Writing into a String cannot fail.
            let _ = write!(out, "{mantissa}e{exponent:+03}");
        }
    }
}

//! JSON as the protocol's Python programs understand it, parsed as a stream.
//!
//! One push parser serves whole texts and the object streams that arrive through write().

mod parser;
#[cfg(test)]
mod tests;

use parser::Parser;
use std::collections::BTreeMap;

/// Deepest nesting accepted, in containers.
pub const MAX_DEPTH: usize = 64;

/// An object's members by key. Sorted by UTF-8 bytes, which is Python's order by code point.
pub type Object = BTreeMap<String, Value>;

/// A JSON value. A float is always finite; `Int` holds canonical decimal digits of any length.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without `.` or exponent: optional `-`, digits, never `-0`.
    Int(String),
    /// A number with `.` or exponent, as an f64.
    Float(f64),
    /// A string of Unicode scalar values.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object without repeated keys.
    Object(Object),
}

impl Value {
    /// The string inside, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }
    /// The bool inside, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
    /// The integer inside, if this is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(digits) => digits.parse().ok(),
            _ => None,
        }
    }
    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }
    /// The members, if this is an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }
}

/// Why a text is not acceptable JSON, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Offset of the offending byte, from the start of the value (or of the text, for [`parse`]).
    pub at: usize,
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The grammar is broken; says what was expected.
    #[error("{0}")]
    Syntax(&'static str),
    /// The same key twice in one object.
    #[error("the key {0:?} is given twice")]
    DuplicateKey(String),
    /// Half of a surrogate pair.
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// More than [`MAX_DEPTH`] containers inside each other.
    #[error("nested deeper than 64 levels")]
    TooDeep,
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A float too large for an f64.
    #[error("a number too large for a float")]
    NotFinite,
    /// The text ends inside a value.
    #[error("the text ends before the value does")]
    Incomplete,
    /// A value where an object is required.
    #[error("not an object")]
    NotAnObject,
}

/// One complete object from a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamedObject {
    /// Its bytes as one line without newline: verbatim if it was on one line, otherwise with the
    /// white space outside strings removed.
    pub line: Vec<u8>,
    /// Its members.
    pub object: Object,
}

/// Splits a byte stream into objects. White space (and nothing else) may stand between them.
#[derive(Debug, Default)]
pub struct ObjectStream {
    parser: Parser,
    pending: Vec<u8>,
}

impl ObjectStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes the next bytes and returns the objects that they complete.
    ///
    /// # Errors
    /// As soon as the bytes so far can no longer become valid. No object of this call is returned then,
    /// and the stream is spent: [`ObjectStream::take_pending`] gives everything that was not returned (what
    /// was pending before and all of `bytes`) and leaves a new stream.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<StreamedObject>, JsonError> {
        let held = self.pending.len();
        let mut objects = Vec::new();
        // Where the object under way starts in `bytes`; its head may be in `pending`.
        let mut start = 0;
        loop {
            if held == 0 || start > 0 {
                start += bytes[start..].iter().take_while(|b| is_space(**b)).count();
                match bytes.get(start) {
                    None => break,
                    Some(b'{') => self.parser.reset(),
                    Some(other) => {
                        self.pending.extend_from_slice(bytes);
                        let kind = match other {
                            b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                                JsonErrorKind::NotAnObject
                            }
                            _ => JsonErrorKind::Syntax("expected an object, which starts with {"),
                        };
                        return Err(JsonError { kind, at: 0 });
                    }
                }
            }
            match self.parser.feed(&bytes[start..]) {
                Ok(Some((Value::Object(object), length))) => {
                    let end = start + length;
                    let line = if held > 0 && start == 0 {
                        one_line(&[&self.pending, &bytes[..end]].concat())
                    } else {
                        one_line(&bytes[start..end])
                    };
                    objects.push(StreamedObject { line, object });
                    start = end;
                }
                // Only an object starts with `{`.
                Ok(Some(_)) => return Err(JsonError { kind: JsonErrorKind::NotAnObject, at: 0 }),
                Ok(None) => break,
                Err(e) => {
                    self.pending.extend_from_slice(bytes);
                    return Err(e);
                }
            }
        }
        if !objects.is_empty() {
            self.pending.clear();
        }
        self.pending.extend_from_slice(&bytes[start..]);
        Ok(objects)
    }
    /// The bytes of the incomplete object, without leading white space; empty between objects.
    /// After an error, see [`ObjectStream::push`].
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }
    /// Takes the pending bytes out and resets the stream.
    pub fn take_pending(&mut self) -> Vec<u8> {
        self.parser.reset();
        std::mem::take(&mut self.pending)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// An object's bytes as one line. A raw newline can only stand outside strings, because inside one the
/// parser refuses control characters.
fn one_line(object: &[u8]) -> Vec<u8> {
    if !object.contains(&b'\n') && !object.contains(&b'\r') {
        return object.to_vec();
    }
    let mut line = Vec::with_capacity(object.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in object {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
        } else if is_space(byte) {
            continue;
        } else {
            in_string = byte == b'"';
        }
        line.push(byte);
    }
    line
}

/// Parses exactly one JSON value, with white space around it.
///
/// # Errors
/// See [`JsonErrorKind`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let mut parser = Parser::default();
    let Some((value, end)) = parser.feed(text)? else { return parser.finish() };
    match text[end..].iter().position(|b| !is_space(*b)) {
        None => Ok(value),
        Some(extra) => Err(JsonError {
            kind: JsonErrorKind::Syntax("expected nothing after the value"),
            at: end + extra,
        }),
    }
}

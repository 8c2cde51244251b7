//! JSON as the protocol's Python programs understand it, parsed as a stream.
//!
//! One push parser serves whole texts and the object streams that arrive through write().

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
    _todo: (),
}

impl ObjectStream {
    /// An empty stream.
    pub fn new() -> Self {
        todo!()
    }
    /// Takes the next bytes and returns the objects that they complete.
    ///
    /// # Errors
    /// As soon as the bytes so far can no longer become valid. The stream is then spent: call
    /// [`ObjectStream::take_pending`] and start a new one.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<StreamedObject>, JsonError> {
        let _ = bytes;
        todo!()
    }
    /// The bytes of the incomplete object, without leading white space; empty between objects.
    pub fn pending(&self) -> &[u8] {
        todo!()
    }
    /// Takes the incomplete object's bytes out and resets the stream.
    pub fn take_pending(&mut self) -> Vec<u8> {
        todo!()
    }
}

/// Parses exactly one JSON value, with white space around it.
///
/// # Errors
/// See [`JsonErrorKind`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let _ = text;
    todo!()
}

//! Letters: whole files that become messages. The file's text goes in, the object of a message comes out.
//!
//! Text may start with front matter, of which a small part of YAML is understood: `key: value`, `key: [a, b]`, and
//! `- item` lines below `key:`.

#[cfg(test)]
mod tests;

use super::json::{self, JsonError, JsonErrorKind, Object, Value};
use super::message;
use super::name::AgentName;

/// What a file's text is, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.md`
    Markdown,
    /// `.txt`
    Text,
    /// `.json`
    Json,
}

impl Format {
    /// The format of a file with this name; `None` for a file that is no letter, such as an editor's own: `.x.md.swp`,
    /// `x.md~`, `#x.md#`, `4913`.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.').filter(|_| !name.starts_with('.'))?;
        match extension.to_ascii_lowercase().as_str() {
            "md" => Some(Format::Markdown),
            "txt" => Some(Format::Text),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// Why a file can't become a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// Bytes that are no text.
    #[error("byte {0} is no UTF-8")]
    NotUtf8(usize),
    /// Front matter that can't be understood.
    #[error("line {line} of the front matter: {problem}")]
    FrontMatter {
        /// Counted from 1, the opening `---`.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A `.json` file that is no JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A `.json` file whose object is no message.
    #[error("it has no body")]
    NoBody,
    /// A signed message for somebody else.
    #[error("the signed message in it is not for {0}")]
    NotFor(AgentName),
}

/// What front matter may set.
pub const KEYS: [&str; 8] =
    ["type", "subject", "priority", "correlation_id", "refs", "ack_required", "to", "affected_domains"];

/// The object of the message that a file named `name` sends to `to`; `None` for a file with nothing in it.
///
/// A text becomes the body, without the newlines that end it; its subject is the front matter's, else a Markdown file's
/// first heading, else the file's name. A JSON object is the message's own. What is signed already is taken as it is.
///
/// # Errors
/// See [`LetterError`].
pub fn read(name: &str, text: &[u8], to: &AgentName) -> Result<Option<Object>, LetterError> {
    let format = Format::of(name).unwrap_or(Format::Text);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    if format == Format::Json {
        return read_object(name, text, to).map(Some);
    }
    let text = std::str::from_utf8(text).map_err(|e| LetterError::NotUtf8(e.valid_up_to()))?;
    let (mut object, body) = match FrontMatter::find(text) {
        Some(matter) => {
            let body =
                matter.after.ok_or_else(|| at_line(1, "it is never closed; end it with a line ---"))?;
            (matter.members()?, body.trim_start_matches(['\n', '\r']))
        }
        None => (Object::new(), without_mark(text)),
    };
    let body = body.trim_end_matches(['\n', '\r']);
    if !object.contains_key("subject") {
        let heading = if format == Format::Markdown { first_heading(body) } else { None };
        let subject = heading.map_or_else(|| subject_of(name), str::to_owned);
        object.insert("subject".into(), Value::String(subject));
    }
    object.entry("type".into()).or_insert_with(|| Value::String("request".into()));
    object.insert("body".into(), Value::String(body.to_owned()));
    address(&mut object, to);
    Ok(Some(object))
}

/// Whether a file that starts like this can still become a message, whatever follows.
///
/// # Errors
/// What no further byte can mend.
pub fn check_start(name: &str, start: &[u8], to: &AgentName) -> Result<(), LetterError> {
    if Format::of(name) == Some(Format::Json) {
        return match read_object(name, start, to) {
            Err(LetterError::Json(error)) if error.kind == JsonErrorKind::Incomplete => Ok(()),
            read => read.map(drop),
        };
    }
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_some() => return Err(LetterError::NotUtf8(error.valid_up_to())),
        // A character is not whole yet.
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    match FrontMatter::find(text) {
        Some(matter) if matter.after.is_some() => matter.members().map(drop),
        _ => Ok(()),
    }
}

fn read_object(name: &str, text: &[u8], to: &AgentName) -> Result<Object, LetterError> {
    let Value::Object(mut object) = json::parse(text)? else { return Err(not_an_object().into()) };
    if message::is_signed(&object) {
        let handles = object.get("to").map(|to| to.as_array().unwrap_or_default());
        let is_for = |handle: &Value| handle.as_str() == Some("*") || names(handle, to);
        return match handles {
            Some(handles) if !handles.iter().any(is_for) => Err(LetterError::NotFor(to.clone())),
            _ => Ok(object),
        };
    }
    if !object.contains_key("body") {
        return Err(LetterError::NoBody);
    }
    object.entry("type".into()).or_insert_with(|| Value::String("request".into()));
    object.entry("subject".into()).or_insert_with(|| Value::String(subject_of(name)));
    address(&mut object, to);
    Ok(object)
}

fn not_an_object() -> JsonError {
    JsonError { kind: JsonErrorKind::NotAnObject, at: 0 }
}

fn names(handle: &Value, agent: &AgentName) -> bool {
    handle.as_str().and_then(|text| AgentName::parse(text).ok()).as_ref() == Some(agent)
}

/// Puts `to` first among the recipients. A `to` that is no list stays, for the message's own rules to refuse.
fn address(object: &mut Object, to: &AgentName) {
    match object.entry("to".into()).or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(handles) if !handles.iter().any(|handle| names(handle, to)) => {
            handles.insert(0, Value::String(to.to_string()));
        }
        _ => {}
    }
}

/// A subject from a file's name: without its extension, with spaces for `-` and `_`.
fn subject_of(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let spaced = stem.replace(['-', '_'], " ").replace(char::is_control, " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() { stem.to_owned() } else { words.join(" ") }
}

/// The text of the first `# heading` that stands outside of fenced code.
fn first_heading(text: &str) -> Option<&str> {
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let line = line.trim_end();
        let start = line.trim_start_matches(' ');
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            (Some(_), _) => {}
            (None, None) => {
                let text = start.trim_start_matches('#');
                let level = start.len() - text.len();
                if line.len() - start.len() < 4 && (1..=6).contains(&level) && text.starts_with([' ', '\t']) {
                    let text = text.trim();
                    let closed = text.trim_end_matches('#');
                    let text = if closed.ends_with([' ', '\t']) { closed.trim_end() } else { text };
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
            }
        }
    }
    None
}

/// A text without its byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn at_line(line: usize, problem: impl Into<String>) -> LetterError {
    LetterError::FrontMatter { line, problem: problem.into() }
}

/// The front matter of a text.
struct FrontMatter<'a> {
    /// Between the two lines of dashes.
    lines: Vec<&'a str>,
    /// What follows; `None`: it is not closed.
    after: Option<&'a str>,
}

/// A member's value before its key says what it must be.
enum Written {
    Nothing,
    One(String),
    List(Vec<String>),
}

impl<'a> FrontMatter<'a> {
    /// `None` for a text that does not start with a line of three dashes.
    fn find(text: &'a str) -> Option<Self> {
        let text = without_mark(text);
        let mut at = text.find('\n').map_or(text.len(), |end| end + 1);
        if text[..at].trim_end() != "---" {
            return None;
        }
        let mut lines = Vec::new();
        for line in text[at..].split_inclusive('\n') {
            at += line.len();
            let line = line.trim_end();
            if line == "---" {
                return Some(FrontMatter { lines, after: Some(&text[at..]) });
            }
            lines.push(line);
        }
        Some(FrontMatter { lines, after: None })
    }

    fn members(&self) -> Result<Object, LetterError> {
        let mut object = Object::new();
        let mut lines = self.lines.iter().enumerate().map(|(n, line)| (n + 2, *line)).peekable();
        while let Some((number, line)) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, written) = line
                .split_once(':')
                .filter(|(key, _)| !key.is_empty() && !key.starts_with([' ', '\t', '-']))
                .ok_or_else(|| at_line(number, format!("{line:?} is not `key: value`")))?;
            let key = key.trim_end();
            if !KEYS.contains(&key) {
                return Err(at_line(number, format!("{key:?} is not known")));
            }
            let mut value = scalar_or_list(written.trim()).map_err(|problem| at_line(number, problem))?;
            if matches!(value, Written::Nothing) {
                let mut items = Vec::new();
                while let Some((number, item)) = lines.next_if(|(_, line)| is_item(line)) {
                    let item = item.trim_start().trim_start_matches('-').trim();
                    items.push(scalar(item).map_err(|problem| at_line(number, problem))?);
                }
                if !items.is_empty() {
                    value = Written::List(items);
                }
            }
            let value = typed(key, value).map_err(|problem| at_line(number, problem))?;
            if object.insert(key.to_owned(), value).is_some() {
                return Err(at_line(number, format!("{key} is given twice")));
            }
        }
        Ok(object)
    }
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    line == "-" || line.starts_with("- ")
}

fn scalar_or_list(text: &str) -> Result<Written, String> {
    if text.is_empty() {
        return Ok(Written::Nothing);
    }
    let Some(inner) = text.strip_prefix('[') else { return Ok(Written::One(scalar(text)?)) };
    let inner =
        inner.strip_suffix(']').ok_or("a list that starts with [ must end with ] in the same line")?;
    let items = split_list(inner).into_iter().map(str::trim).filter(|item| !item.is_empty());
    Ok(Written::List(items.map(scalar).collect::<Result<_, _>>()?))
}

/// At the commas that stand outside of quotes.
fn split_list(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') if text[start..at].trim().is_empty() => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, ',') => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&text[start..]);
    items
}

/// One value: plain, or in quotes.
fn scalar(text: &str) -> Result<String, String> {
    let unreadable = || format!("{text} is not understood; write it in one line, in \"quotes\" if need be");
    match text.chars().next() {
        Some('"') => match json::parse(text.as_bytes()) {
            Ok(Value::String(text)) => Ok(text),
            _ => Err(unreadable()),
        },
        Some('\'') => {
            let inner = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            let inner = inner.filter(|inner| !inner.replace("''", "").contains('\''));
            Ok(inner.ok_or_else(unreadable)?.replace("''", "'"))
        }
        Some('|' | '>' | '{' | '[' | '&' | '!' | '%' | '@' | '`') => Err(unreadable()),
        // A lone * stands for everyone; in YAML it would refer to something else.
        Some('*') if text != "*" => Err(unreadable()),
        _ => Ok(text.to_owned()),
    }
}

/// A value as its key wants it.
fn typed(key: &str, value: Written) -> Result<Value, String> {
    let list = |items: Vec<String>| Value::Array(items.into_iter().map(Value::String).collect());
    match (key, value) {
        ("refs" | "to" | "affected_domains", Written::List(items)) => Ok(list(items)),
        ("refs" | "to" | "affected_domains", Written::One(item)) => Ok(list(vec![item])),
        ("refs" | "to" | "affected_domains", Written::Nothing) => Ok(list(Vec::new())),
        (_, Written::Nothing) => Err(format!("{key} has no value")),
        (_, Written::List(_)) => Err(format!("{key} takes one value, no list")),
        ("ack_required", Written::One(text)) => match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("ack_required must be true or false".to_owned()),
        },
        (_, Written::One(text)) => Ok(Value::String(text)),
    }
}

//! YAML as credential files use it: one document of mappings, sequences and scalars, read into the values that
//! JSON has. What could make a small file mean much (aliases) or two things (a key given twice, tags) is refused.

use super::wipe;
use crate::wire::json::{MAX_DEPTH, Object, Value};
use saphyr_parser::{Event, Parser, ScalarStyle};

/// Why a text is not acceptable: what, and in which line. Quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct YamlError {
    pub what: &'static str,
    pub line: usize,
}

enum Open {
    List(Vec<Value>),
    Mapping(Object, Option<String>),
}

/// The document under way. Wiped when it is given up.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    done: Option<Value>,
}

impl Builder {
    fn put(&mut self, value: Value) -> Result<(), &'static str> {
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Mapping(members, key @ Some(_))) => {
                members.insert(key.take().unwrap_or_default(), value);
            }
            Some(Open::Mapping(members, key @ None)) => match value {
                Value::String(name) | Value::Int(name) if members.contains_key(&name) => {
                    return Err("a key is given twice");
                }
                Value::String(name) | Value::Int(name) => *key = Some(name),
                _ => return Err("a key is no text"),
            },
        }
        Ok(())
    }

    fn start(&mut self, open: Open) -> Result<(), &'static str> {
        if let Some(Open::Mapping(_, None)) = self.open.last() {
            return Err("a key is no text");
        }
        if self.open.len() == MAX_DEPTH {
            return Err("nested deeper than 64 levels");
        }
        self.open.push(open);
        Ok(())
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), &'static str> {
        match event {
            Event::Alias(_) => Err("aliases are not used here"),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err("tags are not used here"),
            Event::DocumentStart(_) if self.done.is_some() => Err("there is more than one document"),
            Event::Scalar(text, ScalarStyle::Plain, ..) => self.put(plain(text.into_owned())),
            Event::Scalar(text, ..) => self.put(Value::String(text.into_owned())),
            Event::SequenceStart(..) => self.start(Open::List(Vec::new())),
            Event::MappingStart(..) => self.start(Open::Mapping(Object::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(items)) => self.put(Value::Array(items)),
                Some(Open::Mapping(members, _)) => self.put(Value::Object(members)),
                None => Err("something ends that was not begun"),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        for open in &mut self.open {
            match open {
                Open::List(items) => items.iter_mut().for_each(wipe),
                Open::Mapping(members, _) => members.values_mut().for_each(wipe),
            }
        }
        self.done.iter_mut().for_each(wipe);
    }
}

/// A scalar without quotes, by the core schema, except that only whole numbers in their shortest form count as
/// numbers: an id such as 007 stays what it is.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    if is_number && (text == "0" || !digits.starts_with('0')) {
        Value::Int(text)
    } else {
        Value::String(text)
    }
}

/// Reads one document; an empty text is `null`.
///
/// # Errors
/// See [`YamlError`].
pub(super) fn parse(text: &[u8]) -> Result<Value, YamlError> {
    let text = std::str::from_utf8(text).map_err(|e| {
        let line = text[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        YamlError { what: "not UTF-8", line }
    })?;
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        // Not the parser's own words, which may quote a key.
        let (event, span) =
            event.map_err(|e| YamlError { what: "not acceptable YAML", line: e.marker().line() })?;
        builder.take(event).map_err(|what| YamlError { what, line: span.start.line() })?;
    }
    Ok(builder.done.take().unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;
    use proptest::prelude::*;

    fn same(yaml: &str, as_json: &str) {
        assert_eq!(parse(yaml.as_bytes()), Ok(json::parse(as_json.as_bytes()).unwrap()), "{yaml}");
    }

    fn refused(yaml: &str) -> (&'static str, usize) {
        let error = parse(yaml.as_bytes()).expect_err(yaml);
        (error.what, error.line)
    }

    #[test]
    fn mappings_sequences_and_scalars_are_what_json_has() {
        same(
            "# gh\ngithub.com:\n    user: octocat\n    users:\n        octocat:\n    n: 12\n    no: -3\n    off: false\n",
            r#"{"github.com":{"user":"octocat","users":{"octocat":null},"n":12,"no":-3,"off":false}}"#,
        );
        same(
            "a: ['1', \"two\", 007, 1.5, ~]\n1: |\n  text\n",
            r#"{"a":["1","two","007","1.5",null],"1":"text\n"}"#,
        );
        same("{}\n", "{}");
        same("", "null");
    }

    #[test]
    fn what_could_mean_two_things_or_too_much_is_refused() {
        assert_eq!(refused("a: 1\nb: 2\na: 3\n"), ("a key is given twice", 3));
        assert_eq!(refused("a: &x [1]\nb: *x\n"), ("aliases are not used here", 2));
        assert_eq!(refused("a: !!binary aGk=\n"), ("tags are not used here", 1));
        assert_eq!(refused("a: 1\n---\nb: 2\n").0, "there is more than one document");
        assert_eq!(refused("? [a]\n: 1\n").0, "a key is no text");
        let deep = |levels: usize| format!("{}{}\n", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(refused(&deep(65)).0, "nested deeper than 64 levels");
        assert!(parse(deep(64).as_bytes()).is_ok() && parse(deep(100_000).as_bytes()).is_err());
        assert_eq!(refused("a: [1\nb: 2\n").0, "not acceptable YAML");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
        #[test]
        fn no_yaml_like_text_makes_it_panic(text in "[a-c:\\-\\n \\t\\[\\]{},&*!|>'\"#%?~.0-9\u{e9}]{0,60}") {
            let _ = parse(text.as_bytes());
        }
    }
}

//! The push parser: the same whatever the pieces, and stopped at the first impossible byte.

use super::*;
use proptest::prelude::*;

fn fails(text: impl AsRef<[u8]>) -> (JsonErrorKind, usize) {
    let text = text.as_ref();
    let JsonError { kind, at } = parse(text).expect_err(&String::from_utf8_lossy(text));
    (kind, at)
}

fn is_syntax_error_at(text: impl AsRef<[u8]>, at: usize) {
    let text = text.as_ref();
    let found = fails(text);
    let shown = String::from_utf8_lossy(text);
    assert!(matches!(found.0, JsonErrorKind::Syntax(_)) && found.1 == at, "{shown}: {found:?}");
}

#[test]
fn values_are_read() {
    let object = |members: &[(&str, Value)]| {
        Value::Object(members.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    };
    let text = |text: &str| Value::String(text.to_owned());
    let int = |digits: &str| Value::Int(digits.to_owned());
    for (json, value) in [
        ("42", int("42")),
        (" -0 ", int("0")),
        ("-0.0", Value::Float(-0.0)),
        ("1E+2", Value::Float(100.0)),
        ("123456789012345678901234567890", int("123456789012345678901234567890")),
        ("0e999999999999999999999999", Value::Float(0.0)),
        ("1e-99999999999999999999999999", Value::Float(0.0)),
        ("true", Value::Bool(true)),
        ("\n[ ]\r\t", Value::Array(vec![])),
        (
            "[1,[null,false]]",
            Value::Array(vec![int("1"), Value::Array(vec![Value::Null, Value::Bool(false)])]),
        ),
        (r#"{"a":{},"":[{}]}"#, object(&[("a", object(&[])), ("", Value::Array(vec![object(&[])]))])),
        (r#""\"\\\/\b\f\n\r\t\u00e5\uD83D\ude80""#, text("\"\\/\u{8}\u{c}\n\r\t\u{e5}\u{1f680}")),
        ("\"\u{7f}\u{2028}\u{10ffff}\"", text("\u{7f}\u{2028}\u{10ffff}")),
    ] {
        assert_eq!(parse(json.as_bytes()), Ok(value), "{json}");
    }
}

#[test]
fn grammar_errors_stand_at_the_first_impossible_byte() {
    for (text, at) in [
        ("nope", 1),
        ("NaN", 0),
        ("Infinity", 0),
        ("-Infinity", 1),
        ("+1", 0),
        ("01", 1),
        ("-01", 2),
        ("1.e5", 2),
        (".5", 0),
        ("1e+x", 3),
        ("0x10", 1),
        ("1 2", 2),
        ("{} {}", 3),
        ("[1,]", 3),
        ("[,", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        ("{1:2}", 1),
        (r#"{"a" 1}"#, 5),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1]"#, 6),
        (r#"{'a':1}"#, 1),
        ("\"a\nb\"", 2),
        ("\"a\u{0}\"", 2),
        (r#""\x""#, 2),
        (r#""\u12g4""#, 5),
        ("\u{feff}{}", 0),
        ("\u{a0}1", 0),
        ("tru3", 3),
    ] {
        is_syntax_error_at(text, at);
    }
}

#[test]
fn a_text_that_ends_too_early_is_incomplete() {
    for text in
        ["", " ", "{", "[1", "-", "1.", "1e-", "\"", "\"\\", "\"\\ud83d", "\"\u{e5}", "{\"a\":tru", "[[]"]
    {
        assert_eq!(fails(text), (JsonErrorKind::Incomplete, text.len()), "{text}");
    }
    assert_eq!(fails(b"\"\xe2\x80"), (JsonErrorKind::Incomplete, 3));
}

#[test]
fn a_key_given_twice_is_refused_when_it_is_complete() {
    assert_eq!(fails(r#"{"a":1,"b":2,"a":"#), (JsonErrorKind::DuplicateKey("a".into()), 15));
    assert_eq!(fails(r#"{"a":1,"\u0061":2}"#), (JsonErrorKind::DuplicateKey("a".into()), 14));
    assert_eq!(fails(r#"[{"x":{"k":1,"k""#), (JsonErrorKind::DuplicateKey("k".into()), 15));
    assert!(parse(br#"{"a":{"a":{"a":1}},"A":[{"a":1},{"a":1}]}"#).is_ok());
}

#[test]
fn lone_surrogates_are_refused_at_the_byte_that_makes_them_certain() {
    for (text, at) in [
        (r#""\udc00""#, 4),
        (r#""\uDFff""#, 4),
        (r#""\ud800""#, 7),
        (r#""\ud83dx""#, 7),
        (r#""\ud83d\n""#, 8),
        (r#""\ud83d\u0041""#, 9),
        (r#""\ud83d\ud83d""#, 10),
        (r#""\ud83d\ue000""#, 9),
        (r#"{"\ud800":1}"#, 8),
    ] {
        assert_eq!(fails(text), (JsonErrorKind::LoneSurrogate, at), "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_at_the_first_that_cannot_be() {
    for (text, at) in [
        (&b"\"\xff\""[..], 1),
        (b"\"\x80\"", 1),
        (b"\"\xc0\x80\"", 1),
        (b"\"ab\xe2\x80\"", 5),
        (b"\"\xe2A", 2),
        (b"\"\xe0\x80", 2),
        (b"\"\xed\xa0\x80", 2),
        (b"\"\xf0\x9f\x9a\\", 4),
        (b"\"\xf4\x90", 2),
        (b"\"\xf5", 1),
    ] {
        assert_eq!(fails(text), (JsonErrorKind::NotUtf8, at), "{text:?}");
    }
}

#[test]
fn a_float_is_refused_at_the_digit_that_overflows() {
    let mut edge = "1".to_owned();
    edge.push_str(&"0".repeat(308));
    for (text, at) in [
        ("1e309".to_owned(), 4),
        ("-1e309,".to_owned(), 5),
        ("1.8e308".to_owned(), 6),
        ("0.001e312".to_owned(), 8),
        ("1e0000000309".to_owned(), 11),
        ("1e99999999999999999999".to_owned(), 4),
        (format!("{edge}0.5]"), 312),
        (format!("{edge}0e1"), 311),
        (format!("{edge}0e+"), 311),
    ] {
        assert_eq!(fails(&text), (JsonErrorKind::NotFinite, at), "{text}");
    }
    for (text, value) in [
        ("1.7976931348623157e308".to_owned(), f64::MAX),
        ("0.0001e312".to_owned(), 1e308),
        (format!("{edge}0e-309"), 1.0),
        (format!("{edge}.0"), 1e308),
        ("0.000e999".to_owned(), 0.0),
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(Value::Float(value)), "{text}");
    }
}

#[test]
fn sixty_four_containers_are_accepted_and_one_more_is_not() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(64).as_bytes()).is_ok());
    assert_eq!(fails(nested(65)), (JsonErrorKind::TooDeep, 64));
    assert_eq!(fails("{\"a\":[".repeat(1_000_000)), (JsonErrorKind::TooDeep, 32 * 6));
}

fn lines(stream: &mut ObjectStream, bytes: &[u8]) -> Vec<String> {
    let objects = stream.push(bytes).expect("valid");
    objects.into_iter().map(|o| String::from_utf8(o.line).expect("UTF-8")).collect()
}

#[test]
fn an_object_counts_as_soon_as_it_is_complete() {
    let mut stream = ObjectStream::new();
    assert_eq!(lines(&mut stream, br#" {"a":1}{"b":2}  {"c""#), [r#"{"a":1}"#, r#"{"b":2}"#]);
    assert_eq!(stream.pending(), br#"{"c""#);
    assert_eq!(lines(&mut stream, b": [1 , 2] }\n\n"), [r#"{"c": [1 , 2] }"#]);
    assert_eq!(stream.pending(), b"");
    assert_eq!(lines(&mut stream, b"{}"), ["{}"]);
}

#[test]
fn an_object_over_many_lines_is_stored_as_one() {
    let mut stream = ObjectStream::new();
    let pretty = "{\r\n  \"a b\" : [ 1, -2.50e1 ],\n\t\"q\\\"\\\\\" : \" \\n{ \"\n}\n";
    assert_eq!(lines(&mut stream, pretty.as_bytes()), [r#"{"a b":[1,-2.50e1],"q\"\\":" \n{ "}"#]);
}

#[test]
fn what_is_no_object_is_refused_at_its_first_byte() {
    for text in ["[1]", "42", "-1", "\"a\"", "true", "false", "null"] {
        let mut stream = ObjectStream::new();
        let error = stream.push(format!("{{}} {text}").as_bytes()).expect_err(text);
        assert_eq!(error, JsonError { kind: JsonErrorKind::NotAnObject, at: 0 });
    }
    for text in ["x", ",", "}", "]", ":", "\u{0}", "\u{feff}"] {
        let error = ObjectStream::new().push(text.as_bytes()).expect_err(text);
        assert!(matches!(error, JsonError { kind: JsonErrorKind::Syntax(_), at: 0 }), "{error}");
    }
}

#[test]
fn after_an_error_nothing_that_was_not_returned_is_lost() {
    let mut stream = ObjectStream::new();
    assert_eq!(lines(&mut stream, br#"{"a":1}{"b":"#), [r#"{"a":1}"#]);
    let error = stream.push(br#"2}{"c":3}{"d":!}"#).expect_err("an exclamation mark");
    assert_eq!(error.at, 5);
    assert_eq!(stream.take_pending(), br#"{"b":2}{"c":3}{"d":!}"#);
    assert_eq!(lines(&mut stream, b"{}"), ["{}"]);
}

/// Texts that are JSON or nearly so: valid ones, with a few bytes changed, dropped or doubled.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"([ -!#-\\[\\]-~]|\u{e5}|\u{2028}|\u{1f680}|\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude80){0,12}\"",
    ];
    let value = scalar.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(" ,"))),
            prop::collection::vec(("[a-e\u{e5}]{0,2}", inner), 0..5).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":\n{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<Option<u8>>()), 0..3);
    (prop::collection::vec(value, 1..4), damage).prop_map(|(values, damage)| {
        let mut text = values.join(" ").into_bytes();
        for (index, byte) in damage {
            let at = index.index(text.len());
            match byte {
                Some(byte) => text[at] = byte,
                None if text.len() > 1 => drop(text.remove(at)),
                None => {}
            }
        }
        text
    })
}

/// Feeds a parser in pieces cut at `cuts`.
fn in_pieces(text: &[u8], cuts: &[usize]) -> Result<Option<(Value, usize)>, JsonError> {
    let mut parser = Parser::default();
    let mut start = 0;
    for end in cuts.iter().copied().chain([text.len()]) {
        if let Some((value, taken)) = parser.feed(&text[start..end])? {
            return Ok(Some((value, start + taken)));
        }
        start = end;
    }
    Ok(None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pieces_of_any_size_give_the_same_as_the_whole(
        text in nearly_json(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = in_pieces(&text, &[]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&in_pieces(&text, &cuts), &whole);
        prop_assert_eq!(&in_pieces(&text, &(0..text.len()).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn a_stream_in_pieces_gives_the_same_objects(
        text in nearly_json().prop_map(|text| [b"{\"v\":".as_slice(), &text, b"}\n{} "].concat()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut whole = ObjectStream::new();
        let at_once = whole.push(&text);
        let mut stream = ObjectStream::new();
        let mut objects = Vec::new();
        let mut error = None;
        let mut start = 0;
        for end in cuts.into_iter().chain([text.len()]) {
            match stream.push(&text[start..end]) {
                Ok(more) => objects.extend(more),
                Err(e) => { error = Some(e); break; }
            }
            start = end;
        }
        match at_once {
            Ok(expected) => {
                prop_assert_eq!(error, None);
                prop_assert_eq!(&objects, &expected);
                prop_assert_eq!(stream.pending(), whole.pending());
                for object in objects {
                    prop_assert_eq!(parse(&object.line), Ok(Value::Object(object.object)));
                }
            }
            Err(e) => prop_assert_eq!(error, Some(e)),
        }
    }

    /// What was taken before the error could still have become valid: some ending completes it.
    #[test]
    fn the_error_stands_at_the_first_impossible_byte(text in nearly_json()) {
        if let Err(error) = in_pieces(&text, &[]) {
            let mut parser = Parser::default();
            prop_assert_eq!(parser.feed(&text[..error.at]), Ok(None));
            prop_assert!(completes(&text[..error.at]), "{:?}", String::from_utf8_lossy(&text));
        }
    }
}

/// Whether some ending makes a valid text of `head`, trying the shortest first.
fn completes(head: &[u8]) -> bool {
    let mut text = head.to_vec();
    // Each round adds one byte that the parser takes, the ones that close things first.
    const ENDINGS: [&[u8]; 19] = [
        b"\"", b"}", b"]", b"0", b":", b"-1", b"\\", b"u", b"d", b"e", b"c", b"r", b"l", b"s", b"a", b"\x80",
        b"\xbf", b"\x90", b"/",
    ];
    for _ in 0..400 {
        if parse(&text).is_ok() {
            return true;
        }
        let next = ENDINGS.iter().find(|ending| {
            let longer = [&text, **ending].concat();
            // A fresh key may repeat one: it is then made longer.
            in_pieces(&longer, &[]).is_ok()
        });
        match next {
            Some(ending) => text.extend_from_slice(ending),
            None => text.extend_from_slice(b"zz"),
        }
    }
    false
}

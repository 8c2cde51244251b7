//! Canonical JSON and the parser against Python's own json, on generated texts: one python3 child answers
//! for every text, and proptest shrinks the first one on which the two disagree.

use batonfs::wire::canonical;
use batonfs::wire::json::{self, JsonErrorKind};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Reads texts in hex, one per line; answers with both canonical forms in hex, or `-` where it refuses.
const PROGRAM: &str = r#"
import json, sys
if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
def refuse(constant):
    raise ValueError(constant)
for line in sys.stdin:
    try:
        value = json.loads(bytes.fromhex(line).decode("utf-8"), parse_constant=refuse)
        forms = [json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=a) for a in (True, False)]
        answer = " ".join(form.encode("utf-8", "surrogatepass").hex() for form in forms)
    except (ValueError, RecursionError):
        answer = "-"
    print(answer, flush=True)
"#;

struct Python {
    child: Child,
    texts: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What Python says: both canonical forms, or nothing where it refuses.
type Answer = Option<(Vec<u8>, Vec<u8>)>;

impl Python {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed for this test");
        let texts = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Python { child, texts, answers }
    }

    fn judge(&mut self, text: &[u8]) -> Answer {
        let hex: String = text.iter().map(|b| format!("{b:02x}")).collect();
        let texts = self.texts.as_mut().expect("open until drop");
        texts.write_all(format!("{hex}\n").as_bytes()).and_then(|()| texts.flush()).expect("python3 reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("python3 answers");
        let (ascii, utf8) = match answer.trim_end() {
            "-" => return None,
            answer => answer.split_once(' ').expect("two forms"),
        };
        let bytes = |hex: &str| {
            let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).expect("hex") as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        Some((bytes(ascii), bytes(utf8)))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Its loop ends with its input.
        self.texts = None;
        let _ = self.child.wait();
    }
}

/// Runs `cases` texts past both parsers; returns how many both accepted.
fn compare(cases: u32, texts: impl Strategy<Value = Vec<u8>>) -> u32 {
    let python = RefCell::new(Python::start());
    let accepted = std::cell::Cell::new(0);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&texts, |text| {
        let shown = String::from_utf8_lossy(&text);
        match (json::parse(&text), python.borrow_mut().judge(&text)) {
            (Ok(value), Some((ascii, utf8))) => {
                accepted.set(accepted.get() + 1);
                let ours = canonical::ascii(&value);
                prop_assert_eq!(ours.as_bytes(), &ascii[..], "ascii form of {}", shown);
                let ours = canonical::utf8(&value);
                prop_assert_eq!(ours.as_bytes(), &utf8[..], "utf8 form of {}", shown);
                Ok(())
            }
            (Err(_), None) => Ok(()),
            (Ok(_), None) => Err(TestCaseError::fail(format!("only Python refuses {shown}"))),
            // The deliberate differences: what Python lets pass and the protocol does not.
            (Err(e), Some(_)) => match e.kind {
                JsonErrorKind::DuplicateKey(_)
                | JsonErrorKind::LoneSurrogate
                | JsonErrorKind::TooDeep
                | JsonErrorKind::NotFinite => Ok(()),
                _ => Err(TestCaseError::fail(format!("only Python accepts {shown}: {e}"))),
            },
        }
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    accepted.get()
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |f| f.is_finite()).prop_flat_map(
            |f| prop_oneof![Just(format!("{f:e}")), Just(format!("{f:?}")), Just(format!("{f:E}"))]
        ),
        2 => (-1074..1024).prop_map(|exponent| format!("{:e}", 2f64.powi(exponent))),
        // Exactly between two shortest numbers, often.
        3 => (0..1u64 << 53, -60..70).prop_map(|(mantissa, exponent)| {
            format!("{:e}", mantissa as f64 * 2f64.powi(exponent))
        }),
        3 => ((1u64 << 49)..1 << 53, -4..12).prop_map(|(mantissa, exponent)| {
            format!("{:e}", mantissa as f64 * 2f64.powi(exponent))
        }),
        2 => (any::<i64>(), -25..25).prop_map(|(mantissa, exponent)| format!("{mantissa}e{exponent}")),
        2 => "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
        2 => "-?[1-9][0-9]{0,60}",
        1 => prop_oneof![Just("-0"), Just("-0.0"), Just("-0e-9"), Just("1e16"), Just("9999999999999998.0"),
            Just("0.0001"), Just("0.00009999999999999999"), Just("5e-324"), Just("2.4703282292062328e-324"),
            Just("2.4703282292062327e-324"), Just("9007199254740993.0"), Just("1.7976931348623158e308")]
            .prop_map(str::to_owned),
    ]
}

/// One character of a string, raw or escaped in one of its forms.
fn character() -> impl Strategy<Value = String> {
    let any_char = prop_oneof![
        4 => any::<char>(),
        4 => (0x20..0x7fu8).prop_map(char::from),
        2 => (0..0x20u8).prop_map(char::from),
        1 => prop::sample::select(vec!['"', '\\', '/', '\u{7f}', '\u{80}', '\u{2028}', '\u{2029}', '\u{d7ff}',
            '\u{e000}', '\u{ffff}', '\u{10000}', '\u{10ffff}', '\u{feff}']),
    ];
    (any_char, 0..4u8).prop_map(|(c, form)| {
        let must = c < ' ' || c == '"' || c == '\\';
        let short = match c {
            '"' | '\\' | '/' => Some(c),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            _ => None,
        };
        match (form, short) {
            (0, _) if !must => c.to_string(),
            (0 | 1, Some(short)) => format!("\\{short}"),
            (2, _) => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect(),
            (3, _) if !must => c.to_string(),
            _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        }
    })
}

fn string() -> impl Strategy<Value = String> {
    prop::collection::vec(character(), 0..12).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        1 => prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        4 => number(),
        4 => string(),
    ];
    let space = || prop::sample::select(vec!["", "", " ", "\n", "\r\n\t"]);
    let wide = scalar.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space())
                .prop_map(|(items, space)| format!("[{space}{}]", items.join(&format!("{space},")))),
            (prop::collection::vec((string(), inner), 0..6), space()).prop_map(|(members, space)| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{space}{key}:{space}{value}")).collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    });
    // Under up to 70 more containers: some go past the limit.
    (wide, prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<bool>(), 0..70)]).prop_map(
        |(value, shells)| {
            shells.into_iter().fold(value, |value, array| {
                if array { format!("[{value}]") } else { format!("{{\"\":{value}}}") }
            })
        },
    )
}

#[test]
fn both_forms_are_pythons_bytes() {
    let accepted = compare(3_000, value().prop_map(String::into_bytes));
    assert!(accepted > 2_000, "only {accepted} texts were compared");
}

#[test]
fn integers_of_any_size_keep_their_digits() {
    let accepted = compare(20, "-?[1-9][0-9]{4000,6000}".prop_map(String::into_bytes));
    assert_eq!(accepted, 20);
}

/// Bytes that turn a text into nearly another one.
fn damaging_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => prop::sample::select(br#"{}[]:,"\/ 0123456789eE+-.utfnNaIl"#.to_vec()),
        1 => any::<u8>(),
    ]
}

#[test]
fn a_malformed_text_is_accepted_by_both_or_by_none() {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, damaging_byte()), 1..4);
    let texts = (value(), damage).prop_map(|(text, damage)| {
        let mut text = text.into_bytes();
        for (index, how, byte) in damage {
            let at = index.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ if text.len() > 1 => drop(text.remove(at)),
                _ => {}
            }
        }
        text
    });
    compare(3_000, texts);
    let tokens = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"a\"",
        "\"b\"",
        "\"",
        "\\",
        "1",
        "-",
        "0",
        ".",
        "e",
        "+",
        "true",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        " ",
        "\n",
        "\u{feff}",
        "\u{a0}",
        "\\u12",
        "\\ud83d",
        "\\ude80",
        "'",
        "//",
    ]);
    compare(3_000, prop::collection::vec(tokens, 0..8).prop_map(|tokens| tokens.concat().into_bytes()));
}

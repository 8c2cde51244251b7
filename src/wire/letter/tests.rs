use super::*;
use crate::wire::canonical;

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

/// The message that a file becomes, as canonical JSON.
fn message(name: &str, text: &str) -> String {
    canonical::utf8(&Value::Object(read(name, text.as_bytes(), &agent("alice")).unwrap().unwrap()))
}

fn problem(name: &str, text: impl AsRef<[u8]>) -> String {
    read(name, text.as_ref(), &agent("alice")).unwrap_err().to_string()
}

#[test]
fn only_names_that_end_so_are_letters() {
    for (name, format) in [
        ("a.md", Format::Markdown),
        ("a.b.txt", Format::Text),
        ("A.MD", Format::Markdown),
        ("x.json", Format::Json),
    ] {
        assert_eq!(Format::of(name), Some(format), "{name}");
    }
    for name in [
        "4913",
        "note",
        "note.md~",
        ".note.md.swp",
        "#note.md#",
        ".#note.md",
        ".md",
        "note.md.tmp",
        "note.md.Xy12",
        ".goutputstream-AB",
        "note.markdown",
        "note.",
    ] {
        assert_eq!(Format::of(name), None, "{name}");
    }
}

#[test]
fn a_text_is_the_body_and_its_file_s_name_the_subject() {
    assert_eq!(
        message("build-is_broken.txt", "# no heading here\nfix it\n\n"),
        r##"{"body":"# no heading here\nfix it","subject":"build is broken","to":["alice"],"type":"request"}"##
    );
    assert_eq!(message("--.txt", "x"), r#"{"body":"x","subject":"--","to":["alice"],"type":"request"}"#);
}

#[test]
fn a_markdown_file_s_first_heading_is_the_subject_and_stays_in_the_body() {
    assert_eq!(
        message("a.md", "intro\n\n## The build ##\ntext\n# Later\n"),
        r###"{"body":"intro\n\n## The build ##\ntext\n# Later","subject":"The build","to":["alice"],"type":"request"}"###
    );
    for (text, subject) in [
        ("```sh\n# a comment\n```\n# Real", "Real"),
        ("~~~\n# x\n```\n# y\n~~~\n#Tag\n   ### C#", "C#"),
        ("    # code\n#\n####### seven\n", "a"),
    ] {
        let object = read("a.md", text.as_bytes(), &agent("alice")).unwrap().unwrap();
        assert_eq!(object["subject"].as_str(), Some(subject), "{text}");
    }
}

#[test]
fn front_matter_sets_members() {
    let text = "---\r\n# what it is\ntype: proposal\nsubject: \"a: b\"\npriority: high\ncorrelation_id: 'it''s 1'\n\
                refs: [x.rs, \"a, b\", 'c']\nto:\n  - carol\n  - \"*\"\nack_required: true\naffected_domains: api\n---\n\n# Body\n";
    assert_eq!(
        message("a.md", text),
        r##"{"ack_required":true,"affected_domains":["api"],"body":"# Body","correlation_id":"it's 1","priority":"high","refs":["x.rs","a, b","c"],"subject":"a: b","to":["alice","carol","*"],"type":"proposal"}"##
    );
    assert_eq!(
        message("a.txt", "---\ntype: ack\ncorrelation_id: 2026-01-01T00:00:00Z\nto: did:wire:alice\n---\n"),
        r#"{"body":"","correlation_id":"2026-01-01T00:00:00Z","subject":"a","to":["did:wire:alice"],"type":"ack"}"#
    );
    // Empty front matter, a byte order mark, and dashes that are not in the first line.
    assert_eq!(message("a.txt", "---\n---\nx"), message("a.txt", "x"));
    assert_eq!(message("a.txt", "\u{feff}x"), message("a.txt", "x"));
    assert_eq!(message("a.txt", "\u{feff}---\nrefs:\n---\nx"), message("a.txt", "---\nrefs: []\n---\nx"));
    assert_eq!(
        message("a.txt", "\n---\nx"),
        r#"{"body":"\n---\nx","subject":"a","to":["alice"],"type":"request"}"#
    );
}

#[test]
fn front_matter_that_is_not_understood_is_refused_with_its_line() {
    let cases = [
        ("typ: ack", "line 2 of the front matter: \"typ\" is not known"),
        ("type: ack\ntype: ship", "line 3 of the front matter: type is given twice"),
        ("type:", "line 2 of the front matter: type has no value"),
        ("type: [ack]", "takes one value"),
        ("refs: [a", "must end with ]"),
        ("ack_required: yes", "must be true or false"),
        ("hello", "is not `key: value`"),
        ("subject: x\n  more", "line 3"),
        ("- a", "is not `key: value`"),
        ("subject: |", "is not understood"),
        ("subject: \"a", "is not understood"),
        ("subject: 'a'b'", "is not understood"),
        ("refs:\n- {a: b}", "line 3 of the front matter: {a: b} is not understood"),
    ];
    for (matter, expected) in cases {
        let text = format!("---\n{matter}\n---\nbody");
        let found = problem("a.md", &text);
        assert!(found.contains(expected), "{matter}: {found}");
        assert!(check_start("a.md", text.as_bytes(), &agent("alice")).is_err(), "{matter}");
    }
    assert!(problem("a.md", "---\ntype: ack\nbody").contains("never closed"));
}

#[test]
fn a_json_file_is_the_message_itself() {
    assert_eq!(
        message("the-data.json", r#"{"body":{"n":1},"priority":"low","to":["carol"],"x":2}"#),
        r#"{"body":{"n":1},"priority":"low","subject":"the data","to":["alice","carol"],"type":"request","x":2}"#
    );
    assert_eq!(
        message("a.json", r#"{"body":"","type":"ship","subject":"s","to":"bob"}"#),
        r#"{"body":"","subject":"s","to":"bob","type":"ship"}"#,
        "a `to` that is no list is for the message's own rules"
    );
    assert_eq!(problem("a.json", r#"{"a":1}"#), "it has no body");
    assert!(problem("a.json", "[1]").contains("not an object"));
    assert!(problem("a.json", "{").contains("ends before"));
}

#[test]
fn a_signed_object_is_taken_as_it_is_if_it_is_for_this_agent() {
    let signed = |to: &str| format!(r#"{{"public_key_id":"k","signature":"s"{to}}}"#);
    for to in ["", r#","to":["alice"]"#, r#","to":["bob","did:wire:alice"]"#, r#","to":["*"]"#] {
        let text = signed(to);
        let object = read("a.json", text.as_bytes(), &agent("alice")).unwrap().unwrap();
        assert_eq!(json::parse(text.as_bytes()).unwrap(), Value::Object(object));
    }
    assert_eq!(problem("a.json", signed(r#","to":["bob"]"#)), "the signed message in it is not for alice");
}

#[test]
fn nothing_is_no_letter() {
    for text in ["", "\n", " \r\n\t"] {
        for name in ["a.md", "a.txt", "a.json"] {
            assert_eq!(read(name, text.as_bytes(), &agent("alice")), Ok(None), "{name} {text:?}");
        }
    }
}

#[test]
fn a_start_is_refused_only_where_nothing_can_mend_it() {
    assert_eq!(problem("a.txt", b"ab\xffcd"), "byte 2 is no UTF-8");
    assert_eq!(check_start("a.txt", b"ab\xffcd", &agent("alice")), Err(LetterError::NotUtf8(2)));
    // Half a character, half a front matter, half an object.
    for (name, start) in
        [("a.txt", &b"\xc3"[..]), ("a.md", b"---\ntyp"), ("a.json", b"{\"a"), ("a.json", b" ")]
    {
        assert_eq!(check_start(name, start, &agent("alice")), Ok(()), "{start:?}");
    }
    for (name, start) in [
        ("a.json", &b"hello"[..]),
        ("a.json", b"{\"a\":1}"),
        ("a.json", b"{\"signature\":\"s\",\"to\":[\"bob\"]}"),
        ("a.json", b"[1]"),
        ("a.json", b"{} x"),
        ("a.json", b"{\"a\":1,\"a\""),
    ] {
        assert!(check_start(name, start, &agent("alice")).is_err(), "{start:?}");
    }
}

//! The push parser: bytes in, in pieces of any size, until one value is complete.
//!
//! A state machine with an explicit stack, so that hostile nesting costs no call stack and a value may
//! arrive over any number of writes. It stops at the first byte after which no continuation is valid.

use super::{JsonError, JsonErrorKind, MAX_DEPTH, Object, Value};

/// A container that is being filled.
#[derive(Debug)]
enum Frame {
    Array(Vec<Value>),
    /// `key` is the member whose value is awaited.
    Object {
        members: Object,
        key: String,
    },
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A value must come.
    Value,
    /// After `[`: a value or `]`.
    FirstElement,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value inside a container.
    AfterValue,
    String(StringState),
    Number(NumberState),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8], Literal),
}

#[derive(Debug, Clone, Copy)]
enum Literal {
    True,
    False,
    Null,
}

#[derive(Debug, Clone, Copy)]
enum StringState {
    Plain,
    /// Inside a UTF-8 sequence that the last piece cut; its bytes are in `Parser::sequence`.
    Sequence,
    Backslash,
    /// Inside `\uXXXX`: digits still to come, value so far, and the high surrogate that came before.
    Hex {
        left: u8,
        value: u16,
        high: Option<u16>,
    },
    /// After a high surrogate: the backslash of the low one.
    LowBackslash(u16),
    /// ... and its `u`.
    LowU(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberState {
    Minus,
    Zero,
    Int,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl NumberState {
    /// Whether the number may end here.
    fn is_final(self) -> bool {
        matches!(self, Self::Zero | Self::Int | Self::Fraction | Self::Exponent)
    }
}

/// What is known about a float while its exponent arrives: enough to see an overflow at its first digit.
#[derive(Debug, Default, Clone, Copy)]
struct Exponent {
    /// Decimal exponent of the mantissa's first digit that is not zero; `None` for a zero.
    magnitude: Option<i64>,
    negative: bool,
    value: i64,
}

/// Parses one value. Make a new one (or [`Parser::reset`]) for the next.
#[derive(Debug)]
pub(super) struct Parser {
    stack: Vec<Frame>,
    state: State,
    in_key: bool,
    /// The string or number under way.
    text: String,
    sequence: [u8; 4],
    sequence_len: usize,
    exponent: Exponent,
    /// Bytes taken by earlier calls.
    taken: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Parser {
            stack: Vec::new(),
            state: State::Value,
            in_key: false,
            text: String::new(),
            sequence: [0; 4],
            sequence_len: 0,
            exponent: Exponent::default(),
            taken: 0,
        }
    }
}

use JsonErrorKind::{DuplicateKey, LoneSurrogate, NotFinite, NotUtf8, Syntax, TooDeep};

impl Parser {
    /// Starts over, keeping what is allocated.
    pub(super) fn reset(&mut self) {
        self.stack.clear();
        self.state = State::Value;
        self.text.clear();
        self.sequence_len = 0;
        self.taken = 0;
    }

    /// Takes bytes until the value is complete: then returns it and how many of `bytes` it took.
    /// White space before the value counts as part of it.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Value, usize)>, JsonError> {
        let mut at = 0;
        match self.run(bytes, &mut at) {
            Ok(done) => {
                self.taken += at;
                Ok(done.map(|value| (value, at)))
            }
            Err(kind) => Err(JsonError { kind, at: self.taken + at }),
        }
    }

    /// Says that no more bytes come: completes a number at the top, or fails as incomplete.
    pub(super) fn finish(&mut self) -> Result<Value, JsonError> {
        let at = self.taken;
        if let State::Number(state) = self.state
            && state.is_final()
            && self.stack.is_empty()
        {
            return self.number(state).map_err(|kind| JsonError { kind, at });
        }
        Err(JsonError { kind: JsonErrorKind::Incomplete, at })
    }

    /// On error `at` is the offending byte; on success it is the end of what was taken.
    fn run(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Value>, JsonErrorKind> {
        while *at < bytes.len() {
            let byte = bytes[*at];
            let completed = match self.state {
                State::String(_) => match self.string(bytes, at)? {
                    None => None,
                    Some(()) if self.in_key => {
                        self.state = State::Colon;
                        None
                    }
                    Some(()) => Some(Value::String(std::mem::take(&mut self.text))),
                },
                State::Number(state) => match next_number_state(state, byte) {
                    Some(next) => {
                        self.number_byte(next, byte)?;
                        *at += 1;
                        None
                    }
                    // The byte after a number belongs to what follows and is looked at again there.
                    None if state.is_final() => Some(self.number(state)?),
                    None => return Err(Syntax("a number is broken off here")),
                },
                State::Literal(rest, literal) => {
                    if byte != rest[0] {
                        return Err(Syntax("expected true, false or null"));
                    }
                    *at += 1;
                    if rest.len() > 1 {
                        self.state = State::Literal(&rest[1..], literal);
                        None
                    } else {
                        Some(match literal {
                            Literal::True => Value::Bool(true),
                            Literal::False => Value::Bool(false),
                            Literal::Null => Value::Null,
                        })
                    }
                }
                _ => {
                    if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        *at += 1;
                        continue;
                    }
                    let completed = self.token(byte)?;
                    *at += 1;
                    completed
                }
            };
            if let Some(value) = completed {
                match self.stack.last_mut() {
                    None => return Ok(Some(value)),
                    Some(Frame::Array(items)) => items.push(value),
                    Some(Frame::Object { members, key }) => {
                        members.insert(std::mem::take(key), value);
                    }
                }
                self.state = State::AfterValue;
            }
        }
        Ok(None)
    }

    /// One byte between tokens, or the first of one. Returns a container that it closes.
    fn token(&mut self, byte: u8) -> Result<Option<Value>, JsonErrorKind> {
        match (self.state, byte) {
            (State::FirstKey | State::Key, b'"') => {
                self.in_key = true;
                self.state = State::String(StringState::Plain);
            }
            (State::FirstKey, b'}') => return Ok(self.close()),
            (State::FirstKey, _) => return Err(Syntax("expected a key in double quotes or }")),
            (State::Key, _) => return Err(Syntax("expected a key in double quotes")),
            (State::Colon, b':') => self.state = State::Value,
            (State::Colon, _) => return Err(Syntax("expected : after the key")),
            (State::FirstElement, b']') => return Ok(self.close()),
            (State::AfterValue, _) => match (self.stack.last(), byte) {
                (Some(Frame::Array(_)), b',') => self.state = State::Value,
                (Some(Frame::Object { .. }), b',') => self.state = State::Key,
                (Some(Frame::Array(_)), b']') | (Some(Frame::Object { .. }), b'}') => {
                    return Ok(self.close());
                }
                (Some(Frame::Array(_)), _) => return Err(Syntax("expected , or ]")),
                _ => return Err(Syntax("expected , or }")),
            },
            (_, b'{') => {
                self.open(Frame::Object { members: Object::new(), key: String::new() })?;
                self.state = State::FirstKey;
            }
            (_, b'[') => {
                self.open(Frame::Array(Vec::new()))?;
                self.state = State::FirstElement;
            }
            (_, b'"') => {
                self.in_key = false;
                self.state = State::String(StringState::Plain);
            }
            (_, b'-') => self.number_byte(NumberState::Minus, byte)?,
            (_, b'0') => self.number_byte(NumberState::Zero, byte)?,
            (_, b'1'..=b'9') => self.number_byte(NumberState::Int, byte)?,
            (_, b't') => self.state = State::Literal(b"rue", Literal::True),
            (_, b'f') => self.state = State::Literal(b"alse", Literal::False),
            (_, b'n') => self.state = State::Literal(b"ull", Literal::Null),
            _ => return Err(Syntax("expected a value")),
        }
        Ok(None)
    }

    fn open(&mut self, frame: Frame) -> Result<(), JsonErrorKind> {
        if self.stack.len() == MAX_DEPTH {
            return Err(TooDeep);
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Option<Value> {
        self.stack.pop().map(|frame| match frame {
            Frame::Array(items) => Value::Array(items),
            Frame::Object { members, .. } => Value::Object(members),
        })
    }

    /// Takes string bytes up to an escape, a cut sequence, the closing quote or the end of the piece.
    /// `Some` when the quote was taken; a key is then already in its frame.
    fn string(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<()>, JsonErrorKind> {
        let State::String(state) = self.state else { return Ok(None) };
        let byte = bytes[*at];
        let next = match state {
            StringState::Plain => {
                let rest = &bytes[*at..];
                let run = &rest[..plain_run(rest)];
                self.plain(run, at, run.len() == rest.len())?;
                if self.sequence_len > 0 {
                    StringState::Sequence
                } else {
                    match bytes.get(*at) {
                        None => StringState::Plain,
                        Some(b'"') => {
                            if self.in_key {
                                self.key()?;
                            }
                            *at += 1;
                            return Ok(Some(()));
                        }
                        Some(b'\\') => {
                            *at += 1;
                            StringState::Backslash
                        }
                        Some(_) => return Err(Syntax("a control character in a string must be escaped")),
                    }
                }
            }
            StringState::Sequence => {
                self.sequence[self.sequence_len] = byte;
                self.sequence_len += 1;
                match std::str::from_utf8(&self.sequence[..self.sequence_len]) {
                    Ok(text) => {
                        self.text.push_str(text);
                        self.sequence_len = 0;
                        *at += 1;
                        StringState::Plain
                    }
                    Err(e) if e.error_len().is_none() => {
                        *at += 1;
                        StringState::Sequence
                    }
                    Err(_) => {
                        self.sequence_len = 0;
                        return Err(NotUtf8);
                    }
                }
            }
            StringState::Backslash => {
                let plain = match byte {
                    b'"' | b'\\' | b'/' => Some(char::from(byte)),
                    b'b' => Some('\u{8}'),
                    b'f' => Some('\u{c}'),
                    b'n' => Some('\n'),
                    b'r' => Some('\r'),
                    b't' => Some('\t'),
                    b'u' => None,
                    _ => return Err(Syntax("no such escape: use \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX")),
                };
                *at += 1;
                match plain {
                    Some(c) => {
                        self.text.push(c);
                        StringState::Plain
                    }
                    None => StringState::Hex { left: 4, value: 0, high: None },
                }
            }
            StringState::Hex { left, value, high } => {
                let next = self.hex(byte, left - 1, value, high)?;
                *at += 1;
                next
            }
            StringState::LowBackslash(high) if byte == b'\\' => {
                *at += 1;
                StringState::LowU(high)
            }
            StringState::LowU(high) if byte == b'u' => {
                *at += 1;
                StringState::Hex { left: 4, value: 0, high: Some(high) }
            }
            StringState::LowBackslash(_) | StringState::LowU(_) => return Err(LoneSurrogate),
        };
        self.state = State::String(next);
        Ok(None)
    }

    /// Takes a run without quotes, escapes and controls. A sequence cut by the end of the piece
    /// (`ends_piece`) is kept for the next one.
    fn plain(&mut self, run: &[u8], at: &mut usize, ends_piece: bool) -> Result<(), JsonErrorKind> {
        match std::str::from_utf8(run) {
            Ok(text) => {
                self.text.push_str(text);
                *at += run.len();
                Ok(())
            }
            Err(e) => {
                let good = e.valid_up_to();
                // A byte that may begin a sequence is not yet wrong; the one that breaks it off is.
                let begins = matches!(run[good], 0xc2..=0xf4);
                let broken = match e.error_len() {
                    Some(len) if begins => good + len,
                    Some(_) => good,
                    None if ends_piece => {
                        // The prefix was just found valid.
                        self.text.push_str(std::str::from_utf8(&run[..good]).unwrap_or_default());
                        self.sequence_len = run.len() - good;
                        self.sequence[..self.sequence_len].copy_from_slice(&run[good..]);
                        *at += run.len();
                        return Ok(());
                    }
                    None => run.len(),
                };
                *at += broken;
                Err(NotUtf8)
            }
        }
    }

    /// One hex digit, refused as soon as it makes half a surrogate pair certain.
    fn hex(
        &mut self,
        byte: u8,
        left: u8,
        value: u16,
        high: Option<u16>,
    ) -> Result<StringState, JsonErrorKind> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(Syntax("expected four hex digits after \\u")),
        };
        let value = value << 4 | u16::from(digit);
        let possible = match (left, high) {
            (3, Some(_)) => value == 0xd,
            (2, Some(_)) => value >= 0xdc,
            (2, None) => !(0xdc..=0xdf).contains(&value),
            _ => true,
        };
        if !possible {
            return Err(LoneSurrogate);
        }
        if left > 0 {
            return Ok(StringState::Hex { left, value, high });
        }
        if (0xd800..0xdc00).contains(&value) {
            return Ok(StringState::LowBackslash(value));
        }
        let scalar = match high {
            Some(high) => 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(value) - 0xdc00),
            None => u32::from(value),
        };
        // Every surrogate was dealt with above, so the replacement is never used.
        self.text.push(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(StringState::Plain)
    }

    fn key(&mut self) -> Result<(), JsonErrorKind> {
        let text = std::mem::take(&mut self.text);
        if let Some(Frame::Object { members, key }) = self.stack.last_mut() {
            if members.contains_key(&text) {
                return Err(DuplicateKey(text));
            }
            *key = text;
        }
        Ok(())
    }

    fn number_byte(&mut self, next: NumberState, byte: u8) -> Result<(), JsonErrorKind> {
        match next {
            NumberState::E => {
                self.exponent = Exponent { magnitude: magnitude(&self.text), negative: false, value: 0 };
            }
            NumberState::Sign => {
                self.exponent.negative = byte == b'-';
                self.check_overflow()?;
            }
            NumberState::Exponent => {
                let first = self.text.ends_with(['e', 'E']);
                let e = &mut self.exponent;
                let grown = e.value.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
                let changed = grown != e.value;
                e.value = grown;
                if first || changed {
                    self.text.push(char::from(byte));
                    self.state = State::Number(next);
                    return self.check_overflow();
                }
            }
            _ => {}
        }
        self.text.push(char::from(byte));
        self.state = State::Number(next);
        Ok(())
    }

    /// A mantissa that is too large already can only be saved by a negative exponent, and a positive
    /// exponent only grows: both are final before the number ends.
    fn check_overflow(&self) -> Result<(), JsonErrorKind> {
        let e = self.exponent;
        let Some(magnitude) = e.magnitude else { return Ok(()) };
        if e.negative {
            return Ok(());
        }
        let overflows = match magnitude.saturating_add(e.value) {
            309.. => true,
            // On the edge only the digits tell; this is reached at most twice in a number.
            308 => self.text.trim_end_matches(['e', 'E', '+']).parse().is_ok_and(f64::is_infinite),
            _ => false,
        };
        if overflows { Err(NotFinite) } else { Ok(()) }
    }

    fn number(&mut self, state: NumberState) -> Result<Value, JsonErrorKind> {
        let text = std::mem::take(&mut self.text);
        if matches!(state, NumberState::Zero | NumberState::Int) {
            return Ok(Value::Int(if text == "-0" { "0".to_owned() } else { text }));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Value::Float(float)),
            _ => Err(NotFinite),
        }
    }
}

fn next_number_state(state: NumberState, byte: u8) -> Option<NumberState> {
    use NumberState::{E, Exponent, Fraction, Int, Minus, Point, Sign, Zero};
    Some(match (state, byte) {
        (Minus, b'0') => Zero,
        (Minus, b'1'..=b'9') | (Int, b'0'..=b'9') => Int,
        (Zero | Int, b'.') => Point,
        (Point | Fraction, b'0'..=b'9') => Fraction,
        (Zero | Int | Fraction, b'e' | b'E') => E,
        (E, b'+' | b'-') => Sign,
        (E | Sign | Exponent, b'0'..=b'9') => Exponent,
        _ => return None,
    })
}

/// Decimal exponent of the first digit that is not zero in `-?digits[.digits]`.
fn magnitude(mantissa: &str) -> Option<i64> {
    let digits = mantissa.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole != "0" {
        return i64::try_from(whole.len() - 1).ok();
    }
    let zeros = fraction.bytes().position(|b| b != b'0')?;
    i64::try_from(zeros).ok().map(|zeros| -zeros - 1)
}

/// Length of the leading run without `"`, `\` and control characters. Eight bytes at a time: most of a
/// line is such runs.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let special = zero_bytes(word ^ (ONES * u64::from(b'"')))
            | zero_bytes(word ^ (ONES * u64::from(b'\\')))
            | controls;
        if special != 0 {
            break;
        }
        at += 8;
    }
    // Borrows make the word test overshoot past its first hit, so the exact end is found bytewise.
    at + bytes[at..].iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(bytes.len() - at)
}

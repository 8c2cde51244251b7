//! Instants as the protocol writes them: ISO 8601.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::fmt;

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads ISO 8601 as Python's `isoformat()` and `strftime` and JavaScript's `toISOString()` write it:
    /// date, `T` or space, time, up to microseconds (further digits cut), then `Z`, an offset, or nothing.
    /// `None` if it is no such text. `naive_is_utc`: whether a time without offset is accepted, as UTC.
    pub fn parse(text: &str, naive_is_utc: bool) -> Option<Self> {
        let mut rest = text.as_bytes();
        let year = digits(&mut rest, 4)?;
        literal(&mut rest, b"-")?;
        let month = digits(&mut rest, 2)?;
        literal(&mut rest, b"-")?;
        let day = digits(&mut rest, 2)?;
        literal(&mut rest, b"Tt ")?;
        let hour = digits(&mut rest, 2)?;
        literal(&mut rest, b":")?;
        let minute = digits(&mut rest, 2)?;
        let mut second = 0;
        let mut micros = 0;
        if literal(&mut rest, b":").is_some() {
            second = digits(&mut rest, 2)?;
            if literal(&mut rest, b".,").is_some() {
                micros = fraction(&mut rest)?;
            }
        }
        let offset = if rest.is_empty() { naive_is_utc.then_some(0)? } else { offset_micros(&mut rest)? };
        if !rest.is_empty() || year == 0 {
            return None;
        }
        let field = |n: i64| i8::try_from(n).ok();
        let civil = DateTime::new(
            i16::try_from(year).ok()?,
            field(month)?,
            field(day)?,
            field(hour)?,
            field(minute)?,
            field(second)?,
            0,
        )
        .ok()?;
        let instant = TimeZone::UTC.to_timestamp(civil).ok()?;
        Some(Timestamp(instant.as_microsecond() + micros - offset))
    }
    /// Whole seconds since the epoch, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
    /// Milliseconds since the epoch, rounded down.
    pub fn unix_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    /// The year, UTC; the nearest that ISO 8601 can write.
    pub fn year(self) -> i16 {
        self.civil().year()
    }
    /// The first instant of a year, UTC.
    pub fn start_of_year(year: i16) -> Self {
        let start =
            jiff::civil::Date::new(year, 1, 1).and_then(|day| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)));
        start.map_or(Timestamp(i64::MAX), |at| Timestamp(at.as_microsecond()))
    }
    /// This instant moved by whole seconds.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

impl Timestamp {
    /// To the second. Beyond the years that ISO 8601 can write, the nearest that it can.
    fn civil(self) -> DateTime {
        let whole = jiff::Timestamp::from_second(self.unix_seconds()).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        TimeZone::UTC.to_datetime(whole)
    }
}

/// Exactly `count` ASCII digits.
fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(count)?;
    let mut value = 0;
    for byte in head {
        value = value * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    *rest = tail;
    Some(value)
}

/// One byte out of a set.
fn literal(rest: &mut &[u8], set: &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    set.contains(first).then(|| {
        *rest = tail;
        *first
    })
}

/// The digits of a second's fraction, in microseconds.
fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + head.get(place).map_or(0, |b| i64::from(b - b'0'));
    }
    (count > 0).then_some(micros)
}

/// `Z`, `+HH`, `+HH:MM`, `+HHMM` or `+HH:MM:SS`.
fn offset_micros(rest: &mut &[u8]) -> Option<i64> {
    let sign = match literal(rest, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = digits(rest, 2)?;
    let (mut minutes, mut seconds) = (0, 0);
    if !rest.is_empty() {
        let colon = literal(rest, b":").is_some();
        minutes = digits(rest, 2)?;
        if colon && literal(rest, b":").is_some() {
            seconds = digits(rest, 2)?;
        }
    }
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(sign * ((hours * 60 + minutes) * 60 + seconds) * 1_000_000)
}

/// `2026-05-10T00:01:00.000001Z`, with microseconds only where they are not zero.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year(),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )?;
        match self.0.rem_euclid(1_000_000) {
            0 => f.write_str("Z"),
            micros => write!(f, ".{micros:06}Z"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writers_form_names_the_same_instant() {
        for text in [
            "2026-04-21T10:00:00Z",
            "2026-04-21t10:00:00z",
            "2026-04-21T10:00Z",
            "2026-04-21 10:00:00+00:00",
            "2026-04-21T12:00:00+02:00",
            "2026-04-21T12:00:00+0200",
            "2026-04-21T12:00:00+02",
            "2026-04-21T04:30:00-05:30",
            "2026-04-21T10:00:30+00:00:30",
            "2026-04-21T10:00:00.000Z",
            "2026-04-21T10:00:00.0000009Z",
        ] {
            assert_eq!(Timestamp::parse(text, false), Some(Timestamp(1_776_765_600_000_000)), "{text}");
        }
        assert_eq!(Timestamp::parse("2026-04-21T10:00:00.123", true), Some(Timestamp(1_776_765_600_123_000)));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-04-21",
            "2026-04-21T10:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-21T24:00:00Z",
            "2026-04-21T10:00:60Z",
            "2026-04-21T10:00:00.Z",
            "2026-04-21T10:00:00Z ",
            "2026-04-21T10:00:00+24:00",
            "2026-04-21T10:00:00ZZ",
            "+026-04-21T10:00:00Z",
            "2026-04-21T10:00:00\u{ff11}Z",
        ] {
            assert_eq!(Timestamp::parse(text, false), None, "{text}");
        }
    }

    #[test]
    fn a_year_begins_where_the_last_one_ends() {
        let start = Timestamp::start_of_year(2026);
        assert_eq!(start.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!((start.year(), Timestamp(start.0 - 1).year()), (2026, 2025));
        // Nothing panics on years that no calendar holds.
        let _ = (Timestamp(i64::MAX).year(), Timestamp::start_of_year(i16::MAX), Timestamp(i64::MIN).year());
    }

    #[test]
    fn what_is_written_reads_back() {
        for micros in [0, 1, -1, 1_776_765_600_123_456, -62_135_596_800_000_000, 253_402_207_200_000_000] {
            let text = Timestamp(micros).to_string();
            assert_eq!(Timestamp::parse(&text, false), Some(Timestamp(micros)), "{text}");
        }
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        // Nothing panics on instants that no calendar holds.
        let _ = (Timestamp(i64::MIN).to_string(), Timestamp(i64::MAX).to_string());
    }
}

//! Times as people write them: RFC 3339, or milliseconds since the epoch.

const MS_PER_DAY: i64 = 24 * 3_600_000;

/// A time in epoch milliseconds. Of a fraction of a second the first three digits count, so that the result is never later than
/// what was meant.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    rfc3339(text).ok_or_else(|| "expected a time like 2026-11-21T19:38:24.5Z or milliseconds since 1970".into())
}

fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, "-", [4, 2, 2])?;
    // The offset begins at the first sign that no time of day has.
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, offset) = time.split_at(offset_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ":", [2, 2, 2])?;
    // A leap second is the end of the one before, as computers count.
    if hour > 23 || minute > 59 || second > 60 || fraction.is_empty() || !is_digits(fraction) {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3.3}").parse().ok()?;
    let of_day = ((hour * 60 + minute) * 60 + second.min(59)) * 1000 + ms;
    Some(days_since_epoch(year, month, day)? * MS_PER_DAY + of_day - offset_ms(offset)?)
}

/// `Z`, or how far local time is ahead, like `+02:00`.
fn offset_ms(offset: &str) -> Option<i64> {
    let sign = match offset.as_bytes().first()? {
        b'Z' | b'z' => return (offset.len() == 1).then_some(0),
        b'-' => -1,
        _ => 1,
    };
    let [hours, minutes] = numbers(&offset[1..], ":", [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// Exactly these many numbers, with so many digits each.
fn numbers<const N: usize>(text: &str, separator: &str, digits: [usize; N]) -> Option<[i64; N]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let parts: [&str; N] = parts.try_into().ok()?;
    let mut found = [0; N];
    for ((part, digits), found) in parts.into_iter().zip(digits).zip(&mut found) {
        if part.len() != digits || !is_digits(part) {
            return None;
        }
        *found = part.parse().ok()?;
    }
    Some(found)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// In the Gregorian calendar. A year is counted from March, so that the leap day is its last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_days).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1;
    // From the first of March of the year 0 to the first of January 1970.
    Some(days - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let cases = [
            ("0", 0),
            ("-5", -5),
            ("1795289904500", 1_795_289_904_500),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2026-11-21T19:38:24.5Z", 1_795_289_904_500),
            ("2026-11-21 19:38:24.5009z", 1_795_289_904_500),
            ("2026-11-21T21:38:24.500+02:00", 1_795_289_904_500),
            ("2026-11-21T14:08:24.5-05:30", 1_795_289_904_500),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut expected = days_since_epoch(1899, 12, 31).unwrap();
        for year in 1900..2101 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(days) = days_since_epoch(year, month, day) {
                        expected += 1;
                        assert_eq!(days, expected, "{year}-{month}-{day}");
                    }
                }
            }
        }
        assert_eq!(expected, days_since_epoch(2101, 1, 1).unwrap() - 1);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T19:38:24",
            "2026-11-21T19:38Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T19:38:24.Z",
            "2026-11-21T19:38:24.+1Z",
            "2026-11-21T19:38:24Z+00:00",
            "2026-11-21T19:38:24+2:00",
            "2026-11-21T19:38:24+",
            "+026-11-21T19:38:24Z",
            "1e3",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

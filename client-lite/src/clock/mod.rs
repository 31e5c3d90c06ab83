//! The calendar: dates to seconds since 1970 and back. PURE.

use std::fmt;

mod wait;

pub(crate) use wait::unset;

/// A moment as a person reads it, in UTC, without its zone: `2026-11-23T20:00:00`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Date {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, second_of_day } = self;
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// The date of a time.
pub(crate) fn date_of(unix_s: u64) -> Date {
    // Days since the first of March of the year 0, in cycles of 400 years; the steps are those of the calendar itself.
    let days = unix_s / 86_400 + DAYS_TO_1970;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    Date { year: 400 * cycle + year, month, day, second_of_day: unix_s % 86_400 }
}

/// Days of the Gregorian calendar before a date, from 1970 on.
pub(crate) fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years are counted from March, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    Some(365 * year + leap_days(year) + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970)
}

/// Whether a clock says less than any that was set can say: a time before this program was written.
fn is_unset(unix_s: u64) -> bool {
    unix_s < WRITTEN_UNIX_S
}

/// November 2026. Not the time of the build: the same sources make the same program.
const WRITTEN_UNIX_S: u64 = 1_793_500_000;

/// From the first of March of the year 0 to 1970.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_days_as_the_calendar_does() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 2, 29), Some(11_016));
        assert_eq!(days_since_1970(2026, 11, 23), Some(20_780));
        assert_eq!(days_since_1970(2026, 13, 1), None);
    }

    #[test]
    fn every_day_of_five_centuries_is_its_own_date() {
        assert!(is_unset(12) && !is_unset(WRITTEN_UNIX_S));
        assert_eq!(date_of(WRITTEN_UNIX_S).to_string(), "2026-11-01T02:26:40");
        for day in 0..183_000 {
            let date = date_of(day * 86_400 + 3_723);
            assert_eq!(days_since_1970(date.year, date.month, date.day), Some(day), "{date}");
            assert!(date.to_string().ends_with("T01:02:03"), "{date}");
        }
    }
}

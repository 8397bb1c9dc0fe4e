//! `strftime_now`: dates in UTC for chat templates that tell the model which day it is.
//!
//! Owns: the few directives that templates use. Must not: read a clock.

use cocoon_protocol::units::Timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// `now` in the words of C's `strftime`. A directive that is not known stands as it is.
pub(super) fn format(format: &str, now: Timestamp) -> String {
    let seconds = now.as_unix_secs();
    let (days, of_day) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    let month_name = name(&MONTHS, month.saturating_sub(1));
    let day_name = name(&DAYS, days % 7);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text.push_str(&year.to_string()),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('B') => text.push_str(month_name),
            Some('b') => text.extend(month_name.chars().take(3)),
            Some('A') => text.push_str(day_name),
            Some('a') => text.extend(day_name.chars().take(3)),
            Some('H') => text.push_str(&format!("{:02}", of_day / 3_600)),
            Some('M') => text.push_str(&format!("{:02}", of_day % 3_600 / 60)),
            Some('S') => text.push_str(&format!("{:02}", of_day % 60)),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

fn name(names: &'static [&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("")
}

/// Year, month and day of a day since the Unix epoch, in the Gregorian calendar: Howard Hinnant's
/// `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>, for days ≥ 0.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked against `date -u -d @SECONDS`.
    #[test]
    fn dates_agree_with_the_calendar() {
        let at =
            |seconds| format("%A %a %Y-%m-%d %B %b %H:%M:%S", Timestamp::from_unix_secs(seconds));
        assert_eq!(at(0), "Thursday Thu 1970-01-01 January Jan 00:00:00");
        assert_eq!(at(951_827_696), "Tuesday Tue 2000-02-29 February Feb 12:34:56");
        assert_eq!(at(1_795_315_199), "Sunday Sun 2026-11-22 November Nov 02:39:59");
        assert_eq!(at(4_107_542_399), "Sunday Sun 2100-02-28 February Feb 23:59:59");
        assert_eq!(at(4_107_542_400), "Monday Mon 2100-03-01 March Mar 00:00:00");
    }

    #[test]
    fn unknown_directives_stand() {
        assert_eq!(format("%q 100%% %", Timestamp::EPOCH), "%q 100% %");
    }
}

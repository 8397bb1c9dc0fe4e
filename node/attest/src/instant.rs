//! A moment as people write it.
//!
//! Owns: the two spellings. Must not: know the present.

use cocoon_protocol::units::Timestamp;
use x509_cert::der::DateTime;

/// `2026-11-22T12:00:00Z`, or whole seconds since 1970.
pub fn parse_instant(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Timestamp::from_unix_secs(seconds));
    }
    let date: DateTime = text.parse().ok()?;
    Some(Timestamp::from_unix_secs(date.unix_duration().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let moment = Some(Timestamp::from_unix_secs(1_750_414_563));
        assert_eq!(parse_instant("2025-06-20T10:16:03Z"), moment);
        assert_eq!(parse_instant("1750414563"), moment);
        for text in ["", "-1", "2025-06-20", "2025-13-20T10:16:03Z", "soon", "99999999999999999999"]
        {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }
}

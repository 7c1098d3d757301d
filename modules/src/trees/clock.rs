//! What a stage takes for "now" in what it writes.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};
use osbc_module_api::{Error, StageMeta};

/// Seconds since 1970: the source epoch where there is one, else the machine's clock.
pub(crate) fn seconds(meta: &StageMeta) -> i64 {
    meta.source_epoch.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Returns the date and time in UTC of `seconds` since 1970.
///
/// # Errors
/// It is not in the years from -9999 to 9999.
pub(crate) fn date(seconds: i64) -> Result<DateTime, Error> {
    let moment = Timestamp::from_second(seconds)
        .map_err(|_| Error::failed(format!("{seconds} seconds since 1970 are outside of the calendar")))?;
    Ok(TimeZone::UTC.to_datetime(moment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(date(seconds).unwrap().to_string(), expected);
        }
        assert!(date(i64::MAX).unwrap_err().to_string().contains("outside of the calendar"));
    }
}

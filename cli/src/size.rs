//! Parses sizes as osbuild does: bytes, a number with a full unit, or `unlimited`. `20G` is invalid.

use osbc_store::osbuild::Limit;

/// What a unit multiplies by.
const UNITS: [(&str, u64); 8] = [
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Reads a size. One beyond all disks is as large as can be counted.
pub(crate) fn parse(text: &str) -> Result<Limit, String> {
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    let trimmed = text.trim_start();
    let end = trimmed.find(|character: char| !character.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let factor = match unit.trim_start() {
        "" if unit.is_empty() => Some(1),
        unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    match (number, factor) {
        ("", _) | (_, None) => Err(format!(
            "`{text}` is no size; give bytes, `unlimited`, or a number with one of the units {}",
            UNITS.map(|(name, _)| name).join(", ")
        )),
        (number, Some(factor)) => Ok(Limit::Bytes(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_osbuild_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("21474836480", 21_474_836_480),
            ("1kB", 1000),
            ("1KiB", 1024),
            (" 5 MB", 5_000_000),
            ("20GiB", 20 << 30),
            ("3 TiB", 3 << 40),
            ("99999999999999999999999 TB", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(Limit::Bytes(bytes)), "{text:?}");
        }
        assert_eq!(parse("unlimited"), Ok(Limit::Unlimited));
        for text in ["", "20G", "20GB ", "GB", "-1", "1.5GB", "1 gb", "1kib", "infinite", "unlimited "] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}

//! Numbers on the command line.

/// A time: seconds above 0.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if seconds > 0.0 && seconds.is_finite() {
        Ok(seconds)
    } else {
        Err("a number of seconds above 0 is needed; without --seconds there is no limit".to_owned())
    }
}

/// Bytes: a whole number, or a number with a unit, as in `512MB` or `1.5GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let found = UNITS.iter().find_map(|(unit, size)| Some((lower.strip_suffix(unit)?.trim_end(), *size)));
    let (number, size) = found.unwrap_or((&lower, 1));
    let whole = || number.parse::<u64>().ok()?.checked_mul(size);
    let part = || number.parse::<f64>().ok().map(|number| number * size as f64);
    // What is beyond a u64 is as good as no bound.
    let part =
        || part().filter(|bytes| size > 1 && *bytes >= 1.0 && bytes.is_finite()).map(|bytes| bytes as u64);
    match whole().or_else(part) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("a number of bytes is needed, such as 500000000, 500MB or 1.5GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, expected) in [
            ("1", 1),
            ("500000000", 500_000_000),
            ("500MB", 500_000_000),
            ("1.5 GiB", 3 << 29),
            ("2tb", 2_000_000_000_000),
            ("3KiB", 3 << 10),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "-1", "nan", "infGB", "-2GB", "1.5", "many", "3 apples", "0.0001kB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_number_above_0() {
        assert_eq!(seconds("1.5"), Ok(1.5));
        for text in ["nan", "inf", "0", "-1", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}

//! Numbers as people read them.

use std::fmt;
use std::time::Duration;

/// A whole number with thin groups of three: "12,345".
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A rate with about three digits: "0.25", "12.5", "1,250", "3.1 M".
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if !rate.is_finite() || rate < 0.0 => f.write_str("–"),
            0.0 => f.write_str("0"),
            rate if rate < 10.0 => write!(f, "{rate:.2}"),
            rate if rate < 100.0 => write!(f, "{rate:.1}"),
            rate if rate < 1e6 => Count(rate.round() as u64).fmt(f),
            rate => write!(f, "{:.1} M", rate / 1e6),
        }
    }
}

/// Bytes in units of 1024: "512 B", "1.5 MiB".
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0.max(0.0), "B");
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            (value, unit) = (value / 1024.0, larger);
        }
        let decimals = usize::from(unit != "B" && value < 100.0);
        write!(f, "{value:.decimals$} {unit}")
    }
}

/// A time with its two largest units: "0.3 s", "42 s", "3 min 20 s", "2 d 4 h".
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match whole {
            0..=9 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            10..=59 => write!(f, "{whole} s"),
            60..=3_599 => write!(f, "{} min {} s", whole / 60, whole % 60),
            3_600..=86_399 => write!(f, "{} h {} min", whole / 3_600, whole / 60 % 60),
            _ => write!(f, "{} d {} h", whole / 86_400, whole / 3_600 % 24),
        }
    }
}

/// A share as percent: "0 %", "0.4 %", "12 %".
#[derive(Clone, Copy, Debug)]
pub(super) struct Percent(pub f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 * 100.0 {
            percent if !percent.is_finite() => f.write_str("–"),
            percent if percent.abs() < 0.05 => f.write_str("0 %"),
            percent if percent.abs() < 9.95 => write!(f, "{percent:.1} %"),
            percent => write!(f, "{percent:.0} %"),
        }
    }
}

/// "1 job", "2 jobs", "2 batches".
#[derive(Clone, Copy, Debug)]
pub(super) struct Many(pub usize, pub &'static str);

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = match self.0 {
            1 => "",
            _ if self.1.ends_with("ch") => "es",
            _ => "s",
        };
        write!(f, "{} {}{ending}", Count(self.0 as u64), self.1)
    }
}

/// A name as a part of a path.
pub(in crate::http) fn quoted(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let part = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    name.bytes().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [0, 999, 1_000, 1_234_567].map(|n| Count(n).to_string());
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let rates = [0.0, 0.256, 12.55, 1_250.4, 3.14e6, f64::NAN].map(|r| Rate(r).to_string());
        assert_eq!(rates, ["0", "0.26", "12.6", "1,250", "3.1 M", "–"]);
        let bytes = [0.0, 1023.0, 1536.0, 200.0 * 1024.0 * 1024.0].map(|b| Bytes(b).to_string());
        assert_eq!(bytes, ["0 B", "1023 B", "1.5 KiB", "200 MiB"]);
        let times =
            [0.25, 42.0, 200.0, 7_300.0, 200_000.0].map(|s| Time(Duration::from_secs_f64(s)).to_string());
        assert_eq!(times, ["0.2 s", "42 s", "3 min 20 s", "2 h 1 min", "2 d 7 h"]);
        let shares = [0.0, 0.004, 0.123, 1.0, f64::NAN].map(|p| Percent(p).to_string());
        assert_eq!(shares, ["0 %", "0.4 %", "12 %", "100 %", "–"]);
        let many = [Many(1, "job"), Many(1_200, "job"), Many(0, "batch")].map(|m| m.to_string());
        assert_eq!(many, ["1 job", "1,200 jobs", "0 batches"]);
        assert_eq!(quoted("a b/c%ü.-_"), "a%20b%2Fc%25%C3%BC.-_");
    }
}

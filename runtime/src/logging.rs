//! The log: text or JSON lines, as runc's `--log-format` has them, written whole with one call each.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Metadata, Record};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `time="..." level=... msg="..."`.
    #[default]
    Text,
    /// One object a line with the keys level, msg, time.
    Json,
}

/// The level that `--debug` and its absence mean.
#[must_use]
pub fn level(debug: bool) -> LevelFilter {
    if debug { LevelFilter::Debug } else { LevelFilter::Warn }
}

struct Logger {
    out: File,
    format: Format,
}

/// Sends this process's log to `out`, from `level` up. Only the first call counts.
pub fn init(out: OwnedFd, format: Format, level: LevelFilter) {
    let logger = Box::new(Logger { out: File::from(out), format });
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.format, record.level(), &record.args().to_string(), SystemTime::now());
            // A log that cannot be written must not stop the guest.
            let _ = (&self.out).write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn line(format: Format, level: Level, message: &str, now: SystemTime) -> String {
    let (level, time) = (level_name(level), rfc3339(now));
    match format {
        Format::Json => {
            let object = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{object}\n")
        }
        // Debug formatting quotes and escapes, so that a guest's words stay on one line.
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

/// `2026-01-02T03:04:05.678901Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = civil(days);
    let mut out = String::with_capacity(27);
    let (hour, minute, second, micros) = (rest / 3600, rest / 60 % 60, rest % 60, since.subsec_micros());
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    out
}

/// Year, month and day of a day since 1970, by counting eras of 400 years that start in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_have_runc_s_keys() {
        let time = UNIX_EPOCH + Duration::from_micros(951_827_696_000_007);
        let json = line(Format::Json, Level::Warn, "a \"b\"\nc", time);
        assert_eq!(
            json,
            "{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2000-02-29T12:34:56.000007Z\"}\n"
        );
        let text = line(Format::Text, Level::Error, "a \"b\"\nc", time);
        assert_eq!(text, "time=\"2000-02-29T12:34:56.000007Z\" level=error msg=\"a \\\"b\\\"\\nc\"\n");
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(20_453), (2025, 12, 31));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}

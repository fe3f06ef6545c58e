//! How a destination is delivered to, where the Collector has no word for it: how fast, at which hours, and what goes
//! again after it was away.

use crate::config::Section;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `extensions::spanreel::delivery::<exporter>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliverySettings {
    /// `rate_limit_kib`: KiB of request bodies a second, as encoded; default none.
    pub bytes_per_second_max: Option<u64>,
    /// `hours`; default always.
    pub hours: Option<Hours>,
    /// `resend`: what was sent within this time before the destination went away goes again when it is back, because one
    /// that answers before it writes may have lost it; default 0, at most 10 min.
    pub resend: Duration,
}

/// Longer would send again what the spool has let go of, and what metrics over traces would count twice.
const RESEND_MAX: Duration = Duration::from_secs(600);

impl DeliverySettings {
    /// Reads one exporter's section.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let rate_limit_kib = section.u64("rate_limit_kib", 0);
        let text = section.text("hours", "");
        let hours = match text.is_empty() {
            true => None,
            false => Hours::parse(&text).or_else(|| {
                let reason = format!("{text:?} is no stretch of hours");
                section.error("hours", reason, "two times of day, UTC, e.g. \"22:00-06:00\"");
                None
            }),
        };
        let resend = section.duration("resend", Duration::ZERO);
        if resend > RESEND_MAX {
            section.error("resend", "must not be above 10m", "60s covers what Tempo holds in memory alone");
        }
        Self {
            bytes_per_second_max: Some(rate_limit_kib.saturating_mul(1024)).filter(|limit| *limit > 0),
            hours,
            resend: resend.min(RESEND_MAX),
        }
    }
}

/// A daily stretch of time, minutes of the day in UTC; the end may be on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

const MINUTES_PER_DAY: u16 = 24 * 60;

impl Hours {
    /// Reads `HH:MM-HH:MM`; a stretch of no length is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let minutes = |text: &str| -> Option<u16> {
            let (hours, minutes) = text.trim().split_once(':')?;
            let is_digits =
                |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            let (hours, minutes): (u16, u16) = match is_digits(hours) && is_digits(minutes) {
                true => (hours.parse().ok()?, minutes.parse().ok()?),
                false => return None,
            };
            // 24:00 is the end of a day.
            let of_day = hours * 60 + minutes;
            (minutes < 60 && of_day <= MINUTES_PER_DAY).then_some(of_day % MINUTES_PER_DAY)
        };
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minutes(from)?, minutes(to)?);
        (from != to).then_some(Self { from, to })
    }

    /// How long until the stretch begins, at a second of the day; `None` within it.
    pub fn closed_for(self, second_of_day: u32) -> Option<Duration> {
        let minute = second_of_day / 60 % u32::from(MINUTES_PER_DAY);
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        let is_open = match from < to {
            true => (from..to).contains(&minute),
            false => minute >= from || minute < to,
        };
        let day = u32::from(MINUTES_PER_DAY) * 60;
        (!is_open).then(|| Duration::from_secs(u64::from((from * 60 + day - second_of_day % day) % day)))
    }
}

/// The second of the day, UTC: what containers have, and nothing that jumps in spring.
pub(super) fn second_of_day() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs() % (24 * 3600)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_two_times_of_day() {
        for text in
            ["", "22", "22:00", "22:00-22:00", "25:00-01:00", "1:60-2:00", "00:00-24:00", "a:b-c:d", "+1:00-2:00"]
        {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
        assert_eq!(Hours::parse("6:30 - 7:00"), Some(Hours { from: 390, to: 420 }));
        assert_eq!(Hours::parse("18:00-24:00"), Some(Hours { from: 1080, to: 0 }));
    }

    #[test]
    fn a_stretch_over_midnight_is_open_on_both_sides_of_it() {
        let night = Hours::parse("22:00-06:00").unwrap();
        let at = |hour: u32, minute: u32| night.closed_for(hour * 3600 + minute * 60 + 30);
        assert_eq!((at(22, 0), at(23, 59), at(0, 0), at(5, 59)), (None, None, None, None));
        assert_eq!(at(6, 0), Some(Duration::from_secs(16 * 3600 - 30)));
        assert_eq!(at(21, 59), Some(Duration::from_secs(30)));
        let day = Hours::parse("06:00-22:00").unwrap();
        assert_eq!(day.closed_for(5 * 3600), Some(Duration::from_secs(3600)));
        assert_eq!(day.closed_for(23 * 3600), Some(Duration::from_secs(7 * 3600)));
        assert_eq!(day.closed_for(12 * 3600), None);
    }
}

//! Moments as API Gateway writes them.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// The Common Log Format: `19/Feb/2024:07:11:42 +0000`.
const COMMON_LOG: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

/// ISO 8601 with milliseconds, as GetConnection answers.
const ISO_8601: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

impl Moment {
    /// The present one.
    pub(super) fn now() -> Self {
        let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
        Self(i64::try_from(nanoseconds / 1_000_000).expect("the clock is within a hundred million years of 1970"))
    }

    /// The one so many milliseconds after 1970.
    pub(super) fn from_epoch_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since 1970.
    pub(super) fn epoch_milliseconds(self) -> i64 {
        self.0
    }

    /// As `requestTime` has it.
    pub(super) fn common_log(self) -> String {
        self.format(COMMON_LOG)
    }

    /// As `connectedAt` of GetConnection has it.
    pub(super) fn iso_8601(self) -> String {
        self.format(ISO_8601)
    }

    fn format(self, description: &[BorrowedFormatItem<'_>]) -> String {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .to_offset(UtcOffset::UTC);
        time.format(description).expect("every component of the description is in a date with time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_moment_is_written_as_captured() {
        let moment = Moment::from_epoch_milliseconds(1_708_326_702_790);
        assert_eq!(moment.common_log(), "19/Feb/2024:07:11:42 +0000");
        assert_eq!(moment.iso_8601(), "2024-02-19T07:11:42.790Z");
        assert_eq!(moment.epoch_milliseconds(), 1_708_326_702_790);
    }
}

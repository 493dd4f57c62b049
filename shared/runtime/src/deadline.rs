//! When an invocation ends.

use carillon_core::time::Millis;
use lambda_runtime::Context;

/// When the invocation ends. None where that is not known: `cargo lambda watch` sends 600,000, which is ten minutes after 1970, so
/// a deadline that has passed when the invocation begins is none.
#[must_use]
pub fn deadline(context: &Context, now: Millis) -> Option<Millis> {
    (context.deadline > now.0).then_some(Millis(context.deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_is_none() {
        let now = Millis(1_700_000_000_000);
        let of = |milliseconds| {
            let mut context = Context::default();
            context.deadline = milliseconds;
            deadline(&context, now)
        };
        assert_eq!(of(now.0 + 15_000), Some(Millis(now.0 + 15_000)));
        assert_eq!(of(now.0 + 1), Some(Millis(now.0 + 1)));
        for passed in [0, 600_000, now.0] {
            assert_eq!(of(passed), None, "{passed}");
        }
    }
}

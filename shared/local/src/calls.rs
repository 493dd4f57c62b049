//! Counts what the emulated services are asked, so that the cost of an operation can be told in calls and capacity units.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// The most rows. Targets such as topics can be any number; what comes beyond is counted under [`OTHERS`]. Our choice.
const MAXIMUM_ROWS: usize = 10_000;

/// The target of what has no row of its own.
const OTHERS: &str = "others";

/// The counters of a stack. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    rows: Arc<Mutex<BTreeMap<Key, Count>>>,
}

/// Service, operation and target.
type Key = (&'static str, String, String);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    calls: u64,
    units: Units,
}

/// DynamoDB's capacity units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Units {
    /// Read units.
    pub read: f64,
    /// Write units.
    pub write: f64,
}

/// How often one operation was called on one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallCount {
    /// The service as signatures name it: `dynamodb`, `sqs`, `events`, `lambda`, `execute-api` or `iotdata`.
    pub service: String,
    /// The operation, as AWS names it.
    pub operation: String,
    /// The table, queue, bus, function, WebSocket API, topic or client; several tables are joined by commas.
    pub target: String,
    /// How often.
    pub count: u64,
    /// Consumed read units; 0 but for DynamoDB.
    pub read_units: f64,
    /// Consumed write units; 0 but for DynamoDB.
    pub write_units: f64,
}

impl Calls {
    /// Counts a call.
    pub fn record(&self, service: &'static str, operation: &str, target: &str) {
        self.record_with_units(service, operation, target, Units::default());
    }

    /// Counts a call that consumed capacity.
    pub fn record_with_units(&self, service: &'static str, operation: &str, target: &str, units: Units) {
        let mut rows = self.lock();
        let mut key = (service, operation.to_owned(), target.to_owned());
        if rows.len() >= MAXIMUM_ROWS && !rows.contains_key(&key) {
            OTHERS.clone_into(&mut key.2);
        }
        let count = rows.entry(key).or_default();
        count.calls += 1;
        count.units.read += units.read;
        count.units.write += units.write;
    }

    /// What was counted so far, by service, operation and target.
    #[must_use]
    pub fn snapshot(&self) -> Vec<CallCount> {
        let rows = self.lock();
        let row = |((service, operation, target), count): (&Key, &Count)| CallCount {
            service: (*service).to_owned(),
            operation: operation.clone(),
            target: target.clone(),
            count: count.calls,
            read_units: count.units.read,
            write_units: count.units.write,
        };
        rows.iter().map(row).collect()
    }

    /// Begins to count anew.
    pub fn reset(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Count>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, MAXIMUM_ROWS, OTHERS, Units};

    #[test]
    fn calls_add_up_by_service_operation_and_target() {
        let calls = Calls::default();
        let units = Units { read: 0.5, write: 2.0 };
        calls.record("sqs", "SendMessage", "queue");
        calls.record_with_units("dynamodb", "PutItem", "table", units);
        calls.clone().record_with_units("dynamodb", "PutItem", "table", units);
        let rows = calls.snapshot();
        let rows = rows.iter().map(|row| (row.service.as_str(), row.target.as_str(), row.count, row.read_units, row.write_units));
        assert_eq!(rows.collect::<Vec<_>>(), [("dynamodb", "table", 2, 1.0, 4.0), ("sqs", "queue", 1, 0.0, 0.0)]);
        calls.reset();
        assert_eq!(calls.snapshot(), []);
    }

    #[test]
    fn rows_are_bounded() {
        let calls = Calls::default();
        for number in 0..MAXIMUM_ROWS + 7 {
            calls.record("iotdata", "Publish", &number.to_string());
        }
        calls.record("iotdata", "Publish", "0");
        let rows = calls.snapshot();
        assert_eq!(rows.len(), MAXIMUM_ROWS + 1);
        let count = |target: &str| rows.iter().find(|row| row.target == target).map(|row| row.count);
        assert_eq!((count("0"), count(OTHERS)), (Some(2), Some(7)));
    }
}

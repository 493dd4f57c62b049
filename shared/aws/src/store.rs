//! Everything that is stored, in two DynamoDB tables: log and registry (docs/delivery.md, "Tables").
//!
//! | module | what it holds |
//! |---|---|
//! | `keys` | the keys of every row |
//! | `rows` | rows as items, and items as rows |
//! | `calls` | the calls, with what became of their conditions |
//! | `log`, `heads`, `shards`, `leases`, `subscriptions`, `connections`, `namespaces` | one port each |
//!
//! Reads are strongly consistent. Throttled calls are sent again by the SDK, three tries in all; a write that meets a transaction
//! at its row is sent again here. Nothing is read or written in batches, so there are no unprocessed keys.

mod calls;
mod connections;
mod heads;
mod keys;
mod leases;
mod log;
mod namespaces;
mod rows;
mod shards;
mod subscriptions;

use crate::config::AwsConfig;
use aws_sdk_dynamodb::Client;

/// Everything that is stored, in DynamoDB. Clones share the client.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    log_table: String,
    registry_table: String,
}

impl DynamoStore {
    /// The store in these two tables.
    #[must_use]
    pub fn new(config: &AwsConfig, log_table: impl Into<String>, registry_table: impl Into<String>) -> Self {
        Self { client: Client::new(config.sdk()), log_table: log_table.into(), registry_table: registry_table.into() }
    }
}

//! The namespaces' options.
//!
//! Each namespace has two rows, written in one transaction: its own, and one in an index that all namespaces share, so that a list
//! is one query instead of a scan over the registry.

use super::calls::{Transaction, query_all, transact};
use super::rows::{attribute, number};
use super::{DynamoStore, keys, rows};
use aws_sdk_dynamodb::types::{TransactWriteItem, Update};
use carillon_core::channel::Namespace;
use carillon_core::namespace::NamespaceOptions;
use carillon_engine::ports::{Answer, Namespaces, PortError};
use std::time::Duration;

/// Tries of setting options while somebody else sets those of the same namespace.
const TRIES: u32 = 5;

/// The wait before another try is a random part of this.
const BACKOFF: Duration = Duration::from_millis(100);

const READ: &str = "reading a namespace";
const WRITE: &str = "setting a namespace's options";
const LIST: &str = "listing the namespaces";

impl Namespaces for DynamoStore {
    async fn namespace(&self, namespace: &Namespace) -> Answer<Option<NamespaceOptions>> {
        let item = self.get(READ, &keys::namespace(namespace)).await?;
        Ok(item.as_ref().map(rows::namespace_options))
    }

    async fn set_namespace(&self, namespace: &Namespace, options: &NamespaceOptions) -> Answer<()> {
        let actions = [keys::namespace(namespace), keys::namespace_index(namespace)]
            .map(|key| TransactWriteItem::builder().update(self.set_options(&key, options)).build())
            .to_vec();
        for _ in 0..TRIES {
            // Nothing has a condition, so what cancels it is another transaction, or the table's rate.
            match transact(self, WRITE, actions.clone()).await? {
                Transaction::Done => return Ok(()),
                Transaction::Cancelled(_) => tokio::time::sleep(BACKOFF.mul_f64(rand::random::<f64>())).await,
            }
        }
        Err(PortError::new(WRITE, "other transactions kept cancelling it"))
    }

    async fn namespaces(&self) -> Answer<Vec<(Namespace, NamespaceOptions)>> {
        let request = self.partition(&self.registry_table, keys::NAMESPACE_INDEX).key_condition_expression("#pk = :pk");
        query_all(LIST, request)
            .await?
            .iter()
            .map(|item| Ok((rows::indexed_namespace(item)?, rows::namespace_options(item))))
            .collect::<Result<_, rows::RowError>>()
            .map_err(|error| PortError::new(LIST, error))
    }
}

impl DynamoStore {
    /// Sets the options and nothing else: a namespace's row has attributes of other features.
    fn set_options(&self, key: &keys::Key, options: &NamespaceOptions) -> Update {
        let mut update = Update::builder().table_name(&self.registry_table).set_key(Some(key.item()));
        let mut settings = Vec::new();
        let since = options.mqtt_since.map(|since| (attribute::MQTT_SINCE, since.0));
        for (name, value) in options.values().into_iter().chain(since) {
            settings.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), number(value));
        }
        update.update_expression(format!("SET {}", settings.join(", "))).build().expect("key, table and expression are set")
    }
}

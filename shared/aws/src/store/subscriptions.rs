//! The subscriptions of a shard (S1, S6, D2, D3).

use super::calls::{Written, alive_at, delete, names, put, update, values};
use super::keys::SUBSCRIPTION_PREFIX;
use super::rows::{attribute, number, text};
use super::{DynamoStore, keys, rows};
use crate::failure::failed;
use carillon_core::connection::ConnectionId;
use carillon_core::position::Position;
use carillon_core::time::Millis;
use carillon_engine::ports::{Answer, PortError, Subscriptions};
use carillon_engine::rows::{PutOutcome, ShardKey, Subscription, SubscriptionState};

/// Rows of one page: a full shard (S5) with room for the late ones. At some 200 bytes a row it costs about 25 read units.
const PAGE_ROWS: i32 = 500;

const WRITE: &str = "writing a subscription";
const READ: &str = "reading subscriptions";
const MOVE: &str = "moving a subscription";
const DELETE: &str = "deleting a subscription";

impl Subscriptions for DynamoStore {
    async fn subscribe(&self, row: &Subscription, replace: bool, now: Millis) -> Answer<PutOutcome> {
        let mut request = self.client.put_item().table_name(&self.registry_table).set_item(Some(rows::subscription(row)));
        if !replace {
            request = request
                .condition_expression("attribute_not_exists(#pk) OR #exp < :now")
                .set_expression_attribute_names(names([keys::PK, attribute::EXP]))
                .set_expression_attribute_values(values([(":now", alive_at(now))]));
        }
        match put(WRITE, request).await? {
            Written::Done(_) => Ok(PutOutcome::Put),
            Written::Refused(item) => {
                let there = rows::read_subscription(&row.key, &item).map_err(|error| PortError::new(WRITE, error))?;
                // The same `rid`: an earlier try of the SDK was written, and its answer lost.
                Ok(if there.rid == row.rid { PutOutcome::Put } else { PutOutcome::Kept(there) })
            }
        }
    }

    async fn page(&self, key: &ShardKey, after: Option<&ConnectionId>, now: Millis) -> Answer<(Vec<Subscription>, bool)> {
        // The shard's own row sorts before its subscriptions, and nothing sorts behind them.
        let after = after.map_or(SUBSCRIPTION_PREFIX.to_owned(), |id| format!("{SUBSCRIPTION_PREFIX}{id}"));
        let request = self
            .partition(&self.registry_table, &keys::shard_partition(key))
            .key_condition_expression("#pk = :pk AND #sk > :after")
            .expression_attribute_names("#sk", keys::SK)
            .expression_attribute_values(":after", text(after))
            .limit(PAGE_ROWS);
        let mut from = None;
        loop {
            let output = Box::pin(request.clone().set_exclusive_start_key(from).send()).await;
            let output = output.map_err(|error| failed(READ, error))?;
            let mut page = Vec::new();
            for item in output.items.unwrap_or_default().iter().filter(|item| !rows::is_expired(item, now)) {
                match rows::read_subscription(key, item) {
                    Ok(row) => page.push(row),
                    // One row that other code wrote must not keep a whole shard from its messages.
                    Err(error) => {
                        tracing::error!(shard.key = %key, error.chain = %error, "a subscription cannot be read and is passed over");
                    }
                }
            }
            from = output.last_evaluated_key;
            // A caller goes on after the last row of a page, so a page that is not the last has one.
            if !page.is_empty() || from.is_none() {
                return Ok((page, from.is_some()));
            }
        }
    }

    async fn move_to(&self, row: &Subscription, from: Position, state: SubscriptionState) -> Answer<bool> {
        let request = self
            .change(&keys::subscription(&row.key, &row.connection))
            .update_expression("SET #from = :from, #epoch = :epoch, #state = :state")
            .condition_expression("#rid = :rid")
            .set_expression_attribute_names(names([attribute::FROM, attribute::EPOCH, attribute::STATE, attribute::RID]))
            .set_expression_attribute_values(values([
                (":from", number(from.offset)),
                (":epoch", number(from.epoch.0)),
                (":state", rows::state(state)),
                (":rid", text(&row.rid)),
            ]));
        update(MOVE, request).await.map(|written| written.is_done())
    }

    async fn unsubscribe(&self, key: &ShardKey, connection: &ConnectionId, rid: &str) -> Answer<bool> {
        self.delete_of(DELETE, &keys::subscription(key, connection), rid).await
    }
}

impl DynamoStore {
    /// Deletes a row on condition of its `rid`.
    pub(crate) async fn delete_of(&self, operation: &'static str, key: &keys::Key, rid: &str) -> Answer<bool> {
        let request = self
            .client
            .delete_item()
            .table_name(&self.registry_table)
            .set_key(Some(key.item()))
            .condition_expression("#rid = :rid")
            .set_expression_attribute_names(names([attribute::RID]))
            .set_expression_attribute_values(values([(":rid", text(rid))]));
        delete(operation, request).await.map(|written| written.is_done())
    }
}

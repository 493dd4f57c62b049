//! The shards' rows, as the drain uses them (D1, D4 to D6).

use super::calls::{Objection, Transaction, Written, alive_at, names, transact, update, values};
use super::rows::{attribute, number, number_set, text};
use super::{DynamoStore, keys, rows};
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use carillon_core::position::Position;
use carillon_core::time::Millis;
use carillon_engine::ports::{Answer, Leases, PortError};
use carillon_engine::rows::{Checkpoint, Leased, Released, ShardKey};
use std::collections::HashMap;

const ACQUIRE: &str = "acquiring a lease";
const CHECKPOINT: &str = "writing a checkpoint";
const ADVANCE: &str = "moving a cursor";
const RELEASE: &str = "releasing a lease";
const POSTPONE: &str = "postponing a drain";
const UNLIST: &str = "unlisting a shard";

impl Leases for DynamoStore {
    /// Where the answer to a first try was lost, the SDK's second finds the lease held under `owner` and says so: the wake-up then
    /// comes back after the lease has lapsed. To take it as ours would let two invocations of one message drain side by side.
    async fn acquire(&self, key: &ShardKey, owner: &str, until: Millis, now: Millis) -> Answer<Leased> {
        let request = self
            .change(&keys::shard(key))
            .update_expression("SET #owner = :owner, #until = :until")
            .condition_expression("#exp >= :alive AND (attribute_not_exists(#owner) OR #until < :now)")
            .set_expression_attribute_names(names([attribute::OWNER, attribute::UNTIL, attribute::EXP]))
            .set_expression_attribute_values(values([
                (":owner", text(owner)),
                (":until", number(until.0)),
                (":alive", alive_at(now)),
                (":now", number(now.0)),
            ]));
        match update(ACQUIRE, request).await? {
            Written::Done(item) => rows::shard(&item).map(Leased::Acquired).map_err(|error| PortError::new(ACQUIRE, error)),
            Written::Refused(item) if item.is_empty() || rows::is_expired(&item, now) => Ok(Leased::Absent),
            Written::Refused(item) => Ok(Leased::Held(rows::owner(&item).unwrap_or_default().to_owned())),
        }
    }

    async fn checkpoint(&self, key: &ShardKey, owner: &str, checkpoint: &Checkpoint) -> Answer<bool> {
        let request = self
            .change(&keys::shard(key))
            .update_expression("SET #checkpoint = :checkpoint")
            .condition_expression("#owner = :owner")
            .set_expression_attribute_names(names([attribute::OWNER, attribute::CHECKPOINT]))
            .set_expression_attribute_values(values([(":owner", text(owner)), (":checkpoint", rows::checkpoint(checkpoint))]));
        update(CHECKPOINT, request).await.map(|written| written.is_done())
    }

    async fn advance(&self, key: &ShardKey, owner: &str, cursor: Position) -> Answer<bool> {
        let request = self
            .change(&keys::shard(key))
            .update_expression("SET #cursor = :cursor REMOVE #checkpoint")
            .condition_expression("#owner = :owner")
            .set_expression_attribute_names(names([attribute::OWNER, attribute::CURSOR, attribute::CHECKPOINT]))
            .set_expression_attribute_values(values([(":owner", text(owner)), (":cursor", rows::position(cursor))]));
        update(ADVANCE, request).await.map(|written| written.is_done())
    }

    async fn release(&self, key: &ShardKey, owner: &str, cursor: Option<Position>, generation: Option<u64>) -> Answer<Released> {
        let mut change = vec![];
        let mut remove = vec!["#owner", "#until"];
        let mut condition = "#owner = :owner".to_owned();
        let mut placeholders = HashMap::from([name(attribute::OWNER), name(attribute::UNTIL)]);
        let mut contents = HashMap::from([(":owner".to_owned(), text(owner))]);
        if let Some(cursor) = cursor {
            change.push("SET #cursor = :cursor");
            placeholders.extend([name(attribute::CURSOR)]);
            contents.insert(":cursor".to_owned(), rows::position(cursor));
        }
        if let Some(generation) = generation {
            remove.push("#checkpoint");
            condition.push_str(" AND #gen = :gen");
            placeholders.extend([name(attribute::CHECKPOINT), name(attribute::GEN)]);
            contents.insert(":gen".to_owned(), number(generation));
        }
        let remove = format!("REMOVE {}", remove.join(", "));
        change.push(&remove);
        let request = self
            .change(&keys::shard(key))
            .update_expression(change.join(" "))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(placeholders))
            .set_expression_attribute_values(Some(contents));
        match update(RELEASE, request).await? {
            Written::Done(_) => Ok(Released::Done),
            Written::Refused(item) if rows::owner(&item) == Some(owner) => Ok(Released::Changed),
            Written::Refused(_) => Ok(Released::Lost),
        }
    }

    async fn postpone(&self, key: &ShardKey, owner: &str, cursor: Option<Position>, retry_at: Millis) -> Answer<bool> {
        let mut set = "SET #retryAt = :retryAt".to_owned();
        let mut placeholders = HashMap::from([name(attribute::OWNER), name(attribute::UNTIL), name(attribute::RETRY_AT)]);
        let mut contents = HashMap::from([(":owner".to_owned(), text(owner)), (":retryAt".to_owned(), number(retry_at.0))]);
        if let Some(cursor) = cursor {
            set.push_str(", #cursor = :cursor");
            placeholders.extend([name(attribute::CURSOR)]);
            contents.insert(":cursor".to_owned(), rows::position(cursor));
        }
        let request = self
            .change(&keys::shard(key))
            .update_expression(format!("{set} REMOVE #owner, #until"))
            .condition_expression("#owner = :owner")
            .set_expression_attribute_names(Some(placeholders))
            .set_expression_attribute_values(Some(contents));
        update(POSTPONE, request).await.map(|written| written.is_done())
    }

    async fn unlist(&self, key: &ShardKey, owner: &str, generation: u64) -> Answer<bool> {
        let shard = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::shard(key).item()))
            .update_expression("SET #listed = :no REMOVE #cursor, #checkpoint, #owner, #until")
            .condition_expression("#owner = :owner AND #gen = :gen")
            .set_expression_attribute_names(names([
                attribute::LISTED,
                attribute::CURSOR,
                attribute::CHECKPOINT,
                attribute::OWNER,
                attribute::UNTIL,
                attribute::GEN,
            ]))
            .set_expression_attribute_values(values([
                (":no", AttributeValue::Bool(false)),
                (":owner", text(owner)),
                (":gen", number(generation)),
            ]))
            .build()
            .expect("key, table and expression are set");
        // Without its condition an update would make a head where there is none.
        let head = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::head(&key.channel).item()))
            .update_expression("DELETE #listed :k")
            .condition_expression("attribute_exists(#pk)")
            .set_expression_attribute_names(names([keys::PK, attribute::LISTED]))
            .set_expression_attribute_values(values([(":k", number_set(key.shard))]))
            .build()
            .expect("key, table and expression are set");
        let [shard, head] = [shard, head].map(|update| TransactWriteItem::builder().update(update).build());
        let objections = match transact(self, UNLIST, vec![shard.clone(), head]).await? {
            Transaction::Done => return Ok(true),
            Transaction::Cancelled(objections) => objections,
        };
        // A head that is gone lists nothing: the shard alone is left to be changed.
        match objections.as_slice() {
            [Objection::None, Objection::Refused(_)] => {
                Ok(matches!(transact(self, UNLIST, vec![shard]).await?, Transaction::Done))
            }
            _ => Ok(false),
        }
    }
}

fn name(attribute: &str) -> (String, String) {
    (format!("#{attribute}"), attribute.to_owned())
}

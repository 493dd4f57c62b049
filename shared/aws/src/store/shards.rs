//! The shards' rows, as subscribers and publishers use them (S2, D1).

use super::calls::{Objection, Transaction, Written, alive_at, names, put, transact, update, values};
use super::rows::{Item, attribute, number, number_set};
use super::{DynamoStore, keys, rows};
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use carillon_core::time::{Millis, Seconds};
use carillon_engine::ports::{Answer, PortError, Shards};
use carillon_engine::rows::{ListOutcome, Shard, ShardKey};

/// Tries of an arrival at an expired row while others arrive there too.
const ARRIVE_TRIES: u32 = 4;

const READ: &str = "reading a shard";
const ARRIVE: &str = "arriving at a shard";
const BUMP: &str = "counting up a shard's generation";
const LIST: &str = "listing a shard";
const EXTEND: &str = "extending a shard's life";

impl Shards for DynamoStore {
    async fn shard(&self, key: &ShardKey, now: Millis) -> Answer<Option<Shard>> {
        let item = self.get(READ, &keys::shard(key)).await?;
        item.filter(|item| !rows::is_expired(item, now)).map(|item| read(READ, &item)).transpose()
    }

    async fn arrive(&self, key: &ShardKey, exp: Seconds, now: Millis) -> Answer<Shard> {
        let count = self
            .change(&keys::shard(key))
            .update_expression("ADD #gen :one, #n :one SET #exp = if_not_exists(#exp, :exp)")
            .condition_expression("attribute_not_exists(#pk) OR #exp >= :now")
            .set_expression_attribute_names(names([keys::PK, attribute::GEN, attribute::N, attribute::EXP]))
            .set_expression_attribute_values(values([(":one", number(1_u64)), (":exp", number(exp.0)), (":now", alive_at(now))]));
        for _ in 0..ARRIVE_TRIES {
            let expired = match update(ARRIVE, count.clone()).await? {
                Written::Done(item) => return read(ARRIVE, &item),
                Written::Refused(expired) => expired,
            };
            // `gen` goes on, so that whoever still drains the expired row sees that it has changed.
            let before = rows::generation(&expired).map_err(|error| PortError::new(ARRIVE, error))?;
            let item = rows::new_shard(key, before + 1, exp);
            let new = read(ARRIVE, &item)?;
            let replace = self
                .client
                .put_item()
                .table_name(&self.registry_table)
                .set_item(Some(item))
                .condition_expression("#gen = :before AND #exp < :now")
                .set_expression_attribute_names(names([attribute::GEN, attribute::EXP]))
                .set_expression_attribute_values(values([(":before", number(before)), (":now", alive_at(now))]));
            if put(ARRIVE, replace).await?.is_done() {
                return Ok(new);
            }
        }
        Err(PortError::new(ARRIVE, "the shard kept changing"))
    }

    async fn bump(&self, key: &ShardKey, now: Millis) -> Answer<()> {
        let request = self
            .change(&keys::shard(key))
            .update_expression("ADD #gen :one")
            .condition_expression("#exp >= :now")
            .set_expression_attribute_names(names([attribute::GEN, attribute::EXP]))
            .set_expression_attribute_values(values([(":one", number(1_u64)), (":now", alive_at(now))]));
        update(BUMP, request).await.map(drop)
    }

    async fn list(&self, key: &ShardKey, now: Millis) -> Answer<ListOutcome> {
        let shard = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::shard(key).item()))
            .update_expression("SET #listed = :yes")
            .condition_expression("#exp >= :now")
            .set_expression_attribute_names(names([attribute::LISTED, attribute::EXP]))
            .set_expression_attribute_values(values([(":yes", AttributeValue::Bool(true)), (":now", alive_at(now))]))
            .build()
            .expect("key, table and expression are set");
        let head = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::head(&key.channel).item()))
            .update_expression("ADD #listed :k")
            .condition_expression("#exp >= :now")
            .set_expression_attribute_names(names([attribute::LISTED, attribute::EXP]))
            .set_expression_attribute_values(values([(":k", number_set(key.shard)), (":now", alive_at(now))]))
            .build()
            .expect("key, table and expression are set");
        let actions = [shard, head].map(|update| TransactWriteItem::builder().update(update).build()).to_vec();
        match transact(self, LIST, actions).await? {
            Transaction::Done => Ok(ListOutcome::Done),
            Transaction::Cancelled(objections) => {
                let missing = objections.iter().any(|objection| matches!(objection, Objection::Refused(_)));
                tracing::debug!(shard.key = %key, shard.missing = missing, "a shard could not be listed");
                Ok(ListOutcome::Conflict)
            }
        }
    }

    async fn extend_shard(&self, key: &ShardKey, exp: Seconds, now: Millis) -> Answer<()> {
        self.extend(EXTEND, &keys::shard(key), exp, now).await
    }
}

fn read(operation: &'static str, item: &Item) -> Answer<Shard> {
    rows::shard(item).map_err(|error| PortError::new(operation, error))
}

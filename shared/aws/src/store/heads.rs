//! The heads of the channels.

use super::calls::{Written, alive_at, names, put, update, values};
use super::rows::{Item, attribute, number};
use super::{DynamoStore, keys, rows};
use carillon_core::channel::Channel;
use carillon_core::position::Epoch;
use carillon_core::time::{Millis, Seconds};
use carillon_engine::ports::{Answer, Heads, PortError};
use carillon_engine::rows::Head;

/// Tries of making a head while others make or change it.
const CREATE_TRIES: u32 = 4;

const READ: &str = "reading a head";
const CREATE: &str = "making a head";
const EXTEND: &str = "extending a head's life";
const ADD_SHARD: &str = "adding a shard";

impl Heads for DynamoStore {
    async fn head(&self, channel: &Channel, now: Millis) -> Answer<Option<Head>> {
        let item = self.get(READ, &keys::head(channel)).await?;
        item.filter(|item| !rows::is_expired(item, now)).map(|item| read(READ, &item)).transpose()
    }

    async fn create_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> Answer<Head> {
        let mut expired: Option<Head> = None;
        for _ in 0..CREATE_TRIES {
            let epoch = Epoch::next(expired.as_ref().map(|head| head.epoch), now);
            let item = rows::new_head(channel, epoch, exp);
            let new = read(CREATE, &item)?;
            let request = self.client.put_item().table_name(&self.registry_table).set_item(Some(item));
            let request = match &expired {
                None => {
                    request.condition_expression("attribute_not_exists(#pk)").set_expression_attribute_names(names([keys::PK]))
                }
                // T1: on condition that it still is the one whose epoch was counted on from.
                Some(head) => request
                    .condition_expression("attribute_not_exists(#pk) OR (#epoch = :epoch AND #exp < :now)")
                    .set_expression_attribute_names(names([keys::PK, attribute::EPOCH, attribute::EXP]))
                    .set_expression_attribute_values(values([(":epoch", number(head.epoch.0)), (":now", alive_at(now))])),
            };
            match put(CREATE, request).await? {
                Written::Done(_) => return Ok(new),
                Written::Refused(there) => {
                    let head = read(CREATE, &there)?;
                    if !head.exp.has_passed(now) {
                        return Ok(head);
                    }
                    expired = Some(head);
                }
            }
        }
        Err(PortError::new(CREATE, "the head kept changing"))
    }

    async fn extend_head(&self, channel: &Channel, exp: Seconds, now: Millis) -> Answer<()> {
        self.extend(EXTEND, &keys::head(channel), exp, now).await
    }

    async fn add_shard(&self, channel: &Channel, full: u32, now: Millis) -> Answer<()> {
        let request = self
            .change(&keys::head(channel))
            .update_expression("SET #s = :next")
            .condition_expression("#s = :full AND #exp >= :now")
            .set_expression_attribute_names(names([attribute::S, attribute::EXP]))
            .set_expression_attribute_values(values([
                (":full", number(full)),
                (":next", number(u64::from(full) + 1)),
                (":now", alive_at(now)),
            ]));
        update(ADD_SHARD, request).await.map(drop)
    }
}

impl DynamoStore {
    /// Lets a row that is there live until `exp` at least.
    pub(crate) async fn extend(&self, operation: &'static str, key: &keys::Key, exp: Seconds, now: Millis) -> Answer<()> {
        let request = self
            .change(key)
            .update_expression("SET #exp = :exp")
            .condition_expression("#exp >= :now AND #exp < :exp")
            .set_expression_attribute_names(names([attribute::EXP]))
            .set_expression_attribute_values(values([(":exp", number(exp.0)), (":now", alive_at(now))]));
        update(operation, request).await.map(drop)
    }
}

fn read(operation: &'static str, item: &Item) -> Answer<Head> {
    rows::head(item).map_err(|error| PortError::new(operation, error))
}

//! The log's entries (A1 to A5).

use super::calls::{Objection, Transaction, Write, alive_at, names, put_once, transact, values};
use super::rows::{Item, attribute, number, text};
use super::{DynamoStore, keys, rows};
use crate::failure::failed;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use carillon_core::channel::Channel;
use carillon_core::position::{Epoch, Position};
use carillon_core::time::Millis;
use carillon_engine::ports::{Answer, Heads, Log, PortError};
use carillon_engine::rows::{AppendOutcome, Logged, NewEntry, Previous, RotateOutcome, Rotation, Tail, Window};
use std::collections::HashMap;

/// Nothing is ever written over an entry, expired or not: a position names one message for ever.
const OFFSET_IS_FREE: &str = "attribute_not_exists(#pk)";

const READ: &str = "reading the log";
const APPEND: &str = "appending to the log";
const ROTATE: &str = "beginning a new epoch";

impl Log for DynamoStore {
    async fn newest(&self, channel: &Channel, epoch: Epoch, now: Millis) -> Answer<Option<Tail>> {
        // One entry is enough: `exp` never decreases along the log (A2), so behind an expired one there is none that lives.
        let request = self
            .partition(&self.log_table, &keys::epoch(channel, epoch))
            .key_condition_expression("#pk = :pk")
            .scan_index_forward(false)
            .limit(1)
            .projection_expression("#sk, #n, #exp")
            .set_expression_attribute_names(names([keys::PK, keys::SK, attribute::N, attribute::EXP]));
        let output = Box::pin(request.send()).await.map_err(|error| failed(READ, error))?;
        let newest = output.items.unwrap_or_default().into_iter().find(|entry| !rows::is_expired(entry, now));
        newest.map(|entry| rows::tail(&entry)).transpose().map_err(|error| PortError::new(READ, error))
    }

    /// One call where an entry begins right after `after`; two where the messages wanted begin inside an entry, or there are none.
    async fn read(
        &self,
        channel: &Channel,
        epoch: Epoch,
        after: u64,
        upto: Option<u64>,
        limit: usize,
        now: Millis,
    ) -> Answer<Window> {
        let upto = upto.unwrap_or(LAST_OFFSET).min(LAST_OFFSET);
        if after >= upto {
            return Ok(Window::default());
        }
        let mut reading = Reading { after, upto, limit, now, window: Window::default() };
        let forwards = self
            .entries(channel, epoch)
            .expression_attribute_values(":first", text(keys::offset(after + 1)))
            .expression_attribute_values(":last", text(keys::offset(upto)))
            .limit(reading.page_rows());
        let mut from = None;
        let mut looked_back = false;
        loop {
            let request = forwards.clone().set_exclusive_start_key(from);
            let page = Box::pin(request.send()).await.map_err(|error| failed(READ, error))?;
            let entries = page.items.unwrap_or_default();
            if !looked_back {
                looked_back = true;
                let begins_there = entries.first().is_some_and(|entry| begins_at(entry, after + 1));
                if !begins_there && after > 0 {
                    reading.take(self.entry_before(channel, epoch, after).await?)?;
                }
            }
            reading.take(entries)?;
            from = page.last_evaluated_key;
            if from.is_none() || reading.window.full {
                return Ok(reading.window);
            }
        }
    }

    async fn append(&self, entry: &NewEntry, now: Millis) -> Answer<AppendOutcome> {
        let markers: Vec<_> = entry
            .messages
            .iter()
            .enumerate()
            .filter_map(|(index, message)| Some((index, keys::marker(&entry.channel, message.identity.as_ref()?))))
            .collect();
        let item = rows::entry(entry);
        if markers.is_empty() && !entry.starts {
            let request = self
                .client
                .put_item()
                .table_name(&self.log_table)
                .set_item(Some(item))
                .condition_expression(OFFSET_IS_FREE)
                .set_expression_attribute_names(names([keys::PK]));
            return match put_once(APPEND, request).await? {
                Write::Done(_) => Ok(AppendOutcome::Done),
                Write::Refused(there) => taken(entry, &there),
                Write::Conflict(_) => Ok(AppendOutcome::Conflict),
            };
        }
        let mut actions = vec![self.put_entry(item)];
        if entry.starts {
            actions.push(self.start_epoch(&entry.channel, entry.epoch, now));
        }
        for (index, key) in &markers {
            let at = Position::new(entry.epoch, entry.first + *index as u64);
            actions.push(self.put_marker(rows::marker(key, at, entry.markers_exp), now));
        }
        match transact(self, APPEND, actions).await? {
            Transaction::Done => Ok(AppendOutcome::Done),
            Transaction::Cancelled(objections) => {
                let indexes: Vec<usize> = markers.iter().map(|(index, _)| *index).collect();
                why_not_appended(entry, &indexes, objections)
            }
        }
    }

    /// Two calls: the head's life first, since an expression of DynamoDB knows no greater-of.
    async fn rotate(&self, rotation: &Rotation, now: Millis) -> Answer<RotateOutcome> {
        self.extend_head(&rotation.channel, rotation.head_exp, now).await?;
        let prev = Previous { epoch: rotation.from, last: rotation.last };
        let head = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::head(&rotation.channel).item()))
            .update_expression("SET #epoch = :to, #started = :no, #prev = :prev")
            .condition_expression("#epoch = :from AND #started = :yes AND #exp >= :now")
            .set_expression_attribute_names(names([attribute::EPOCH, attribute::STARTED, attribute::PREV, attribute::EXP]))
            .set_expression_attribute_values(values([
                (":from", number(rotation.from.0)),
                (":to", number(rotation.to.0)),
                (":no", AttributeValue::Bool(false)),
                (":yes", AttributeValue::Bool(true)),
                (":prev", rows::previous(prev)),
                (":now", alive_at(now)),
            ]))
            .build()
            .expect("key, table and expression are set");
        let log = match rotation.last {
            Some(last) => self.put_entry(rows::closing_entry(rotation, last, now)),
            None => self.first_entry_is_gone(&rotation.channel, rotation.from, now),
        };
        let actions = vec![TransactWriteItem::builder().update(head).build(), log];
        match transact(self, ROTATE, actions).await? {
            Transaction::Done => Ok(RotateOutcome::Done),
            Transaction::Cancelled(objections) => {
                let moved = objections.iter().any(|objection| matches!(objection, Objection::Refused(_)));
                Ok(if moved { RotateOutcome::Moved } else { RotateOutcome::Conflict })
            }
        }
    }
}

impl DynamoStore {
    /// A query over the entries that begin within `:first` to `:last`.
    fn entries(&self, channel: &Channel, epoch: Epoch) -> QueryFluentBuilder {
        self.partition(&self.log_table, &keys::epoch(channel, epoch))
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :first AND :last")
            .expression_attribute_names("#sk", keys::SK)
    }

    /// The last entry that begins at `offset` or before.
    async fn entry_before(&self, channel: &Channel, epoch: Epoch, offset: u64) -> Answer<Vec<Item>> {
        let request = self
            .entries(channel, epoch)
            .expression_attribute_values(":first", text(keys::offset(0)))
            .expression_attribute_values(":last", text(keys::offset(offset)))
            .scan_index_forward(false)
            .limit(1);
        let output = Box::pin(request.send()).await.map_err(|error| failed(READ, error))?;
        Ok(output.items.unwrap_or_default())
    }

    fn put_entry(&self, item: Item) -> TransactWriteItem {
        self.put_action(&self.log_table, item, OFFSET_IS_FREE, names([keys::PK]), None)
    }

    /// No entry was found though the head says that the epoch has begun. Reads of two rows are no snapshot: the transaction that
    /// begins the epoch may be under way, and then this one conflicts with it or is refused.
    fn first_entry_is_gone(&self, channel: &Channel, epoch: Epoch, now: Millis) -> TransactWriteItem {
        let check = ConditionCheck::builder()
            .table_name(&self.log_table)
            .set_key(Some(keys::entry(channel, epoch, 1).item()))
            .condition_expression("attribute_not_exists(#pk) OR #exp < :now")
            .set_expression_attribute_names(names([keys::PK, attribute::EXP]))
            .set_expression_attribute_values(values([(":now", alive_at(now))]))
            .build()
            .expect("key, table and condition are set");
        TransactWriteItem::builder().condition_check(check).build()
    }

    fn put_marker(&self, item: Item, now: Millis) -> TransactWriteItem {
        let condition = "attribute_not_exists(#pk) OR #exp < :now";
        let table = &self.log_table;
        self.put_action(table, item, condition, names([keys::PK, attribute::EXP]), values([(":now", alive_at(now))]))
    }

    fn put_action(
        &self,
        table: &str,
        item: Item,
        condition: &str,
        names: Option<HashMap<String, String>>,
        values: Option<Item>,
    ) -> TransactWriteItem {
        let put = Put::builder()
            .table_name(table)
            .set_item(Some(item))
            .condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .expect("item and table are set");
        TransactWriteItem::builder().put(put).build()
    }

    /// The head takes its epoch as started, with the epoch's first entry (A4).
    fn start_epoch(&self, channel: &Channel, epoch: Epoch, now: Millis) -> TransactWriteItem {
        let update = Update::builder()
            .table_name(&self.registry_table)
            .set_key(Some(keys::head(channel).item()))
            .update_expression("SET #started = :yes")
            .condition_expression("#epoch = :epoch AND #started = :no AND #exp >= :now")
            .set_expression_attribute_names(names([attribute::EPOCH, attribute::STARTED, attribute::EXP]))
            .set_expression_attribute_values(values([
                (":epoch", number(epoch.0)),
                (":no", AttributeValue::Bool(false)),
                (":yes", AttributeValue::Bool(true)),
                (":now", alive_at(now)),
            ]))
            .build()
            .expect("key, table and expression are set");
        TransactWriteItem::builder().update(update).build()
    }
}

/// The last offset that a sort key of 16 digits can hold.
const LAST_OFFSET: u64 = 9_999_999_999_999_999;

/// A window while it is read.
struct Reading {
    after: u64,
    upto: u64,
    limit: usize,
    now: Millis,
    window: Window,
}

impl Reading {
    /// Entries of one page: as many as can be needed if each holds one message, and one more that says whether there are more.
    /// Pages end at 1 MB anyway, so entries that hold more cost at most one page.
    fn page_rows(&self) -> i32 {
        let wanted = usize::try_from(self.upto - self.after).unwrap_or(usize::MAX).min(self.limit);
        i32::try_from(wanted.saturating_add(1)).unwrap_or(i32::MAX)
    }

    /// Takes what is wanted of these entries, in order, until the window is full.
    fn take(&mut self, entries: Vec<Item>) -> Answer<()> {
        let now = self.now;
        for entry in entries.iter().filter(|entry| !rows::is_expired(entry, now)) {
            let messages = rows::messages(entry).map_err(|error| PortError::new(READ, error))?;
            for message in messages {
                self.take_message(message);
            }
            if self.window.full {
                break;
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: Logged) {
        if message.offset <= self.after || message.offset > self.upto {
            return;
        }
        if self.window.messages.len() < self.limit {
            self.window.messages.push(message);
        } else {
            self.window.full = true;
        }
    }
}

fn begins_at(entry: &Item, offset: u64) -> bool {
    rows::entry_extent(entry).is_ok_and(|(first, _)| first == offset)
}

/// The offset is not free.
fn taken(entry: &NewEntry, there: &Item) -> Answer<AppendOutcome> {
    // A5: an earlier try of the same attempt was written, and its answer lost.
    if rows::entry_attempt(there) == Some(&entry.attempt) {
        return Ok(AppendOutcome::Done);
    }
    let (first, n) = rows::entry_extent(there).map_err(|error| PortError::new(APPEND, error))?;
    Ok(AppendOutcome::Taken { next: first + n, exp: rows::expiry(there), closing: n == 0 })
}

/// A5: the entry's reason comes first, since an entry of the same attempt explains the others; then the head's, then the markers'.
///
/// Where another transaction was at one of the rows, the other objections may be the first half of what it writes, and it may be an
/// earlier try of this very append: nothing is concluded from them.
fn why_not_appended(entry: &NewEntry, marked: &[usize], objections: Vec<Objection>) -> Answer<AppendOutcome> {
    if objections.iter().any(|objection| matches!(objection, Objection::Conflict)) {
        return Ok(AppendOutcome::Conflict);
    }
    let mut objections = objections.into_iter();
    if let Some(Objection::Refused(there)) = objections.next() {
        return taken(entry, &there);
    }
    if entry.starts && matches!(objections.next(), Some(Objection::Refused(_))) {
        return Ok(AppendOutcome::HeadMoved);
    }
    let mut duplicates = Vec::new();
    for (index, objection) in marked.iter().zip(objections) {
        if let Objection::Refused(marker) = objection {
            let position = rows::marker_position(&marker).map_err(|error| PortError::new(APPEND, error))?;
            duplicates.push((*index, position));
        }
    }
    Ok(if duplicates.is_empty() { AppendOutcome::Conflict } else { AppendOutcome::Duplicates(duplicates) })
}

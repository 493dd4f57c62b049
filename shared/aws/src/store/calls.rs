//! The calls, with what became of their conditions.
//!
//! The SDK's futures have 5 to 8 KB each, and whoever awaits one is as large. So they are boxed: a drain holds hundreds of futures at
//! once that post to a connection, and every one of them has room for the call that it makes when the connection is gone.

use super::rows::{Item, number, text};
use super::{DynamoStore, keys};
use crate::failure::failed;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use carillon_core::time::Millis;
use carillon_engine::ports::{Answer, PortError};
use std::collections::HashMap;
use std::time::Duration;

/// Tries of a write that meets a transaction at its row. Transactions last some milliseconds, and at one row they are rare.
const CONFLICT_TRIES: u32 = 6;

/// The wait before such a try is a random part of this, and doubles.
const CONFLICT_BACKOFF: Duration = Duration::from_millis(20);

/// What became of one conditional write.
pub(crate) enum Write {
    /// It is written; the row's attributes, where they were asked for.
    Done(Item),
    /// Its condition did not hold; the row as it is, without attributes where there is none.
    Refused(Item),
    /// It met a transaction at the same row.
    Conflict(PortError),
}

/// What became of a conditional write in the end.
pub(crate) enum Written {
    /// It is written; the row's attributes, where they were asked for.
    Done(Item),
    /// Its condition did not hold; the row as it is, without attributes where there is none.
    Refused(Item),
}

/// What became of a transaction.
pub(crate) enum Transaction {
    /// It is done.
    Done,
    /// It is not, and nothing of it: what spoke against each of its actions, in their order.
    Cancelled(Vec<Objection>),
}

/// What spoke against one action of a transaction.
#[derive(Debug)]
pub(crate) enum Objection {
    /// Nothing.
    None,
    /// Its condition did not hold; the row as it is, without attributes where there is none.
    Refused(Item),
    /// Another transaction was at the row, or the table was over its rate.
    Conflict,
}

impl Written {
    /// Whether it is written.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl DynamoStore {
    /// Reads one row of the registry.
    pub(crate) async fn get(&self, operation: &'static str, key: &keys::Key) -> Answer<Option<Item>> {
        let request = self.client.get_item().table_name(&self.registry_table).set_key(Some(key.item())).consistent_read(true);
        let output = Box::pin(request.send()).await.map_err(|error| failed(operation, error))?;
        Ok(output.item)
    }

    /// A change of one row of the registry.
    pub(crate) fn change(&self, key: &keys::Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.registry_table).set_key(Some(key.item()))
    }

    /// A query over one partition of a table.
    pub(crate) fn partition(&self, table: &str, pk: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(table)
            .consistent_read(true)
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_values(":pk", text(pk))
    }
}

/// Writes one row, one try.
pub(crate) async fn put_once(operation: &'static str, request: PutItemFluentBuilder) -> Answer<Write> {
    let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    match Box::pin(request.send()).await {
        Ok(_) => Ok(Write::Done(Item::new())),
        Err(error) => refusal(operation, error, |error| match error {
            PutItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone().unwrap_or_default()),
            _ => None,
        }),
    }
}

/// Writes one row.
pub(crate) async fn put(operation: &'static str, request: PutItemFluentBuilder) -> Answer<Written> {
    past_conflicts(|| put_once(operation, request.clone())).await
}

/// Changes one row; answers with the row after the change.
pub(crate) async fn update(operation: &'static str, request: UpdateItemFluentBuilder) -> Answer<Written> {
    let request = request
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    past_conflicts(|| async {
        match Box::pin(request.clone().send()).await {
            Ok(output) => Ok(Write::Done(output.attributes.unwrap_or_default())),
            Err(error) => refusal(operation, error, |error| match error {
                UpdateItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone().unwrap_or_default()),
                _ => None,
            }),
        }
    })
    .await
}

/// Deletes one row.
pub(crate) async fn delete(operation: &'static str, request: DeleteItemFluentBuilder) -> Answer<Written> {
    past_conflicts(|| async {
        match Box::pin(request.clone().send()).await {
            Ok(_) => Ok(Write::Done(Item::new())),
            Err(error) => refusal(operation, error, |error| match error {
                DeleteItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone().unwrap_or_default()),
                _ => None,
            }),
        }
    })
    .await
}

/// Does several writes or none.
///
/// The SDK gives each call a request token of its own and keeps it through its retries, so a transaction whose answer was lost is
/// answered as done. A token that outlived the call would be wrong here: a second call for the same purpose has another offset or
/// another time in it, and DynamoDB refuses a known token with other content.
pub(crate) async fn transact(
    store: &DynamoStore,
    operation: &'static str,
    actions: Vec<TransactWriteItem>,
) -> Answer<Transaction> {
    let count = actions.len();
    let request = store.client.transact_write_items().set_transact_items(Some(actions));
    let Err(error) = Box::pin(request.send()).await else { return Ok(Transaction::Done) };
    let reasons = match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled.cancellation_reasons().to_vec(),
        // The SDK's own earlier try is still at work under the same token.
        Some(TransactWriteItemsError::TransactionInProgressException(_)) => {
            return Ok(Transaction::Cancelled((0..count).map(|_| Objection::Conflict).collect()));
        }
        _ => return Err(failed(operation, error)),
    };
    match reasons.into_iter().map(objection).collect::<Option<Vec<_>>>() {
        Some(objections) if objections.len() == count => Ok(Transaction::Cancelled(objections)),
        _ => Err(failed(operation, error)),
    }
}

/// Reads a query to its end.
pub(crate) async fn query_all(operation: &'static str, request: QueryFluentBuilder) -> Answer<Vec<Item>> {
    let mut items = Vec::new();
    let mut from = None;
    loop {
        let page = Box::pin(request.clone().set_exclusive_start_key(from).send()).await;
        let page = page.map_err(|error| failed(operation, error))?;
        items.extend(page.items.unwrap_or_default());
        from = page.last_evaluated_key;
        if from.is_none() {
            return Ok(items);
        }
    }
}

/// Placeholders for these attributes: `#` and the name. All are used that way, since many of ours are reserved words.
pub(crate) fn names<const N: usize>(attributes: [&str; N]) -> Option<HashMap<String, String>> {
    Some(attributes.into_iter().map(|name| (format!("#{name}"), name.to_owned())).collect())
}

/// The values of these placeholders.
pub(crate) fn values<const N: usize>(values: [(&str, AttributeValue); N]) -> Option<Item> {
    Some(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A moment as DynamoDB's time to live has it: rows with an earlier `exp` are absent.
pub(crate) fn alive_at(now: Millis) -> AttributeValue {
    number(now.seconds().0)
}

fn refusal<E>(operation: &'static str, error: SdkError<E>, refused: impl FnOnce(&E) -> Option<Item>) -> Answer<Write>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    if let Some(item) = error.as_service_error().and_then(refused) {
        return Ok(Write::Refused(item));
    }
    match error.code() {
        Some("TransactionConflictException") => Ok(Write::Conflict(failed(operation, error))),
        _ => Err(failed(operation, error)),
    }
}

async fn past_conflicts<F>(call: impl Fn() -> F) -> Answer<Written>
where
    F: Future<Output = Answer<Write>>,
{
    let mut backoff = CONFLICT_BACKOFF;
    let mut tries = 1;
    loop {
        match call().await? {
            Write::Done(item) => return Ok(Written::Done(item)),
            Write::Refused(item) => return Ok(Written::Refused(item)),
            Write::Conflict(error) if tries == CONFLICT_TRIES => return Err(error),
            Write::Conflict(_) => {}
        }
        tokio::time::sleep(backoff.mul_f64(rand::random::<f64>())).await;
        backoff *= 2;
        tries += 1;
    }
}

/// None for a reason that no other try could change.
fn objection(reason: CancellationReason) -> Option<Objection> {
    match reason.code.as_deref() {
        None | Some("None") => Some(Objection::None),
        Some("ConditionalCheckFailed") => Some(Objection::Refused(reason.item.unwrap_or_default())),
        Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded") => Some(Objection::Conflict),
        Some(_) => None,
    }
}

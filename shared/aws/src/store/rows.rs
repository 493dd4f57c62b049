//! Rows as items, and items as rows. Attributes that this code does not know are left alone and ignored.

use super::keys::{self, INVERSE_PREFIX, Key, PK, SK, SUBSCRIPTION_PREFIX};
use aws_sdk_dynamodb::types::AttributeValue;
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::{ConnectionId, Principal};
use carillon_core::event::EventJson;
use carillon_core::limits::ENTRY_MESSAGES;
use carillon_core::namespace::{NamespaceOptions, OPTIONS};
use carillon_core::position::{Epoch, Position};
use carillon_core::time::{Millis, Seconds};
use carillon_engine::rows::{
    Checkpoint, Connection, Dialect, Head, Inverse, Link, Logged, NewEntry, Previous, Rotation, Shard, ShardKey, Subscription,
    SubscriptionState, Tail,
};
use serde_json::value::RawValue;
use std::collections::{BTreeSet, HashMap};

/// A row as DynamoDB has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The names of the attributes.
pub(crate) mod attribute {
    pub(crate) const ATTEMPT: &str = "attempt";
    pub(crate) const BODY: &str = "body";
    pub(crate) const CHECKPOINT: &str = "checkpoint";
    pub(crate) const CONNECTED_AT: &str = "connectedAt";
    pub(crate) const CONNECTION: &str = "connection";
    pub(crate) const CURSOR: &str = "cursor";
    pub(crate) const DIALECT: &str = "dialect";
    pub(crate) const END: &str = "end";
    pub(crate) const EPOCH: &str = "epoch";
    /// DynamoDB's time to live, in seconds.
    pub(crate) const EXP: &str = "exp";
    pub(crate) const FROM: &str = "from";
    pub(crate) const GEN: &str = "gen";
    pub(crate) const K: &str = "k";
    pub(crate) const LAST: &str = "last";
    pub(crate) const LISTED: &str = "listed";
    /// When a namespace's `mqtt` was switched on.
    pub(crate) const MQTT_SINCE: &str = "mqttSince";
    pub(crate) const N: &str = "n";
    pub(crate) const OFFSET: &str = "offset";
    pub(crate) const OWNER: &str = "owner";
    pub(crate) const PREV: &str = "prev";
    pub(crate) const PRINCIPAL: &str = "principal";
    pub(crate) const RETRY_AT: &str = "retryAt";
    pub(crate) const RID: &str = "rid";
    pub(crate) const S: &str = "s";
    pub(crate) const STARTED: &str = "started";
    pub(crate) const STATE: &str = "state";
    pub(crate) const TS: &str = "ts";
    pub(crate) const UNTIL: &str = "until";
}

/// What an entry without `exp` counts as: one that does not expire (the end of the year 9999).
const NEVER: Seconds = Seconds(253_402_300_799);

/// An item is no row of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the kind '{kind}' has {fault} in '{attribute}'")]
pub(crate) struct RowError {
    kind: &'static str,
    attribute: &'static str,
    fault: &'static str,
}

/// The body of an entry is not what `n` says.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("the body is no JSON array: {0}")]
    Json(serde_json::Error),
    #[error("the body holds {found} messages, and n is {n}")]
    Count { found: usize, n: u64 },
}

/// An item that is read as a row.
#[derive(Clone, Copy)]
struct Fields<'a> {
    kind: &'static str,
    item: &'a Item,
}

/// A text attribute.
pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number attribute.
pub(crate) fn number(value: impl Into<u64>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

/// A set of one number.
pub(crate) fn number_set(value: u32) -> AttributeValue {
    AttributeValue::Ns(vec![value.to_string()])
}

/// A position, as a map.
pub(crate) fn position(value: Position) -> AttributeValue {
    map([(attribute::EPOCH, number(value.epoch.0)), (attribute::OFFSET, number(value.offset))])
}

/// Whether a row that was read counts as absent at `now`. A row without `exp` does not expire.
pub(crate) fn is_expired(item: &Item, now: Millis) -> bool {
    expiry(item).has_passed(now)
}

/// When a row expires.
pub(crate) fn expiry(item: &Item) -> Seconds {
    Fields { kind: "any", item }.number(attribute::EXP).map_or(NEVER, Seconds)
}

/// An entry of the log.
///
/// The body is a JSON array of the events' texts as they came, so nothing is encoded twice and every byte stays as it was.
pub(crate) fn entry(new: &NewEntry) -> Item {
    let events: Vec<&str> = new.messages.iter().map(|message| message.event.as_str()).collect();
    let row = [
        (attribute::N, number(new.messages.len() as u64)),
        (attribute::BODY, text(format!("[{}]", events.join(",")))),
        (attribute::ATTEMPT, text(&new.attempt)),
        (attribute::TS, number(new.ts.0)),
        (attribute::EXP, number(new.exp.0)),
    ];
    keyed(&keys::entry(&new.channel, new.epoch, new.first), row)
}

/// A closing entry: no messages, at the offset after the epoch's last (A4).
pub(crate) fn closing_entry(rotation: &Rotation, last: u64, now: Millis) -> Item {
    let row = [
        (attribute::N, number(0_u64)),
        (attribute::BODY, text("[]")),
        (attribute::TS, number(now.0)),
        (attribute::EXP, number(rotation.closing_exp.0)),
    ];
    keyed(&keys::entry(&rotation.channel, rotation.from, last + 1), row)
}

/// The offset of an entry's first message, and how many it holds.
///
/// # Errors
/// When the sort key is no offset. An entry without `n` counts as one message, so that a reader gets past it, and none counts as
/// more than an entry can hold.
pub(crate) fn entry_extent(item: &Item) -> Result<(u64, u64), RowError> {
    let fields = Fields { kind: "entry", item };
    let first = fields.text(SK)?.parse().map_err(|_| fields.error(SK, "no offset"))?;
    Ok((first, fields.number(attribute::N).unwrap_or(1).min(ENTRY_MESSAGES as u64)))
}

/// The attempt that wrote an entry.
pub(crate) fn entry_attempt(item: &Item) -> Option<&str> {
    Fields { kind: "entry", item }.text(attribute::ATTEMPT).ok()
}

/// The newest entry of an epoch.
pub(crate) fn tail(item: &Item) -> Result<Tail, RowError> {
    let (first, n) = entry_extent(item)?;
    Ok(Tail { last: (first + n).saturating_sub(1), exp: expiry(item), closing: n == 0 })
}

/// The messages of an entry. Where it cannot be decoded they have no event, and the log says why (D7).
pub(crate) fn messages(item: &Item) -> Result<Vec<Logged>, RowError> {
    let (first, n) = entry_extent(item)?;
    let fields = Fields { kind: "entry", item };
    let ts = Millis(fields.number(attribute::TS).unwrap_or_default());
    let exp = expiry(item);
    let events = match fields.text(attribute::BODY).map_err(BodyError::from).and_then(|body| decode_body(body, n)) {
        Ok(events) => events.into_iter().map(Some).collect(),
        Err(reason) => {
            tracing::error!(
                log.key = fields.text(PK).unwrap_or_default(),
                log.offset = first,
                error.chain = %reason,
                "an entry of the log cannot be decoded, and its messages are passed over"
            );
            vec![None; usize::try_from(n).unwrap_or(usize::MAX)]
        }
    };
    Ok((first..).zip(events).map(|(offset, event)| Logged { offset, event, ts, exp }).collect())
}

/// An id marker's row.
pub(crate) fn marker(key: &Key, at: Position, exp: Seconds) -> Item {
    let row = [(attribute::EPOCH, number(at.epoch.0)), (attribute::OFFSET, number(at.offset)), (attribute::EXP, number(exp.0))];
    keyed(key, row)
}

/// Where the message of an id marker is.
pub(crate) fn marker_position(item: &Item) -> Result<Position, RowError> {
    Fields { kind: "id marker", item }.position()
}

/// A new, unstarted head.
pub(crate) fn new_head(channel: &Channel, epoch: Epoch, exp: Seconds) -> Item {
    let row = [
        (attribute::EPOCH, number(epoch.0)),
        (attribute::STARTED, AttributeValue::Bool(false)),
        (attribute::S, number(0_u32)),
        (attribute::EXP, number(exp.0)),
    ];
    keyed(&keys::head(channel), row)
}

pub(crate) fn head(item: &Item) -> Result<Head, RowError> {
    let fields = Fields { kind: "head", item };
    let prev = match fields.map(attribute::PREV)? {
        Some(prev) => {
            Some(Previous { epoch: Epoch(prev.number(attribute::EPOCH)?), last: prev.optional_number(attribute::LAST)? })
        }
        None => None,
    };
    Ok(Head {
        epoch: Epoch(fields.number(attribute::EPOCH)?),
        started: fields.flag(attribute::STARTED)?,
        prev,
        newest_shard: fields.small_number(attribute::S)?,
        listed: fields.number_set(attribute::LISTED)?,
        exp: expiry(item),
    })
}

/// The epoch before, as a head keeps it.
pub(crate) fn previous(value: Previous) -> AttributeValue {
    let epoch = (attribute::EPOCH, number(value.epoch.0));
    match value.last {
        Some(last) => map([epoch, (attribute::LAST, number(last))]),
        None => map([epoch]),
    }
}

/// A shard's row with its first arrival, after `generation`.
pub(crate) fn new_shard(key: &ShardKey, generation: u64, exp: Seconds) -> Item {
    let row = [
        (attribute::GEN, number(generation)),
        (attribute::N, number(1_u64)),
        (attribute::LISTED, AttributeValue::Bool(false)),
        (attribute::EXP, number(exp.0)),
    ];
    keyed(&keys::shard(key), row)
}

pub(crate) fn shard(item: &Item) -> Result<Shard, RowError> {
    let fields = Fields { kind: "shard", item };
    let cursor = fields.map(attribute::CURSOR)?.map(|cursor| cursor.position()).transpose()?;
    let checkpoint = match fields.map(attribute::CHECKPOINT)? {
        Some(checkpoint) => Some(Checkpoint {
            cursor: checkpoint.map(attribute::CURSOR)?.map(|cursor| cursor.position()).transpose()?,
            end: checkpoint.map(attribute::END)?.ok_or_else(|| checkpoint.error(attribute::END, "nothing"))?.position()?,
            connection: checkpoint.connection(checkpoint.text(attribute::CONNECTION)?)?,
        }),
        None => None,
    };
    Ok(Shard {
        generation: generation(item)?,
        arrivals: fields.optional_number(attribute::N)?.unwrap_or_default(),
        listed: fields.optional_flag(attribute::LISTED)?.unwrap_or_default(),
        cursor,
        checkpoint,
        retry_at: fields.optional_number(attribute::RETRY_AT)?.map(Millis),
        exp: expiry(item),
    })
}

/// A shard's `gen`.
pub(crate) fn generation(item: &Item) -> Result<u64, RowError> {
    Fields { kind: "shard", item }.number(attribute::GEN)
}

/// Who holds a shard's lease, or held it last.
pub(crate) fn owner(item: &Item) -> Option<&str> {
    Fields { kind: "shard", item }.text(attribute::OWNER).ok()
}

/// How far an unfinished round has come, as a shard keeps it.
pub(crate) fn checkpoint(value: &Checkpoint) -> AttributeValue {
    let end = (attribute::END, position(value.end));
    let connection = (attribute::CONNECTION, text(value.connection.as_str()));
    match value.cursor {
        Some(cursor) => map([end, connection, (attribute::CURSOR, position(cursor))]),
        None => map([end, connection]),
    }
}

/// A subscription's row.
pub(crate) fn subscription(row: &Subscription) -> Item {
    let attributes = [
        (attribute::RID, text(&row.rid)),
        (attribute::FROM, number(row.from.offset)),
        (attribute::EPOCH, number(row.from.epoch.0)),
        (attribute::STATE, state(row.state)),
        (attribute::DIALECT, dialect(row.dialect)),
        (attribute::CONNECTED_AT, number(row.connected_at.0)),
        (attribute::EXP, number(row.exp.0)),
    ];
    keyed(&keys::subscription(&row.key, &row.connection), attributes)
}

pub(crate) fn read_subscription(key: &ShardKey, item: &Item) -> Result<Subscription, RowError> {
    let fields = Fields { kind: "subscription", item };
    Ok(Subscription {
        key: key.clone(),
        connection: fields.connection(fields.key_after(SUBSCRIPTION_PREFIX)?)?,
        rid: fields.text(attribute::RID)?.to_owned(),
        from: Position::new(Epoch(fields.number(attribute::EPOCH)?), fields.number(attribute::FROM)?),
        state: match fields.text(attribute::STATE)? {
            "live" => SubscriptionState::Live,
            "joining" => SubscriptionState::Joining,
            _ => return Err(fields.error(attribute::STATE, "no state that this code knows")),
        },
        dialect: fields.dialect()?,
        connected_at: Millis(fields.number(attribute::CONNECTED_AT)?),
        exp: expiry(item),
    })
}

/// A subscription's state.
pub(crate) fn state(value: SubscriptionState) -> AttributeValue {
    text(match value {
        SubscriptionState::Live => "live",
        SubscriptionState::Joining => "joining",
    })
}

/// A connection's row.
pub(crate) fn connection(row: &Connection) -> Item {
    let attributes = [
        (attribute::PRINCIPAL, text(&row.principal.0)),
        (attribute::DIALECT, dialect(row.dialect)),
        (attribute::CONNECTED_AT, number(row.connected_at.0)),
        (attribute::EXP, number(row.exp.0)),
    ];
    keyed(&keys::connection(&row.id), attributes)
}

/// Whether a row of a connection's partition is the connection's own.
pub(crate) fn is_connection(item: &Item) -> bool {
    Fields { kind: "connection", item }.text(SK).is_ok_and(|sk| sk == keys::CONNECTION)
}

pub(crate) fn read_connection(id: &ConnectionId, item: &Item) -> Result<Connection, RowError> {
    let fields = Fields { kind: "connection", item };
    Ok(Connection {
        id: id.clone(),
        principal: Principal(fields.text(attribute::PRINCIPAL)?.to_owned()),
        dialect: fields.dialect()?,
        connected_at: Millis(fields.number(attribute::CONNECTED_AT)?),
        exp: expiry(item),
    })
}

/// An inverse row.
pub(crate) fn inverse(link: &Link) -> Item {
    let row = [
        (attribute::K, number(link.inverse.key.shard)),
        (attribute::RID, text(&link.inverse.rid)),
        (attribute::EXP, number(link.exp.0)),
    ];
    keyed(&keys::inverse(&link.connection, &link.inverse.key.channel), row)
}

pub(crate) fn read_inverse(item: &Item) -> Result<Inverse, RowError> {
    let fields = Fields { kind: "inverse", item };
    let channel = Channel::parse(fields.key_after(INVERSE_PREFIX)?).map_err(|_| fields.error(SK, "no channel"))?;
    let key = ShardKey { channel, shard: fields.small_number(attribute::K)? };
    Ok(Inverse { key, rid: fields.text(attribute::RID)?.to_owned() })
}

/// A namespace's options. What is absent, or out of a range that was wider once, is the default.
pub(crate) fn namespace_options(item: &Item) -> NamespaceOptions {
    let fields = Fields { kind: "namespace", item };
    let mut options = NamespaceOptions::default();
    for option in OPTIONS {
        let Ok(Some(value)) = fields.optional_number(option.name) else { continue };
        if let Err(fault) = options.set(option.name, value) {
            tracing::warn!(error.chain = %fault, "a namespace's option is out of range, and its default is taken");
        }
    }
    options.mqtt_since = fields.optional_number(attribute::MQTT_SINCE).ok().flatten().map(Millis);
    options
}

/// The name that a row of the namespaces' index stands for.
pub(crate) fn indexed_namespace(item: &Item) -> Result<Namespace, RowError> {
    let fields = Fields { kind: "namespace index", item };
    Namespace::parse(fields.text(SK)?).map_err(|_| fields.error(SK, "no namespace"))
}

impl<'a> Fields<'a> {
    const fn error(&self, attribute: &'static str, fault: &'static str) -> RowError {
        RowError { kind: self.kind, attribute, fault }
    }

    fn text(&self, name: &'static str) -> Result<&'a str, RowError> {
        match self.item.get(name) {
            Some(AttributeValue::S(value)) => Ok(value),
            Some(_) => Err(self.error(name, "no text")),
            None => Err(self.error(name, "nothing")),
        }
    }

    fn optional_number(&self, name: &'static str) -> Result<Option<u64>, RowError> {
        match self.item.get(name) {
            Some(AttributeValue::N(value)) => value.parse().map(Some).map_err(|_| self.error(name, "no whole number")),
            Some(_) => Err(self.error(name, "no number")),
            None => Ok(None),
        }
    }

    fn number(&self, name: &'static str) -> Result<u64, RowError> {
        self.optional_number(name)?.ok_or_else(|| self.error(name, "nothing"))
    }

    fn small_number(&self, name: &'static str) -> Result<u32, RowError> {
        u32::try_from(self.number(name)?).map_err(|_| self.error(name, "a number over 32 bits"))
    }

    /// An absent set is empty: DynamoDB has no empty sets.
    fn number_set(&self, name: &'static str) -> Result<BTreeSet<u32>, RowError> {
        match self.item.get(name) {
            Some(AttributeValue::Ns(values)) => {
                values.iter().map(|value| value.parse().map_err(|_| self.error(name, "no number of 32 bits"))).collect()
            }
            Some(_) => Err(self.error(name, "no set of numbers")),
            None => Ok(BTreeSet::new()),
        }
    }

    fn optional_flag(&self, name: &'static str) -> Result<Option<bool>, RowError> {
        match self.item.get(name) {
            Some(AttributeValue::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.error(name, "no flag")),
            None => Ok(None),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, RowError> {
        self.optional_flag(name)?.ok_or_else(|| self.error(name, "nothing"))
    }

    fn map(&self, name: &'static str) -> Result<Option<Self>, RowError> {
        match self.item.get(name) {
            Some(AttributeValue::M(item)) => Ok(Some(Self { kind: self.kind, item })),
            Some(_) => Err(self.error(name, "no map")),
            None => Ok(None),
        }
    }

    fn position(&self) -> Result<Position, RowError> {
        Ok(Position::new(Epoch(self.number(attribute::EPOCH)?), self.number(attribute::OFFSET)?))
    }

    fn dialect(&self) -> Result<Dialect, RowError> {
        match self.text(attribute::DIALECT)? {
            "native" => Ok(Dialect::Native),
            _ => Err(self.error(attribute::DIALECT, "no dialect that this code knows")),
        }
    }

    /// What follows `prefix` in the sort key.
    fn key_after(&self, prefix: &str) -> Result<&'a str, RowError> {
        self.text(SK)?.strip_prefix(prefix).ok_or_else(|| self.error(SK, "another row's key"))
    }

    fn connection(&self, text: &str) -> Result<ConnectionId, RowError> {
        ConnectionId::try_new(text).map_err(|_| self.error(attribute::CONNECTION, "no connection id"))
    }
}

fn dialect(value: Dialect) -> AttributeValue {
    text(match value {
        Dialect::Native => "native",
    })
}

fn map<const N: usize>(attributes: [(&str, AttributeValue); N]) -> AttributeValue {
    AttributeValue::M(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn keyed<const N: usize>(key: &Key, attributes: [(&str, AttributeValue); N]) -> Item {
    let mut item = key.item();
    item.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
    item
}

fn decode_body(body: &str, n: u64) -> Result<Vec<EventJson>, BodyError> {
    let events: Vec<&RawValue> = serde_json::from_str(body).map_err(BodyError::Json)?;
    let found = events.len();
    if u64::try_from(found) != Ok(n) {
        return Err(BodyError::Count { found, n });
    }
    Ok(events.into_iter().map(|event| EventJson::from_log(event.get())).collect())
}

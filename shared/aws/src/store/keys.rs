//! The keys of every row. `#` cannot occur in a channel, a namespace or a connection id, so no key can be read as another.

use super::rows::{Item, text};
use carillon_core::channel::{Channel, Namespace};
use carillon_core::connection::ConnectionId;
use carillon_core::event::Identity;
use carillon_core::position::Epoch;
use carillon_engine::rows::ShardKey;

/// The partition key's attribute.
pub(crate) const PK: &str = "pk";

/// The sort key's attribute.
pub(crate) const SK: &str = "sk";

/// The sort key of a shard's own row: before those of its subscriptions.
pub(crate) const SHARD: &str = "!";

/// The beginning of a subscription's sort key.
pub(crate) const SUBSCRIPTION_PREFIX: &str = "c#";

/// The beginning of an inverse row's sort key.
pub(crate) const INVERSE_PREFIX: &str = "s#";

/// The sort key of a connection's own row.
pub(crate) const CONNECTION: &str = "C";

/// The partition of the namespaces' index: no namespace is empty, so no namespace's own row is here.
pub(crate) const NAMESPACE_INDEX: &str = "N#";

/// A row's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl Key {
    /// The key as the SDK takes it.
    pub(crate) fn item(&self) -> Item {
        Item::from([(PK.to_owned(), text(&self.pk)), (SK.to_owned(), text(&self.sk))])
    }
}

/// The partition of an epoch's entries.
pub(crate) fn epoch(channel: &Channel, epoch: Epoch) -> String {
    format!("L#{channel}#{epoch}")
}

/// The sort key of the entry that begins at `offset`: 16 digits, so that the order of texts is that of numbers. At a thousand
/// messages a second, DynamoDB's limit on one key, they last for 300,000 years.
pub(crate) fn offset(offset: u64) -> String {
    format!("{offset:016}")
}

pub(crate) fn entry(channel: &Channel, of: Epoch, first: u64) -> Key {
    Key { pk: epoch(channel, of), sk: offset(first) }
}

pub(crate) fn marker(channel: &Channel, identity: &Identity) -> Key {
    Key { pk: format!("I#{channel}#{}", identity.as_str()), sk: "I".to_owned() }
}

pub(crate) fn head(channel: &Channel) -> Key {
    Key { pk: format!("H#{channel}"), sk: "H".to_owned() }
}

/// The partition of a shard and its subscriptions.
pub(crate) fn shard_partition(key: &ShardKey) -> String {
    format!("S#{key}")
}

pub(crate) fn shard(key: &ShardKey) -> Key {
    Key { pk: shard_partition(key), sk: SHARD.to_owned() }
}

pub(crate) fn subscription(key: &ShardKey, connection: &ConnectionId) -> Key {
    Key { pk: shard_partition(key), sk: format!("{SUBSCRIPTION_PREFIX}{connection}") }
}

/// The partition of a connection and its inverse rows.
pub(crate) fn connection_partition(id: &ConnectionId) -> String {
    format!("C#{id}")
}

pub(crate) fn connection(id: &ConnectionId) -> Key {
    Key { pk: connection_partition(id), sk: CONNECTION.to_owned() }
}

pub(crate) fn inverse(id: &ConnectionId, channel: &Channel) -> Key {
    Key { pk: connection_partition(id), sk: format!("{INVERSE_PREFIX}{channel}") }
}

pub(crate) fn namespace(namespace: &Namespace) -> Key {
    Key { pk: format!("{NAMESPACE_INDEX}{namespace}"), sk: "N".to_owned() }
}

/// The row by which a namespace is found in the list.
pub(crate) fn namespace_index(namespace: &Namespace) -> Key {
    Key { pk: NAMESPACE_INDEX.to_owned(), sk: namespace.as_str().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_documented() {
        let channel = Channel::parse("orders/42").expect("a channel");
        let shard_key = ShardKey::new(&channel, 3);
        let id = ConnectionId::try_new("abc=").expect("an id");
        let namespace_name = channel.namespace();
        let check = |key: Key, pk: &str, sk: &str| assert_eq!((key.pk.as_str(), key.sk.as_str()), (pk, sk));
        check(entry(&channel, Epoch(7), 42), "L#orders/42#7", "0000000000000042");
        check(head(&channel), "H#orders/42", "H");
        check(shard(&shard_key), "S#orders/42#3", "!");
        check(subscription(&shard_key, &id), "S#orders/42#3", "c#abc=");
        check(connection(&id), "C#abc=", "C");
        check(inverse(&id, &channel), "C#abc=", "s#orders/42");
        check(namespace(&namespace_name), "N#orders", "N");
        check(namespace_index(&namespace_name), "N#", "orders");
        let identity = Identity::new("source", "id");
        check(marker(&channel, &identity), &format!("I#orders/42#{}", identity.as_str()), "I");
    }

    #[test]
    fn keys_of_entries_sort_as_their_offsets() {
        for pair in [1, 9, 10, 99, 100, 4_294_967_296, 9_999_999_999_999_999].windows(2) {
            assert!(offset(pair[0]) < offset(pair[1]), "{pair:?}");
        }
    }
}

//! The connections and what they listen to (S1, S6).

use super::calls::{Written, alive_at, delete, names, put, query_all, values};
use super::rows::attribute;
use super::{DynamoStore, keys, rows};
use carillon_core::channel::Channel;
use carillon_core::connection::ConnectionId;
use carillon_core::time::Millis;
use carillon_engine::ports::{Answer, Connections, PortError};
use carillon_engine::rows::{Connection, Inverse, Link};

const WRITE: &str = "writing a connection";
const READ: &str = "reading a connection";
const LINK: &str = "linking a connection";
const UNLINK: &str = "unlinking a connection";
const DELETE: &str = "deleting a connection";

impl Connections for DynamoStore {
    async fn connect(&self, connection: &Connection) -> Answer<()> {
        let request = self.client.put_item().table_name(&self.registry_table).set_item(Some(rows::connection(connection)));
        put(WRITE, request).await.map(drop)
    }

    async fn connection(&self, id: &ConnectionId, now: Millis) -> Answer<(Option<Connection>, Vec<Inverse>)> {
        let request = self.partition(&self.registry_table, &keys::connection_partition(id)).key_condition_expression("#pk = :pk");
        let mut connection = None;
        let mut inverses = Vec::new();
        for item in query_all(READ, request).await?.iter().filter(|item| !rows::is_expired(item, now)) {
            if rows::is_connection(item) {
                connection = Some(rows::read_connection(id, item).map_err(|error| PortError::new(READ, error))?);
                continue;
            }
            match rows::read_inverse(item) {
                Ok(inverse) => inverses.push(inverse),
                // One row that other code wrote must not keep a connection's other rows from being deleted.
                Err(error) => tracing::error!(error.chain = %error, "an inverse row cannot be read and is passed over"),
            }
        }
        Ok((connection, inverses))
    }

    async fn link(&self, link: &Link, replace: bool, now: Millis) -> Answer<Option<Inverse>> {
        let mut request = self.client.put_item().table_name(&self.registry_table).set_item(Some(rows::inverse(link)));
        if !replace {
            request = request
                .condition_expression("attribute_not_exists(#pk) OR #exp < :now")
                .set_expression_attribute_names(names([keys::PK, attribute::EXP]))
                .set_expression_attribute_values(values([(":now", alive_at(now))]));
        }
        match put(LINK, request).await? {
            Written::Done(_) => Ok(None),
            Written::Refused(item) => {
                let there = rows::read_inverse(&item).map_err(|error| PortError::new(LINK, error))?;
                // The same `rid`: an earlier try of the SDK was written, and its answer lost.
                Ok((there.rid != link.inverse.rid).then_some(there))
            }
        }
    }

    async fn unlink(&self, id: &ConnectionId, channel: &Channel, rid: &str) -> Answer<()> {
        self.delete_of(UNLINK, &keys::inverse(id, channel), rid).await.map(drop)
    }

    async fn disconnect(&self, id: &ConnectionId) -> Answer<()> {
        let key = keys::connection(id).item();
        let request = self.client.delete_item().table_name(&self.registry_table).set_key(Some(key));
        delete(DELETE, request).await.map(drop)
    }
}

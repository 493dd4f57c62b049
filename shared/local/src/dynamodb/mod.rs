//! DynamoDB: `dynoxide-rs` in this process, on a runtime thread of its own, behind its own port.
//!
//! Functions talk to it directly. Its thread is apart because SQLite runs on the runtime's workers and would hold up everything
//! else there. A throw-away stack keeps its tables in a file of a temporary folder without fsync; in memory, a table's stream
//! would get slower with every write, since the index below needs a file.
//!
//! Before it stands a meter that counts the calls and the capacity that they consume.

mod meter;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use dynoxide::Database;
use dynoxide::errors::DynoxideError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::front_door::FrontDoor;
use crate::spec::TableSpec;

/// How often expired items are deleted. DynamoDB takes "typically within a few days" (Amazon DynamoDB Developer Guide, "Using
/// time to live"); a test that relies on deletion should not wait that long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A request that still runs when the stack ends gets this long, and SQLite's threads as long again.
const GRACE: Duration = Duration::from_millis(500);

/// Two: one waits for SQLite's lock while the other parses.
const WORKERS: usize = 2;

const FILE: &str = "dynamodb.sqlite";

/// Where tables live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A temporary folder, gone with the stack.
    Temporary,
    /// A folder that outlives the stack; every write is on the disk before it is answered.
    Kept(PathBuf),
}

/// A running DynamoDB.
#[derive(Debug)]
pub struct DynamoDb {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    /// Deletes the folder when it is dropped, after the thread has ended.
    _folder: Option<tempfile::TempDir>,
}

/// DynamoDB does not start.
#[derive(Debug, thiserror::Error)]
pub enum DynamoDbError {
    /// The folder of the tables cannot be used.
    #[error("the folder {} of the tables cannot be used", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database file cannot be used.
    #[error("the database {} cannot be used", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table is refused.
    #[error("the table {logical_id} cannot be created")]
    Table {
        /// Its logical id.
        logical_id: String,
        /// Why, in DynamoDB's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A kept table is another than the template's.
    #[error(
        "the table {logical_id} is kept in {} with another {property} than the template's: \
         change the template back, or start with an empty --data folder", folder.display()
    )]
    Changed {
        /// Its logical id.
        logical_id: String,
        /// What is different.
        property: &'static str,
        /// The folder of the tables.
        folder: PathBuf,
    },
    /// The listener or the thread cannot be used.
    #[error("the listener cannot be used")]
    Listener(#[source] std::io::Error),
}

impl DynamoDb {
    /// Creates the tables, or finds them again, and serves them on a bound listener.
    ///
    /// # Errors
    /// When the folder cannot be used or a table is refused.
    pub fn start(
        listener: std::net::TcpListener,
        tables: &[TableSpec],
        storage: &Storage,
        calls: Calls,
    ) -> Result<Self, DynamoDbError> {
        let (path, folder) = match storage {
            Storage::Temporary => {
                let source = |source| DynamoDbError::Folder { folder: std::env::temp_dir(), source };
                let folder = tempfile::Builder::new().prefix("carillon-dynamodb-").tempdir().map_err(source)?;
                (folder.path().to_owned(), Some(folder))
            }
            Storage::Kept(path) => {
                std::fs::create_dir_all(path).map_err(|source| DynamoDbError::Folder { folder: path.clone(), source })?;
                (path.clone(), None)
            }
        };
        let file = path.join(FILE);
        let database = open(&file, folder.is_some())?;
        for table in tables {
            create(&database, table, &path)?;
        }
        if tables.iter().any(|table| table.create.get("StreamSpecification").is_some()) {
            index_stream_records(&file)?;
        }
        let address = listener.local_addr().map_err(DynamoDbError::Listener)?;
        listener.set_nonblocking(true).map_err(DynamoDbError::Listener)?;
        let stop = CancellationToken::new();
        let thread = std::thread::Builder::new().name("carillon-dynamodb".to_owned());
        let thread = thread
            .spawn({
                let stop = stop.clone();
                move || serve(listener, database, stop, calls)
            })
            .map_err(DynamoDbError::Listener)?;
        Ok(Self { address, stop, thread: Some(thread), _folder: folder })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets running requests finish for at most half a second, closes the database and deletes a temporary folder.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // The thread bounds its own end, so joining it is short; it still must not hold up this runtime.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn open(file: &Path, throw_away: bool) -> Result<Database, DynamoDbError> {
    let unusable = |source: DynoxideError| DynamoDbError::Database { file: file.to_owned(), source: Box::new(source) };
    let database = Database::new(&file.to_string_lossy()).map_err(unusable)?;
    if throw_away {
        database.enable_bulk_loading().map_err(unusable)?;
    }
    Ok(database)
}

fn create(database: &Database, table: &TableSpec, folder: &Path) -> Result<(), DynamoDbError> {
    let refused =
        |source: Box<dyn std::error::Error + Send + Sync>| DynamoDbError::Table { logical_id: table.logical_id.clone(), source };
    let named = json!({"TableName": table.name});
    let request = serde_json::from_value(named.clone()).map_err(|error| refused(error.into()))?;
    match database.describe_table(request) {
        Ok(description) => {
            let description = serde_json::to_value(description).map_err(|error| refused(error.into()))?;
            check_unchanged(table, &description["Table"], folder)?;
        }
        Err(DynoxideError::ResourceNotFoundException(_)) => {
            let request = serde_json::from_value(table.create.clone()).map_err(|error| refused(error.into()))?;
            database.create_table(request).map_err(|error| refused(error.into()))?;
        }
        Err(error) => return Err(refused(error.into())),
    }
    let Some(attribute) = &table.ttl_attribute else { return Ok(()) };
    let request = serde_json::from_value(named).map_err(|error| refused(error.into()))?;
    let current = database.describe_time_to_live(request).map_err(|error| refused(error.into()))?;
    if current.time_to_live_description.time_to_live_status == "ENABLED" {
        return Ok(());
    }
    let request = json!({
        "TableName": table.name,
        "TimeToLiveSpecification": {"AttributeName": attribute, "Enabled": true},
    });
    let request = serde_json::from_value(request).map_err(|error| refused(error.into()))?;
    database.update_time_to_live(request).map(drop).map_err(|error| refused(error.into()))
}

/// A kept table must have the keys, indexes and stream that the template asks for.
fn check_unchanged(table: &TableSpec, kept: &Value, folder: &Path) -> Result<(), DynamoDbError> {
    let differs = |property| DynamoDbError::Changed { logical_id: table.logical_id.clone(), property, folder: folder.to_owned() };
    if kept["KeySchema"] != table.create["KeySchema"] {
        return Err(differs("KeySchema"));
    }
    if index_keys(&kept["GlobalSecondaryIndexes"]) != index_keys(&table.create["GlobalSecondaryIndexes"]) {
        return Err(differs("GlobalSecondaryIndexes"));
    }
    if kept["StreamSpecification"]["StreamViewType"] != table.create["StreamSpecification"]["StreamViewType"] {
        return Err(differs("StreamSpecification"));
    }
    Ok(())
}

fn index_keys(indexes: &Value) -> Vec<(String, Value)> {
    let indexes = indexes.as_array().into_iter().flatten();
    let mut keys: Vec<_> = indexes.map(|index| (index["IndexName"].to_string(), index["KeySchema"].clone())).collect();
    keys.sort_by(|one, other| one.0.cmp(&other.0));
    keys
}

/// With a stream on, dynoxide 3.2 looks for the last sequence number in all stored stream records at each write: 0.25 ms growing
/// to 2 ms after 20,000 writes. This index answers that look-up.
fn index_stream_records(file: &Path) -> Result<(), DynamoDbError> {
    let unusable = |source: rusqlite::Error| DynamoDbError::Database { file: file.to_owned(), source: Box::new(source) };
    let connection = rusqlite::Connection::open(file).map_err(unusable)?;
    connection
        .execute_batch(
            "CREATE INDEX IF NOT EXISTS carillon_stream_sequence \
             ON _stream_records(table_name, CAST(sequence_number AS INTEGER))",
        )
        .map_err(unusable)
}

fn serve(listener: std::net::TcpListener, database: Database, stop: CancellationToken, calls: Calls) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("carillon-dynamodb-worker")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "DynamoDB has no runtime and does not serve"),
    };
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "DynamoDB cannot use its listener and does not serve"),
        };
        // Its own port is for the meter alone.
        let inner = match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(inner) => inner,
            Err(error) => return tracing::error!(%error, "DynamoDB has no port and does not serve"),
        };
        let address = match inner.local_addr() {
            Ok(address) => address,
            Err(error) => return tracing::error!(%error, "DynamoDB does not know its port and does not serve"),
        };
        let door = FrontDoor::start(listener, meter::router(address, calls));
        let sweeper = tokio::spawn(sweep(database.clone(), stop.clone()));
        let serving = dynoxide::server::serve_with_shutdown(inner, database, stop.clone().cancelled_owned());
        let ended = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = serving => {
                if let Err(error) = result {
                    tracing::error!(%error, "DynamoDB stopped serving");
                }
            }
            () = ended => tracing::warn!("a DynamoDB request was still running at the end and was cut"),
        }
        stop.cancel();
        door.shutdown().await;
        let _ = sweeper.await;
    });
    runtime.shutdown_timeout(GRACE);
}

/// Deletes expired items at a steady pace, as DynamoDB does late.
async fn sweep(database: Database, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(deleted)) => tracing::debug!(dynamodb.deleted = deleted, "expired items were deleted"),
            Ok(Err(error)) => tracing::warn!(%error, "expired items could not be deleted"),
            Err(error) => tracing::warn!(%error, "deleting expired items failed"),
        }
    }
}

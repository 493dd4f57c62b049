//! Why a stack does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::dynamodb::DynamoDbError;
use crate::eventbridge::RuleError;
use crate::lambda::StartError;
use crate::lambda::builder::BuildError;
use crate::sqs::event_source::NoSuchQueue;
use crate::template::TemplateError;
use crate::websocket_api::RouteSelectionError;

/// The stack does not start, or cannot say where it is.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A port is taken.
    #[error("port {port} is busy: choose another with {flag}, or take any with --free-ports")]
    PortBusy {
        /// The port.
        port: u16,
        /// What changes it.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no such port.
    #[error("there are not enough ports from {first} on, which {flag} gave")]
    NoPort {
        /// The first port.
        first: u16,
        /// What changes it.
        flag: &'static str,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}, whose port {flag} changes")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What changes the port.
        flag: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A listener does not say where it listens.
    #[error("a listener has no address")]
    Address(#[source] std::io::Error),
    /// The functions cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A function's binary is not among those that were given.
    #[error("the binary {binary} of function {function} is not among the prebuilt ones")]
    NotPrebuilt {
        /// The function's logical id.
        function: String,
        /// The binary's name.
        binary: String,
    },
    /// The functions cannot be taken over.
    #[error(transparent)]
    Functions(#[from] StartError),
    /// The tables cannot be served.
    #[error(transparent)]
    DynamoDb(#[from] DynamoDbError),
    /// A rule's pattern is not valid.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An event source's queue is not there.
    #[error(transparent)]
    EventSource(#[from] NoSuchQueue),
    /// The route selection expression of a WebSocket API cannot be evaluated.
    #[error("the WebSocket API {api} cannot select routes")]
    RouteSelection {
        /// The API's logical id.
        api: String,
        /// Why.
        #[source]
        source: RouteSelectionError,
    },
    /// Another stack uses the folder.
    #[error("the folder {} is in use by another stack: end it, or give another folder with --data", folder.display())]
    DataInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of the data cannot be used.
    #[error("the folder {} cannot be used for --data", folder.display())]
    Data {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The ready file cannot be written.
    #[error("the ready file {} cannot be written", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

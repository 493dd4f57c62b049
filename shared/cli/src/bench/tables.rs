//! The stack's tables alone, on this machine, and the engine over them.

use super::function::IDENTITY;
use super::project::Project;
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use carillon_aws::clock::SystemClock;
use carillon_aws::config::{AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB, AwsConfig};
use carillon_aws::environment::Environment;
use carillon_aws::store::DynamoStore;
use carillon_core::channel::Channel;
use carillon_core::namespace::NamespaceOptions;
use carillon_engine::engine::Engine;
use carillon_engine::ports::{Answer, Namespaces, PortError, Queue};
use carillon_engine::wakeup::Wakeup;
use carillon_local::calls::Calls;
use carillon_local::dynamodb::{DynamoDb, Storage};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An engine as `publish` and `websocket` have one, whose wake-ups are kept here.
pub(super) type TablesEngine = Engine<DynamoStore, KeptWakeups, SystemClock>;

/// A running DynamoDB with the template's tables, in a temporary folder.
#[derive(Debug)]
pub(super) struct Tables {
    dynamodb: DynamoDb,
    calls: Calls,
    log: String,
    registry: String,
}

/// A queue that keeps what it is sent until somebody takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptWakeups(Arc<Mutex<Vec<Wakeup>>>);

impl Tables {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it does not start, or the template lacks one of the tables.
    pub(super) fn start(project: &Project) -> Outcome<Self> {
        let failed = |error: Box<dyn Error + Send + Sync>| {
            Failure::new(Exit::Failed, Context::new("the local DynamoDB does not start", error))
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| failed(error.into()))?;
        let calls = Calls::default();
        let dynamodb = DynamoDb::start(listener, &project.tables, &Storage::Temporary, calls.clone())
            .map_err(|error| failed(error.into()))?;
        let (log, registry) = (project.resource("LogTable")?.to_owned(), project.resource("RegistryTable")?.to_owned());
        Ok(Self { dynamodb, calls, log, registry })
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.dynamodb.address())
    }

    /// What it was asked.
    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The store in these tables, with connections of its own.
    ///
    /// # Errors
    /// Never, as long as the address of a listener is a URL.
    pub(super) fn store(&self) -> Outcome<DynamoStore> {
        let url = self.url();
        let endpoints = [(AWS_ENDPOINT_URL, url.as_str()), (AWS_ENDPOINT_URL_DYNAMODB, url.as_str())];
        let environment: Environment = IDENTITY.into_iter().chain(endpoints).collect();
        let config = AwsConfig::from_environment(&environment).map_err(|mistakes| Failure::new(Exit::Failed, mistakes))?;
        Ok(DynamoStore::new(&config, self.log.clone(), self.registry.clone()))
    }

    /// An engine with a cache of its own, as an environment of a function is one, and the queue that its wake-ups are kept in.
    ///
    /// # Errors
    /// As [`Tables::store`].
    pub(super) fn engine(&self) -> Outcome<(TablesEngine, KeptWakeups)> {
        let wakeups = KeptWakeups::default();
        Ok((Engine::new(self.store()?, wakeups.clone(), SystemClock), wakeups))
    }

    /// Sends nothing of a channel's namespace to MQTT: then a publish wakes those alone that are measured.
    ///
    /// # Errors
    /// When the table does not answer.
    pub(super) async fn without_mqtt(&self, channel: &Channel) -> Outcome {
        let mut options = NamespaceOptions::default();
        options.set("mqtt", 0).map_err(|fault| Failure::new(Exit::Failed, fault))?;
        self.store()?.set_namespace(&channel.namespace(), &options).await.map_err(unanswered)
    }

    /// Ends it and deletes the tables.
    pub(super) async fn shutdown(self) {
        self.dynamodb.shutdown().await;
    }
}

impl KeptWakeups {
    /// What was sent since the last time.
    pub(super) fn take(&self) -> Vec<Wakeup> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Queue for KeptWakeups {
    async fn send(&self, wakeups: &[Wakeup], _: Duration) -> Answer<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(wakeups);
        Ok(())
    }
}

fn unanswered(error: PortError) -> Failure {
    Failure::new(Exit::Failed, error)
}

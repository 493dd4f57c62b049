//! Ctrl-C and SIGTERM.

use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end. From now on they do not end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens for them.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(crate) fn listen() -> Outcome<Self> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, Context::new("cannot listen for signals", error)));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one, and answers with the exit that belongs to it.
    ///
    /// # Cancel safety
    /// No signal is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

//! Faults of a running stack, to try out what a system does when a service fails.

use serde::{Deserialize, Serialize};

use crate::iot::Iot;

/// The switches of a stack. Clones are the same switches.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    iot: Option<Iot>,
}

/// Whether a service can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Connections are cut, and new ones closed without an answer.
    Away,
    /// All is well.
    Back,
}

/// The state of every switch, as it goes over the wire. An absent one is not changed, or not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultState {
    /// IoT Core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iot: Option<Presence>,
}

/// A switch has nothing to switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the template uses no IoT Core, so it cannot be taken away")]
pub struct NoIot;

impl Faults {
    pub(crate) fn new(iot: Option<Iot>) -> Self {
        Self { iot }
    }

    /// The state of every switch.
    #[must_use]
    pub fn state(&self) -> FaultState {
        let presence = |iot: &Iot| if iot.is_away() { Presence::Away } else { Presence::Back };
        FaultState { iot: self.iot.as_ref().map(presence) }
    }

    /// Takes IoT Core away, or brings it back with its sessions and retained messages. A client finds its connection cut.
    ///
    /// # Errors
    /// When the template uses no IoT Core.
    pub fn set_iot(&self, presence: Presence) -> Result<(), NoIot> {
        let iot = self.iot.as_ref().ok_or(NoIot)?;
        iot.set_away(presence == Presence::Away);
        Ok(())
    }

    /// Sets every switch that the state has.
    ///
    /// # Errors
    /// When the template uses no IoT Core and the state has a switch for it.
    pub fn apply(&self, state: FaultState) -> Result<(), NoIot> {
        state.iot.map_or(Ok(()), |presence| self.set_iot(presence))
    }
}

//! EventBridge: PutEvents, buses, and rules whose targets are functions.

pub mod pattern;

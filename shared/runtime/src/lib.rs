#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the variables, and the structs they are parsed into |
//! | [`start`] | [`start::run`]: reads the configuration and serves, or says in one line why not |
//! | [`telemetry`] | logs as JSON, one span an invocation |
//! | [`deadline`] | when the invocation ends |
//! | [`failure`] | faults as Lambda reports them |

pub mod config;
pub mod deadline;
pub mod failure;
pub mod start;
pub mod telemetry;

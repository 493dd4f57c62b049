#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the variables, and the structs they are parsed into |
//! | [`start`] | [`start::run`]: reads the configuration and serves, or says in one line why not |
//! | [`telemetry`] | logs as JSON, one span an invocation |
//! | [`deadline`] | when the invocation ends |
//! | [`function_url`] | what a function URL hands over, and the token in it |
//! | [`failure`] | faults as Lambda reports them |

pub mod config;
pub mod deadline;
pub mod failure;
pub mod function_url;
pub mod start;
pub mod telemetry;

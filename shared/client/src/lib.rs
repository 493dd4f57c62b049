#![doc = include_str!("../README.md")]
//!
//! | module | what it holds |
//! |---|---|
//! | [`rule`] | [`rule::Follower`], the client's rule as a state machine |

pub mod rule;

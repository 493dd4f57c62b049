#![doc = include_str!("../README.md")]

pub mod binaries;
pub mod clients;
pub mod http;
pub mod processes;
pub mod program;
pub mod repository;
pub mod sse;
pub mod stack;
pub mod story;
pub mod template;
pub mod wait;
pub mod websocket;

//! The command line as a user meets it: the real `carillon`, what it prints, how it ends and what it leaves behind.

mod carillon;
mod demo;
mod local;
mod messages;
mod mistakes;
mod namespaces;

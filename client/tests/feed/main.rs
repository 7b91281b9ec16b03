//! The client against a server with tonic's stock codec, over TCP and Unix sockets.
#![allow(missing_docs)]

mod calls;
mod drive;
mod fake;
mod keeper;
mod learn;
mod malformed;
mod parts;
mod proxy;
mod resume;
mod streams;
mod waits;

//! The client against a server with tonic's stock codec, over TCP and Unix sockets.
#![allow(missing_docs)]

mod calls;
mod fake;
mod malformed;
mod proxy;
mod resume;
mod streams;

//! TCP between hosts with every byte checked: `host_stream SCENARIO --listen|--connect ADDRESS:PORT [OPTIONS]`.
//!
//! | scenario | what happens on each connection |
//! |---|---|
//! | `echo` | bytes both ways at once; the client ends first |
//! | `pingpong` | small messages and answers in turn |
//! | `oneway` | the client sends and closes at once |
//! | `halfclose` | the client sends and shuts down writing, the server answers when it has everything, and closes |
//! | `exit` | the server's process ends right after its last `send` |
//! | `unread` | the client closes with bytes unread, and the server looks at the error |
//! | `slow` | the first connection is not read from until the others have ended |
//! | `short` | a few messages, then the next connection |
//!
//! Options: `--connections N`, `--bytes N` (each, 0 for "until the file of `--stop` is there"), `--seed N`, `--io
//! blocking|poll|ask|level|edge`, `--delay` (no TCP_NODELAY), `--pace MICROSECONDS` (between sends), `--tolerant` (a peer may
//! die), `--go FILE` (bytes go to and fro until it is there). A wrong byte ends the program with its position.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod end;
mod options;
mod server;

use options::Options;

fn main() {
    // Connections that end must not end the program.
    convoy_tests::kit::sys::disposition(libc::SIGPIPE, libc::SIG_IGN);
    let options = Options::parse();
    if options.connect { client::run(&options) } else { server::run(&options) }
}

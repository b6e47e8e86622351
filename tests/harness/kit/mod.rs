//! What the test programs are made of.
//!
//! A program is a table of cases. `PROGRAM CASE VARIANT` runs one of them and prints its transcript: results,
//! errno names, readiness, byte counts, but nothing that may differ from run to run. `PROGRAM list` names the
//! cases. A case gets connected streams from [`Case`]; the other end is a [`puppet`] that does what it is told.
//! Every byte on a stream follows a [`pattern`], so each received byte is verified at its position.

pub mod case;
pub mod epoll;
pub mod errno;
pub mod filter;
pub mod hosts;
pub mod net;
pub mod passing;
pub mod pattern;
pub mod pester;
pub mod puppet;
pub mod random;
pub mod stream;
pub mod sys;
pub mod to_agent;

pub use case::{Case, Link};
pub use errno::{Errno, Outcome, show};
pub use filter::Filter;
pub use random::Random;
pub use stream::Stream;

/// A case's function.
pub type Body = fn(&mut Case);

/// Writes one line of the transcript, at once, so that the lines of several processes keep their order.
pub fn say_line(mut line: String) {
    line.push('\n');
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match sys::write(1, rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => panic!("stdout: {error}"),
        }
    }
}

/// Writes one line of the transcript.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::kit::say_line(format!($($part)*)) };
}

/// The `main` of a test program.
pub fn main(cases: &[(&str, Body)]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => cases.iter().for_each(|(name, _)| say!("{name}")),
        ["puppet"] => puppet::serve(0, 1),
        [name, variant] => {
            let Some((_, body)) = cases.iter().find(|(known, _)| known == name) else {
                panic!("no case is called {name}");
            };
            let mut case = Case::new(variant);
            body(&mut case);
            case.end();
            say!("end of {name}");
        }
        _ => panic!("usage: PROGRAM CASE VARIANT"),
    }
}

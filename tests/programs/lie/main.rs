//! A party of a live channel that lies: it scribbles over every word that it shares, while real checksummed traffic runs.
//!
//! `lie run SECONDS SEED WHAT` is the honest process (`honest`). It has streams with two others: with a friend, over which
//! nothing may ever go wrong, and with one liar after the other (`peers`). A liar maps what its library maps, and a
//! thread of it writes there whatever it likes (`scribble`). `traffic` is what travels. The honest process ends with
//! what it has seen, or at once when something happens that must not: a wrong byte from its friend, a call that does
//! not return, a death.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod honest;
mod peers;
mod scribble;
mod shared;
mod traffic;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match words.as_slice() {
        ["run", seconds, seed, what] => {
            abort_on_panic();
            honest::run(number(seconds), number(seed), what);
        }
        ["guards"] => honest::guards(),
        ["friend", port] => {
            abort_on_panic();
            peers::friend(number(port) as u16);
        }
        ["liar", port, seed, what] => {
            peers::liar(number(port) as u16, number(seed), scribble::What::of(what))
        }
        _ => panic!("usage: lie run SECONDS SEED segment|registry|both | lie guards"),
    }
}

/// A thread that panics would leave its connection open, and the other end waiting for it.
fn abort_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::abort();
    }));
}

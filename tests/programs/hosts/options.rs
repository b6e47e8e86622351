//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::end::Io;

/// What the command line says.
#[derive(Clone)]
pub struct Options {
    pub scenario: String,
    pub connect: bool,
    pub address: SocketAddr,
    pub connections: u64,
    pub bytes: u64,
    pub seed: u64,
    pub io: Io,
    pub no_delay: bool,
    pub pace: Option<Duration>,
    pub tolerant: bool,
    pub go: Option<PathBuf>,
    pub stop: Option<PathBuf>,
}

impl Options {
    pub fn parse() -> Self {
        let mut words = std::env::args().skip(1);
        let mut options = Self {
            scenario: words.next().expect("a scenario"),
            connect: false,
            address: SocketAddr::from(([127, 0, 0, 1], 7000)),
            connections: 1,
            bytes: 1 << 20,
            seed: 1,
            io: Io::Blocking,
            no_delay: true,
            pace: None,
            tolerant: false,
            go: None,
            stop: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--listen" => options.address = value().parse().expect("ADDRESS:PORT"),
                "--connect" => {
                    options.connect = true;
                    options.address = value().parse().expect("ADDRESS:PORT");
                }
                "--connections" => options.connections = value().parse().expect("a number"),
                "--bytes" => options.bytes = value().parse().expect("a number"),
                "--seed" => options.seed = value().parse().expect("a number"),
                "--io" => options.io = Io::parse(&value()),
                "--delay" => options.no_delay = false,
                "--pace" => options.pace = Some(Duration::from_micros(value().parse().expect("a number"))),
                "--tolerant" => options.tolerant = true,
                "--go" => options.go = Some(value().into()),
                "--stop" => options.stop = Some(value().into()),
                _ => panic!("unknown option {word}"),
            }
        }
        options
    }

    /// Whether a sender that has sent so much is done.
    pub fn done(&self, sent: u64) -> bool {
        if self.bytes > 0 { sent >= self.bytes } else { there(self.stop.as_ref()) }
    }

    /// Whether the warm-up is over.
    pub fn may_go(&self) -> bool {
        there(self.go.as_ref())
    }
}

/// What nobody waits for is there.
fn there(path: Option<&PathBuf>) -> bool {
    path.is_none_or(|path| path.exists())
}

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A size from 1 to 2^`bits`, small ones as often as large ones.
    pub fn size(&mut self, bits: u64) -> usize {
        let scale = self.next() % (bits + 1);
        1 + usize::try_from(self.next() % (1 << scale)).unwrap()
    }
}

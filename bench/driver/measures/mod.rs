//! The measures by name; each module runs one family of cases.

mod batch;
mod file;
mod flows;
mod idle;
mod many;
mod memcached;
mod nginx;
mod parallel;
mod pgbench;
mod pingpong;
pub(crate) mod redis;
mod ring;
mod scale;
mod shared;
mod start;
mod sweep;

use crate::compare::Row;
use crate::lab::Lab;

/// A family of cases that can be asked for by name.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Lab, &mut dyn FnMut(Vec<Row>)),
}

pub(crate) const ALL: &[Measure] = &[
    Measure {
        name: "pingpong",
        about: "round trip of one connection, by size, blocking",
        run: pingpong::blocking,
    },
    Measure {
        name: "epoll",
        about: "round trip of one connection through epoll, 64 B",
        run: pingpong::epoll,
    },
    Measure { name: "many", about: "one way, by number of sockets and size", run: many::one_way },
    Measure {
        name: "reply",
        about: "64 sockets, one request outstanding on each, through epoll",
        run: many::reply,
    },
    Measure { name: "scale", about: "one way over 64 sockets among up to 10000 open ones", run: scale::all },
    Measure {
        name: "batch",
        about: "messages that a receiver finds at a look, by number of sockets",
        run: batch::all,
    },
    Measure { name: "threads", about: "requests with 1 and 4 threads a side", run: parallel::threads },
    Measure {
        name: "crowd",
        about: "requests of 1 and 4 client processes, with and without spinning",
        run: parallel::crowd,
    },
    Measure {
        name: "ring",
        about: "ping-pong and one way, 64 B, beside a bare ring in shared memory",
        run: ring::all,
    },
    Measure { name: "bulk", about: "one connection with 128 KiB and 16 KiB writes", run: flows::bulk },
    Measure { name: "connect", about: "short connections, empty and with one exchange", run: flows::connect },
    Measure {
        name: "idle",
        about: "memory and CPU of idle connections, up to 50000, and a round trip beside them",
        run: idle::all,
    },
    Measure {
        name: "file",
        about: "what a read of a plain file costs under the preload library",
        run: file::read,
    },
    Measure {
        name: "onecore",
        about: "both ends on one processor, ping-pong and requests",
        run: shared::one_core,
    },
    Measure {
        name: "busy",
        about: "the same beside one and two programs that only compute",
        run: shared::busy,
    },
    Measure { name: "start", about: "wall time of a program that does nothing", run: start::all },
    Measure {
        name: "redis",
        about: "redis-benchmark with 50 clients and 1, and with 50 that pipeline",
        run: redis::all,
    },
    Measure { name: "memcached", about: "memcached under our own checking client", run: memcached::all },
    Measure { name: "nginx", about: "nginx serving 1 KiB to wrk -c 50", run: nginx::all },
    Measure { name: "pgbench", about: "PostgreSQL, select only, 8 clients", run: pgbench::all },
    Measure {
        name: "sweep",
        about: "the aggregation thresholds, one at a time, over 64 sockets",
        run: sweep::all,
    },
    Measure { name: "price", about: "round trip on one socket under the same thresholds", run: sweep::price },
];

/// `--name value` words for a load program.
fn arguments(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]).collect()
}

/// A size as people write it.
fn size(bytes: usize) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) {
        format!("{} KiB", bytes / 1024)
    } else {
        format!("{bytes} B")
    }
}

//! The one table of settings: name, default, meaning, what is allowed, and how a value is taken over.

use super::values::{self, Parsed, shown};
use super::{Rules, Settings, file};
use std::borrow::Cow;

/// One setting.
#[derive(Clone, Copy)]
pub struct Variable {
    /// Its name in the environment and in the settings file.
    pub name: &'static str,
    /// Its default, written as a user would write it.
    pub default: &'static str,
    /// What it means, in one sentence without a full stop.
    pub meaning: &'static str,
    /// Which values are allowed.
    pub allowed: &'static str,
    take: fn(&mut Settings, &str) -> Parsed<()>,
}

impl Variable {
    /// Puts `text` into `settings`.
    ///
    /// # Errors
    /// A line that names the variable, the value and what is allowed; `settings` is then as before.
    pub fn apply(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        (self.take)(settings, text).map_err(|part| {
            let inside = if part == text { String::new() } else { format!(" (at '{}')", shown(&part)) };
            let Variable { name, allowed, .. } = self;
            format!("{name}='{}' is wrong{inside}: allowed is {allowed}", shown(text))
        })
    }
}

/// The variable of this name.
pub(super) fn named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

fn put<T>(slot: &mut T, value: Parsed<T>) -> Parsed<()> {
    *slot = value?;
    Ok(())
}

/// Every setting there is.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "CONVOY",
        default: "on",
        meaning: "whether Convoy does anything",
        allowed: "'on' or 'off'",
        take: |settings, text| put(&mut settings.enabled, values::switch(text)),
    },
    Variable {
        name: "CONVOY_BATCH_BYTES",
        default: "16384",
        meaning: "a batch leaves when it holds this many bytes",
        allowed: "a size from 64 to 1M",
        take: |settings, text| put(&mut settings.batch_bytes, values::size32(text, 64..=1 << 20)),
    },
    Variable {
        name: "CONVOY_BATCH_FRAMES",
        default: "256",
        meaning: "a batch leaves when it holds this many messages",
        allowed: "a number from 1 to 65536",
        take: |settings, text| put(&mut settings.batch_frames, values::number(text, 1..=65536)),
    },
    Variable {
        name: "CONVOY_BATCH_DELAY_US",
        default: "0",
        meaning: "longest time in microseconds that a batch is held; 0 publishes every message at once",
        allowed: "a number from 0 to 1000000",
        take: |settings, text| put(&mut settings.batch_delay_us, values::number(text, 0..=1_000_000)),
    },
    Variable {
        name: "CONVOY_COALESCE_MAX",
        default: "4096",
        meaning: "payloads above this many bytes travel alone, in blocks",
        allowed: "a size from 64 to 32K",
        take: |settings, text| put(&mut settings.coalesce_max, values::size32(text, 64..=32 << 10)),
    },
    Variable {
        name: "CONVOY_RING_BYTES",
        default: "262144",
        meaning: "bytes of one lane (a ring in shared memory)",
        allowed: "a power of two from 64K to 64M",
        take: |settings, text| put(&mut settings.ring_bytes, values::power_of_two(text, 64 << 10..=64 << 20)),
    },
    Variable {
        name: "CONVOY_WINDOW_BYTES",
        default: "262144",
        meaning: "bytes that one direction of a connection may have sent and not yet read",
        allowed: "a size from 4K to 1G",
        take: |settings, text| put(&mut settings.window_bytes, values::size32(text, 4 << 10..=1 << 30)),
    },
    Variable {
        name: "CONVOY_MEMORY_LIMIT",
        default: "268435456",
        meaning: "bytes that one process lets its peers send ahead of its reading; beyond it connections stay on the kernel",
        allowed: "a size from 1M to 1024G",
        take: |settings, text| put(&mut settings.memory_limit, values::size(text, 1 << 20..=1 << 40)),
    },
    Variable {
        name: "CONVOY_USER_MEMORY_LIMIT",
        default: "2147483648",
        meaning: "the same for all processes of a user together; each keeps a share",
        allowed: "a size from 1M to 1024G",
        take: |settings, text| put(&mut settings.user_memory_limit, values::size(text, 1 << 20..=1 << 40)),
    },
    Variable {
        name: "CONVOY_AGENT_MEMORY_LIMIT",
        default: "268435456",
        meaning: "bytes that other hosts may send ahead to all programs of a host (read by the agent)",
        allowed: "a size from 1M to 1024G",
        take: |settings, text| put(&mut settings.agent_memory_limit, values::size(text, 1 << 20..=1 << 40)),
    },
    Variable {
        name: "CONVOY_SPIN_US",
        default: "auto",
        meaning: "microseconds that a waiting thread spins before it sleeps",
        allowed: "'auto' or a number from 0 to 1000000",
        take: |settings, text| put(&mut settings.spin, values::spin(text)),
    },
    Variable {
        name: "CONVOY_LOOK_SECONDS",
        default: "5",
        meaning: "seconds after which a sleeping thread looks by itself, should a wake-up be lost; 0 trusts the wake-ups",
        allowed: "a number from 0 to 86400",
        take: |settings, text| put(&mut settings.look_seconds, values::number(text, 0..=86400)),
    },
    Variable {
        name: "CONVOY_FABRIC",
        default: "auto",
        meaning: "what carries bytes: shared memory on one host, and a libfabric provider between hosts",
        allowed: "'auto', 'shm', 'off' or a libfabric provider (verbs, efa, cxi, tcp, net, udp, sockets, opx, psm2, psm3, \
                  ucx, usnic; ';ofi_rxm' or ';ofi_rxd' behind it)",
        take: |settings, text| put(&mut settings.fabric, values::fabric(text)),
    },
    Variable {
        name: "CONVOY_GATHER",
        default: "auto",
        meaning: "which connections with other hosts travel by the fabric (read by the agent): 'auto' leaves those to TCP whose \
                  messages cannot be gathered, unless a card carries the fabric",
        allowed: "'auto' or 'always'",
        take: |settings, text| put(&mut settings.gather, values::gather(text)),
    },
    Variable {
        name: "CONVOY_RULES",
        default: "all connections",
        meaning: "which connections are accelerated: a list of rules, of which the first that matches decides; if none \
                  matches, a connection is accelerated unless the list has a '+' rule",
        allowed: "a list like -port:22,+port:8000-8999,+10.0.0.0/8,-[::1]/128,+prog:redis*,-*",
        take: |settings, text| put(&mut settings.rules, Rules::parse(text)),
    },
    Variable {
        name: "CONVOY_LOG",
        default: "warn",
        meaning: "which lines are logged, and to which file instead of stderr",
        allowed: "'off', 'error', 'warn', 'info' or 'debug', with ':FILE' behind it if wanted",
        take: |settings, text| {
            (settings.log, settings.log_target) = values::log(text)?;
            Ok(())
        },
    },
    Variable {
        name: "CONVOY_STATS",
        default: "off",
        meaning: "where a process writes its counters when it ends, as JSON",
        allowed: "'off', 'stderr', a file, or a directory with '/' behind it for one PID.json per process",
        take: |settings, text| put(&mut settings.stats, values::stats(text)),
    },
    Variable {
        name: "CONVOY_IO_URING",
        default: "deny",
        meaning: "whether programs may use io_uring, whose sockets stay on the kernel; denied, they use epoll",
        allowed: "'allow' or 'deny'",
        take: |settings, text| put(&mut settings.io_uring_allow, values::permission(text)),
    },
    Variable {
        name: "CONVOY_PROMOTE_AFTER",
        default: "4",
        meaning: "calls on a connection before it may leave the kernel",
        allowed: "a number from 0 to 1000000",
        take: |settings, text| put(&mut settings.promote_after, values::number(text, 0..=1_000_000)),
    },
    Variable {
        name: "CONVOY_DIR",
        default: "/dev/shm",
        meaning: "directory, on a memory file system, where processes find each other",
        allowed: "an absolute path of at most 180 bytes",
        take: |settings, text| put(&mut settings.directory, values::absolute(text).map(Cow::Owned)),
    },
    Variable {
        name: file::VARIABLE,
        default: "no file",
        meaning: "a TOML file with lines like CONVOY_SPIN_US = 20; the environment wins over it",
        allowed: "the path of a file",
        // Read before all others, so there is nothing left to take over.
        take: |_, _| Ok(()),
    },
    Variable {
        name: "CONVOY_LIBRARY",
        default: "beside the convoy command",
        meaning: "the libconvoy.so that 'convoy run' loads into programs",
        allowed: "the path of a file",
        // Of no use to a program that has the library already.
        take: |_, _| Ok(()),
    },
    Variable {
        name: "CONVOY_AGENT_INSECURE",
        default: "off",
        meaning: "whether an agent that 'convoy run' starts does without a key where the user has none",
        allowed: "'on' or 'off'",
        take: |settings, text| put(&mut settings.agent_insecure, values::switch(text)),
    },
];

//! The targets, one file per thing that is read.

mod agents;
mod batch;
mod channel;
mod control;
mod frame;
mod link;
mod port;
mod program;
mod registry;
mod segment;
mod stream;
mod text;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame::run },
    Target { name: "batch", run: batch::run },
    Target { name: "link", run: link::run },
    Target { name: "stream", run: stream::run },
    Target { name: "segment", run: segment::run },
    Target { name: "port", run: port::run },
    Target { name: "channel", run: channel::run },
    Target { name: "registry", run: registry::run },
    Target { name: "records", run: control::records },
    Target { name: "hello", run: control::hello },
    Target { name: "agents", run: agents::messages },
    Target { name: "program", run: program::run },
    Target { name: "request", run: agents::request },
    Target { name: "settings", run: text::settings },
    Target { name: "policy", run: text::policy },
];

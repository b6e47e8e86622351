//! The state of processes in words.

use super::Report;
use crate::inspect::lane::{Lane, Waiting};
use crate::inspect::registry::Bell;
use crate::inspect::state::{Candidate, Channel};
use crate::inspect::streams::{Receiving, Sending, Stream};
use std::fmt::Write;
use std::net::SocketAddr;

pub(super) fn of(reports: &[Report]) -> String {
    let mut text = String::new();
    if reports.is_empty() {
        text.push_str("no process of yours runs under Convoy now\n");
    }
    for report in reports {
        process(&mut text, report);
    }
    text
}

/// Writes a line; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($rest:tt)*) => {{ let _ = writeln!($text, $($rest)*); }};
}

fn process(text: &mut String, report: &Report) {
    let state = &report.state;
    line!(text, "process {} ({}): {}", report.pid, report.program, count(state.channels.len(), "channel"));
    for note in &report.notes {
        line!(text, "  note: {note}");
    }
    for unseen in &state.unseen {
        line!(text, "  not seen: {unseen}");
    }
    if let Some(registry) = &state.registry {
        let lock = registry.lock.map_or("free".to_owned(), |pid| format!("held by process {pid}"));
        let (offers, records) = (registry.offers.len(), registry.channels.len());
        line!(
            text,
            "  registry: {}, {}, {}, lock {lock}",
            count(records, "channel"),
            count(offers, "offer"),
            count(registry.bells.len(), "bell")
        );
        for bell in registry.bells.iter().filter(|bell| bell.sleepers > 0 || bell.rung > 0) {
            line!(text, "    {}", describe(bell));
        }
        for offer in &registry.offers {
            line!(text, "    offer of the connection between ports {:?}: {}", offer.ports, offer.state);
        }
    }
    state.channels.iter().for_each(|one| channel(text, one));
    if !state.candidates.is_empty() {
        line!(text, "  connections on the kernel, followed: {}", state.candidates.len());
        state.candidates.iter().for_each(|one| candidate(text, one));
    }
}

fn channel(text: &mut String, channel: &Channel) {
    let to = if channel.agent { "the agent, process" } else { "process" };
    let broken = match (channel.retired, channel.broken) {
        (true, _) => ", ended",
        (_, true) => ", BROKEN",
        _ => "",
    };
    let streams = count(channel.streams.len(), "stream");
    line!(text, "  channel {} to {to} {}: {streams}{broken}", channel.index, channel.peer.pid);
    lane(text, "out", channel.sending.as_ref(), channel.send_lock);
    lane(text, "in", channel.receiving.as_ref(), channel.receive_lock);
    let [own, peer] = channel.sleepers;
    let held = if channel.held { "; a batch is held back" } else { "" };
    line!(
        text,
        "    blocks: {} of {} with the other side; threads that sleep: {own} here, {peer} there{held}",
        channel.blocks_lent,
        channel.blocks
    );
    channel.streams.iter().for_each(|one| stream(text, one));
}

fn lane(text: &mut String, name: &str, lane: Option<&Lane>, lock: Option<u32>) {
    let Some(lane) = lane else {
        line!(text, "    {name}: cannot be read");
        return;
    };
    let lock = lock.map_or("free".to_owned(), |pid| format!("held by process {pid}"));
    line!(
        text,
        "    {name}: {} in {} of {} bytes of the ring (written {}, taken {}), lock {lock}",
        count(lane.frames as usize, "frame"),
        lane.used,
        lane.used + lane.free,
        lane.published,
        lane.taken
    );
    for frame in &lane.listed {
        let block = frame.block.map(|block| format!(" in block {block}")).unwrap_or_default();
        let (slot, generation) = (frame.slot, frame.generation);
        line!(
            text,
            "      {} {} of slot {slot}.{generation}: {} bytes{block}",
            frame.at,
            frame.kind,
            frame.length
        );
    }
    if lane.frames as usize > lane.listed.len() {
        line!(text, "      and {} more", lane.frames as usize - lane.listed.len());
    }
    if let Some(wrong) = &lane.wrong {
        line!(text, "      WRONG: {wrong}");
    }
}

fn stream(text: &mut String, stream: &Stream) {
    let ends = between(stream.local, stream.peer);
    let fd = stream.descriptor.map(|fd| format!("descriptor {fd}, ")).unwrap_or_default();
    line!(text, "    stream {ends} ({fd}slot {}.{}): {}", stream.slot, stream.generation, standing(stream));
    if let Some(sending) = &stream.sending {
        send(text, sending);
    }
    if let Some(receiving) = &stream.receiving {
        receive(text, receiving);
    }
    let waiting: Vec<String> = stream.waiters.iter().map(describe).collect();
    let there: Vec<String> = stream.peer_waiters.iter().map(describe).collect();
    if !waiting.is_empty() {
        line!(text, "      waited for here: {}", waiting.join(", "));
    }
    if !there.is_empty() {
        line!(text, "      waited for at the other end: {}", there.join(", "));
    }
    if let Some(unseen) = stream.unseen {
        line!(text, "      not seen: {unseen}");
    }
}

fn standing(stream: &Stream) -> String {
    let mut words = vec![format!("this end {}, the other {}", stream.state, stream.peer_state)];
    let mut add = |yes: bool, word: &str| {
        if yes {
            words.push(word.to_owned());
        }
    };
    add(!stream.ready, "does not follow switches");
    add(!stream.peer_ready, "the other end does not follow switches");
    add(stream.shut, "shut for sending");
    add(stream.over, "the kernel has reported the end");
    add(stream.peer_gone, "the other end has closed");
    add(stream.holders > 1, &format!("held by {} processes", stream.holders));
    add(stream.watched, "watched by epoll");
    add(stream.recovery != "none", stream.recovery);
    words.join(", ")
}

fn send(text: &mut String, sending: &Sending) {
    let stays = if sending.stays { ", for good" } else { "" };
    let at = sending.switched_at.map(|at| format!(", the last at byte {at}")).unwrap_or_default();
    let in_kernel = match sending.in_kernel {
        0 => String::new(),
        threads => format!(", {threads} inside a kernel send"),
    };
    line!(
        text,
        "      sends by the {}{stays}: {} bytes sent, {} more allowed (up to {}){}{in_kernel}; {} switches{at}, {} followed",
        sending.path,
        sending.sent,
        sending.credit,
        sending.limit,
        waits(sending.in_lane),
        sending.switches,
        sending.followed
    );
}

fn receive(text: &mut String, receiving: &Receiving) {
    let next = receiving.next_switch_at.map(|at| format!(", the next at byte {at}")).unwrap_or_default();
    let recalled = if receiving.recalled { ", recalled" } else { "" };
    line!(
        text,
        "      receives by the {}{recalled}: {} bytes received, {} unread, {} more allowed (window {}){}; {} read from the \
         kernel; {} switches{next}, {} followed",
        receiving.path,
        receiving.received,
        receiving.unread,
        receiving.credit,
        receiving.window,
        waits(receiving.in_lane),
        receiving.kernel_read,
        receiving.switches,
        receiving.followed
    );
}

fn waits(waiting: Waiting) -> String {
    match waiting.frames {
        0 => String::new(),
        frames => format!(", {} bytes in {} of the lane", waiting.bytes, count(frames as usize, "frame")),
    }
}

fn candidate(text: &mut String, candidate: &Candidate) {
    let ends = between(candidate.local, candidate.peer);
    let offered = if candidate.offered { ", waits in the registry for its other end" } else { "" };
    let agent = match candidate.agent {
        "not asked" => String::new(),
        other => format!(", agent: {other}"),
    };
    let calls = count(candidate.calls as usize, "call");
    let inside = match candidate.in_kernel {
        0 => String::new(),
        threads => format!(", {} in the kernel", count(threads as usize, "thread")),
    };
    line!(text, "    {ends} (descriptor {}): {calls}{inside}{offered}{agent}", candidate.descriptor);
}

fn describe(bell: &Bell) -> String {
    let rung = if bell.rung > 0 { format!(", rung by process {}", bell.rung) } else { String::new() };
    format!("bell {} of process {} ({} asleep{rung})", bell.number, bell.owner, bell.sleepers)
}

fn between(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> String {
    match (local, peer) {
        (Some(local), Some(peer)) => format!("{local} > {peer}"),
        _ => "(addresses not known yet)".to_owned(),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

//! What a program may put into its ring.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::shm::frames::write_header;
use crate::shm::segment::Geometry;
use convoy_aggregator::wire::{self, Header, Kind};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

const GEOMETRY: Geometry = Geometry { ring_bytes: 4096, slots: 64, block_bytes: 4096, blocks: 4 };

/// A port, and the program's segment with its writing half.
fn port() -> (Port, Segment, Producer) {
    let program = Identity(7);
    let (segment, fd) = Segment::create(GEOMETRY, AGENT_SERIAL, [program, Identity::NOBODY]).unwrap();
    let (_, bells) = BellPage::create().unwrap();
    // SAFETY: new descriptors, nobody else's.
    let (fd, bells) = unsafe { (OwnedFd::from_raw_fd(fd), OwnedFd::from_raw_fd(bells)) };
    (Port::attach(fd.as_fd(), bells.as_fd(), program.0).unwrap(), segment, Producer::default())
}

fn put(segment: &Segment, producer: &mut Producer, length: u32) {
    let header = Header { kind: Kind::Data, slot: 3, generation: 1, length };
    let target = segment.reserve(PROGRAM, producer, length as usize).unwrap().unwrap();
    // SAFETY: room in the ring.
    unsafe { write_header(target, header) };
    producer.advance(wire::span(length) as u64);
    producer.publish(&segment.lane(PROGRAM).producer);
}

#[test]
fn a_frame_of_no_bytes_is_a_lie() {
    let (mut port, segment, mut producer) = port();
    put(&segment, &mut producer, 5);
    assert!(port.refresh().unwrap());
    assert_eq!(port.next_frame().unwrap().unwrap().piece.length, 5);
    put(&segment, &mut producer, 0);
    assert!(port.refresh().unwrap());
    assert!(port.next_frame().is_err());
}

#[test]
fn there_are_only_so_many_bells() {
    let (mut port, ..) = port();
    // SAFETY: a new descriptor, nobody else's.
    let fifo = || unsafe { OwnedFd::from_raw_fd(sys::eventfd().unwrap()) };
    assert!(port.set_bell(u16::MAX, fifo()).is_err());
    assert!(port.set_bell(1, fifo()).unwrap().is_none());
    assert!(port.set_bell(1, fifo()).unwrap().is_some(), "the old one");
}

#[test]
fn a_block_is_named_by_one_frame_at_a_time() {
    let (mut port, ..) = port();
    assert!(port.name(2).is_ok() && port.name(3).is_ok());
    assert!(port.name(2).is_err());
    port.return_block(2);
    assert!(port.name(2).is_ok());
}

#[test]
fn what_is_left_of_the_stream_before_is_not_what_a_program_says() {
    let (mut port, segment, _) = port();
    let (slot, first) = port.open_slot().unwrap();
    let line = segment.line(slot, PROGRAM);
    line.set_state(first, SlotState::Closed);
    port.free_slot(slot, first);
    let (again, second) = port.open_slot().unwrap();
    assert!(again == slot && second != first, "the same slot");
    line.set_state(first, SlotState::Open);
    line.passed.store(1, Ordering::Release);
    assert_eq!(port.line(slot, second), None);
    line.reset();
    line.set_state(second, SlotState::Open);
    assert_eq!(port.line(slot, second).map(|line| line.passed), Some(0));
}

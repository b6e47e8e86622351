//! What a link's queue keeps until the other end has it.

use convoy_aggregator::batch::{Control, Head};
use convoy_aggregator::gather::Thresholds;
use convoy_aggregator::link::LinkError;
use convoy_aggregator::queue::{Piece, Queue, Taken};

#[derive(Clone, Copy)]
struct Bytes(u32);

impl Piece for Bytes {
    fn length(&self) -> u32 {
        self.0
    }

    fn is_large(&self) -> bool {
        false
    }
}

/// Sends one frame of a stream in a batch of its own.
fn send(queue: &mut Queue<Bytes>, frame: u64) {
    queue.push(0, Taken::new(Bytes(10), frame), 0);
    let built = queue.build(&mut [0; 256], 0, |_, _, _, into| into.fill(1));
    assert_eq!((built.messages(), built.payload), (1, 10));
    queue.on_sent(built);
}

fn hear(queue: &mut Queue<Bytes>, delivered: u32) -> Result<Vec<u64>, LinkError> {
    let mut done = Vec::new();
    let head = Head { consumed: delivered, delivered, ..Head::default() };
    queue.on_head(&head, |sequence| done.push(sequence))?;
    let frames =
        done.into_iter().flat_map(|sequence| queue.take_sent(sequence)).map(|(_, frame)| frame).collect();
    Ok(frames)
}

#[test]
fn old_news_of_deliveries_forget_nothing() -> Result<(), LinkError> {
    let mut queue = Queue::new(1 << 16, false, Thresholds::default());
    assert!(queue.enter(0, 7, 3, true));
    (0..4).for_each(|frame| send(&mut queue, frame));
    assert_eq!(hear(&mut queue, 2)?, [0, 1]);
    assert_eq!(hear(&mut queue, 1)?, [], "an honest end does not say that");
    assert_eq!(queue.unsettled().collect::<Vec<_>>(), [(7, 2), (7, 3)]);
    assert_eq!(hear(&mut queue, 4)?, [2, 3], "each frame once");
    assert_eq!(queue.undelivered(), 0);
    Ok(())
}

/// The other side knows a stream only when it has opened it, which the end may overtake.
#[test]
fn an_end_is_told_again_to_who_did_not_know_the_stream() {
    let mut queue: Queue<Bytes> = Queue::new(1 << 16, false, Thresholds::default());
    assert!(queue.enter(0, 7, 3, true));
    queue.close_again(0);
    queue.disown(0);
    assert!(queue.controls.is_empty(), "it is open here");
    queue.close(0);
    queue.build(&mut [0; 256], 0, |_, _, _, _| {});
    queue.close_again(0);
    assert_eq!(queue.controls.pop_front(), Some((0, Control::Closed)));
    queue.leave(0);
    queue.close_again(0);
    queue.disown(0);
    assert_eq!(queue.controls.pop_front(), Some((0, Control::Lost)));
    assert!(queue.controls.is_empty());
}

/// What comes for a stream that was lost here is not delivered, and the sender keeps it, until it has heard of the loss.
#[test]
fn bytes_of_a_lost_stream_wait_for_the_news() -> Result<(), LinkError> {
    let mut queue: Queue<Bytes> = Queue::new(1 << 16, false, Thresholds::default());
    assert!(queue.enter(0, 7, 3, true));
    let arrive = |queue: &mut Queue<Bytes>, sequence: u32| {
        queue.receive.arrived(sequence << 16);
        assert_eq!(queue.receive.next_batch(), Some((sequence, 0)));
        let waits = queue.stream(0).is_none() && queue.withhold(sequence);
        queue.on_records(sequence, true, false, u32::from(waits), 0);
        waits
    };
    assert!(!arrive(&mut queue, 0));
    queue.abandon(0, 0);
    assert!(arrive(&mut queue, 1));
    assert_eq!(queue.receive.cursors(), (2, 1), "the news wait to be sent");
    let built = queue.build(&mut [0; 256], 0, |_, _, _, _| {});
    let told = built.place.map(|place| place.sequence);
    queue.on_sent(built);
    assert!(arrive(&mut queue, 2));
    hear(&mut queue, 0)?;
    assert_eq!(queue.receive.cursors(), (3, 1), "they are on their way");
    assert_eq!(told, Some(0));
    hear(&mut queue, 1)?;
    assert_eq!(queue.receive.cursors(), (3, 3), "the other side knows");
    assert!(!arrive(&mut queue, 3), "nobody has anything to keep");
    assert_eq!(queue.receive.cursors(), (4, 4));
    Ok(())
}

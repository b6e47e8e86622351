//! Credit and switches of a stream, with another end that says anything: of two honest halves one hears lies.

use crate::input::Input;
use convoy_aggregator::path::Path;
use convoy_aggregator::stream::{Announcement, ReceiveHalf, SendHalf};

const WINDOW: u64 = 4096;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut send, mut receive) = (SendHalf::default(), ReceiveHalf::new(WINDOW));
    // What the honest other end would say.
    let mut granted = receive.grant_now();
    let mut arrived = 0;
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                let before = send;
                let limit = input.near(granted);
                let allowed = send.allowance();
                match send.grant(limit) {
                    Ok(()) => assert!(send.allowance() >= allowed, "credit was taken back"),
                    Err(_) => assert_eq!(send, before, "a lie has changed something"),
                }
            }
            1 => {
                let before = send;
                let count = input.near(send.allowance());
                if send.on_sent(count).is_err() {
                    assert_eq!(send, before, "a lie has changed something");
                    assert!(count > before.allowance());
                }
            }
            2 => {
                let before = send;
                let to = if input.byte() & 1 == 0 { Path::Kernel } else { Path::Channel };
                let passed = input.near(u64::from(send.announcement().announced)) as u32;
                match send.switch(to, passed) {
                    Ok(announcement) => {
                        assert_eq!(announcement.announced, before.announcement().announced.wrapping_add(1));
                        assert_eq!(send.path(), to);
                    }
                    Err(_) => assert_eq!(send, before, "a lie has changed something"),
                }
            }
            3 => {
                let before = receive;
                let count = input.near(granted - arrived);
                match receive.on_arrived(count) {
                    Ok(()) => {
                        arrived += count;
                        assert!(arrived <= granted, "more than its credit");
                    }
                    Err(_) => assert_eq!(receive, before, "a lie has changed something"),
                }
            }
            kind => {
                let announcement = announcement(&mut input, &receive);
                let passed = receive.passed();
                let source = receive.source(&announcement);
                assert!(receive.passed().wrapping_sub(passed) <= 2, "switches that were not announced");
                if kind < 6 {
                    continue;
                }
                let most = source.map_or(0, |source| source.limit);
                let before = receive;
                let count = input.near(most);
                match receive.on_read(count, &announcement) {
                    Ok(limit) => granted = limit.unwrap_or(granted).max(granted),
                    Err(_) => assert_eq!(receive.counts(), before.counts(), "a lie has been counted"),
                }
                assert!(receive.counts().channel <= arrived, "more read than has arrived");
            }
        }
    }
}

fn announcement(input: &mut Input<'_>, receive: &ReceiveHalf) -> Announcement {
    let counts = receive.counts();
    Announcement {
        positions: [input.near(counts.kernel), input.near(counts.channel)],
        announced: input.near(u64::from(receive.passed())) as u32,
    }
}

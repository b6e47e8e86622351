//! What one end says is told once, and what cannot be true is refused without a trace.

use convoy_aggregator::batch::Control;
use convoy_aggregator::credit::MAX_WINDOW;
use convoy_aggregator::relay::{Relay, Said};

#[test]
fn a_lie_of_the_other_end_does_not_make_a_liar_of_the_program() {
    let lies = [
        Control::Announce { number: 7, position: 0 },
        Control::Announce { number: u32::MAX, position: 9 },
        Control::Passed(5),
        Control::Passed(u32::MAX),
        Control::Limit(MAX_WINDOW + 1),
    ];
    for lie in lies {
        let mut relay = Relay::default();
        assert!(relay.check(lie).is_err(), "{lie:?}");
        assert!(relay.is_possible(&Said::default()), "after {lie:?}");
        assert_eq!(relay.check(Control::Announce { number: 1, position: 0 }), Ok(()), "after {lie:?}");
    }
}

#[test]
fn news_are_told_once() {
    let mut relay = Relay::default();
    let said =
        Said { announced: 2, positions: [4, 9], passed: 0, flags: 1, limit: 100, wants_kernel: Some(false) };
    let mut told = Vec::new();
    relay.tell(&said, u64::MAX, |control| told.push(control));
    let both = [Control::Announce { number: 1, position: 9 }, Control::Announce { number: 2, position: 4 }];
    assert_eq!(told[..2], both);
    assert_eq!(told[2..], [Control::Flags(1), Control::Limit(100)]);
    relay.tell(&said, u64::MAX, |control| panic!("{control:?} was told before"));
    assert!(relay.give(100) && !relay.give(1), "no more than was granted");
}

#[test]
fn credit_is_kept_back_until_half_of_what_was_told_is_used() {
    let (mut relay, mut told) = (Relay::default(), Vec::new());
    let mut tell = |relay: &mut Relay, limit| {
        relay.tell(&Said { limit, ..Said::default() }, 1000, |control| told.push(control));
        core::mem::take(&mut told)
    };
    assert_eq!(tell(&mut relay, 32_768), [Control::Limit(1000)]);
    assert_eq!(relay.promised(), 1000);
    assert!(!relay.is_short(1000));
    assert!(relay.give(499) && !relay.is_short(1000));
    assert!(relay.give(1) && relay.is_short(1000));
    assert_eq!(tell(&mut relay, 32_768), [Control::Limit(1500)]);
    assert_eq!(tell(&mut relay, 32_768), []);
    assert!(relay.give(1000), "all that was told");
    assert!(!relay.give(1), "and no more, although the program has granted it");
}
